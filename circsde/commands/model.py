"""``circsde sample``, ``loglik`` and ``diagnose``: what a trained model answers."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from circsde.commands import console, options
from circsde.commands.options import OUTPUT, SOLVER, option
from circsde.commands.train import Run, Table, read

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from circsde.models.training import Trained

IMAGES = "Models of images"


class SpacingName(StrEnum):
    """In what the steps of the reverse equation are even."""

    INDEX = "index"
    TIME = "time"
    LOG_NOISE = "log-noise"


Out = Annotated[Path | None, option(OUTPUT, "Write PATH.nc and, of pictures, PATH.png.", metavar="PATH")]
"""Where a command writes; by default in the folder of the run."""


@console.reporting_errors
def sample(
    run: Run,
    count: Annotated[int, option(SOLVER, "Samples.", "-n", "--count")] = 1000,
    steps: Annotated[int, option(SOLVER, "Steps in all.")] = 100,
    method: Annotated[
        str, option(SOLVER, "euler_maruyama, heun, sra1, mobius_strang, leimkuhler_matthews.", metavar="METHOD")
    ] = "heun",
    stochasticity: Annotated[float, option(SOLVER, "1: reverse SDE; 0: probability flow.")] = 1.0,
    spacing: Annotated[SpacingName, option(IMAGES, "In what the steps are even.")] = SpacingName.INDEX,
    corrector: Annotated[
        float, option(IMAGES, "Signal-to-noise ratio of a Langevin step before each step, as 0.16; 0: none.")
    ] = 0.0,
    flow: Annotated[
        str | None, option(IMAGES, "The probability flow by heun2, rk4, dopri5, ... instead.", metavar="METHOD")
    ] = None,
    noisy: Annotated[bool, option(IMAGES, "Make the last step with noise, too.", "--noisy")] = False,
    start_law: Annotated[
        str, option(IMAGES, "auto: of the run's file, if it has one; settled; or a file.", metavar="LAW")
    ] = "auto",
    batch: Annotated[int, option(IMAGES, "Samples at a time; of no consequence.")] = 64,
    first_sample: Annotated[int, option(IMAGES, "The index of the first, to go on with a seed.")] = 0,
    device: Annotated[str, option(IMAGES, "cpu or cuda.")] = "cpu",
    seed: options.Seed = 0,
    out: Out = None,
    sheet: Annotated[Path | None, option(OUTPUT, "Images: the sheet; by default PATH.png.")] = None,
    video: Annotated[Path | None, option(OUTPUT, "Images: an animated GIF of how they come.")] = None,
    force: options.Force = False,
) -> None:
    """Draw samples from a trained model.

    Writes angles in radians to NetCDF. Draws pairs of them as densities, or samples of images on a sheet. A model of
    images along the standard diffusion samples ancestrally, or by --flow ddim, midpoint, heun2 or rk4.
    """
    given = dict(locals())
    (netcdf,) = console.outputs(_stem(out, run, "samples"), (".nc",), str(run), force=force)
    picture = netcdf.with_suffix(".png") if sheet is None else sheet

    from circsde.models.training import trained
    from circsde.record import check_writable, provenance

    for path in (picture, *([] if video is None else [video])):
        check_writable(path, force=force)
    if video is not None and video.suffix.lower() != ".gif":
        raise ValueError(f"a video is written as a GIF: name it {video.with_suffix('.gif')}")
    model = trained(run)
    if model.about.get("kind") != "images":
        if sheet is not None or video is not None:
            raise ValueError(
                "sheets and videos are of images, and this is a model of angles: leave out sheet and video"
            )
        _sample_angles(model, count, steps, method, stochasticity, seed, netcdf, picture, given, force=force)
        return

    from circsde.commands import image_samples
    from circsde.record import save_netcdf
    from circsde.studies.reverse_sampling import Recipe, Spacing

    recipe = Recipe(method, steps, Spacing(spacing), stochasticity, corrector, not noisy, flow)
    frames = 0 if video is None else image_samples.FRAMES
    request = image_samples.Request(count, first_sample, batch, seed, start_law, device, frames)
    with console.progress_bar("sampling", steps * -(-count // batch)) as progress:
        result = image_samples.draw(model, run, request, recipe, progress)
    result = result.assign_attrs(**provenance(**given))
    if result.sizes["sample"]:
        save_netcdf(result.drop_dims("time", errors="ignore"), netcdf, force=force)
        image_samples.save_sheet(result, picture, force=force)
        if video is not None:
            image_samples.save_video(result, video, force=force)
    if result.attrs["status"] != "success":
        console.fail(f"{result.attrs['message']}; {result.sizes['sample']} samples are kept", console.FAILED)
    console.say(f"started from the law: {result.attrs['start_law']}\nphases   {netcdf}\npicture  {picture}")
    if video is not None:
        console.say(f"video    {video}")


def _sample_angles(
    model: "Trained",
    count: int,
    steps: int,
    method: str,
    stochasticity: float,
    seed: int,
    netcdf: Path,
    picture: Path,
    given: dict[str, Any],
    *,
    force: bool,
) -> None:
    import torch

    from circsde.commands.pictures import pair_densities
    from circsde.record import provenance, replacing, save_netcdf
    from circsde.studies.generative import sample as draw
    from circsde.studies.generative import samples

    with console.progress_bar("sampling", steps) as progress:
        solution = draw(
            model,
            count,
            n_steps=steps,
            method=method,
            stochasticity=stochasticity,
            generator=torch.Generator().manual_seed(seed),
            progress=progress,
        )
    if not solution.succeeded:
        console.fail(solution.stats.message, console.FAILED)
    result = _table(model, samples(model, solution)).assign_attrs(**provenance(**given))
    save_netcdf(result, netcdf, force=force)
    with replacing(picture, force=force) as temporary:
        pair_densities({"samples": result["theta"]}).savefig(temporary, dpi=150)
    console.say(f"angles   {netcdf}\npicture  {picture}")


@console.reporting_errors
def loglik(
    run: Run,
    source: Table,
    unit: options.Unit = None,
    columns: options.Columns = None,
    drop_missing: options.DropMissing = False,
    atol: Annotated[float, option(SOLVER, "Tolerance of the flow.")] = 1e-5,
    out: Out = None,
    force: options.Force = False,
) -> None:
    """Compute log-densities of data under a trained model.

    Exact divergence along the probability flow; a value per row goes to NetCDF, with its estimated error, in nats.
    Unit and columns are those of the training, unless given.
    """
    given = dict(locals())
    (netcdf,) = console.outputs(_stem(out, run, "loglik"), (".nc",), source, force=force)

    import xarray as xr

    from circsde.models.training import trained
    from circsde.record import provenance, save_netcdf
    from circsde.studies.generative import log_likelihood

    model = trained(run)
    theta = _data(model, source, unit, columns, drop_missing)
    result = log_likelihood(model, theta, atol=atol)
    failed = [status for status in result.status if status != "success"]
    units = {"units": "nats"}
    dataset = xr.Dataset(
        {
            "log_prob": ("row", result.value.numpy(), units),
            "error": ("row", result.error.numpy(), {**units, "long_name": "estimated discretisation error"}),
            "nfe": ("row", result.nfe.numpy()),
            "status": ("row", list(result.status)),
        },
        attrs=provenance(**given),
    )
    save_netcdf(dataset, netcdf, force=force)
    if failed:
        console.fail(
            f"{len(failed)} of {len(theta)} rows failed: {result.message}; the others are in {netcdf}", console.FAILED
        )
    value = result.value
    console.say(
        f"negative log-likelihood {-value.mean():.4f} +- {value.std() / len(value) ** 0.5:.4f} nats"
        f" (mean and standard error over {len(value)} rows; discretisation error at most {result.error.mean():.1e})"
    )
    console.say(f"values   {netcdf}")


@console.reporting_errors
def diagnose(
    run: Run,
    source: Annotated[str | None, option(options.DATA, "By default what it was trained on.", "--data")] = None,
    seed: options.Seed = 0,
    out: Out = None,
    force: options.Force = False,
) -> None:
    """Show where a trained model may be wrong.

    Does the forward process reach the law that sampling starts from? Are samples like the data? Is the density of one
    or two angles normalised? Writes what was compared to NetCDF, and draws data beside samples and density. For images:
    distances of samples to held-out windows, and data beside the forward process and samples.
    """
    given = dict(locals())
    netcdf, picture = console.outputs(_stem(out, run, "diagnosis"), (".nc", ".png"), str(run), force=force)

    import torch

    from circsde.commands.pictures import pair_densities
    from circsde.models.training import trained
    from circsde.record import provenance, replacing, save_netcdf
    from circsde.studies.generative import diagnose as examine

    model = trained(run)
    if model.about.get("kind") == "images":
        from circsde.commands import image_diagnosis

        with console.progress_bar("examining", 2 * image_diagnosis.STEPS) as progress:
            result = image_diagnosis.examine(model, run, source, seed, progress).assign_attrs(**provenance(**given))
        save_netcdf(result, netcdf, force=force)
        with replacing(picture, force=force) as temporary:
            image_diagnosis.draw(result).savefig(temporary, dpi=150)
        for line in image_diagnosis.verdicts(result):
            console.say(line)
        console.say(f"numbers  {netcdf}\npicture  {picture}")
        return
    theta = _data(model, source or model.about["source"], None, None, True)
    with console.progress_bar("examining", 3) as progress:
        result = examine(model, theta, generator=torch.Generator().manual_seed(seed), progress=progress)
    result = result.assign_coords(angle=model.about["names"]).assign_attrs(**provenance(**given))
    save_netcdf(result, netcdf, force=force)
    with replacing(picture, force=force) as temporary:
        shown = {"data": result["theta"], "samples": result["sampled"]}
        pair_densities(shown, result.get("log_density")).savefig(temporary, dpi=150)
    for line in verdicts(result):
        console.say(line)
    console.say(f"numbers  {netcdf}\npicture  {picture}")


def verdicts(result: "xr.Dataset") -> list[str]:
    """A diagnosis in words."""
    p = min(1.0, float(result["kuiper_p"].min()) * result.sizes["angle"] * 2, float(result["energy_p"]) * 2)
    reached = "is not told from" if p > 0.05 else "differs from"
    energy, samples_p = float(result["samples_energy"]), float(result["samples_energy_p"])
    alike = "are not told from" if samples_p > 0.05 else "differ from"
    lines = [
        f"the terminal law {reached} the law that sampling starts from"
        f" (p = {p:.2g}, {result.attrs['samples']} simulated)",
        f"samples {alike} data: energy statistic {energy:.2e}, of halves of the data"
        f" {float(result['samples_energy_floor']):.2e} (p = {samples_p:.2g})",
    ]
    if "normalisation" in result:
        lines.append(f"the density integrates to {float(result['normalisation']):.5f}")
    return lines


def _data(model: "Trained", source: str, unit: str | None, columns: str | None, drop_missing: bool) -> "Tensor":
    """The table as the model knows it: its unit and columns by default, its number of angles."""
    about = model.about
    if not source.startswith("torsion:"):
        unit, columns = unit or about.get("unit"), columns or about.get("columns")
    theta = read(source, unit, columns, drop_missing).theta
    if theta.shape[1:] != model.sde.event_shape:
        raise ValueError(
            f"the model knows {len(about['names'])} angles, {', '.join(about['names'])}, and {source} has"
            f" {theta.shape[1]}"
        )
    return theta


def _table(model: "Trained", theta: "Tensor") -> "xr.Dataset":
    import xarray as xr

    return xr.Dataset(
        {"theta": (("row", "angle"), theta.numpy(), {"units": "rad", "long_name": "angle"})},
        coords={"angle": model.about["names"]},
    )


def _stem(out: Path | None, run: Path, name: str) -> Path:
    return out if out is not None else (run if run.is_dir() else run.parent) / name

"""``circsde sample``: what a trained model draws, to NetCDF and a picture."""

import csv
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from circsde.commands import console, options
from circsde.commands.answer import Answer, counted
from circsde.commands.options import OUTPUT, SOLVER, flag, option

if TYPE_CHECKING:
    from circsde.models.training import Trained

IMAGES = "Models of images"

OF_IMAGES = (
    "classes",
    "guidance",
    "spacing",
    "corrector",
    "flow",
    "noisy",
    "start_law",
    "batch",
    "first_sample",
    "device",
    "sheet",
    "video",
)
"""Options that mean nothing for a model of angles."""

EXAMPLES = """
[bold]Examples[/]

A thousand samples of a model of angles, as runs/lys/samples.nc and .png:

  [cyan]circsde sample runs/lys[/]

By its probability flow, which adds no noise:

  [cyan]circsde sample runs/lys --stochasticity 0 --steps 50 --out flow[/]

Images on a sheet, with a video of how they come:

  [cyan]circsde sample runs/brick -n 64 --video brick.gif[/]

Of chosen classes, by a model that was trained with --classes:

  [cyan]circsde sample runs/things -n 64 --classes cat,dog --guidance 2[/]
"""


class SpacingName(StrEnum):
    """In what the steps of the reverse equation are even."""

    INDEX = "index"
    TIME = "time"
    LOG_NOISE = "log-noise"


@console.command
def sample(
    run: options.Run,
    count: Annotated[int, option(SOLVER, "Samples.", "-n", "--count", least=1)] = 1000,
    steps: Annotated[int | None, option(SOLVER, "In all; by default 25 of multistep, 100 of others.", least=1)] = None,
    method: options.StepBack = None,
    stochasticity: Annotated[float, option(SOLVER, "1: reverse SDE; 0: probability flow.")] = 1.0,
    seed: options.Seed = 0,
    classes: Annotated[
        str | None, option(IMAGES, "Of these classes, in turn; by default as often as in the data.", metavar="A,B,...")
    ] = None,
    guidance: Annotated[
        float, option(IMAGES, "To their classes. 1: as data are; more: told apart more easily, less varied; 0: none.")
    ] = 1.0,
    spacing: Annotated[SpacingName, option(IMAGES, "In what the steps are even.")] = SpacingName.INDEX,
    corrector: Annotated[
        float, option(IMAGES, "Signal-to-noise ratio of a Langevin step before each step, as 0.16; 0: none.")
    ] = 0.0,
    flow: Annotated[
        str | None, option(IMAGES, "The probability flow by heun2, rk4, dopri5, ... instead.", metavar="METHOD")
    ] = None,
    noisy: Annotated[bool, flag(IMAGES, "Make the last step with noise, too.", "--noisy")] = False,
    start_law: Annotated[
        str, option(IMAGES, "auto: of the run's file, if it has one; settled; or a file.", metavar="LAW")
    ] = "auto",
    batch: Annotated[int, option(IMAGES, "Samples at a time; of no consequence.", least=1)] = 64,
    first_sample: Annotated[int, option(IMAGES, "The index of the first, to go on with a seed.", least=0)] = 0,
    device: options.Device = options.DeviceName.AUTO,
    out: options.SamplesOut = None,
    sheet: Annotated[Path | None, option(OUTPUT, "Images: the sheet; by default PATH.png.", metavar="PATH")] = None,
    video: Annotated[
        Path | None, option(OUTPUT, "Images: an animated GIF of how they come.", metavar="PATH.gif")
    ] = None,
    force: options.Force = False,
) -> Answer:
    """Draw samples from a trained model.

    Writes angles, in the unit that the model was trained in, to NetCDF or CSV, and phases of images to NetCDF. Draws
    pairs of angles as densities, or samples of images on a sheet. A model of images along the standard diffusion
    samples by multistep steps, or by --flow ddim, midpoint, heun2 or rk4.
    """
    given = dict(locals())
    table = ".csv" if out is not None and out.suffix == ".csv" else ".nc"
    (written,) = console.outputs(out, options.beside(run, "samples"), (table,), str(run), force=force)
    picture = written.with_suffix(".png") if sheet is None else sheet
    _check_pictures(picture, video, force=force)

    from circsde.models.training import trained
    from circsde.solvers.trajectory import ADAPTIVE

    model = trained(run)
    images = model.about.get("kind") == "images"
    if images:
        _refuse_inert(model, given)
        if table == ".csv":
            raise ValueError(f"{written} would be a table of angles, and {run} is a model of images: name it PATH.nc")
    few = images and not corrector  # Langevin steps need a method that remembers none
    method = method or ("multistep" if few else "heun")
    steps = steps or (len(model.chain) if flow in ADAPTIVE else 25 if method == "multistep" else 100)
    given |= {"method": method, "steps": steps}
    if not images:
        options.refuse(sample, given, OF_IMAGES, f"for models of images, and {run} is one of angles")
        return _angles(model, count, steps, method, stochasticity, seed, written, picture, given, force=force)

    from circsde.commands import image_samples
    from circsde.record import provenance, save_netcdf
    from circsde.sampling.reverse import Recipe, Spacing

    recipe = Recipe(None if flow else method, steps, Spacing(spacing), stochasticity, corrector, not noisy, flow)
    frames = 0 if video is None else image_samples.FRAMES
    request = image_samples.Request(
        count,
        first_sample,
        batch,
        seed,
        start_law,
        options.device(device),
        frames,
        tuple(options.names(classes) or ()),
        guidance,
    )
    _check_memory(model, count)
    notes = [f"{counted(count, 'sample')}, {counted(steps, 'step')}, {request.device}"]
    with console.progress_bar("sampling", steps * -(-count // batch), notes) as progress:
        result = image_samples.draw(model, run, request, recipe, progress)
    result = result.assign_attrs(**provenance(**given))
    kept, files = result.sizes["sample"], {}
    if kept:
        files = {"samples": written, "picture": picture}
        save_netcdf(result.drop_dims("time", errors="ignore"), written, force=force)
        image_samples.save_sheet(result, picture, force=force)
        if video is not None:
            files["video"] = video
            image_samples.save_video(result, video, force=force)
    if result.attrs["status"] != "success":
        console.fail(f"{result.attrs['message']}; {kept} samples are kept", **files)
    law = result.attrs["start_law"]
    return Answer([f"started from the law: {law}"], {"count": kept, "start_law": law}, files)


def _refuse_inert(model: "Trained", given: dict[str, Any]) -> None:
    """Refuse options that a model of images, or the flow that is asked for, does not read."""
    from circsde.matching.chain import Chain
    from circsde.solvers.trajectory import ADAPTIVE

    reverse, flow = ("method", "stochasticity"), given["flow"]
    if not isinstance(model.process, Chain):
        names = (*reverse, "spacing", "corrector", "noisy", "start_law")
        options.refuse(sample, given, names, "for models of phases, and this is one of the standard diffusion")
    elif flow is not None:
        options.refuse(sample, given, reverse, "of the reverse equation, and --flow follows the probability flow")
        if flow in ADAPTIVE:
            options.refuse(sample, given, ("steps", "spacing"), f"the flow method {flow} chooses its own steps")


def _check_pictures(picture: Path, video: Path | None, *, force: bool) -> None:
    """Refuse now paths that cannot be written, or not as what they are named."""
    from circsde.record import check_writable

    for path in (picture, *([] if video is None else [video])):
        check_writable(path, force=force)
    if picture.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"):
        raise ValueError(f"{picture} does not say which kind of picture: name it {picture.with_suffix('.png')}")
    if video is not None and video.suffix.lower() != ".gif":
        raise ValueError(f"a video is written as a GIF: name it {video.with_suffix('.gif')}")
    if video is not None and video.resolve() == picture.resolve():
        raise ValueError(f"{video} cannot be both the sheet and the video: choose another path for one")


def _check_memory(model: "Trained", count: int) -> None:
    """Refuse now more samples than fit, twice while they are put together."""
    from circsde.commands.image_samples import event_shape

    size = math.prod(event_shape(model))
    console.check_memory(8.0 * count * size, f"{count} samples", "draw fewer at a time, with another --seed each")


def _angles(
    model: "Trained",
    count: int,
    steps: int,
    method: str,
    stochasticity: float,
    seed: int,
    written: Path,
    picture: Path,
    given: dict[str, Any],
    *,
    force: bool,
) -> Answer:
    import xarray as xr

    from circsde.commands.angles import in_unit, unit_name
    from circsde.commands.pictures import pair_densities
    from circsde.record import provenance, replacing, save_netcdf
    from circsde.sampling.diagnose import sample as draw
    from circsde.sampling.diagnose import samples
    from circsde.streams import torch_stream

    names = model.about["names"]
    _check_memory(model, count)
    notes = [f"{counted(count, 'sample')} of {', '.join(names)}, {counted(steps, 'step')}"]
    with console.progress_bar("sampling", steps, notes) as progress:
        solution = draw(
            model,
            count,
            n_steps=steps,
            method=method,
            stochasticity=stochasticity,
            generator=torch_stream(seed, "samples"),
            progress=progress,
        )
    theta, unit = samples(model, solution), str(model.about.get("unit") or "rad")
    angles = xr.DataArray(in_unit(theta, unit), {"angle": names}, ("row", "angle"), "theta")
    angles.attrs = {"units": unit, "long_name": "angle"}
    if written.suffix == ".csv":
        with replacing(written, force=force) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([names, *angles.values.tolist()])
    else:
        save_netcdf(angles.to_dataset().assign_attrs(provenance(**given)), written, force=force)
    drawn = xr.DataArray(theta.numpy(), {"angle": names}, ("row", "angle"))
    with replacing(picture, force=force) as temporary:
        pair_densities({"samples": drawn}, unit=unit).savefig(temporary, dpi=150)
    values = {"count": count, "angles": names, "unit": unit}
    return Answer(
        [f"{counted(count, 'sample')} in {unit_name(unit)}"], values, {"samples": written, "picture": picture}
    )

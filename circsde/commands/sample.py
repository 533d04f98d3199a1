"""``circsde sample``: what a trained model draws, to NetCDF and a picture."""

import math
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from circsde.commands import console, options
from circsde.commands.answer import Answer, counted
from circsde.commands.options import OUTPUT, SOLVER, flag, option

if TYPE_CHECKING:
    import xarray as xr

    from circsde.models.training import Trained

IMAGES, CLASSES = "Models of images", "Classes"

OF_IMAGES = ("noisy", "sheet", "video")
"""Options that mean nothing for a model of angles."""

OF_RECIPES = ("steps", "method", "stochasticity", "spacing", "corrector", "flow", "noisy")
"""Options that a recipe replaces."""

EXAMPLES = """
[bold]Examples[/]

A thousand samples of a model of angles, as runs/lys/samples.nc and .png:

  [cyan]circsde sample runs/lys[/]

By its probability flow, which adds no noise:

  [cyan]circsde sample runs/lys --stochasticity 0 --steps 50 --out flow[/]

As [cyan]circsde select runs/lys --budget-nfe 20[/] chose:

  [cyan]circsde sample runs/lys --recipe runs/lys/recipe.json[/]

Images on a sheet, with a video of how they come:

  [cyan]circsde sample runs/brick -n 64 --video brick.gif[/]

Of chosen classes, by a model that was trained with --classes:

  [cyan]circsde sample runs/things -n 64 --classes cat,dog --guidance 2[/]
"""


SpacingName = StrEnum("SpacingName", {"INDEX": "index", "TIME": "time", "LOG_NOISE": "log-noise"})
"""The variable in which reverse steps are even, as in :class:`circsde.sampling.reverse.Spacing`."""


@console.command
def sample(
    run: options.Run,
    count: Annotated[int, option(SOLVER, "The number of samples.", "-n", "--count", least=1)] = 1000,
    steps: Annotated[
        int | None, option(SOLVER, "The number of steps; by default 25 for multistep and dpmpp_2m, else 100.", least=1)
    ] = None,
    method: options.StepBack = None,
    stochasticity: Annotated[float, option(SOLVER, "1 is the reverse SDE, 0 the probability flow.")] = 1.0,
    recipe: Annotated[
        Path | None, option(SOLVER, "Take all of this from the file that circsde select RUN wrote.", metavar="FILE")
    ] = None,
    seed: options.Seed = 0,
    classes: Annotated[
        str | None,
        option(CLASSES, "Draw these classes in turn; by default as often as in the data.", metavar="A,B,..."),
    ] = None,
    guidance: Annotated[
        float,
        option(
            CLASSES,
            "Guide samples to their classes: 1 as data are, 0 not at all, more for clearer and less varied ones.",
        ),
    ] = 1.0,
    spacing: Annotated[SpacingName, option(SOLVER, "The scale on which steps are equal.")] = SpacingName.INDEX,
    corrector: Annotated[
        float,
        option(SOLVER, "The signal-to-noise ratio of a Langevin step before each step, such as 0.16; 0 for none."),
    ] = 0.0,
    flow: Annotated[
        str | None, option(SOLVER, "Solve the probability flow instead, by heun2, rk4, dopri5, ...", metavar="METHOD")
    ] = None,
    noisy: Annotated[bool, flag(IMAGES, "Make the last step with noise too.", "--noisy")] = False,
    start_law: Annotated[
        str,
        option(SOLVER, "The law to start from: auto (the file of the run, if any), settled, or a file.", metavar="LAW"),
    ] = "auto",
    batch: Annotated[
        int | None, option(SOLVER, "The number of samples at a time, which does not change them.", least=1)
    ] = None,
    first_sample: Annotated[
        int, option(SOLVER, "The index of the first sample, to continue with a seed.", least=0)
    ] = 0,
    device: options.Device = options.DeviceName.AUTO,
    out: options.SamplesOut = None,
    sheet: Annotated[
        Path | None, option(OUTPUT, "Images: the file of the sheet; by default PATH.png.", metavar="PATH")
    ] = None,
    video: Annotated[
        Path | None, option(OUTPUT, "Images: draw how they emerge, as an animated GIF.", metavar="PATH.gif")
    ] = None,
    force: options.Force = False,
) -> Answer:
    """Draw samples from a trained model.

    Writes angles, in the unit that the model was trained in, to NetCDF or CSV, and phases of images to NetCDF. Draws
    pairs of angles as densities, or samples of images on a sheet. A model of images along the standard diffusion
    samples by multistep steps, or by --flow ddim, midpoint, heun2 or rk4.
    """
    asked = given = dict(locals())
    table = ".csv" if out is not None and out.suffix == ".csv" else ".nc"
    (written,) = console.outputs(out, options.beside(run, "samples"), (table,), str(run), force=force)
    picture = written.with_suffix(".png") if sheet is None else sheet
    _check_pictures(picture, video, force=force)

    from circsde.commands import image_samples
    from circsde.files.units import unit_name
    from circsde.models.training import trained
    from circsde.record import provenance
    from circsde.sampling.recipe_files import load_recipe
    from circsde.sampling.reverse import Recipe, Spacing
    from circsde.sampling.trained import samples_at_once
    from circsde.solvers.trajectory import ADAPTIVE

    model = trained(run)
    images = model.about.get("kind") == "images"
    _refuse_inert(model, run, given)
    if images and table == ".csv":
        raise ValueError(f"{written} would be a table of angles, and {run} is a model of images: name it PATH.nc")
    few = images and not corrector  # Langevin steps need a method that remembers none
    method = method or ("multistep" if few else "heun")
    steps = steps or (
        len(model.chain) if flow in ADAPTIVE else 25 if method.startswith(("multistep", "dpmpp")) else 100
    )
    batch, given = batch or samples_at_once(model), given | {"method": method, "steps": steps}
    denoise = images and not noisy
    how = Recipe(None if flow else method, steps, Spacing(spacing), stochasticity, corrector, denoise, flow)
    if recipe is not None:
        options.refuse(sample, asked, OF_RECIPES, f"how to sample is said by {recipe}: leave it out")
        how = load_recipe(recipe)
        steps, given = how.n_steps, asked | asdict(how)
    _check_memory(model, count)
    on = options.device(device)
    what = f" of {', '.join(model.about['names'])}" if not images else ""
    notes = [f"{counted(count, 'sample')}{what}, {counted(steps, 'step')}, {on}"]
    with console.progress_bar("sampling", steps * -(-count // batch), notes) as progress:
        result = image_samples.draw(
            model,
            run,
            how,
            start_law,
            count,
            classes=tuple(options.names(classes) or ()),
            guidance=guidance,
            seed=seed,
            first_sample=first_sample,
            batch_size=batch,
            frames=0 if video is None else image_samples.FRAMES,
            device=on,
            progress=progress,
        )
    result = result.assign_attrs(**provenance(**given))
    kept, law, files = result.sizes["sample"], result.attrs["start_law"], {}
    if kept:
        files = {"samples": written, "picture": picture}
        if images:
            _write_images(result, written, picture, video, force=force)
            files |= {} if video is None else {"video": video}
        else:
            _write_angles(result, model, written, picture, force=force)
    if result.attrs["status"] != "success":
        console.fail(f"{result.attrs['message']}; {kept} samples are kept", **files)
    said, values = [f"started from the law: {law}"], {"count": kept, "start_law": law}
    if not images:
        unit = str(model.about.get("unit") or "rad")
        said.insert(0, f"{counted(kept, 'sample')} in {unit_name(unit)}")
        values |= {"angles": model.about["names"], "unit": unit}
    return Answer(said, values, files)


def _refuse_inert(model: "Trained", run: Path, given: dict[str, Any]) -> None:
    """Refuse options that a model, or the flow that is asked for, does not read."""
    from circsde.matching.chain import Chain
    from circsde.solvers.trajectory import ADAPTIVE

    reverse, flow = ("method", "stochasticity"), given["flow"]
    if model.about.get("kind") != "images":
        options.refuse(sample, given, OF_IMAGES, f"for models of images, and {run} is one of angles")
    if not isinstance(model.process, Chain):
        names = (*reverse, "spacing", "corrector", "noisy", "start_law", "recipe")
        options.refuse(sample, given, names, "for models of phases, and this is one of the standard diffusion")
    elif flow is not None:
        options.refuse(sample, given, reverse, "of the reverse equation, and --flow follows the probability flow")
        if flow in ADAPTIVE:
            options.refuse(sample, given, ("steps", "spacing"), f"the flow method {flow} chooses its own steps")


def _check_pictures(picture: Path, video: Path | None, *, force: bool) -> None:
    """Refuse, before sampling, paths that cannot be written or whose suffix names another format."""
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
    """Refuse, before sampling, more samples than fit into memory, twice while they are put together."""
    from circsde.sampling.trained import event_shape

    size = math.prod(event_shape(model))
    console.check_memory(8.0 * count * size, f"{count} samples", "draw fewer at a time, with another --seed each")


def _write_images(result: "xr.Dataset", written: Path, picture: Path, video: Path | None, *, force: bool) -> None:
    from circsde.commands.image_samples import save_sheet, save_video
    from circsde.record import save_netcdf

    save_netcdf(result.drop_dims("time", errors="ignore"), written, force=force)
    save_sheet(result, picture, force=force)
    if video is not None:
        save_video(result, video, force=force)


def _write_angles(result: "xr.Dataset", model: "Trained", written: Path, picture: Path, *, force: bool) -> None:
    """Write angles in the unit and with the column names of the training, and draw densities of pairs."""
    from circsde.commands.angles import write_table, written_in
    from circsde.commands.pictures import pair_densities
    from circsde.record import replacing, save_netcdf

    unit, theta = str(model.about.get("unit") or "rad"), result["theta"]
    angles = written_in(theta, unit)
    if written.suffix == ".csv":
        write_table(written, theta["angle"].values.tolist(), angles.values, force=force)
    else:
        save_netcdf(result.assign(theta=angles), written, force=force)
    with replacing(picture, force=force) as temporary:
        pair_densities({"samples": theta}, unit=unit).savefig(temporary, dpi=150)

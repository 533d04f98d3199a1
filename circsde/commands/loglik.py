"""``circsde loglik``: how likely a trained model finds data, row by row, so that an interruption loses little."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from circsde.commands import console, options
from circsde.commands.answer import Answer, counted
from circsde.commands.options import SOLVER, option

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from circsde.models.training import Trained
    from circsde.studies.runner import Cell

ROWS, PHASES = 500, 1 << 12
"""How many rows of angles, and how many phases of images, are computed at a time."""

OF_IMAGES, OF_ANGLES = ("count", "probes", "draws", "seed"), ("columns",)
"""Options that have no meaning for another kind of model."""

EXAMPLES = """
[bold]Examples[/]

The test rows that a training by name leaves out:

  [cyan]circsde loglik runs/lys torsion:lys/test[/]

Other rows of a table, in the unit and columns of the training:

  [cyan]circsde loglik runs/mine held-out.csv --out held-out[/]

Images, in bits per pixel and channel, cut out and encoded as those of the training:

  [cyan]circsde loglik runs/prints held-out/ -n 64[/]
"""


@console.command
def loglik(
    run: options.Run,
    source: options.TableOrImages,
    unit: options.Unit = None,
    columns: options.Columns = None,
    drop_missing: options.DropMissing = False,
    atol: Annotated[
        float | None, option(SOLVER, "The tolerance of the flow; by default 1e-5 for angles, 1e-3 for images.")
    ] = None,
    count: options.Count = None,
    probes: Annotated[
        int, option(SOLVER, "Images: the number of probes, a power of two; exact if as many as phases.", least=1)
    ] = 16,
    draws: Annotated[int, option(SOLVER, "Images: the number of draws of the noise between grey levels.", least=1)] = 4,
    seed: options.Seed = 0,
    missing: options.Missing = None,
    along: options.Along = None,
    phases: options.OfComplex = False,
    workers: Annotated[int, option(SOLVER, "The number of processes; each takes some rows at a time.", least=1)] = 1,
    out: options.ModelOut = None,
    force: options.Force = False,
) -> Answer:
    """Compute log-densities of data under a trained model.

    The divergence along the probability flow is exact. A value in nats for each row is written to NetCDF, with its
    estimated error. Finished rows are kept: after Ctrl-C the same command resumes from there.

    Unit and columns are those of the training unless you give others. Images are cut out and encoded as in training.
    Their grey levels are made continuous by uniform noise, and the divergence is estimated by probes: bits per pixel
    and channel, an upper bound, with a standard error for each image. Fields of phases have nats, as angles.
    """
    given = dict(locals())
    (netcdf,) = console.outputs(out, options.beside(run, "loglik"), (".nc",), source, force=force)

    import xarray as xr

    from circsde.commands import angles
    from circsde.models.training import trained
    from circsde.record import provenance, save_netcdf

    model = trained(run)
    reading = angles.Reading(unit, columns, drop_missing, missing, along, phases)
    cells, notes, attributes = (
        _of_images(model, run, source, reading, given)
        if model.about.get("kind") == "images"
        else _of_angles(model, run, source, reading, given)
    )
    folder = netcdf.with_suffix(".cells")
    console.check_folder(folder)
    parts = _computed(cells, folder, workers, notes)
    dataset = xr.concat(parts, "row")
    dataset.attrs = {}
    for name, variable in dataset.variables.items():
        variable.attrs = dict(parts[0][name].attrs) if name in parts[0].data_vars else {}
    save_netcdf(dataset.assign_attrs(**attributes, **provenance(**given)), netcdf, force=force)
    _clear(folder)
    failed = int((dataset["status"] != "success").sum())
    if failed:
        why = next((part.attrs["message"] for part in parts if part.attrs["message"]), "it is not finite")
        console.fail(
            f"{failed} of {dataset.sizes['row']} rows failed: {why}; the status of each is kept", values=netcdf
        )
    values = _summary(dataset)
    return Answer([_said(values)], values, {"values": netcdf})


def _of_angles(
    model: "Trained", run: Path, source: str, reading: Any, given: dict[str, Any]
) -> "tuple[Sequence[Cell], list[str], dict[str, str]]":
    """Pieces of work on rows of angles, the note about them, and what is kept with their results."""
    from circsde.commands import angles
    from circsde.sampling.likelihoods import OfAngles

    options.refuse(loglik, given, OF_IMAGES, f"for models of images, and {run} is one of angles")
    theta = angles.known(model, source, reading)
    digest = _digest(run)
    atol = given["atol"] or 1e-5
    cells = [OfAngles(model, digest, theta[first : first + ROWS], atol) for first in range(0, len(theta), ROWS)]
    return cells, [f"{counted(len(theta), 'row')} of {counted(theta.shape[1], 'angle')}"], {}


def _of_images(
    model: "Trained", run: Path, source: str, reading: Any, given: dict[str, Any]
) -> "tuple[Sequence[Cell], list[str], dict[str, str]]":
    """Pieces of work on images or fields of phases, the note about them, and what is kept with their results."""
    from circsde.matching.chain import Chain
    from circsde.sampling.choose_start import start_law
    from circsde.sampling.likelihoods import Estimate, OfImages, prior_of

    options.refuse(loglik, given, OF_ANGLES, f"for models of angles, and {run} is one of images")
    images = _pictures(model, source, reading, given["count"], given["seed"])
    start = start_law(model.chain, run, "auto")[0] if isinstance(model.process, Chain) else None
    prior, name = prior_of(model, start)
    how = Estimate(given["probes"], given["draws"], given["atol"] or 1e-3, given["seed"])
    size = max(1, PHASES // images[0].numel())
    digest = f"{_digest(run)} {name}"
    cells = [
        OfImages(model, prior, digest, images[first : first + size], first, how)
        for first in range(0, len(images), size)
    ]
    shape = " x ".join(map(str, images.shape[1:]))
    notes = [f"{counted(len(images), 'window')} of {shape}, {counted(how.probes, 'probe')}, from the law {name!r}"]
    return cells, notes, {"start_law": name}


def _pictures(model: "Trained", source: str, reading: Any, count: int | None, seed: int) -> "Tensor":
    """Windows of a source as the model knows them: grey levels as integers, or phases."""
    from dataclasses import replace

    from circsde.commands.train_images import Windows
    from circsde.data import ImageSet
    from circsde.sampling.likelihoods import levels
    from circsde.sampling.trained import encoding_of, event_shape

    own = Windows(**model.about["windows"], cache=None)
    windows = replace(own, source=source, reading={**(own.reading or {}), **reading.described} or None)
    data = windows.part("test") if source == own.source else windows.whole()
    known, shape = event_shape(model), windows.shape(data)
    if shape != known:
        raise ValueError(f"the model knows windows of shape {known}, those of {source} are {shape}")
    count = count or len(data)
    if windows.encode == "grey":
        assert isinstance(data, ImageSet)
        return levels(data.windows(count, seed))
    return data.phases(count, encoding_of(model.about), seed)


def _digest(run: Path) -> str:
    """A hash of the checkpoint, which identifies a model."""
    import hashlib

    from circsde.models.loop import BEST

    return hashlib.sha256((run / BEST if run.is_dir() else run).read_bytes()).hexdigest()


def _computed(cells: "Sequence[Cell]", folder: Path, workers: int, notes: list[str]) -> "list[xr.Dataset]":
    """Compute all pieces, and keep each result when it is finished."""
    from circsde.studies.runner import Runner

    with console.progress_bar("batches of rows", len(cells), notes) as progress:
        try:
            return Runner(folder, workers, progress=progress).map(cells)
        except KeyboardInterrupt:
            console.note(f"finished rows are in {folder}: the same command resumes from there")
            raise


def _clear(folder: Path) -> None:
    """Remove the pieces that were kept, and the folder if nothing else is in it."""
    for path in folder.glob(f"{'[0-9a-f]' * 24}.nc"):
        path.unlink()
    with suppress(OSError):
        folder.rmdir()


def _summary(dataset: "xr.Dataset") -> dict[str, float]:
    """Mean and standard error, which one row does not have."""
    rows, bits = dataset.sizes["row"], "bits_per_dim" in dataset
    value = dataset["bits_per_dim"] if bits else -dataset["log_prob"]
    deviation = float(value.std(ddof=1)) / rows**0.5 if rows > 1 else float("nan")
    summary = {"rows": rows, "bits_per_dim" if bits else "negative_log_likelihood": float(value.mean())}
    summary["standard_error"] = deviation
    return summary | ({} if bits else {"discretisation_error": float(dataset["error"].mean())})


def _said(summary: dict[str, float]) -> str:
    if "bits_per_dim" in summary:
        value, unit = f"{summary['bits_per_dim']:.4f}", "bits per pixel and channel"
        what, doubt = "", "at most, as the noise between grey levels makes a bound"
    else:
        value, unit = f"{summary['negative_log_likelihood']:.4f}", "nats"
        what, doubt = (
            "negative log-likelihood ",
            f"discretisation error {summary['discretisation_error']:.1e} on average",
        )
    if summary["rows"] == 1:
        return f"{what}{value} {unit} (one row)"
    spread = f"mean and standard error over {summary['rows']} rows"
    return f"{what}{value} +- {summary['standard_error']:.4f} {unit} ({spread}; {doubt})"

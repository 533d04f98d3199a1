"""``circsde diagnose``: where a trained model may be wrong."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from circsde.commands import console, options
from circsde.commands.answer import Answer, counted, records
from circsde.commands.options import DATA, option

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from circsde.models.training import Trained

LEVEL = 0.05
"""The level of a test: the probability that it finds a difference where there is none."""

EXAMPLES = """
[bold]Examples[/]

On what it was trained on, as runs/lys/diagnosis.nc and .png:

  [cyan]circsde diagnose runs/lys[/]

On other rows, in the unit and columns of the training:

  [cyan]circsde diagnose runs/mine --data held-out.csv --out held-out[/]
"""


@console.command
def diagnose(
    run: options.Run,
    source: Annotated[
        str | None,
        option(DATA, "The data to compare with; by default those of the training.", "--data", metavar="DATA"),
    ] = None,
    seed: options.Seed = 0,
    out: options.ModelOut = None,
    force: options.Force = False,
) -> Answer:
    """Show where a trained model may be wrong.

    Does the forward process reach the law that sampling starts from? Are samples like the data? Is the density of one
    or two angles normalised? Writes what was compared to NetCDF, and draws data beside samples and density.

    For images: distances of samples to held-out windows, and data beside the forward process and samples.
    """
    given = dict(locals())
    netcdf, picture = console.outputs(
        out, options.beside(run, "diagnosis"), (".nc", ".png"), source or str(run), force=force
    )

    from circsde.models.training import trained
    from circsde.record import provenance, replacing, save_netcdf

    model = trained(run)
    examine = _images if model.about.get("kind") == "images" else _angles
    result, figure, lines, values = examine(model, run, source, seed)
    save_netcdf(result.assign_attrs(**provenance(**given)), netcdf, force=force)
    with replacing(picture, force=force) as temporary:
        figure.savefig(temporary, dpi=150)
    return Answer(lines, values, {"numbers": netcdf, "picture": picture})


def _images(
    model: "Trained", run: Path, source: str | None, seed: int
) -> "tuple[xr.Dataset, Figure, list[str], dict[str, Any]]":
    """Diagnose a model of images: what was compared, its picture, the verdicts and the values."""
    from circsde.commands import image_diagnosis

    notes = [f"{image_diagnosis.COUNT} samples, {image_diagnosis.STEPS} steps"]
    with console.progress_bar("examining", 2 * image_diagnosis.STEPS, notes) as progress:
        result = image_diagnosis.examine(model, run, source, seed, progress)
    distances = records(result, "value", "low", "high", "floor")
    values = {"start_law": result.attrs["start_law"], "distances": distances}
    return result, image_diagnosis.draw(result), image_diagnosis.verdicts(result), values


def _angles(
    model: "Trained", _: Path, source: str | None, seed: int
) -> "tuple[xr.Dataset, Figure, list[str], dict[str, Any]]":
    """Diagnose a model of angles: what was compared, its picture, the verdicts and the values."""
    from circsde.commands import angles
    from circsde.commands.pictures import pair_densities
    from circsde.sampling.diagnose import diagnose as examine
    from circsde.streams import torch_stream

    own = model.about.get("reading", {"unit": model.about["unit"], "columns": model.about["columns"]})
    reading = angles.Reading(drop_missing=True) if source else angles.Reading(**own | {"drop_missing": True})
    theta = angles.known(model, source or model.about["source"], reading)
    notes = [f"{counted(len(theta), 'row')} of {counted(theta.shape[1], 'angle')}"]
    with console.progress_bar("examining", 3, notes) as progress:
        result = examine(model, theta, generator=torch_stream(seed, "diagnosis"), progress=progress)
    result = result.assign_coords(angle=model.about["names"])
    shown = {"data": result["theta"], "samples": result["sampled"]}
    figure = pair_densities(shown, result.get("log_density"), str(model.about.get("unit") or "rad"))
    return result, figure, verdicts(result), _values(result)


def _values(result: "xr.Dataset") -> dict[str, Any]:
    names = ("samples_energy", "samples_energy_floor", "samples_energy_p", "normalisation")
    return {
        "rows": result.sizes["row"],
        "terminal_p": _terminal_p(result),
        **{name: result[name].values if name in result else None for name in names},
    }


def _terminal_p(result: "xr.Dataset") -> float:
    """The p-value for the terminal law as the law to start from: the least of the tests, times their number."""
    return min(1.0, float(result["kuiper_p"].min()) * result.sizes["angle"] * 2, float(result["energy_p"]) * 2)


def _difference(p: float) -> str:
    return "no difference found" if p > LEVEL else "they differ"


def verdicts(result: "xr.Dataset") -> list[str]:
    """A diagnosis in words."""
    p = _terminal_p(result)
    energy, samples_p = float(result["samples_energy"]), float(result["samples_energy_p"])
    lines = [
        f"the law at the horizon and the law that sampling starts from: {_difference(p)}"
        f" (p = {p:.2g}, {result.attrs['samples']} simulated)",
        f"samples and data: {_difference(samples_p)} (p = {samples_p:.2g}; energy statistic {energy:.2e}, of halves of"
        f" the data {float(result['samples_energy_floor']):.2e})",
        f"each test finds a difference where there is none with a probability of {LEVEL:g}",
    ]
    if "normalisation" in result:
        integral = float(result["normalisation"])
        doubt = result["normalisation"].attrs.get("comment")
        known = f"the density integrates to {integral:.5f}"
        lines.append(f"the integral of the density is not known: {doubt}" if doubt else known)
    return lines

"""``circsde loglik``: how likely a trained model finds data."""

from typing import TYPE_CHECKING, Annotated

from circsde.commands import console, options
from circsde.commands.answer import Answer, counted
from circsde.commands.options import SOLVER, option

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = """
[bold]Examples[/]

The test rows that a training by name leaves out:

  [cyan]circsde loglik runs/lys torsion:lys/test[/]

Other rows of a table, in the unit and columns of the training:

  [cyan]circsde loglik runs/mine held-out.csv --out held-out[/]
"""


@console.command
def loglik(
    run: options.Run,
    source: options.Table,
    unit: options.Unit = None,
    columns: options.Columns = None,
    drop_missing: options.DropMissing = False,
    atol: Annotated[float, option(SOLVER, "Tolerance of the flow.")] = 1e-5,
    out: options.ModelOut = None,
    force: options.Force = False,
) -> Answer:
    """Compute log-densities of data under a trained model of angles.

    Exact divergence along the probability flow; a value per row goes to NetCDF, with its estimated error, in nats.

    Unit and columns are those of the training, unless given.
    """
    given = dict(locals())
    (netcdf,) = console.outputs(out, options.beside(run, "loglik"), (".nc",), source, force=force)

    import xarray as xr

    from circsde.commands import angles
    from circsde.models.training import trained
    from circsde.record import provenance, save_netcdf
    from circsde.studies.generative import log_likelihood

    model = trained(run)
    if model.about.get("kind") == "images":
        raise ValueError(f"loglik is for models of angles, and {run} is one of images: judge it by circsde diagnose")
    theta = angles.known(model, source, unit, columns, drop_missing)
    console.note(f"{console.version_line()}\n{counted(len(theta), 'row')} of {counted(theta.shape[1], 'angle')}", "dim")
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
            f"{len(failed)} of {len(theta)} rows failed: {result.message}; the status of each is kept", values=netcdf
        )
    values = _summary(result.value, result.error)
    return Answer([_said(values)], values, {"values": netcdf})


def _summary(log_prob: "Tensor", error: "Tensor") -> dict[str, float]:
    """Mean and standard error, which one row does not have."""
    rows = len(log_prob)
    return {
        "rows": rows,
        "negative_log_likelihood": -float(log_prob.mean()),
        "standard_error": float(log_prob.std()) / rows**0.5 if rows > 1 else float("nan"),
        "discretisation_error": float(error.mean()),
    }


def _said(summary: dict[str, float]) -> str:
    value = f"negative log-likelihood {summary['negative_log_likelihood']:.4f}"
    if summary["rows"] == 1:
        return f"{value} nats (one row)"
    return (
        f"{value} +- {summary['standard_error']:.4f} nats (mean and standard error over {summary['rows']} rows;"
        f" discretisation error {summary['discretisation_error']:.1e} on average)"
    )

"""``circsde loglik``: how likely a trained model finds data."""

from typing import TYPE_CHECKING, Annotated

from circsde.commands import console, options
from circsde.commands.answer import Answer, counted
from circsde.commands.options import SOLVER, option

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 5000
"""Rows at a time."""

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
    missing: options.Missing = None,
    along: options.Along = None,
    phases: options.OfComplex = False,
    out: options.ModelOut = None,
    force: options.Force = False,
) -> Answer:
    """Compute log-densities of data under a trained model of angles.

    Exact divergence along the probability flow; a value per row goes to NetCDF, with its estimated error, in nats.

    Unit and columns are those of the training, unless given.
    """
    given = dict(locals())
    (netcdf,) = console.outputs(out, options.beside(run, "loglik"), (".nc",), source, force=force)

    import torch
    import xarray as xr

    from circsde.commands import angles
    from circsde.models.training import trained
    from circsde.record import provenance, save_netcdf
    from circsde.sampling.diagnose import log_likelihood

    model = trained(run)
    if model.about.get("kind") == "images":
        raise ValueError(f"loglik is for models of angles, and {run} is one of images: judge it by circsde diagnose")
    reading = angles.Reading(unit, columns, drop_missing, missing, along, phases)
    theta = angles.known(model, source, reading)
    notes, parts = [f"{counted(len(theta), 'row')} of {counted(theta.shape[1], 'angle')}"], []
    with console.progress_bar("rows", len(theta), notes) as progress:
        progress(0)
        for first in range(0, len(theta), ROWS):
            parts.append(log_likelihood(model, theta[first : first + ROWS], atol=atol))
            progress(sum(len(part.value) for part in parts))
    value, error, nfe = (torch.cat([getattr(part, name) for part in parts]) for name in ("value", "error", "nfe"))
    status = [each for part in parts for each in part.status]
    failed = [each for each in status if each != "success"]
    units = {"units": "nats"}
    dataset = xr.Dataset(
        {
            "log_prob": ("row", value.numpy(), units),
            "error": ("row", error.numpy(), {**units, "long_name": "estimated discretisation error"}),
            "nfe": ("row", nfe.numpy()),
            "status": ("row", status),
        },
        attrs=provenance(**given),
    )
    save_netcdf(dataset, netcdf, force=force)
    if failed:
        why = next(part.message for part in parts if part.message)
        console.fail(f"{len(failed)} of {len(theta)} rows failed: {why}; the status of each is kept", values=netcdf)
    values = _summary(value, error)
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

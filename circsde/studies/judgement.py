"""The verdict of a selection: what was chosen, how certain that is, and what would make it certain."""

import math
from collections.abc import Sequence
from typing import Any

import xarray as xr

from circsde.studies.advice import advice, best, price, worse_when_finer
from circsde.studies.looks import Looks
from circsde.studies.offers import Offer, described
from circsde.studies.steps import SLACK


def judged(table: xr.Dataset, offers: Sequence[Offer], looks: Looks, *, strict: bool) -> xr.Dataset:
    """The evidence, with the choice and its verdict as attributes.

    Args:
        table: Errors with intervals and costs, by candidate and setting.
        offers: What was on offer.
        looks: How it was sampled, where it was.
        strict: Whether all that is cheaper must be ruled out, or only what is cheaper by more than a tenth.
    """
    table = described(table, offers)
    tolerance, setting = looks.tolerance, str(table["error"].dims[1])
    accepted, rejected = table["upper"] <= tolerance, table["lower"] > tolerance
    strange = worse_when_finer(accepted, rejected)
    said, doubts, paid = dict[str, Any](), "", math.inf
    if accepted.any():
        chosen = best(table, accepted)
        said = {
            name: chosen[name].item()
            for name in ("method", setting, "stochasticity", "power", "nfe", "seconds")
            if name in chosen
        }
        said = {f"selected_{name}": value for name, value in said.items() if value == value}  # without NaN
        paid = float(price(chosen))
        if chosen["paths"] > 0:
            (offer,) = (one for one in offers if chosen["solver"].item() in one.solvers)
            doubts = looks.doubts(offer)
    cheaper = price(table) * (1.0 if strict else SLACK) < paid
    doubtful = ~accepted & ~rejected & table["error"].notnull() & cheaper
    sure = accepted.any() and not doubtful.any() and not strange.any() and not doubts
    said |= {
        "verdict": "resolved" if sure else "not resolved",
        "advice": doubts or advice(table, tolerance, accepted, doubtful, strange),
        "tolerance": tolerance,
        "confidence": looks.confidence,
        "budget": looks.budget,
    }
    if looks.look:
        said["work"] = looks.work
    dims = table["error"].dims
    evidence = table.assign(
        accepted=(dims, accepted.to_numpy(), {"long_name": "upper bound within the tolerance"}),
        rejected=(dims, rejected.to_numpy(), {"long_name": "lower bound above the tolerance"}),
    )
    about = {name: value for name, value in table.attrs.items() if name not in ("paths", "reference")}
    evidence.attrs = about | said
    return evidence

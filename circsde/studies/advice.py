"""The findings of a selection in words: the choice, what is open, and what would settle it."""

import math

import numpy as np
import xarray as xr

from circsde.studies.result import DISTINCT

NEAR = 0.1
"""An error that is known to a tenth of the tolerance is not worth more paths, even if the tolerance lies within."""


def price(table: xr.Dataset) -> xr.DataArray:
    """The cost of a candidate: evaluations of the drift per path, or seconds."""
    costs: xr.DataArray = table[str(table.attrs.get("cost", "nfe"))]
    return costs


def best(table: xr.Dataset, accepted: xr.DataArray) -> xr.Dataset:
    """The cheapest of those accepted, and of equally cheap ones the most accurate."""
    costs = price(table).where(accepted)
    return table.isel(table["error"].where(costs == costs.min()).argmin(...))


def worse_when_finer(accepted: xr.DataArray, rejected: xr.DataArray) -> xr.DataArray:
    """Settings accepted though the same solver is rejected at a finer one, so that its errors seem not to fall."""
    setting = str(accepted.dims[1])
    finer = accepted[setting] if setting == "steps" else -accepted[setting]
    return accepted & (rejected.rename({setting: "other"}) & (finer.rename({setting: "other"}) > finer)).any("other")


def advice(
    table: xr.Dataset, tolerance: float, accepted: xr.DataArray, doubtful: xr.DataArray, strange: xr.DataArray
) -> str:
    """Say what is open, and what would settle it."""
    if strange.any():
        one = table.isel(strange.argmax(...))
        return (
            f"{describe(one)} meets the tolerance, and {one['solver'].item()} does not at a finer setting: its errors"
            " do not fall yet; compare with other methods, or offer more steps"
        )
    if not doubtful.any() and accepted.any():
        return ""
    if doubtful.any():
        gap = np.maximum(np.abs(tolerance - table["error"]), NEAR * tolerance)
        needed = table["paths"] * ((table["upper"] - table["error"]) / gap) ** 2
        one = table.assign(needed=needed).isel(needed.where(doubtful).argmin(...))
        said = "cheaper, and not ruled out" if accepted.any() else "nothing is certain to qualify, nor ruled out"
        said = (
            f"{said}: {describe(one)}, whose error lies between {float(one['lower']):.2g} and {float(one['upper']):.2g}"
        )
        if 4.0 * float(one["standard_error"]) <= NEAR * tolerance:
            return f"{said}; not more paths, but a reference with a larger refinement would tell"
        return f"{said}; about {math.ceil(one['needed']):,} paths would tell, within a larger budget"
    one = table.isel(table["error"].argmin(...))
    said = f"nothing on offer qualifies: the least error is {float(one['error']):.2g}, with {describe(one)}"
    if "steps" not in one.coords:
        return f"{said}; offer smaller tolerances"
    order, n, excess = float(one["claimed_order"].fillna(1.0)), int(one["steps"]), float(one["error"]) / tolerance
    errors = table["error"].sel(solver=one["solver"].item()).dropna("steps").sel(steps=slice(None, n))
    if len(errors) < 2:
        return f"{said}; if its errors fall at order {order:g}, about {math.ceil(n * excess ** (1 / order))} do"
    before, last = (float(x) for x in errors[-2:])
    slope = math.log(before / last) / math.log(n / int(errors["steps"][-2]))
    if abs(slope - order) > DISTINCT:
        return (
            f"{said}; its last errors fall at order {slope:.1f}, not yet at the {order:g} of the method, so that no"
            f" number of steps can be told: offer more, for instance {4 * n}"
        )
    return f"{said}; at order {order:g} about {math.ceil(n * excess ** (1 / min(order, slope)))} do"


def describe(candidate: xr.Dataset) -> str:
    """One solver and setting of a selection, in words."""
    if "steps" in candidate.coords:
        n = candidate["steps"].item()
        setting = f"{n} steps" if n > 1 else "1 step"
    else:
        setting = f"atol {candidate['atol'].item():g}"
    return f"{candidate['solver'].item()}, {setting}"

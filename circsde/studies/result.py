"""The Dataset that every accuracy study returns: errors with intervals over (solver, steps), and orders."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from circsde.record import provenance
from circsde.solvers.methods import Method
from circsde.studies.experiment import Experiment
from circsde.studies.statistics import RESOLUTION, Array, Order, fit_order

STRONG, WEAK, STATIONARY = "strong", "weak", "stationary"
METRICS = (STRONG, WEAK, STATIONARY)

DISTINCT = 0.25
"""The largest standard error of an order that is resolved, half of the 0.5 by which claims differ."""

_CLAIM = {STRONG: "strong_order", WEAK: "weak_order", STATIONARY: "invariant_order"}


@dataclass(frozen=True)
class Errors:
    """Errors over (solver, steps).

    Attributes:
        error: The estimate, non-negative; NaN where the method diverged.
        lower: Lower end of the interval.
        upper: Upper end of the interval.
        standard_error: The standard error of the estimate, from sampling alone.
        floor: The least error that can be distinguished from zero.
        paths_needed: To reach the target half-width.
        covariance: The covariance of the estimates of one method, shape ``(method, steps, steps)``.
    """

    error: Array
    lower: Array
    upper: Array
    standard_error: Array
    floor: Array
    paths_needed: Array
    covariance: Array

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """Whether each interval reaches at most a quarter of the error away from it."""
        reach = np.maximum(self.upper - self.error, self.error - self.lower)
        return (self.error > 0) & (reach <= RESOLUTION * self.error)

    def order(self, steps: Sequence[int], row: int) -> Order:
        """The order of one method."""
        n = np.asarray(steps, dtype=np.float64)
        return fit_order(n, self.error[row], self.covariance[row], self.resolved[row])


@dataclass(frozen=True)
class ByObservable:
    """The errors of every observable by itself: arrays over (method, steps, observable), signed where they can be."""

    names: Sequence[str]
    error: Array
    lower: Array
    upper: Array


def assemble(
    metric: str,
    subject: Experiment,
    methods: Sequence[Method],
    steps: Sequence[int],
    nfe: Array,
    errors: Errors,
    details: ByObservable,
    **attributes: Any,
) -> xr.Dataset:
    """The errors of methods over numbers of steps, with what they cost and their orders, measured and claimed."""
    grid = ("solver", "steps")
    orders = [errors.order(steps, i) for i in range(len(methods))]
    claims = [getattr(method, _CLAIM[metric]) for method in methods]
    table = error_dataset(metric, subject, [m.name for m in methods], "steps", nfe, errors, details, **attributes)
    fitted = np.stack([order.used for order in orders])
    verdicts = [verdict(order, claim) for order, claim in zip(orders, claims, strict=True)]
    return table.assign(
        order=("solver", [order.value for order in orders], {"long_name": "measured order", "units": "1"}),
        order_standard_error=("solver", [order.standard_error for order in orders], {"units": "1"}),
        claimed_order=("solver", np.array(claims, dtype=np.float64), {"long_name": "claimed order", "units": "1"}),
        verdict=("solver", verdicts, {"long_name": "whether the order is resolved, and as claimed"}),
        fitted=(grid, fitted, {"long_name": "points that the order is fitted to"}),
    ).assign_coords(
        steps=("steps", list(steps), {"long_name": "steps over the horizon", "units": "1"}),
        step_size=("steps", subject.sde.horizon / np.asarray(steps), {"long_name": "step", "units": "time"}),
    )


def verdict(order: Order, claim: float | None) -> str:
    """``"resolved"``, ``"not resolved"``, or ``"below its claim"``: by more than three standard errors and a tenth.

    Where the errors do not lie on a line, the slope of the last two counts as well, if it is the lesser: then they are
    heading away from the claim. An order with a standard error above :data:`DISTINCT` is not resolved.

    >>> verdict(Order(1.02, 0.01, np.ones(3, dtype=bool)), 2.0)
    'below its claim'
    >>> verdict(Order(1.9, 0.3, np.ones(3, dtype=bool)), 2.0)
    'not resolved'
    """
    if math.isnan(order.value):
        return "not resolved"
    slopes = [(order.value, order.standard_error)]
    if not order.straight and order.last < order.value:
        slopes.append((order.last, order.last_standard_error))
    if claim is not None and any(slope + 3.0 * error + 0.1 < claim for slope, error in slopes):
        return "below its claim"
    return "resolved" if order.standard_error <= DISTINCT else "not resolved"


def error_dataset(
    metric: str,
    subject: Experiment,
    solvers: Sequence[str],
    setting: str,
    nfe: Array,
    errors: Errors,
    details: ByObservable,
    **attributes: Any,
) -> xr.Dataset:
    """The errors of solvers over a setting of theirs, with names and units, and how they were made."""
    grid, details_dims = ("solver", setting), ("solver", setting, "observable")
    unit = "rad" if metric == STRONG else "1"
    long_name = {
        STRONG: "root-mean-square geodesic distance at the horizon",
        WEAK: "largest error of an expectation at the horizon",
        STATIONARY: "largest error of an expectation under the stationary law",
    }[metric]
    return xr.Dataset(
        {
            "error": (grid, errors.error, {"long_name": long_name, "units": unit}),
            "lower": (grid, errors.lower, {"long_name": "lower end of the interval", "units": unit}),
            "upper": (grid, errors.upper, {"long_name": "upper end of the interval", "units": unit}),
            "standard_error": (grid, errors.standard_error, {"long_name": "standard error", "units": unit}),
            "floor": (grid, errors.floor, {"long_name": "least error distinguishable from zero", "units": unit}),
            "resolved": (grid, errors.resolved, {"long_name": "interval within a quarter of the error"}),
            "paths_needed": (grid, errors.paths_needed, {"long_name": "paths for the target half-width", "units": "1"}),
            "nfe": (grid, nfe, {"long_name": "drift evaluations per path", "units": "1"}),
            "observable_error": (details_dims, details.error, {"units": unit}),
            "observable_lower": (details_dims, details.lower, {"units": unit}),
            "observable_upper": (details_dims, details.upper, {"units": unit}),
        },
        coords={
            "solver": list(solvers),
            "observable": list(details.names),
        },
        attrs={"metric": metric, "problem": subject.name, "horizon": subject.sde.horizon}
        | {
            name: value if not isinstance(value, int) or -(2**63) <= value < 2**63 else str(value)  # NetCDF's integers
            for name, value in attributes.items()
        }
        | provenance(**attributes),
    )

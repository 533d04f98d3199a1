"""The candidates of a selection: methods on an equation, its stochasticity, and the spacing of its steps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import xarray as xr

from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.studies.experiment import Experiment, Variation
from circsde.studies.grids import EQUAL_ERRORS, Grading
from circsde.studies.paths import method_name

_EVIDENCE = ("error", "lower", "upper", "standard_error", "floor", "nfe", "claimed_order")


@dataclass(frozen=True)
class Offer:
    """Methods on one equation, on grids of one power.

    Attributes:
        subject: The equation, its start and its observables.
        methods: Names, or methods.
        power: The power of the grids, see :func:`~circsde.studies.grids.graded_grid`, or
            :data:`~circsde.studies.grids.EQUAL_ERRORS`.
        times: That the grids of equal errors are made of, empty for a power.
        clocks: The seconds of so many steps by candidate, where they are the cost.
    """

    subject: Experiment
    methods: tuple[str | Method, ...]
    power: float = 1.0
    times: tuple[float, ...] = ()
    clocks: Mapping[str, Callable[[float], float]] | None = field(default=None, hash=False)

    def label(self, method: str | Method) -> str:
        """The candidate's name: the method, and the stochasticity and the power where they are to be chosen."""
        level = f", l = {self.subject.stochasticity:g}" if isinstance(self.subject, Variation) else ""
        steps = {1.0: "", EQUAL_ERRORS: ", equal errors"}.get(self.power, f", power {self.power:g}")
        return f"{method_name(method)}{level}{steps}"

    @property
    def grading(self) -> Grading:
        """The power of the grids, or the times that they are made from."""
        return self.times or self.power

    @property
    def solvers(self) -> dict[str, str | Method]:
        """The methods by the names of the candidates."""
        return {self.label(method): method for method in self.methods}

    def cost(self, label: str, steps: int) -> float:
        """The cost of so many steps of a candidate."""
        if self.clocks is not None:
            return self.clocks[label](steps)
        sde = self.subject.sde
        return float(find_method(self.solvers[label], sde).work(sde, steps))

    def row(self, table: xr.Dataset) -> xr.Dataset:
        """The evidence of a study of some of the methods, with its solvers named as the candidates are."""
        evidence = table[[name for name in _EVIDENCE if name in table]]
        paths = xr.full_like(table["error"], table.attrs.get("paths", 0), dtype=float)
        labels = [self.label(name) for name in table["solver"].values.tolist()]
        row = evidence.assign(paths=paths.assign_attrs(long_name="paths", units="1")).assign_coords(solver=labels)
        row = row.drop_vars("step_size", errors="ignore")  # it differs from grid to grid
        if self.clocks is None:
            return row.assign_attrs(cost="nfe")
        settings = row[str(row["error"].dims[1])].values.tolist()
        times = [[self.clocks[label](setting) for setting in settings] for label in labels]
        named = {"long_name": "time of a solve of the timed paths", "units": "s"}
        return row.assign(seconds=(row["error"].dims, times, named)).assign_attrs(cost="seconds")


def overlay(table: xr.Dataset | None, seen: xr.Dataset) -> xr.Dataset:
    """Lay new evidence over what was known before."""
    if table is None:
        return seen
    setting = str(seen["error"].dims[1])
    settings = sorted({*table[setting].values.tolist(), *seen[setting].values.tolist()}, reverse=setting == "atol")
    solvers = [
        *table["solver"].values.tolist(),
        *(s for s in seen["solver"].values.tolist() if s not in table["solver"]),
    ]
    wide = {"solver": solvers, setting: settings}
    both = seen.reindex(wide).fillna(table.reindex(wide)).assign_attrs(table.attrs | seen.attrs)
    if table.attrs.get("evidence") not in (None, both.attrs.get("evidence")):
        both.attrs["evidence"] = "transfer operators and Monte Carlo"
    return both


def described(table: xr.Dataset, offers: Sequence[Offer]) -> xr.Dataset:
    """The evidence with a description of each candidate, in the order of the offers."""
    known = {
        label: (
            method_name(method),
            offer.subject.stochasticity if isinstance(offer.subject, Variation) else math.nan,
            offer.power,
        )
        for offer in offers
        for label, method in offer.solvers.items()
    }
    labels = [label for label in known if label in table["solver"]]
    methods, levels, powers = zip(*(known[label] for label in labels), strict=True)
    subject, times = offers[0].subject, next((list(offer.times) for offer in offers if offer.times), None)
    return (
        table.sel(solver=labels)
        .assign(
            method=("solver", list(methods)), stochasticity=("solver", list(levels)), power=("solver", list(powers))
        )
        .assign_attrs(problem=subject.base.name if isinstance(subject, Variation) else subject.name)
        .assign_attrs({} if times is None else {"equal_errors": times})
    )

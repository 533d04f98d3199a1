"""The search for the cheapest candidate: one law after the other, or rounds of sampled paths."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter

import xarray as xr

from circsde.solvers.registry import find_method
from circsde.studies.advice import price
from circsde.studies.looks import Looks, Plans
from circsde.studies.offers import Offer, overlay
from circsde.studies.steps import SLACK, Seen, between, following, most_within, too_few

Law = Callable[[Offer, Sequence[str], Sequence[int]], xr.Dataset]
"""The errors of candidates by transfer operators, ``(offer, labels, steps) -> table``."""

Plan = Callable[[Offer, Sequence[str], Sequence[int]], Plans]
"""Plans the sampling for candidates, ``(offer, labels, steps) -> plans``."""

_FIRST = (1, 2, 4, 8)  # steps of the first round of paths


def climb(offers: Sequence[Offer], ladder: Sequence[int], tolerance: float, law: Law) -> xr.Dataset | None:
    """Errors by transfer operators for more and more of the steps named, until nothing cheaper is left."""
    table: xr.Dataset | None = None
    prices = [partial(offer.cost, label) for offer in offers for label in offer.solvers]
    for n in ladder:
        if not offers or all(cost(n) >= _cheapest(table, tolerance) for cost in prices):
            break
        for offer in offers:
            table = overlay(table, law(offer, [*offer.solvers], [n]))
    return table


def search_by_law(offers: Sequence[Offer], tolerance: float, law: Law) -> xr.Dataset | None:
    """Errors of one candidate after the other, until none is left that could be cheaper by more than a tenth."""
    table: xr.Dataset | None = None
    seen = {label: dict[int, Seen]() for offer in offers for label in offer.solvers}
    while True:
        limit, tries = _cheapest(table, tolerance) / SLACK, list[tuple[float, Offer, str, int]]()
        for offer in offers:
            for label, method in offer.solvers.items():
                most = most_within(partial(offer.cost, label), limit)
                n = following(seen[label], most, tolerance, find_method(method, offer.subject.sde).weak_order)
                if n is not None:
                    tries.append((offer.cost(label, n), offer, label, n))
        if not tries:
            return table
        _, offer, label, n = min(tries, key=itemgetter(0))
        row = law(offer, [label], [n])
        seen[label][n] = Seen(row["error"].item(), bool(row["upper"].item() <= tolerance))
        table = overlay(table, row)


def search_by_paths(offers: Sequence[Offer], looks: Looks, plan: Plan, table: xr.Dataset | None) -> xr.Dataset | None:
    """Errors of all candidates in rounds: doubled steps at first, then those between; within the budget."""
    while True:
        limit, plans = _cheapest(table, looks.tolerance) / SLACK, list[Plans]()
        for offer in offers:
            wanted = {
                label: _round(
                    _seen(table, label, looks.tolerance), most_within(partial(offer.cost, label), limit), limit
                )
                for label in offer.solvers
            }
            labels = [label for label, counts in wanted.items() if counts]
            if labels:
                plans.append(plan(offer, labels, sorted(set().union(*wanted.values()))))
        before = looks.look
        if plans:
            table = looks.at([one for some in plans for one in some], table)
        if looks.look == before:
            return table


def _round(seen: dict[int, Seen], affordable: int, limit: float) -> list[int]:
    """The numbers of steps to sample next for a candidate: all that are left between, or a few doublings."""
    few = too_few(seen)
    if affordable <= few:
        return []
    if not few:
        return [n for n in _FIRST if n <= affordable] or [affordable]
    if math.isfinite(limit) and affordable <= 2 * few:
        return [*between(few + 1, affordable)]
    return sorted({min(2 * few, affordable), min(4 * few, affordable)})


def _cheapest(table: xr.Dataset | None, tolerance: float) -> float:
    """The cost of the cheapest candidate that is accepted; infinite where none is."""
    if table is None:
        return math.inf
    found = float(price(table).where(table["upper"] <= tolerance).min())
    return math.inf if math.isnan(found) else found


def _seen(table: xr.Dataset | None, label: str, tolerance: float) -> dict[int, Seen]:
    """The steps of a candidate that were looked at, with what is known about them."""
    if table is None or label not in table["solver"]:
        return {}
    one = table.sel(solver=label)
    one = one.isel(steps=one["nfe"].notnull().to_numpy())
    columns = (one[name].values.tolist() for name in ("steps", "error", "upper"))
    return {n: Seen(error, upper <= tolerance) for n, error, upper in zip(*columns, strict=True)}

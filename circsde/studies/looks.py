"""Errors by sampling, look by look: more and more fresh paths for what is still open, within a budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import xarray as xr

from circsde.studies.advice import NEAR, price
from circsde.studies.agreement import disagreement, witness
from circsde.studies.monte_carlo import Block, block_size, simulate
from circsde.studies.offers import Offer, overlay
from circsde.studies.paths import PathBlock
from circsde.studies.result import STRONG, WEAK
from circsde.studies.runner import Runner

LEAST = {WEAK: 64, STRONG: 512}
"""Paths at the first look; the mean of a squared distance is often carried by few of them."""

GROWTH = 4  # the factor of the number of paths from look to look

Plans = Sequence[tuple[Offer, Block]]


@dataclass
class Looks:
    """Looks at fresh paths, which share one budget of work and one of error probability.

    Look ``i`` spends ``6 / (pi i)^2`` of the error probability, so that the intervals cover at all looks together.

    Attributes:
        tolerance: The largest error that is accepted.
        confidence: The confidence level of all intervals together.
        budget: The most evaluations of the drift of one angle.
        runner: The runner that computes cells and keeps them.
        work: What was spent.
        paths: The number of paths of the last look.
        look: Its number.
        first: The number of the next path.
        seen: The blocks of each offer as they were first looked at, the last ones.
    """

    tolerance: float
    confidence: float
    budget: float
    runner: Runner | None
    work: float = 0.0
    paths: int = 0
    look: int = 0
    first: int = 0
    seen: dict[Offer, Block] = field(default_factory=dict)

    def at(self, plans: Plans, table: xr.Dataset | None) -> xr.Dataset | None:
        """The evidence so far, with these candidates looked at until none of them is open, or nothing is left.

        As the candidates that are left become fewer and coarser, so does the reference that they need.

        Raises:
            ValueError: If the very first look would spend more than the budget.
        """
        least, cost = LEAST[plans[0][1].metric], sum(block.cost() for _, block in plans)
        reserve = max(self._check_cost(block) for _, block in plans)
        left = self.budget - self.work - reserve
        if least * cost > left:
            if self.look:
                return table
            raise ValueError(
                f"a first look at {least} paths takes about {least * cost + reserve:.2g} evaluations of the drift of"
                f" one angle, more than the budget of {self.budget:.2g}: allow more, or offer fewer methods, fewer"
                " steps or a smaller refinement"
            )
        self.seen |= dict(plans)
        paths = int(min(max(least, block_size(plans[0][1].subject) // 8, self.paths), left // cost))
        while plans:
            self.look, self.paths = self.look + 1, paths
            level = 1.0 - (1.0 - self.confidence) * 6.0 / (math.pi * self.look) ** 2
            spent = 0.0
            for offer, block in plans:
                sample = simulate(replace(block, first=self.first), paths, self.runner)
                table = overlay(table, offer.row(block.tabulate(sample, level)))
                spent += sample.work
            assert table is not None
            self.first, self.work = self.first + paths, self.work + spent
            paths *= GROWTH
            plans = _narrowed(plans, unsettled(table, self.tolerance))
            if self.work + GROWTH * spent + reserve > self.budget:
                break
        return table

    def doubts(self, offer: Offer) -> str:
        """Say what speaks against the reference behind the evidence for an offer; empty where nothing does."""
        block = self.seen.get(offer)
        if not isinstance(block, PathBlock):
            return ""
        self.work += self._check_cost(block)
        block = replace(block, first=self.first)
        return disagreement(block, LEAST[block.metric], self.tolerance, self.confidence, self.runner)

    def _check_cost(self, block: Block) -> float:
        return LEAST[block.metric] * witness(block).cost() if isinstance(block, PathBlock) else 0.0


def unsettled(table: xr.Dataset, tolerance: float) -> xr.DataArray:
    """Candidates that more paths could still make the choice."""
    cheapest = price(table).where(table["upper"] <= tolerance).min()
    undecided = (table["upper"] > tolerance) & (table["lower"] <= tolerance)
    vague = 4.0 * table["standard_error"] > NEAR * tolerance
    return undecided & vague & ~(price(table) >= cheapest)


def _narrowed(plans: Plans, left: xr.DataArray) -> Plans:
    """The part of these blocks that is still open."""
    narrowed = list[tuple[Offer, Block]]()
    for offer, block in plans:
        labels = [offer.label(name) for name in block.solvers]
        mine = left.sel({"solver": labels, left.dims[1]: list(block.settings)}).to_numpy()
        rows, columns = ([any(line) for line in lines.tolist()] for lines in (mine, mine.T))
        if any(rows):
            narrowed.append((offer, block.narrow(rows, columns)))
    return narrowed

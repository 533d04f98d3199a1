"""Whether a reference can be trusted: a method of another kind approaches the same solution."""

from dataclasses import replace

from circsde.studies.candidates import default_methods
from circsde.studies.monte_carlo import simulate
from circsde.studies.paths import PathBlock
from circsde.studies.runner import Runner

_APPROACHES = 0.75
"""A witness approaches where half the step leaves at most this part of its distance; order one leaves a half."""


def witness(block: PathBlock) -> PathBlock:
    """Another method with a quarter and half of the reference's steps, beside the same reference.

    It is the splitting method where the drift has a Mobius flow, which is stable at any step, and else Heun's; where
    the noise depends on the angles, Milstein's.
    """
    known = default_methods(block.subject, block.metric)
    reference, method = block.reference, next(name for name in ("mobius_strang", "milstein", "heun") if name in known)
    return replace(block, methods=(method,), steps=(reference // 4, reference // 2), refinement=2)


def disagreement(block: PathBlock, paths: int, tolerance: float, confidence: float, runner: Runner | None) -> str:
    """Say what speaks against the reference of a block; empty where nothing does.

    The reference stands where the witness comes within half the tolerance of it, or does not certainly stay further
    away, or approaches it as its step is halved. Two solutions of one kind may be equally far from the exact one.
    """
    other = witness(block)
    table = other.tabulate(simulate(other, paths, runner), confidence).isel(solver=0)
    before, last = table["error"].values.tolist()
    if float(table["lower"][-1]) <= 0.5 * tolerance or last <= _APPROACHES * before:
        return ""
    return (
        f"the reference, {block.standard} with {block.reference} steps, is not confirmed: {other.solvers[0]} with"
        f" {other.steps[-1]} steps is {last:.2g} from it, with {other.steps[0]} steps {before:.2g}, and does not"
        " approach it; take a larger refinement"
    )

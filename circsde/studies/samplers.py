"""Samplers of a trained model before their steps are chosen: the candidates of a selection, and what they cost."""

from collections.abc import Sequence
from dataclasses import replace

from circsde.models.training import Trained
from circsde.sampling.reverse import Recipe, Spacing
from circsde.sampling.trained import event_shape
from circsde.sde import reverse
from circsde.solvers.registry import find_method
from circsde.solvers.trajectory import ADAPTIVE, FIXED

METHODS = ("multistep", "dpmpp_2m", "multistep3", "ancestral", "euler_maruyama", "heun", "sra1", "adams_bashforth2")
"""The methods of the reverse SDE that are candidates by default."""

FLOWS = ("midpoint", "heun2", "rk4", "dopri5", "bosh3")
"""The methods of the probability flow that are candidates by default."""

NOISELESS = ("multistep", "dpmpp_2m", "multistep3", "ancestral")
"""Methods of the SDE that are candidates without noise, too; others would repeat methods of the flow."""

STOCHASTICITY = (0.0, 1.0)
"""The values of the stochasticity l by default."""

ATOL = (1e-1, 1e-2, 1e-3, 1e-4)
"""Tolerances of adaptive flows, rad."""


def samplers(
    model: Trained,
    methods: Sequence[str] | None = None,
    stochasticity: Sequence[float] = STOCHASTICITY,
    spacings: Sequence[Spacing] = tuple(Spacing),
    atol: Sequence[float] = ATOL,
) -> list[Recipe]:
    """Candidates, as recipes whose numbers of steps mean nothing yet.

    Args:
        model: A model of phases; samples of angles keep the noise of the last step, those of images do not.
        methods: Names of methods of the reverse SDE and of the flow; by default :data:`METHODS` and :data:`FLOWS`.
        stochasticity: Values of l; methods of the flow are candidates where 0 is one of them.
        spacings: In what steps are even.
        atol: Tolerances of adaptive flows.

    Raises:
        ValueError: If a method is not known, or nothing is left.
    """
    names = (*METHODS, *FLOWS) if methods is None else tuple(methods)
    flows = [name for name in names if name in ADAPTIVE or (name in FIXED and name != "implicit_adams")]
    stepped = [find_method(name).name for name in names if name not in flows]
    plain = Recipe(denoise=len(event_shape(model)) > 1)
    found = [
        replace(plain, method=name, stochasticity=level, spacing=spacing)
        for name in stepped
        for level in stochasticity
        if level or name in NOISELESS or methods is not None
        for spacing in spacings
    ]
    if 0.0 in stochasticity:
        fixed, adaptive = ([name for name in flows if (name in ADAPTIVE) == chosen] for chosen in (False, True))
        found += [replace(plain, flow=name, spacing=spacing) for name in fixed for spacing in spacings]
        found += [
            replace(plain, flow=name, atol=tolerance, n_steps=len(model.chain))
            for name in adaptive
            for tolerance in atol
        ]
    if not found:
        raise ValueError("no sampler is left: offer a method, or with methods of the flow the stochasticity 0")
    return found


def is_adaptive(recipe: Recipe) -> bool:
    """Whether its steps are chosen by a tolerance."""
    return recipe.flow in ADAPTIVE


def with_evaluations(recipe: Recipe, model: Trained, nfe: int) -> Recipe | None:
    """The recipe with as many steps as take at most ``nfe`` evaluations of the score; None if there are too few."""
    each, at_start = _evaluations(recipe, model)
    n_steps = (nfe - at_start - recipe.denoise) // each + recipe.denoise
    return replace(recipe, n_steps=n_steps) if n_steps >= 1 + recipe.denoise else None


def _evaluations(recipe: Recipe, model: Trained) -> tuple[int, int]:
    """Evaluations of the score per step, and further ones in the first step."""
    if recipe.flow is not None:
        return FIXED[recipe.flow], 0
    method = find_method(recipe.method or "heun")
    return method.evaluations(reverse(model.sde, model.network)), method.nfe_start


def label(recipe: Recipe) -> str:
    """The name of a sampler in tables.

    >>> label(Recipe("multistep", 10, Spacing.LOG_NOISE)), label(Recipe(flow="dopri5", atol=1e-3))
    ('multistep, l = 1, even in log-noise', 'flow: dopri5, atol 0.001')
    """
    if is_adaptive(recipe):
        return f"flow: {recipe.flow}, atol {recipe.tolerance:g}"
    said = f"flow: {recipe.flow}" if recipe.flow else f"{recipe.method}, l = {recipe.stochasticity:g}"
    return f"{said}, even in {recipe.spacing}"

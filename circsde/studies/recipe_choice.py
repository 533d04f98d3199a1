"""The answer of a selection for a trained model: a recipe, its error, and all that was measured on the way."""

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from circsde.sampling.reverse import Recipe
from circsde.studies.coupled import Error
from circsde.studies.samplers import is_adaptive, label


@dataclass(frozen=True)
class RecipeChoice:
    """The recipe that was chosen, and the evidence.

    Attributes:
        recipe: The choice; None where nothing qualifies.
        error: The error of the choice, on samples that it was not chosen by.
        verdict: ``"resolved"`` where an interval says so, else ``"not resolved"``.
        dataset: Every candidate that was looked at, over ``candidate``: ``label``, ``n_steps``, ``nfe``, ``error`` with
            ``lower`` and ``upper``, ``paths``, and whether on ``fresh`` samples.
        stopped: Whether the search was ended before it was through, so that fewer evaluations, or any, may do.
    """

    recipe: Recipe | None
    error: Error | None
    verdict: str
    dataset: xr.Dataset
    stopped: bool = False

    def __str__(self) -> str:
        """The choice with its cost and error, or what was missing."""
        if self.recipe is None or self.error is None:
            if self.stopped:
                return f"stopped before a sampler was chosen: {self._nearest()}"
            return "no sampler on offer is known to meet the tolerance: allow a larger one, or more paths"
        steps = "" if is_adaptive(self.recipe) else f", {self.recipe.n_steps} steps"
        return (
            f"{label(self.recipe)}{steps}: {self.error.nfe:.0f} evaluations of the score, error at most"
            f" {self.error.upper:.2g} ({self.error.observable}, {self.error.paths:,} paths)"
            + "; stopped before fewer evaluations were ruled out"
            * self.stopped
        )

    def _nearest(self) -> str:
        """The candidate with the least upper bound so far."""
        if not self.dataset.sizes["candidate"]:
            return "no sampler was measured yet"
        least = self.dataset.isel(candidate=int(self.dataset["upper"].to_numpy().argmin()))
        return (
            f"of {self.dataset.sizes['candidate']} measurements, the least upper bound of an error is"
            f" {least['upper'].item():.2g}, of {least['label'].item()} with {least['nfe'].item():.0f} evaluations"
            f" (error {least['error'].item():.2g}, {least['paths'].item():,} paths)"
        )


def tabulated(rows: Sequence[tuple[Recipe, Error, bool]], **attrs: object) -> xr.Dataset:
    """The measurements in their order."""
    recipes, errors, fresh = zip(*rows, strict=True) if rows else ((), (), ())
    dims = "candidate"
    unit = {"units": "1"}
    return xr.Dataset(
        {
            "label": (dims, [label(one) for one in recipes]),
            "n_steps": (dims, [0 if is_adaptive(one) else one.n_steps for one in recipes]),
            "nfe": (dims, [error.nfe for error in errors], unit | {"long_name": "evaluations of the score per sample"}),
            "error": (dims, [error.value for error in errors], unit | {"long_name": "largest error of an observable"}),
            "lower": (dims, [error.lower for error in errors], unit),
            "upper": (dims, [error.upper for error in errors], unit),
            "standard_error": (dims, [error.standard_error for error in errors], unit),
            "observable": (dims, [error.observable for error in errors]),
            "paths": (dims, [error.paths for error in errors]),
            "fresh": (dims, list(fresh)),
        },
        attrs=attrs,
    )

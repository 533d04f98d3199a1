"""The answer of a selection: the choice, how certain it is, and the evidence behind it."""

from dataclasses import dataclass
from typing import Any, TypeVar

import xarray as xr

from circsde.studies.advice import best, describe
from circsde.studies.grids import EQUAL_ERRORS, graded_grid

T = TypeVar("T", str, int, float)


@dataclass(frozen=True, repr=False)
class Choice:
    """The cheapest method and setting that meet a tolerance.

    The choice is kept in the attributes of its Dataset, so that a file of it holds everything:
    ``Choice(xarray.open_dataset(path))`` is the choice again.

    Attributes:
        dataset: The evidence: ``error`` with its interval ``lower`` and ``upper``, ``standard_error``, ``nfe``,
            ``paths``, ``accepted`` and ``rejected`` over (solver, steps) or (solver, atol), and ``seconds`` where
            they are the cost.

    >>> import torch
    >>> from circsde import sdeint
    >>> from circsde.exact import problems
    >>> from circsde.studies import select
    >>> choice = select("drifting", 0.01, methods=["euler_maruyama", "heun"])
    >>> choice.method, choice.n_steps, choice.verdict
    ('heun', 14, 'resolved')
    >>> print(choice)
    heun, 14 steps: 28 drift evaluations, weak error at most 0.0089
    >>> sde, theta0 = problems.get("drifting").sde, torch.zeros(1, 1)
    >>> sdeint(sde, theta0, (0.0, sde.horizon), **choice.settings, generator=0).stats.nfe
    28
    """

    dataset: xr.Dataset

    @property
    def method(self) -> str | None:
        """The method's name; None, as for every other setting, where no candidate qualifies."""
        return self._chosen("method", str)

    @property
    def n_steps(self) -> int | None:
        """The number of steps; None on a flow with an adaptive method."""
        return self._chosen("steps", int)

    @property
    def atol(self) -> float | None:
        """The absolute tolerance, rad; None where steps were chosen."""
        return self._chosen("atol", float)

    @property
    def stochasticity(self) -> float | None:
        """The stochasticity of the reversed equation; None where it was not to be chosen."""
        return self._chosen("stochasticity", float)

    @property
    def power(self) -> float | None:
        """The power of the grid of times, 1 for equal steps, 0 for equal errors; None for an adaptive method."""
        return None if self.atol is not None else self._chosen("power", float)

    @property
    def nfe(self) -> float | None:
        """Evaluations of the drift per path; on a flow, evaluations for a batch of starts."""
        return self._chosen("nfe", float)

    @property
    def seconds(self) -> float | None:
        """The time of a solve of the timed paths; None where the clock is not the cost."""
        return self._chosen("seconds", float)

    @property
    def verdict(self) -> str:
        """``"resolved"`` where all that is cheaper is ruled out and more steps are not worse; or ``"not resolved"``."""
        return str(self.dataset.attrs["verdict"])

    @property
    def advice(self) -> str:
        """Advice on what is open and what would settle it; empty where nothing is open."""
        return str(self.dataset.attrs["advice"])

    @property
    def settings(self) -> dict[str, Any]:
        """The choice as arguments of :func:`circsde.sdeint`, or on a flow of :func:`circsde.odeint`.

        Raises:
            ValueError: If nothing on offer qualifies.
        """
        if self.method is None:
            raise ValueError(f"nothing was chosen: {self.advice}")
        if self.n_steps is None:
            return {"method": self.method, "atol": self.atol}
        if self.power in (None, 1.0):
            return {"method": self.method, "n_steps": self.n_steps}
        assert self.power is not None
        attrs = self.dataset.attrs
        grading = tuple(map(float, attrs["equal_errors"])) if self.power == EQUAL_ERRORS else self.power
        grid = graded_grid(attrs["horizon"], self.n_steps, grading)
        return {"method": self.method, "grid": grid}

    def __str__(self) -> str:
        """The choice with its cost and error, and the advice, in a sentence or two."""
        if self.method is None:
            return self.advice
        chosen = best(self.dataset, self.dataset["accepted"])
        said = (
            f"{describe(chosen)}: {float(chosen['nfe']):g} drift evaluations, {self.dataset.attrs['metric']} error at"
            f" most {float(chosen['upper']):.2g}"
        )
        return f"{said}\n{self.advice}" if self.advice else said

    def __repr__(self) -> str:
        """The choice and its verdict, without the evidence."""
        settings = {name: getattr(self, name) for name in ("method", "n_steps", "power", "atol")}
        settings = {
            name: value for name, value in settings.items() if value is not None and (name, value) != ("power", 1.0)
        }
        shown = "".join(f"{name}={value!r}, " for name, value in settings.items()) or "nothing qualifies, "
        return f"Choice({shown}verdict={self.verdict!r})"

    def _chosen(self, name: str, kind: type[T]) -> T | None:
        value = self.dataset.attrs.get(f"selected_{name}")
        return None if value is None else kind(value)

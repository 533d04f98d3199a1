r"""Methods made from methods, for reverse sampling: a Langevin step before each step, and angles that are known.

Their evaluations are counted, and where the order of the method is lost, the claimed order is 0.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from circsde.sde import SDE, ReverseSDE
from circsde.solvers.ancestral import noise_variances
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method, Step, axpy
from circsde.solvers.registry import find_method
from circsde.typing import Angles, Field


def langevin(method: str | Method, signal_to_noise: float) -> Method:
    r"""``method``, each of its steps preceded by one of the Langevin dynamics that leave the law there as it is.

    ``theta + eps score + sqrt(2 eps) xi`` at the time where the step begins, so that the start is corrected too, and
    with ``eps = 2 r^2 min(1, v)`` for the signal-to-noise ratio ``r`` and the noise variance ``v = int_0^t g^2`` so
    far, rad^2: as ``1 / v`` bounds the mean square of the score, its part of the step has at most about ``r`` times the
    size of the noise. The normal ``xi`` is the part of ``dZ`` that is independent of ``dW``. So a sample depends on
    its own path only, where the published rule takes norms over the batch.

    It takes one evaluation of the score per step. As steps shrink and ``r`` stays, the bias of the Langevin steps
    remains, of the order of ``r^2``: no order is claimed.

    Source: Song et al. 2021, arXiv 2011.13456, algorithm 4.

    Args:
        method: A method that does not read ``dZ``.
        signal_to_noise: ``r``, positive; published: 0.16.

    Raises:
        ValueError: If the method reads ``dZ`` itself or remembers earlier steps, or the ratio is not positive.
        TypeError: When it steps an equation that is not reversed, which has no score.

    >>> corrected = langevin("heun", 0.16)
    >>> corrected.name, corrected.nfe, corrected.levy_area
    ('heun with langevin(0.16)', 3, True)
    """
    base = find_method(method)
    if base.levy_area or base.begin is not None:
        what = "reads dZ, which the corrector needs for its own noise" if base.levy_area else "remembers earlier steps"
        raise ValueError(f"{base.name} {what}; take heun")
    if not signal_to_noise > 0:
        raise ValueError(f"the signal-to-noise ratio must be positive, got {signal_to_noise}")

    def step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
        return base.step(sde, t, h, _corrected(sde, t, h, theta, noise, signal_to_noise), Noise(noise.dW))

    return replace(
        base,
        name=f"{base.name} with langevin({signal_to_noise:g})",
        step=step,
        strong_order=None,
        weak_order=0.0,
        invariant_order=0.0,
        nfe=base.nfe + 1,
        nfe_coupled=None if base.nfe_coupled is None else base.nfe_coupled + 1,
        levy_area=True,
        note="no order: the bias of the Langevin steps does not shrink with the step",
    )


def _corrected(sde: SDE, t: float, h: float, theta: Angles, noise: Noise, ratio: float) -> Angles:
    if not isinstance(sde, ReverseSDE):
        raise TypeError(f"a Langevin step needs the score of a reversed equation, got {type(sde).__name__}")
    assert noise.dZ is not None
    forward_time = max(0.0, sde.horizon - t)
    (variance,) = noise_variances(sde.forward_sde, forward_time)
    capped = variance.clamp(max=1.0) if isinstance(variance, Tensor) else min(1.0, variance)
    size = 2.0 * ratio**2 * capped
    independent = axpy(noise.dZ, -0.5 * h, noise.dW)  # variance h^3 / 12
    moved = axpy(theta, size, sde.score(forward_time, theta))
    return axpy(moved, (24.0 * size / h**3) ** 0.5, independent)


def clamped(method: str | Method, known: Bool[Tensor, "*event"], path: Callable[[float], Angles]) -> Method:
    """``method`` for angles some of which are known: after each step those are put on a path of their own.

    With the forward path of known data, mirrored in time, the others are drawn as if given it: the replacement method,
    whose error falls with smaller steps and with Langevin steps in between, but not to zero where angles depend on one
    another. Where they do not, the others keep the accuracy of ``method``. No order is claimed.

    Source: Song et al. 2021, arXiv 2011.13456, appendix I.2; what it leaves out: Trippe et al. 2023, arXiv 2206.04119.

    Args:
        method: A method.
        known: True for the angles of a sample that are known.
        path: The angles ``(batch, *event)`` at the end of a step, given its time; only the known ones are read.
    """
    base = find_method(method)

    def clamp(step: Step) -> Step:
        def stepped(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
            return torch.where(known, path(t + h), step(sde, t, h, theta, noise))

        return stepped

    begin = base.begin
    return replace(
        base,
        name=f"clamped {base.name}",
        step=clamp(base.step),
        strong_order=None,
        weak_order=0.0,
        invariant_order=0.0,
        note="no order: known angles follow a path of their own",
        observe=None if base.observe is None else clamp(base.observe),
        begin=None if begin is None else lambda: clamp(begin()),
    )


def denoised(sde: SDE, score: Field, t: float, theta: Angles) -> Angles:
    r"""The mean of the angles at time 0 given those at a small time ``t``, to first order: one evaluation of the score.

    ``theta - t f(t, theta) + v score(t, theta)`` with ``v = int_0^t g^2``: the last step of the reverse equation
    without its noise. Without a drift, and where ``v`` is small against the circle, it is the mean exactly.

    Source: Tweedie's formula, Efron 2011, doi:10.1198/jasa.2011.tm11181.

    >>> from circsde.laws.distributions import WrappedNormal
    >>> sde = SDE(lambda t, theta: 0.0 * theta, lambda t: 1.0, horizon=1.0)  # data near 0, noise variance 0.04
    >>> denoised(sde, lambda t, theta: WrappedNormal(0.0, 0.2).score(theta), 0.04, torch.tensor([[0.3]])).abs() < 1e-6
    tensor([[True]])
    """
    (variance,) = noise_variances(sde, t)
    return axpy(axpy(theta, -t, sde.drift(t, theta)), variance, score(t, theta))

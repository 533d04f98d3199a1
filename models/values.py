"""Sampling values instead of phases, along the standard diffusion: ancestral, multistep, and along its flow."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
import torchdiffeq
from torch import Tensor

from circsde.data_prediction import CorrectedStep, ExponentialStep
from circsde.models.variance_preserving import VariancePreserving
from circsde.streams import torch_stream
from circsde.torus import require_finite
from circsde.typing import Angles, Field, Time

Clip = Literal["never", "end", "always"]
FLOWS = ("midpoint", "heun2", "rk4")
"""Samplers along the probability flow, by their names in torchdiffeq."""
METHODS = ("ancestral", "multistep", "dpmpp_2m", "multistep3", "ddim", *FLOWS)
"""All samplers."""
Step: TypeAlias = Callable[[float, float, Angles], Angles]
"""A step of a state from a time to an earlier one."""


def sample(
    process: VariancePreserving,
    score: Field,
    count: int,
    *,
    n_steps: int,
    method: str = "ancestral",
    seed: int = 0,
    first_sample: int = 0,
    spacing: float = 1.0,
    stochasticity: float = 1.0,
    clip: Clip = "end",
    device: torch.device | str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Samples from standard normal noise, as float32.

    Args:
        process: The process.
        score: Its score.
        count: How many samples. A sample depends on ``seed`` and on its index, not on the samples drawn with it.
        n_steps: Steps.
        method: A name in :data:`METHODS`; see :func:`denoise`.
        seed: The seed of all noise.
        first_sample: The index of the first sample, for drawing in parts.
        spacing: The same as for :func:`denoise`.
        stochasticity: The same as for :func:`denoise`.
        clip: The same as for :func:`denoise`.
        device: The device to compute on; the noise is the same on each.
        progress: Called with the number of finished steps.
    """
    noise = _Noise(process.event_shape, seed, range(first_sample, first_sample + count), torch.device(device))
    return denoise(
        process,
        score,
        noise(),
        n_steps=n_steps,
        method=method,
        noise=noise,
        spacing=spacing,
        stochasticity=stochasticity,
        clip=clip,
        progress=progress,
    )


@torch.no_grad()
def denoise(
    process: VariancePreserving,
    score: Field,
    x: Angles,
    *,
    n_steps: int,
    method: str = "ancestral",
    noise: Callable[[], Tensor] | None = None,
    spacing: float = 1.0,
    stochasticity: float = 1.0,
    clip: Clip = "end",
    progress: Callable[[int], object] | None = None,
) -> Angles:
    r"""Data from ``x`` at the horizon.

    ``"ancestral"`` draws ``x_s`` from its law given ``x_t`` and the estimate of ``x_0`` (Ho et al.), at any times
    ``s < t``. ``"multistep"`` and ``"ddim"`` (Song et al. 2021, arXiv:2010.02502) are steps of the same kind towards
    that estimate, and so is ``"dpmpp_2m"``, DPM-Solver++ 2M, see :class:`circsde.data_prediction.ExponentialStep`;
    ``"multistep3"`` takes those of :class:`circsde.data_prediction.CorrectedStep`. The others follow the probability
    flow: with ``y = x / alpha`` and ``u = sigma / alpha`` it is ``dy / du = eps_hat``, whose Euler steps are those of
    DDIM.

    Args:
        process: The process.
        score: Its score.
        x: The state to begin from.
        n_steps: Steps, from ``t_i`` to ``t_{i-1}`` with ``t_i = horizon (i / n_steps)^spacing``.
        method: A name in :data:`METHODS`. ``midpoint`` and ``heun2`` need 2 scores per step, ``rk4`` 4.
        noise: Draws standard normals like ``x``, for ancestral and multistep steps.
        spacing: 1 for equal steps; 2 for times like squares, finer near the data.
        stochasticity: The stochasticity of multistep ones, in [0, 1].
        clip: When to clip the estimate of the data to ``[-1, 1]``: ``"end"``, only what is returned; ``"always"``, in
            every step; or ``"never"``.
        progress: Called with the number of finished steps.

    Raises:
        ValueError: If the method is unknown, or there are no steps, or a sample is not finite.
    """
    if method not in METHODS or n_steps < 1 or clip not in ("never", "end", "always"):
        raise ValueError(
            f"expected a method of {', '.join(METHODS)}, at least 1 step, and to clip never, end or always; got"
            f" {method!r}, {n_steps} and {clip!r}"
        )
    times = process.horizon * torch.linspace(1, 0, n_steps + 1, dtype=torch.float64) ** spacing
    eps = _estimator(process, score, clip == "always")
    draw = noise or (lambda: torch.randn_like(x))
    steps: dict[str, ExponentialStep | CorrectedStep] = {
        "ancestral": ExponentialStep(1.0, linear_in=None),
        "multistep": ExponentialStep(stochasticity),
        "dpmpp_2m": ExponentialStep(stochasticity, linear_in="log-noise"),
        "multistep3": CorrectedStep(stochasticity),
        "ddim": ExponentialStep(0.0, linear_in=None),
    }
    step = _towards(process, eps, steps[method], draw) if method in steps else _flow(process, eps, method)
    for i, (t, s) in enumerate(pairwise(times.tolist())):
        x = step(t, s, x)
        if progress is not None:
            progress(i + 1)
    require_finite(x, "samples")
    return x.clamp(-1.0, 1.0) if clip != "never" else x


def _estimator(process: VariancePreserving, score: Field, clipped: bool) -> Field:
    """``eps_hat``, made from the clipped estimate of the data if so wanted.

    A score that is not finite stays so: clipped, an infinite one would pass for data.
    """

    def eps(t: Time, x: Angles) -> Angles:
        t = max(float(t), process.earliest)
        alpha, sigma = (float(scale) for scale in process.scales(t))
        estimate = -sigma * score(t, x)
        if not clipped:
            return estimate
        require_finite(estimate, "scores")
        return (x - ((x - sigma * estimate) / alpha).clamp(-1.0, 1.0) * alpha) / sigma

    return eps


def _towards(
    process: VariancePreserving, eps: Field, towards: ExponentialStep | CorrectedStep, draw: Callable[[], Tensor]
) -> Step:
    """Steps towards the prediction in the variable ``x / alpha``, whose noise level is ``sigma / alpha``."""

    def step(t: float, s: float, x: Angles) -> Angles:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (_scales(process, time) for time in (t, s))
        ahead = -sigma_t / alpha_t * eps(t, x)
        xi = draw() if towards.stochasticity else torch.zeros_like(x)
        return alpha_s * towards(x / alpha_t, ahead, sigma_t / alpha_t, sigma_s / alpha_s, xi)

    return step


def _flow(process: VariancePreserving, eps: Field, method: str) -> Step:
    def velocity(u: Tensor, y: Angles) -> Angles:
        time = process.time(u)
        return eps(time, float(process.scales(time)[0]) * y)

    def step(t: float, s: float, x: Angles) -> Angles:
        levels = torch.stack((process.noise_level(t), process.noise_level(s)))
        y: Tensor = torchdiffeq.odeint(velocity, x / _scales(process, t)[0], levels, method=method)[-1]
        return _scales(process, s)[0] * y

    return step


def _scales(process: VariancePreserving, t: float) -> tuple[float, float]:
    alpha, sigma = process.scales(t)
    return float(alpha), float(sigma)


class _Noise:
    """Standard normals, each sample from a generator of its own, always drawn on the CPU."""

    def __init__(self, shape: Sequence[int], seed: int, samples: range, device: torch.device) -> None:
        self._shape, self._device = tuple(shape), device
        self._generators = [torch_stream(seed, "ancestral", i) for i in samples]

    def __call__(self) -> Tensor:
        """Draw a standard normal for each value of each sample."""
        return torch.stack([torch.randn(self._shape, generator=each) for each in self._generators]).to(self._device)

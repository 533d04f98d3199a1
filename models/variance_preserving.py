r"""The standard score-based model, for comparison: variance-preserving diffusion of values in R, not of phases.

``x_t = alpha x_0 + sigma eps`` with ``alpha^2 = exp(-int_0^t beta)`` and ``sigma^2 = 1 - alpha^2``. A network answers
eps and learns it by the simple loss ``|eps_hat - eps|^2`` (Ho et al. 2020, arXiv:2006.11239), here in continuous time
(Song et al. 2021, arXiv:2011.13456).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torchdiffeq
from torch import Tensor, nn

from circsde.linearisation import spread
from circsde.matching import Pairs
from circsde.models.transitions import Starts
from circsde.models.unet import UNet
from circsde.schedule import Linear
from circsde.solvers.multistep import Towards
from circsde.typing import Angles, Field, PerSample, Tangent, Time

Clip = Literal["never", "end", "always"]
FLOWS = {"ddim": "euler", "midpoint": "midpoint", "heun2": "heun2", "rk4": "rk4"}
"""Samplers that draw no noise after the start, and their names in torchdiffeq."""
METHODS = ("ancestral", "multistep", *FLOWS)
Step: TypeAlias = Callable[[float, float, Angles], Angles]
"""From a time to an earlier one."""


@dataclass(frozen=True)
class VariancePreserving:
    r"""``dx = -beta(t) / 2 x dt + beta(t)^{1/2} dW`` on ``[0, horizon]``, which turns data into standard normals.

    Attributes:
        event_shape: The shape of one sample of data, whose values should be in ``[-1, 1]``.
        beta: The rate, 1/time. The default is that of Ho et al. and of Song et al.
        earliest: The earliest time that is learned: Song et al. use 1e-5.

    >>> alpha, sigma = VariancePreserving((2,)).scales(1.0)
    >>> round(alpha.item(), 4), round(sigma.item(), 4)
    (0.0066, 1.0)
    """

    event_shape: Sequence[int]
    beta: Linear = Linear(0.1, 20.0)  # noqa: RUF009
    earliest: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse a time outside of the process."""
        object.__setattr__(self, "event_shape", tuple(self.event_shape))
        if not 0.0 < self.earliest < self.horizon:
            raise ValueError(f"earliest must be between 0 and the horizon {self.horizon:g}, got {self.earliest:g}")

    @property
    def horizon(self) -> float:
        """The last time."""
        return self.beta.horizon

    def scales(self, t: Time) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma``, float64, of the shape of ``t``."""
        exponent = self._exponent(t)
        return (-0.5 * exponent).exp(), (-torch.expm1(-exponent)).sqrt()

    def noise_level(self, t: Time) -> Tensor:
        """``sigma / alpha``, float64: the noise relative to the data."""
        return torch.expm1(self._exponent(t)).sqrt()

    def pairs(self, x0: Angles, t: PerSample, generator: torch.Generator | None = None) -> Pairs:
        """``x_t`` at times of their own, with ``-eps / sigma``, whose mean given ``x_t`` is the score there.

        Its variance is given as ``sigma^2``: then :func:`circsde.matching.loss` is the mean of ``(eps_hat - eps)^2``.
        """
        alpha, sigma = self.scales(t)
        eps = torch.randn(x0.shape, dtype=x0.dtype, device=x0.device, generator=generator)
        return Pairs(t, spread(alpha, x0) * x0 + spread(sigma, x0) * eps, -eps / spread(sigma, x0), sigma**2)

    def time(self, noise_level: Tensor) -> float:
        """The time at which :meth:`noise_level` is ``noise_level``."""
        exponent, slope = (
            float(torch.log1p(noise_level.double() ** 2)),
            (self.beta.end - self.beta.start) / self.horizon,
        )
        root = math.sqrt(self.beta.start**2 + 2.0 * slope * exponent)
        return 2.0 * exponent / (self.beta.start + root) if exponent else 0.0

    def _exponent(self, t: Time) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64)
        return self.beta.integral(torch.zeros_like(t), t)


@dataclass
class NoisedData:
    """Training pairs without end: data, noised at independent uniform times.

    Attributes:
        process: The process.
        starts: Draws data.
        batch: Pairs per draw.
        generator: Source of all randomness; everything lives on its device.
    """

    process: VariancePreserving
    starts: Starts
    batch: int
    generator: torch.Generator

    def draw(self) -> Pairs:
        """The next ``batch`` pairs."""
        x0 = self.starts(self.batch, self.generator).to(self.generator.device)
        u = torch.rand(self.batch, dtype=torch.float64, generator=self.generator, device=self.generator.device)
        return self.process.pairs(
            x0, self.process.horizon - (self.process.horizon - self.process.earliest) * u, self.generator
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides about the pairs to come."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.generator.set_state(state["generator"].cpu())


class EpsilonUNet(nn.Module):
    """The score ``-eps_hat / sigma`` of an image of values, eps_hat being the answer of a U-Net that reads them.

    The U-Net is that of :class:`circsde.models.unet.ScoreUNet`, with one channel per colour. Before training it is 0.

    Args:
        process: Whose noise it answers.
        architecture: As for :class:`circsde.models.unet.UNet`.

    >>> network = EpsilonUNet(VariancePreserving((16, 16)), width=8)
    >>> network(0.5, torch.zeros(2, 16, 16)).shape
    torch.Size([2, 16, 16])
    """

    def __init__(self, process: VariancePreserving, **architecture: Any) -> None:
        super().__init__()
        if len(process.event_shape) not in (2, 3):
            raise ValueError(
                f"event_shape must be (rows, columns) or (channels, rows, columns), got {process.event_shape}"
            )
        self.process, self.arguments = process, {"process": process, **architecture}
        channels, rows, _ = (1, *process.event_shape)[-3:]
        self.network = UNet(channels, channels, rows=rows, **architecture)

    def forward(self, t: Time, x: Angles, labels: Tensor | None = None, condition: Tensor | None = None) -> Tangent:
        """The score at one time or at one time per sample."""
        image = x.unsqueeze(1) if len(self.process.event_shape) == 2 else x
        log_noise = self.process.noise_level(t).log().to(x).reshape(-1, 1)
        eps: Tensor = self.network(image, log_noise, labels, condition).to(x.dtype).reshape(x.shape)
        return -eps / spread(self.process.scales(t)[1].to(x.device), x)


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
        seed: Of all noise.
        first_sample: The index of the first sample, for drawing in parts.
        spacing: As for :func:`denoise`.
        stochasticity: As for :func:`denoise`.
        clip: As for :func:`denoise`.
        device: Where to compute; the noise is the same everywhere.
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
    ``s < t``. ``"multistep"`` steps are those of :mod:`circsde.solvers.multistep`. The others follow the probability
    flow. With ``y = x / alpha`` and ``u = sigma / alpha`` it is ``dy / du = eps_hat``, whose Euler steps are ``"ddim"``
    (Song et al. 2021, arXiv:2010.02502).

    Args:
        process: The process.
        score: Its score.
        x: Where to begin.
        n_steps: Steps, from ``t_i`` to ``t_{i-1}`` with ``t_i = horizon (i / n_steps)^spacing``.
        method: A name in :data:`METHODS`. ``midpoint`` and ``heun2`` need 2 scores per step, ``rk4`` 4.
        noise: Draws standard normals like ``x``, for ancestral and multistep steps.
        spacing: 1 for equal steps; 2 for times like squares, finer near the data.
        stochasticity: Of multistep ones, in [0, 1].
        clip: When to clip the estimate of the data to ``[-1, 1]``: ``"end"``, only what is returned; ``"always"``, in
            every step; or ``"never"``.
        progress: Called with the number of finished steps.

    Raises:
        ValueError: If the method is unknown, or there are no steps.
    """
    if method not in METHODS or n_steps < 1 or clip not in ("never", "end", "always"):
        raise ValueError(
            f"expected a method of {', '.join(METHODS)}, at least 1 step, and to clip never, end or always; got"
            f" {method!r}, {n_steps} and {clip!r}"
        )
    times = process.horizon * torch.linspace(1, 0, n_steps + 1, dtype=torch.float64) ** spacing
    eps = _estimator(process, score, clip == "always")
    draw = noise or (lambda: torch.randn_like(x))
    steps = {"ancestral": _ancestral(process, eps, draw), "multistep": _multistep(process, eps, stochasticity, draw)}
    step = steps[method] if method in steps else _flow(process, eps, FLOWS[method])
    for i, (t, s) in enumerate(pairwise(times.tolist())):
        x = step(t, s, x)
        if progress is not None:
            progress(i + 1)
    return x.clamp(-1.0, 1.0) if clip != "never" else x


def _estimator(process: VariancePreserving, score: Field, clipped: bool) -> Field:
    """``eps_hat``, made from the clipped estimate of the data if so wanted."""

    def eps(t: Time, x: Angles) -> Angles:
        t = max(float(t), process.earliest)
        alpha, sigma = (float(scale) for scale in process.scales(t))
        estimate = -sigma * score(t, x)
        return (x - ((x - sigma * estimate) / alpha).clamp(-1.0, 1.0) * alpha) / sigma if clipped else estimate

    return eps


def _ancestral(process: VariancePreserving, eps: Field, draw: Callable[[], Tensor]) -> Step:
    def step(t: float, s: float, x: Angles) -> Angles:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (_scales(process, time) for time in (t, s))
        noise = eps(t, x)
        variance = (sigma_s / sigma_t) ** 2 * (1.0 - (alpha_t / alpha_s) ** 2)
        mean: Tensor = alpha_s * (x - sigma_t * noise) / alpha_t + max(0.0, sigma_s**2 - variance) ** 0.5 * noise
        return mean + variance**0.5 * draw() if s > 0.0 else mean

    return step


def _multistep(process: VariancePreserving, eps: Field, stochasticity: float, draw: Callable[[], Tensor]) -> Step:
    """In ``x / alpha``, whose noise level is ``sigma / alpha``."""
    towards = Towards(stochasticity)

    def step(t: float, s: float, x: Angles) -> Angles:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (_scales(process, time) for time in (t, s))
        ahead = -sigma_t / alpha_t * eps(t, x)
        return alpha_s * towards(x / alpha_t, ahead, sigma_t / alpha_t, sigma_s / alpha_s, draw())

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
        seeds = (np.random.SeedSequence((seed, i)).generate_state(1, np.uint64)[0] for i in samples)
        self._generators = [torch.Generator().manual_seed(int(each >> 1)) for each in seeds]

    def __call__(self) -> Tensor:
        """One for each value of each sample."""
        return torch.stack([torch.randn(self._shape, generator=each) for each in self._generators]).to(self._device)

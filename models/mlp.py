r"""A score network for a few angles per sample, exactly periodic in each (eq. 7)."""

import math
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from circsde.models.blocks import clock_of_class
from circsde.models.forward import push
from circsde.models.noise import NoiseFeatures, noise_level
from circsde.models.periodic import Periodic
from circsde.schedule import Rate
from circsde.typing import Angles, Labels, Tangent, Time

_ROWS = 1 << 12  # samples times directions that go forward at once

CLOCK = 64
"""Features of the time that each block reads."""


class ScoreMLP(Periodic):
    r"""``score_i = (b_i cos theta_i - a_i sin theta_i) (1 + 1 / sigma(t)^2)^(1/2)``, a and b from a network (eq. 7).

    The network is residual. It reads ``cos k theta`` and ``sin k theta``, ``k = 1, 2, ...``, and the logarithm of the
    noise level ``sigma(t)^2 = smallest_noise^2 + 2 int_0^t D``. Where the noise is small a score is near
    ``noise / sigma^2``, hence the factor, which is smooth in time. Before training the score is zero.

    Args:
        event_shape: The shape of the angles of one sample.
        diffusion: D(t) of the forward equation, rad^2/time.
        width: Units per layer.
        depth: Residual blocks.
        harmonics: The largest k.
        smallest_noise: The noise level at time 0, rad: finer detail of the data is not resolved.
        classes: The number of classes, if it is to learn the score of each; see
            :class:`circsde.models.guidance.Conditioned`.

    >>> from circsde.schedule import Linear
    >>> network = ScoreMLP((3,), Linear(0.1, 2.0), width=16, depth=1)
    >>> network(0.5, torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Forget the diagonals where the score is another and they are not given, too."""
        super().__init_subclass__(**kwargs)
        if "forward" in vars(cls):
            for name in ("with_diagonal", "with_rough_diagonal"):
                if name not in vars(cls):
                    setattr(cls, name, None)

    def __init__(
        self,
        event_shape: Sequence[int],
        diffusion: Rate,
        *,
        width: int = 256,
        depth: int = 4,
        harmonics: int = 4,
        smallest_noise: float = 0.02,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "event_shape": tuple(event_shape),
            "diffusion": diffusion,
            "width": width,
            "depth": depth,
            "harmonics": harmonics,
            "smallest_noise": smallest_noise,
            "classes": classes,
        }
        self.event_shape, self.diffusion, self.smallest_noise = tuple(event_shape), diffusion, smallest_noise
        angles = math.prod(self.event_shape)
        self.harmonics, self.classes = harmonics, classes
        self._make_layers(angles, width, depth)

    def _make_layers(self, angles: int, width: int, depth: int) -> None:
        """Make the layers that turn waves into components, and the clock."""
        self.enter = nn.Linear(2 * self.harmonics * angles, width)
        self._make_clock()
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 2 * angles))
        for parameter in self.leave[-1].parameters():
            nn.init.zeros_(parameter)

    def _make_clock(self) -> None:
        """Make the layers that encode the time and the class."""
        self.clock = nn.Sequential(
            NoiseFeatures(32), nn.Linear(32, CLOCK), nn.SiLU(), nn.Linear(CLOCK, CLOCK), nn.SiLU()
        )
        self.labels = None if self.classes is None else nn.Embedding(self.classes + 1, CLOCK)

    def forward(self, t: Time, theta: Angles, labels: Labels | None = None) -> Tangent:
        """The score at one time or at one time per sample, 1/rad; with labels, that of each sample's class.

        Raises:
            ValueError: If there are labels, and the network was made without classes.
        """
        flat = theta.flatten(1)
        noise = self._noise_of_each(t, theta)
        clock = clock_of_class(self.clock(noise.log()), self.labels, labels)
        return tangent(flat, self._components(flat, clock), noise).reshape(theta.shape)

    def with_diagonal(self, t: Time, theta: Angles) -> tuple[Tangent, Tangent]:
        """The score, and the diagonal ``d score_i / d theta_i`` of its Jacobian, 1/rad^2, exactly.

        The derivatives by all angles go forward together, for a few samples at a time.
        """
        return self._with_diagonal(t, theta, theta.dtype)

    def with_rough_diagonal(self, t: Time, theta: Angles) -> tuple[Tangent, Tangent]:
        """The same with derivatives, but not values, in single precision."""
        return self._with_diagonal(t, theta, torch.float32)

    def _with_diagonal(self, t: Time, theta: Angles, dtype: torch.dtype) -> tuple[Tangent, Tangent]:
        flat, noise = theta.flatten(1), self._noise_of_each(t, theta)
        rows = max(1, _ROWS // flat.shape[1])
        noises = torch.split(noise, rows) if len(noise) > 1 else repeat(noise)
        parts = [self._diagonal(x, n, dtype) for x, n in zip(torch.split(flat, rows), noises, strict=False)]
        score, diagonal = (torch.cat(part).reshape(theta.shape) for part in zip(*parts, strict=True))
        return score, diagonal

    def _diagonal(self, theta: Tensor, noise: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        clock = clock_of_class(self.clock(noise.log()), self.labels, None)
        x, along = self._enter_along(theta, dtype)
        for block in self.blocks:
            assert isinstance(block, Block)
            x, along = block.push(x, along, clock)
        *first, last = self.leave
        assert isinstance(last, nn.Linear)
        for layer in first:
            x, along = push(layer, x, along)
        a, b = last(x).chunk(2, 1)
        weight = last.weight.reshape(2, -1, last.in_features).to(along)
        slope_a, slope_b = torch.einsum("biw,niw->nbi", along, weight).to(theta)
        return tangent(theta, (a, b), noise), tangent(theta, (slope_a + b, slope_b - a), noise)

    def _components(self, theta: Tensor, clock: Tensor) -> tuple[Tensor, Tensor]:
        """The Cartesian components a and b, ``(batch, angles)`` each."""
        x = self.enter(self._waves(theta))
        for block in self.blocks:
            x = block(x, clock)
        a, b = self.leave(x).chunk(2, 1)
        return a, b

    def noise(self, t: Time) -> Tensor:
        """The noise level ``sigma(t)``, rad."""
        return noise_level(self.diffusion, self.smallest_noise, t)

    def _noise_of_each(self, t: Time, theta: Tensor) -> Tensor:
        """The noise level as a column of one row, or of one row per sample, like the angles."""
        return self.noise(t).to(theta).reshape(-1, 1)

    def _enter_along(self, theta: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The first layer, and its derivatives by every angle, each of which has waves of its own."""
        waves = self._waves(theta)
        cosines, sines = waves.reshape(len(theta), 2, self.harmonics, -1).unbind(1)
        number = torch.arange(1, self.harmonics + 1, device=theta.device)[:, None]
        slopes = torch.cat((-number * sines, number * cosines), 1)
        weight = self.enter.weight.reshape(-1, 2 * self.harmonics, theta.shape[1])
        return self.enter(waves), torch.einsum("bki,wki->biw", slopes.to(dtype), weight.to(dtype))

    def _waves(self, theta: Tensor) -> Tensor:
        turned = torch.cat([k * theta for k in range(1, self.harmonics + 1)], 1)
        return torch.cat((turned.cos(), turned.sin()), 1)


def tangent(theta: Tensor, components: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
    """``(b cos theta - a sin theta) (1 + 1 / sigma^2)^(1/2)`` (eq. 7)."""
    a, b = components
    score: Tensor = (b * theta.cos() - a * theta.sin()) * (1.0 + noise**-2).sqrt()
    return score


class Block(nn.Module):
    """A residual block that time scales and shifts; the identity before training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(CLOCK, 2 * width)
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        """``x + W2 silu(W1 [(1 + scale) norm(x) + shift])``."""
        scale, shift = self.modulate(clock).chunk(2, 1)
        y: Tensor = self.outer(nn.functional.silu(self.inner(torch.addcmul(shift, 1.0 + scale, self.norm(x)))))
        return x + y

    def push(self, x: Tensor, along: Tensor, clock: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and how it changes along each direction: see :func:`circsde.models.forward.push`."""
        scale, shift = self.modulate(clock).chunk(2, 1)
        y, change = push(self.norm, x, along)
        y, change = torch.addcmul(shift, 1.0 + scale, y), (1.0 + scale)[:, None].to(along) * change
        for layer in (self.inner, nn.SiLU(), self.outer):
            y, change = push(layer, y, change)
        return x + y, along + change

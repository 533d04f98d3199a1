r"""A score network for images of phases, exactly periodic in each (eq. 7), on a U-Net that any model can share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from circsde.models.blocks import PADDINGS, AdaptiveNorm, Attention, Residual, convolution
from circsde.models.mlp import NoiseFeatures
from circsde.models.noise import noise_level
from circsde.schedule import Rate
from circsde.typing import Angles, Field, Tangent, Time

HEADS = {"scalar": 1, "tangent": 2, "both": 3}
"""Outputs of the network for each phase, by ``head``."""

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 32, "multipliers": (1, 2, 2), "blocks": 1, "attention": (8,)},
    "small": {"width": 64, "multipliers": (1, 2, 2), "blocks": 2, "attention": (8,)},
    "base": {"width": 128, "multipliers": (1, 2, 2, 2), "blocks": 2, "attention": (16, 8)},
}
"""Arguments of three sizes."""


class UNet(nn.Module):
    """A U-Net after Ho et al. (2020, arXiv:2006.11239) that reads images and the logarithm of their noise level.

    Each level halves rows and columns, by a strided convolution, and is joined by skip connections to its like on the
    way up, by repeating pixels. Before training the answer is zero.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the answer.
        rows: The rows of the images it is made for; used only to find the levels that attend.
        width: Channels of the first level.
        multipliers: Channels of each level, in units of ``width``.
        blocks: Residual blocks of a level, on the way down and on the way up.
        attention: Levels with these numbers of rows attend; numbers that no level has are passed over.
        heads: Heads of each attention.
        padding: ``"circular"``, for images that close on themselves, or ``"zeros"``.
        classes: The number of labels; None for none.
        condition_channels: Channels of an image that the network reads beside its input.
        dropout: The share of features dropped in each block in training.

    >>> UNet(3, 3, width=8, multipliers=(1, 2))(torch.zeros(2, 3, 16, 16), torch.zeros(1, 1)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        rows: int = 32,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        attention: Sequence[int] = (8,),
        heads: int = 4,
        padding: str = "circular",
        classes: int | None = None,
        condition_channels: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
        self.stride, self.classes, self.condition_channels = 2 ** (len(multipliers) - 1), classes, condition_channels
        clock, widths = 4 * width, [width * multiplier for multiplier in multipliers]
        attending = [heads if rows / 2**level in attention else 0 for level in range(len(widths))]

        def stage(inward: int, outward: int, heads: int) -> Stage:
            return Stage(Residual(inward, outward, clock, padding=padding, dropout=dropout), outward, heads)

        self.clock = nn.Sequential(NoiseFeatures(64), nn.Linear(64, clock), nn.SiLU(), nn.Linear(clock, clock))
        self.labels = None if classes is None else nn.Embedding(classes + 1, clock)
        self.enter = convolution(in_channels + condition_channels, widths[0], padding=padding)
        self.down, self.up, self.coarser, self.finer = (nn.ModuleList() for _ in range(4))
        x = widths[0]
        for level, y in enumerate(widths):
            if level:
                self.coarser.append(convolution(x, y, padding=padding, stride=2))
            self.down.append(nn.ModuleList(stage(y, y, attending[level]) for _ in range(blocks)))
            self.up.append(nn.ModuleList(stage(2 * y, y, attending[level]) for _ in range(blocks)))
            if level:
                self.finer.append(convolution(y, x, padding=padding))
            x = y
        self.middle = nn.ModuleList((stage(x, x, attending[-1]), stage(x, x, 0)))
        self.norm = AdaptiveNorm(widths[0], clock)
        self.leave = convolution(widths[0], out_channels, padding=padding)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, log_noise: Tensor, labels: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        """The answer of the network.

        Args:
            x: ``(batch, in_channels, rows, columns)``.
            log_noise: The logarithm of the noise level, ``(batch, 1)``, or ``(1, 1)`` for all.
            labels: ``(batch,)``, whole numbers from 0; ``classes``, as None, stands for no label.
            condition: ``(batch, condition_channels, rows, columns)``.

        Raises:
            ValueError: If the size does not fit the strides, or labels or a condition are unknown or missing.
        """
        check_size(x.shape[-2:], self.stride)
        if (condition is None) != (self.condition_channels == 0):
            raise ValueError(f"this network reads condition_channels={self.condition_channels}, got {condition=}")
        clock = self.clock(log_noise)
        if self.labels is not None:
            none = torch.full((1,), self.labels.num_embeddings - 1, device=x.device)
            clock = clock + self.labels(none if labels is None else labels)
        elif labels is not None:
            raise ValueError("this network was made without classes, so it reads no labels; give classes=")
        clock = silu(clock)
        x = self.enter(x if condition is None else torch.cat((x, condition), 1))
        seen: list[Tensor] = []
        for level, stages in enumerate(self.down):
            if level:
                x = self.coarser[level - 1](x)
            for stage in stages:
                x = stage(x, clock)
                seen.append(x)
        for stage in self.middle:
            x = stage(x, clock)
        for level in reversed(range(len(self.up))):
            for stage in self.up[level]:
                x = stage(torch.cat((x, seen.pop()), 1), clock)
            if level:
                x = interpolate(self.finer[level - 1](x), scale_factor=2.0)
        answer: Tensor = self.leave(silu(self.norm(x, clock)))
        return answer


class Stage(nn.Module):
    """A residual block and, with ``heads``, attention."""

    def __init__(self, residual: Residual, channels: int, heads: int) -> None:
        super().__init__()
        self.residual = residual
        self.attention = Attention(channels, heads) if heads else None

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        """``(batch, channels, rows, columns)``."""
        x = self.residual(x, clock)
        return x if self.attention is None else self.attention(x)


class ScoreUNet(nn.Module):
    r"""The score of an image of phases: a tangent projection (eq. 7) divided by the noise level.

    The network reads ``cos theta`` and ``sin theta``, so that it is exactly periodic, and the logarithm of the noise
    level ``sigma(t)^2 = smallest_noise^2 + 2 int_0^t D``. Before training the score is zero.

    Args:
        event_shape: ``(rows, columns)`` or ``(channels, rows, columns)``, divisible by the strides of the network.
        diffusion: D(t) of the forward equation, rad^2/time.
        head: What the network answers for each phase: ``"tangent"``, a and b of ``b cos theta - a sin theta``;
            ``"scalar"``, the score itself; ``"both"``, their sum.
        smallest_noise: The noise level at time 0, rad: finer detail of the data is not resolved.
        architecture: As for :class:`UNet`.

    >>> from circsde.schedule import Linear
    >>> network = ScoreUNet((16, 16), Linear(0.1, 2.0), width=8)
    >>> network(0.5, torch.zeros(2, 16, 16)).shape
    torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        diffusion: Rate,
        *,
        head: str = "tangent",
        smallest_noise: float = 0.02,
        **architecture: Any,
    ) -> None:
        super().__init__()
        self.event_shape, self.diffusion, self.head = tuple(event_shape), diffusion, head
        if head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head!r}")
        if len(self.event_shape) not in (2, 3):
            raise ValueError(
                f"event_shape must be (rows, columns) or (channels, rows, columns), got {self.event_shape}"
            )
        self.smallest_noise = smallest_noise
        self.arguments: dict[str, Any] = {
            "event_shape": self.event_shape,
            "diffusion": diffusion,
            "head": head,
            "smallest_noise": smallest_noise,
            **architecture,
        }
        channels, rows, columns = (1, *self.event_shape)[-3:]
        self.network = UNet(2 * channels, HEADS[head] * channels, rows=rows, **architecture)
        check_size((rows, columns), self.network.stride)

    def forward(self, t: Time, theta: Angles, labels: Tensor | None = None, condition: Tensor | None = None) -> Tangent:
        """The score at one time or at one time per sample, 1/rad; labels and condition as for :class:`UNet`."""
        phases = theta.unsqueeze(1) if len(self.event_shape) == 2 else theta
        waves = torch.cat((phases.cos(), phases.sin()), 1)
        noise = noise_level(self.diffusion, self.smallest_noise, t).to(theta).reshape(-1, 1)
        answer = self.network(waves, noise.log(), labels, condition).to(theta.dtype)
        channels = phases.shape[1]
        score = answer[:, :channels] if self.head != "tangent" else torch.zeros(())
        if self.head != "scalar":
            a, b = answer[:, -2 * channels :].chunk(2, 1)
            cosine, sine = waves.chunk(2, 1)
            tangent = b * cosine - a * sine
            score = tangent if self.head == "tangent" else score + tangent
        return (score / noise.clamp(max=1.0)[:, :, None, None]).reshape(theta.shape)

    def conditioned(self, labels: Tensor | None = None, condition: Tensor | None = None) -> Field:
        """The score with labels and condition bound, for samplers and likelihoods."""

        def score(t: Time, theta: Angles) -> Tangent:
            return self(t, theta, labels, condition)

        return score


def check_size(size: Sequence[int], stride: int) -> None:
    """Refuse a size that ``stride`` does not divide.

    Raises:
        ValueError: With the nearest sizes that fit.
    """
    if any(length % stride or not length for length in size):
        fitting = " x ".join(str(max(stride, round(length / stride) * stride)) for length in size)
        raise ValueError(
            f"rows and columns must be multiples of {stride}, the stride of this network, got"
            f" {' x '.join(map(str, size))}; crop or resize to {fitting}, or give fewer multipliers"
        )

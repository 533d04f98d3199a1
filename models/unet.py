r"""A score network for images of phases, exactly periodic in each (eq. 7), on a U-Net that any model can share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from circsde.models.blocks import PADDINGS, AdaptiveNorm, Convolution, Stage, clock_of_class, silence
from circsde.models.noise import NoiseFeatures, noise_level
from circsde.models.periodic import Periodic
from circsde.schedule import Rate
from circsde.typing import Angles, Tangent, Time

HEADS = {"scalar": 1, "tangent": 2, "both": 3}
"""Outputs of the network for each phase, by ``head``."""

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 16, "multipliers": (1, 2, 4, 4), "blocks": 1, "attention": (8,)},
    "small": {"width": 32, "multipliers": (1, 2, 4, 4), "blocks": 2, "attention": (8,)},
    "base": {"width": 120, "multipliers": (1, 2, 2, 2), "blocks": 3, "attention": (16, 8)},
}
"""Arguments of three sizes for 32 x 32 pixels, with 0.60, 4.2 and 35.7 million parameters."""


class UNet(nn.Module):
    """A U-Net after Ho et al. (2020, arXiv:2006.11239) that reads images and the logarithm of their noise level.

    Each level halves rows and columns by a strided convolution. On the way up pixels are repeated, and what each block
    answered on the way down is added. Before training the answer is zero.

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

        def stages() -> nn.ModuleList:
            return nn.ModuleList(
                Stage(channels, clock, head, padding=padding, dropout=dropout)
                for channels, head in zip(widths, attending, strict=True)
                for _ in range(blocks)
            )

        self.clock = nn.Sequential(NoiseFeatures(64), nn.Linear(64, clock), nn.SiLU(), nn.Linear(clock, clock))
        self.labels = None if classes is None else nn.Embedding(classes + 1, clock)
        self.enter = Convolution(in_channels + condition_channels, widths[0], padding=padding)
        self.blocks, self.down, self.up = blocks, stages(), stages()
        self.coarser = nn.ModuleList(Convolution(x, y, padding=padding, stride=2) for x, y in pairwise(widths))
        self.finer = nn.ModuleList(Convolution(y, x, padding=padding) for x, y in pairwise(widths))
        self.norm = AdaptiveNorm(widths[0], clock)
        self.leave = Convolution(widths[0], out_channels, padding=padding)
        silence(self.leave)

    def forward(
        self, x: Tensor, log_noise: Tensor, labels: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        """The answer of the network.

        Args:
            x: ``(batch, in_channels, rows, columns)``.
            log_noise: The logarithm of the noise level, ``(batch, 1)``, or ``(1, 1)`` for all.
            labels: ``(batch,)``, whole numbers from 0; -1, as None, stands for no label.
            condition: ``(batch, condition_channels, rows, columns)``.

        Raises:
            ValueError: If the size does not fit the strides, or labels or a condition are unknown or missing.
        """
        check_size(x.shape[-2:], self.stride)
        channels = 0 if condition is None else condition.shape[1]
        if channels != self.condition_channels:
            got = f"an image of {channels}" if channels else "no image"
            raise ValueError(f"this network reads condition_channels={self.condition_channels}, got {got}")
        clock = silu(clock_of_class(self.clock(log_noise), self.labels, labels))
        x = self.enter(x if condition is None else torch.cat((x, condition), 1))
        seen: list[Tensor] = []
        levels = len(self.coarser) + 1
        for level in range(levels):
            x = self.coarser[level - 1](x) if level else x
            for stage in self.down[level * self.blocks : (level + 1) * self.blocks]:
                x = stage(x, clock)
                seen.append(x)
        for level in reversed(range(levels)):
            for stage in self.up[level * self.blocks : (level + 1) * self.blocks]:
                x = stage(x + seen.pop(), clock)
            x = interpolate(self.finer[level - 1](x), scale_factor=2.0) if level else x
        answer: Tensor = self.leave(silu(self.norm(x, clock)))
        return answer


class ScoreUNet(Periodic):
    r"""The score of an image of phases: a tangent projection (eq. 7) divided by the noise level.

    The network reads ``cos k theta`` and ``sin k theta``, so that it is exactly periodic, and the logarithm of the
    noise level ``sigma(t)^2 = smallest_noise^2 + 2 int_0^t D``. Before training the score is zero.

    Args:
        event_shape: ``(rows, columns)`` or ``(channels, rows, columns)``, divisible by the strides of the network.
        diffusion: D(t) of the forward equation, rad^2/time.
        head: What the network answers for each phase: ``"tangent"``, a and b of ``b cos theta - a sin theta``;
            ``"scalar"``, the score itself; ``"both"``, their sum.
        harmonics: The largest k that is read. Data on an arc have scores nearly linear in theta there, and so are
            combinations of a few harmonics, but not ``sin theta``.
        smallest_noise: The noise level at time 0, rad: finer detail of the data is not resolved.
        architecture: The same as for :class:`UNet`.

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
        harmonics: int = 1,
        smallest_noise: float = 0.02,
        **architecture: Any,
    ) -> None:
        super().__init__()
        self.event_shape, self.diffusion, self.head = tuple(event_shape), diffusion, head
        self.harmonics = harmonics
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
            "harmonics": harmonics,
            "smallest_noise": smallest_noise,
            **architecture,
        }
        channels, rows, columns = (1, *self.event_shape)[-3:]
        self.network = UNet(2 * harmonics * channels, HEADS[head] * channels, rows=rows, **architecture)
        self.classes = self.network.classes
        check_size((rows, columns), self.network.stride)

    def forward(self, t: Time, theta: Angles, labels: Tensor | None = None, condition: Tensor | None = None) -> Tangent:
        """The score at one time or at one time per sample, 1/rad; labels and condition as for :class:`UNet`."""
        noise = noise_level(self.diffusion, self.smallest_noise, t).to(theta).reshape(-1, 1)
        answer = self.answer(noise.log(), theta, labels, condition)
        return answer / noise.clamp(max=1.0).reshape(-1, *(1 for _ in self.event_shape))

    def answer(
        self, log_noise: Tensor, theta: Angles, labels: Tensor | None = None, condition: Tensor | None = None
    ) -> Tangent:
        """The tangent projection, not divided by the noise level; its logarithm is ``(batch, 1)`` or ``(1, 1)``."""
        phases = theta.unsqueeze(1) if len(self.event_shape) == 2 else theta
        turns = [
            harmonic for k in range(1, self.harmonics + 1) for harmonic in ((k * phases).cos(), (k * phases).sin())
        ]
        cosine, sine = turns[:2]
        answer = self.network(torch.cat(turns, 1), log_noise, labels, condition).to(theta.dtype)
        parts = answer.unflatten(1, (HEADS[self.head], -1)).unbind(1)
        score: Tensor = parts[0] if self.head == "scalar" else parts[-1] * cosine - parts[-2] * sine
        if self.head == "both":
            score = score + parts[0]
        return score.reshape(theta.shape)


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

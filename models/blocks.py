"""The parts of a U-Net: a convolution, a residual block that a clock modulates, attention over pixels."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import group_norm, scaled_dot_product_attention, silu

from circsde.models.padding import wrapped

PADDINGS = ("circular", "zeros")


class Convolution(nn.Conv2d):
    """A convolution of odd ``size`` that keeps the size of an image, or divides it by ``stride``."""

    def __init__(self, inward: int, outward: int, size: int = 3, *, padding: str, stride: int = 1) -> None:
        circular = padding == "circular"
        super().__init__(inward, outward, size, stride, 0 if circular else size // 2)
        self.margin = size // 2 if circular else 0

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, inward, rows, columns) -> (batch, outward, rows / stride, columns / stride)``."""
        answer: Tensor = super().forward(wrapped(x, self.margin) if self.margin else x)
        return answer


def clock_of_class(clock: Tensor, table: nn.Embedding | None, labels: Tensor | None) -> Tensor:
    """The features of the time, with those of the class of each sample added.

    Args:
        clock: ``(batch, features)``, or one row for all.
        table: The features of each class, and in its last row those of no class; None where there are no classes.
        labels: ``(batch,)``, whole numbers from 0; -1, as None, stands for no class.

    Raises:
        ValueError: If there are labels and no classes.
    """
    if table is None:
        if labels is not None:
            raise ValueError("this network was made without classes, so it reads no labels; give classes=")
        return clock
    given = torch.full((1,), -1, device=clock.device) if labels is None else labels
    added: Tensor = table(torch.where(given < 0, table.num_embeddings - 1, given))
    return clock + added


def silence(layer: nn.Module) -> None:
    """Set a layer to zero, so that it answers zero until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class AdaptiveNorm(nn.Module):
    """Group normalisation whose scale and shift are read off a clock, ``(1 + scale) norm(x) + shift``."""

    def __init__(self, channels: int, clock: int) -> None:
        super().__init__()
        self.groups = next(groups for groups in range(min(32, max(1, channels // 4)), 0, -1) if channels % groups == 0)
        self.modulate = nn.Linear(clock, 2 * channels)

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        """``clock`` has one row, or one per sample."""
        batch, channels, *size = x.shape
        scale, shift = self.modulate(clock).to(x.dtype).expand(batch, -1).chunk(2, 1)
        if not x.is_contiguous():
            return torch.addcmul(shift[:, :, None, None], 1.0 + scale[:, :, None, None], group_norm(x, self.groups))
        # A batch as the groups of one sample: one pass over the memory instead of two forwards and six backwards.
        as_one = x.view(1, batch * channels, *size)
        return group_norm(as_one, batch * self.groups, (1.0 + scale).flatten(), shift.flatten()).view_as(x)


class Residual(nn.Module):
    """``x + W2 silu(norm(W1 silu(norm(x))))``, both norms modulated; only ``x`` before training."""

    def __init__(self, channels: int, clock: int, *, padding: str, dropout: float) -> None:
        super().__init__()
        self.first, self.second = AdaptiveNorm(channels, clock), AdaptiveNorm(channels, clock)
        self.inner, self.outer = (Convolution(channels, channels, padding=padding) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        silence(self.outer)

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        """``(batch, channels, rows, columns)`` to the same."""
        y = self.inner(silu(self.first(x, clock)))
        y = self.outer(self.dropout(silu(self.second(y, clock))))
        answer: Tensor = x + y
        return answer


class Attention(nn.Module):
    """Every pixel looks at every other one: ``x + W attention(norm(x))``; only ``x`` before training."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads must divide the {channels} channels it attends to, got {heads}")
        self.heads = heads
        self.norm = nn.GroupNorm(1, channels)
        # No bias here: one added to every key changes nothing.
        self.enter, self.leave = nn.Conv2d(channels, 3 * channels, 1, bias=False), nn.Conv2d(channels, channels, 1)
        silence(self.leave)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, rows, columns)`` to the same."""
        y = self.enter(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))  # batch, 3, heads, features, pixels
        query, key, value = y.transpose(-1, -2).contiguous().unbind(1)
        differentiated = unpack_dual(y).tangent is not None  # type: ignore[no-untyped-call]
        # The fused kernels have no forward-mode derivative.
        with sdpa_kernel(SDPBackend.MATH) if differentiated else nullcontext():
            z = scaled_dot_product_attention(query, key, value)
        answer: Tensor = x + self.leave(z.transpose(-1, -2).reshape(x.shape))
        return answer


class Stage(nn.Module):
    """A residual block and, with ``heads``, attention."""

    def __init__(self, channels: int, clock: int, heads: int, *, padding: str, dropout: float) -> None:
        super().__init__()
        self.residual = Residual(channels, clock, padding=padding, dropout=dropout)
        self.attention = Attention(channels, heads) if heads else None

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        """``(batch, channels, rows, columns)`` to the same."""
        x = self.residual(x, clock)
        return x if self.attention is None else self.attention(x)

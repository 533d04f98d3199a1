"""The parts of a U-Net: a convolution, a residual block that time modulates, attention over pixels."""

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import group_norm, scaled_dot_product_attention, silu

PADDINGS = ("circular", "zeros")


def convolution(inward: int, outward: int, size: int = 3, *, padding: str, stride: int = 1) -> nn.Conv2d:
    """A convolution of odd ``size`` that keeps the size of an image, or divides it by ``stride``."""
    return nn.Conv2d(inward, outward, size, stride, size // 2, padding_mode=padding)


class AdaptiveNorm(nn.Module):
    """Group normalisation whose scale and shift are read off a clock, ``(1 + scale) norm(x) + shift``."""

    def __init__(self, channels: int, clock: int) -> None:
        super().__init__()
        self.groups = next(groups for groups in range(min(32, max(1, channels // 4)), 0, -1) if channels % groups == 0)
        self.modulate = nn.Linear(clock, 2 * channels)

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        """``clock`` has one row, or one per sample."""
        scale, shift = self.modulate(clock)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, 1.0 + scale, group_norm(x, self.groups))


class Residual(nn.Module):
    """``skip(x) + W2 silu(norm(W1 silu(norm(x))))``, both norms modulated; only ``skip(x)`` before training."""

    def __init__(self, inward: int, outward: int, clock: int, *, padding: str, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList((AdaptiveNorm(inward, clock), AdaptiveNorm(outward, clock)))
        self.inner = convolution(inward, outward, padding=padding)
        self.outer = convolution(outward, outward, padding=padding)
        self.skip = nn.Identity() if inward == outward else nn.Conv2d(inward, outward, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        """``(batch, inward, rows, columns) -> (batch, outward, rows, columns)``."""
        y = self.inner(silu(self.norms[0](x, clock)))
        y = self.outer(self.dropout(silu(self.norms[1](y, clock))))
        return self.skip(x) + y


class Attention(nn.Module):
    """Every pixel looks at every other one: ``x + W attention(norm(x))``; only ``x`` before training."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads must divide the {channels} channels it attends to, got {heads}")
        self.heads = heads
        self.norm = nn.GroupNorm(1, channels)
        self.enter, self.leave = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channels, rows, columns)`` to the same."""
        y = self.enter(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))  # batch, 3, heads, features, pixels
        query, key, value = y.transpose(-1, -2).unbind(1)
        if unpack_dual(y).tangent is None:
            z = scaled_dot_product_attention(query, key, value)
        else:  # the fused kernels have no forward-mode derivative
            with sdpa_kernel(SDPBackend.MATH):
                z = scaled_dot_product_attention(query, key, value)
        return x + self.leave(z.transpose(-1, -2).reshape(x.shape))

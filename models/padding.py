"""Periodic padding of images. PyTorch's own costs ten times as much backwards as forwards."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad


def wrapped(x: Tensor, margin: int) -> Tensor:
    """``(batch, channels, rows, columns)`` with ``margin`` more pixels on each side, those of the opposite side.

    >>> wrapped(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 1)[0, 0, 0]
    tensor([3., 1., 2., 3., 1.])
    """
    if torch.compiler.is_compiling():  # the compiler fuses PyTorch's own padding, but not these functions
        return pad(x, (margin,) * 4, mode="circular")
    padded: Tensor = _Wrap.apply(x, margin)  # type: ignore[no-untyped-call]
    return padded


class _Wrap(Function):
    """The padding; it is linear, so its derivative is itself, and :class:`_Fold` is its transpose."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, margin: int) -> Tensor:
        return pad(x, (margin,) * 4, mode="circular")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:  # noqa: ARG004
        ctx.margin = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Fold.apply(gradient, ctx.margin), None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return wrapped(tangent, ctx.margin)


class _Fold(Function):
    """The margins taken off and added to where their pixels came from."""

    generate_vmap_rule = True

    @staticmethod
    def forward(padded: Tensor, margin: int) -> Tensor:
        inner = slice(margin, -margin)
        x = padded[..., inner, inner].clone()
        rows, columns = x.shape[-2:]
        for row, far_row in ((0, rows + margin), (rows - margin, 0)):
            edge = padded.narrow(-2, far_row, margin)
            x.narrow(-2, row, margin).add_(edge[..., inner])
            for column, far in ((0, columns + margin), (columns - margin, 0)):
                x.narrow(-2, row, margin).narrow(-1, column, margin).add_(edge.narrow(-1, far, margin))
        for column, far in ((0, columns + margin), (columns - margin, 0)):
            x.narrow(-1, column, margin).add_(padded[..., inner, :].narrow(-1, far, margin))
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:  # noqa: ARG004
        ctx.margin = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return wrapped(gradient, ctx.margin), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        folded: Tensor = _Fold.apply(tangent, ctx.margin)  # type: ignore[no-untyped-call]
        return folded

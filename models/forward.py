r"""Layers that carry derivatives forward beside their values: all directions of a sample in one matrix product.

Values are ``(batch, width)``, and how they change along each of k directions is ``(batch, k, width)``. The two may have
dtypes of their own, so that derivatives are computed in single precision beside values in double precision.
"""

import torch
from torch import Tensor, nn


def push(layer: nn.Module, x: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer makes of ``x``, and how that changes along each direction, given how ``x`` does.

    Raises:
        TypeError: If the layer is not linear, a layer norm or a SiLU.

    >>> value, change = push(nn.SiLU(), torch.zeros(2, 3), torch.ones(2, 4, 3))
    >>> change.unique()
    tensor([0.5000])
    """
    match layer:
        case nn.Linear():
            return layer(x), along @ layer.weight.T.to(along)
        case nn.SiLU():
            gate = x.sigmoid()
            value = x * gate
            return value, along * torch.addcmul(gate, value, 1.0 - gate)[:, None].to(along)
        case nn.LayerNorm():
            return _push_norm(layer, x, along)
    raise TypeError(f"no derivative is known of the layer {type(layer).__name__}")


def _push_norm(layer: nn.LayerNorm, x: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """It leaves no part along the constant and, but for ``eps``, none along the value itself."""
    centred = x - x.mean(-1, keepdim=True)
    rate = (centred.square().mean(-1, keepdim=True) + layer.eps).rsqrt()
    plain = centred * rate
    fixed = torch.stack((torch.ones_like(plain), plain), 1).to(along)
    across = torch.baddbmm(along, along @ fixed.mT, fixed, alpha=-1.0 / x.shape[1])
    if layer.weight is None:
        return plain, across * rate[:, None].to(along)
    return torch.addcmul(layer.bias, plain, layer.weight), across * (rate * layer.weight)[:, None].to(along)

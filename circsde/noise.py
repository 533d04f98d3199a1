r"""Noise that depends on the angles: ``d theta = f(t, theta) dt + g(t, theta) dW``, read as Ito's or Stratonovich's.

Beside ``"additive"`` noise, whose amplitude is a function of time alone, there are three kinds, in torchsde's words:

- ``"diagonal"``: a Wiener process for each angle; ``g`` has the shape of ``theta``, and its entry ``i`` depends on
  angle ``i`` alone;
- ``"scalar"``: one Wiener process for all angles of a sample, common noise; ``g`` has the shape of ``theta``;
- ``"general"``: m Wiener processes; ``g`` has the shape ``(batch, *event, m)``, and ``g[..., j]`` is the vector field
  ``g_j`` along which process j pushes.

All below is exact, by ``torch.func``, for a ``g`` that is a function of the angles at one time. With the vector fields
``g_j``, the two readings are the same equation where ``f_Ito = f_Stratonovich + (1/2) sum_j (g_j . grad) g_j``.

Source: Kloeden & Platen 1992, doi:10.1007/978-3-662-12616-5, section 4.9.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from circsde.typing import Amplitude, Angles, Tangent, Time

NOISES = ("additive", "diagonal", "scalar", "general")
"""The kinds of noise that an equation may have."""

CALCULI = ("ito", "stratonovich")
"""The readings of a stochastic integral."""

Diffusion = Callable[[Angles], Tensor]
"""``g`` at one time, from angles ``(batch, *event)`` to what the kind of noise asks for, rad per square-root time."""


@runtime_checkable
class Equation(Protocol):
    """An equation with noise of any kind, as :class:`circsde.SDE`."""

    noise: str
    sde_type: str

    def drift(self, t: Time, theta: Angles) -> Tangent:
        """The drift, rad/time."""

    def diffusion(self, t: float | Tensor, *args: Any, **kwargs: Any) -> Amplitude:
        """The amplitude of the noise, rad per square-root time."""


def wiener_shape(sde: Equation, theta: Angles) -> tuple[int, ...]:
    """The shape of the increments ``dW`` for a batch of angles, so that scalar noise is the same for all of a sample.

    General noise is asked at time 0 how many processes it has.

    >>> from circsde.sde import SDE
    >>> common = SDE(lambda t, theta: 0.0 * theta, lambda t, theta: theta.cos(), 1.0, noise="scalar")
    >>> wiener_shape(common, torch.zeros(5, 2))
    (5, 1)
    """
    if sde.noise == "general":
        return len(theta), amplitude(sde, 0.0, theta).shape[-1]
    return (len(theta), *(1,) * (theta.ndim - 1)) if sde.noise == "scalar" else tuple(theta.shape)


def wieners(sde: Equation, theta: Angles, dtype: torch.dtype) -> Tensor:
    """A tensor in the shape of the increments, otherwise like the angles; mostly the angles themselves."""
    shape = wiener_shape(sde, theta.detach().to(dtype))
    return theta if shape == theta.shape else theta.new_empty(shape)


def kick(noise: str, g: Tensor, dW: Tensor) -> Tangent:
    """``g dW``, rad: the sum over all Wiener processes.

    >>> kick("general", torch.tensor([[[1.0, 2.0]]]), torch.tensor([[10.0, 1.0]]))
    tensor([[12.]])
    """
    return torch.einsum("b...m,bm->b...", g, dW) if noise == "general" else g * dW


def correction(noise: str, g: Diffusion, theta: Angles) -> Tangent:
    """``(1/2) sum_j (g_j . grad) g_j``: Ito's drift less Stratonovich's, rad/time.

    >>> correction("diagonal", torch.sin, torch.tensor([[0.3]]))  # g g' / 2, here sin(0.3) cos(0.3) / 2
    tensor([[0.1412]])
    """
    if noise != "general":
        return 0.5 * derivative(g, theta, g(theta))
    return 0.5 * along(g, theta).diagonal(dim1=-2, dim2=-1).sum(-1)


def along(g: Diffusion, theta: Angles) -> Tensor:
    """``(g_j . grad) g_k`` of general noise, at ``[..., j, k]``: shape ``(batch, *event, m, m)``, rad/time."""
    fields = g(theta)
    return torch.stack([derivative(g, theta, field) for field in fields.unbind(-1)], -2)


def derivative(g: Diffusion, theta: Angles, direction: Tangent) -> Tensor:
    """``(v . grad) g``, of the shape of ``g``, along a direction ``v``."""
    where, direction = theta.contiguous(), direction.to(theta.dtype).contiguous()  # jvp refuses expanded tensors
    slope: Tensor = torch.func.jvp(g, (where,), (direction,))[1]
    return slope


def covariance(noise: str, g: Tensor, vector: Tangent) -> Tangent:
    """``g g^T v``, the covariance of the noise per unit time applied to a vector."""
    if noise == "diagonal":
        return g * g * vector
    fields = g[..., None] if noise == "scalar" else g
    return torch.einsum("b...m,bm->b...", fields, torch.einsum("b...m,b...->bm", fields, vector))


def covariance_divergence(sde: Equation, t: Time, theta: Angles) -> Tangent:
    """``sum_j d/d theta_j (g g^T)_ij = sum_k (g_k . grad) g_k + g_k div g_k``, rad/time.

    Of diagonal noise it is ``2 g g'``, at the cost of one forward derivative; else the divergences take one for each
    angle.
    """
    g, noise = at(sde, t), sde.noise
    twice = 2.0 * correction(noise, g, theta)
    if noise == "diagonal":
        return 2.0 * twice
    fields = g if noise == "general" else lambda x: g(x)[..., None]
    units = torch.eye(theta[0].numel(), dtype=theta.dtype, device=theta.device).reshape(-1, *theta.shape[1:])
    slopes = (derivative(fields, theta, unit.expand_as(theta)) for unit in units)
    divergences = [torch.einsum("b...m,...->bm", slope, unit) for slope, unit in zip(slopes, units, strict=True)]
    return twice + kick("general", fields(theta), torch.stack(divergences).sum(0))


def ito_drift(sde: Equation, t: Time, theta: Angles) -> Tangent:
    """The drift of the same equation read as Ito's, rad/time."""
    drift = sde.drift(t, theta)
    if sde.noise == "additive" or sde.sde_type == "ito":
        return drift
    return drift + correction(sde.noise, at(sde, t), theta)


def amplitude(sde: Equation, t: Time, theta: Angles) -> Tensor:
    """``g(t, theta)``, of noise that is not additive."""
    g = sde.diffusion(t, theta)
    assert isinstance(g, Tensor)
    return g


def at(sde: Equation, t: Time) -> Diffusion:
    """``g`` at one time, a function of the angles."""
    return lambda theta: amplitude(sde, t, theta)


def flat(noise: str, g: Tensor) -> Tensor:
    """``g`` as torchsde has it: of diagonal noise its diagonal, ``(batch, d)``, else a matrix, ``(batch, d, m)``."""
    if noise == "general":
        return g.flatten(1, -2)
    return g.flatten(1) if noise == "diagonal" else g.flatten(1)[..., None]


def evaluate(rate: Callable[[Time], Amplitude], t: Time, theta: Angles) -> float | Tensor:
    """``rate(t)``, ready to multiply ``theta``: in its dtype, per-sample times spread over the event axes."""
    if isinstance(t, Tensor) and t.ndim == 1:
        t = t.reshape(-1, *(1,) * (theta.ndim - 1))
    value = rate(t)
    return value.to(theta.dtype) if isinstance(value, Tensor) and value.ndim else value


def spreading(sde: Equation, t: Time, theta: Angles, score: Tangent, factor: float) -> Tangent:
    """``g^2 score`` times a factor, rad/time; where noise depends on angles, ``div(g g^T) + g g^T score``."""
    if sde.noise == "additive":
        return factor * evaluate(sde.diffusion, t, theta) ** 2 * score
    return factor * (covariance_divergence(sde, t, theta) + covariance(sde.noise, amplitude(sde, t, theta), score))

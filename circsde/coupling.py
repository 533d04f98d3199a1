"""Who listens to whom: each coupling is a local mean, a linear operator on real fields over the oscillators.

The Kuramoto drift needs only the means of ``cos theta`` and ``sin theta`` (the local mean field ``z_i``), so a
coupling costs two applications of :meth:`Coupling.mean` and never an array of pairs. A phase lag turns that field.

All that the package wants to know of a coupling it asks the coupling; nothing outside this module lists them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from circsde.box_filter import Boundary, box_filter, own_weights, window_matrix

LOOKED_AT = 512
"""The most oscillators whose weights are looked at pair by pair where a coupling does not say what they are."""

_MATRIX = 48  # the longest side of an image for which a product with a matrix is faster than sums over a window


class Structure(Enum):
    """The structure of the Jacobian of a drift step, by which :mod:`circsde.matching.jacobian` chooses its formulas."""

    DIAGONAL = "diagonal, and a symmetric rest with small entries"
    RANK_TWO = "diagonal plus rank two"
    DENSE = "any matrix"


class Coupling:
    """A local mean over the oscillators of each sample; to write your own, override :meth:`mean`.

    The other methods have defaults that follow from the mean, some at the cost of one mean per oscillator. Override
    them where there is a formula. What a checkpoint keeps are the :attr:`arguments`.

    >>> class Neighbours(Coupling):
    ...     def mean(self, x):
    ...         return 0.5 * (x.roll(1, -1) + x.roll(-1, -1))
    >>> Neighbours().self_weight((3,)).tolist(), Neighbours().pair_weight((3,)), Neighbours().pair_weight((4,))
    ([0.0, 0.0, 0.0], 0.5, None)
    """

    couples: bool = True
    """Whether oscillators can hear one another at all."""

    structure: Structure = Structure.DENSE
    """The structure of the Jacobian."""

    lag: float | Tensor = 0.0
    """The phase lag alpha, radians, one number or one for each oscillator (Sakaguchi and Kuramoto)."""

    def mean(self, x: Tensor) -> Tensor:
        """The mean of ``x``, shape ``(batch, *event)``, around each oscillator; linear, and broadcastable to ``x``."""
        raise NotImplementedError(f"{type(self).__name__} must define mean(x), the mean of x around each oscillator")

    def fast_mean(self, like: Tensor) -> Callable[[Tensor], Tensor]:  # noqa: ARG002
        """:meth:`mean` for many tensors like the one given, where there is something to prepare."""
        return self.mean

    def field(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """What each oscillator hears of those cosines and sines, ``z_i e^{-i alpha_i}``, as ``(Re, Im)``.

        One of your own overrides it to hear something else than a mean: then so does :meth:`self_response`.
        """
        return self.turned(self.mean(cos), self.mean(sin))

    def fast_field(self, like: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """:meth:`field` for many tensors like the one given, by :meth:`fast_mean` where it is a mean."""
        mean, plain = self.fast_mean(like), type(self).field is Coupling.field
        return (lambda cos, sin: self.turned(mean(cos), mean(sin))) if plain else self.field

    def turned(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """A field, ``(Re, Im)``, turned back by the lag."""
        if not self.lagged:
            return real, imaginary
        cos, sin = self._direction(real.dtype, real.device)
        return cos * real + sin * imaginary, cos * imaginary - sin * real

    @property
    def lagged(self) -> bool:
        """Whether there may be a lag."""
        return isinstance(self.lag, Tensor) or self.lag != 0.0

    @property
    def is_mean(self) -> bool:
        """Whether the field is the mean itself, without a lag or a form of its own."""
        return type(self).field is Coupling.field and not self.lagged

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ValueError where this coupling does not fit oscillators of ``event_shape``; by default all fit."""
        if isinstance(self.lag, Tensor) and self.lag.ndim and self.lag.shape != torch.Size(event_shape):
            raise ValueError(
                f"lag must be a number or have the event shape {tuple(event_shape)}, got {tuple(self.lag.shape)}"
            )

    def self_weight(self, event_shape: Sequence[int]) -> float | Tensor:
        """The weight ``c_ii`` of an oscillator in its own mean, one number or shape ``event_shape`` (eq. 5)."""
        shape = torch.Size(event_shape)
        units = torch.eye(shape.numel(), dtype=torch.float64)
        own = [self.mean(unit.reshape(1, *shape)).expand(1, *shape).flatten()[i] for i, unit in enumerate(units)]
        return torch.stack(own).reshape(shape)

    def self_response(self, cos: Tensor, sin: Tensor) -> float | Tensor:
        r"""``Im(dz_i/dtheta_i e^{-i theta_i})``: how the field that an oscillator hears follows its own angle (eq. 5).

        That is ``c_ii cos(alpha_i)`` where the field is a mean, and one derivative per oscillator elsewhere.
        """
        if type(self).field is Coupling.field:
            own = self.self_weight(cos.shape[1:])
            own = own.to(cos) if isinstance(own, Tensor) else own
            return own * self._direction(cos.dtype, cos.device)[0] if self.lagged else own
        responses = []
        for unit in torch.eye(cos[0].numel(), dtype=cos.dtype, device=cos.device).reshape(-1, *cos.shape[1:]):
            real, imaginary = torch.func.jvp(self.field, (cos, sin), (-sin * unit, cos * unit))[1]
            responses.append((unit * (imaginary * cos - real * sin)).flatten(1).sum(1))
        return torch.stack(responses, 1).reshape(cos.shape)

    def pair_weight(self, event_shape: Sequence[int]) -> float | None:
        """The weight with which each oscillator hears each other one where all are alike; None where they differ.

        None also among more than :data:`LOOKED_AT` oscillators of which nobody knows, and where there is a lag.
        """
        shape = torch.Size(event_shape)
        n = shape.numel()
        if not self.is_mean:
            return None
        with torch.no_grad():
            if not bool(self.mean(torch.ones(1, *shape)).any()):
                return 0.0
            if n > LOOKED_AT:
                return None
            heard = self.mean(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).expand(n, *shape).reshape(n, n)
            others = heard[~torch.eye(n, dtype=torch.bool)]
        if not len(others):
            return 0.0
        low, high = others.min().item(), others.max().item()
        return high if high - low <= 1e-12 * abs(high) else None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments that make an equal coupling, for checkpoints (numbers, texts, tensors and lists of them)."""
        return {field.name: getattr(self, field.name) for field in fields(self)} if is_dataclass(self) else {}

    def _direction(self, dtype: torch.dtype, device: torch.device) -> tuple[float | Tensor, float | Tensor]:
        """``cos alpha`` and ``sin alpha``."""
        if not isinstance(self.lag, Tensor):
            return math.cos(self.lag), math.sin(self.lag)
        lag = self.lag.to(device)
        return lag.cos().to(dtype), lag.sin().to(dtype)


def as_lag(lag: float | Tensor) -> float | Tensor:
    """A lag as couplings keep it: a number, or a tensor, itself where it requires a gradient, or else a copy.

    Raises:
        ValueError: If it is not finite.
    """
    if not torch.as_tensor(lag).isfinite().all():
        raise ValueError(f"lag must be finite, got {lag}")
    if not isinstance(lag, Tensor) or isinstance(lag, nn.Parameter) or lag.requires_grad:
        return lag
    return lag.detach().double().clone() if lag.ndim else lag.item()


@dataclass(frozen=True)
class NoCoupling(Coupling):
    """Independent oscillators: the mean field of eq. (1) is zero.

    >>> NoCoupling().mean(torch.ones(1, 3))
    tensor([[0.]])
    """

    couples = False
    structure = Structure.DIAGONAL

    def mean(self, x: Tensor) -> Tensor:
        """Zero."""
        return x.new_zeros((1,) * x.ndim)

    def self_weight(self, event_shape: Sequence[int]) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0

    def pair_weight(self, event_shape: Sequence[int]) -> float:  # noqa: ARG002
        """Zero."""
        return 0.0


@dataclass(frozen=True)
class GlobalCoupling(Coupling):
    """The mean over all oscillators of a sample, to which each of them listens: ``c_ij = 1/N`` in eq. (1).

    Attributes:
        lag: The phase lag alpha, radians: ``sin(theta_j - theta_i - alpha_i)``; a number, or one for each oscillator. A
            ``Parameter`` is one of the equation.

    Raises:
        ValueError: If the lag is not finite.

    Sources: Kuramoto, 1984, doi:10.1007/978-3-642-69689-3; Sakaguchi and Kuramoto, 1986, doi:10.1143/PTP.76.576.

    >>> GlobalCoupling().mean(torch.tensor([[0.0, 1.0, 2.0]]))
    tensor([[1.]])
    """

    lag: float | Tensor = 0.0

    structure = Structure.RANK_TWO

    def __post_init__(self) -> None:
        """Refuse a lag that is not finite."""
        object.__setattr__(self, "lag", as_lag(self.lag))

    def mean(self, x: Tensor) -> Tensor:
        """The mean over all event axes, kept as axes of length 1."""
        return x.mean(tuple(range(1, x.ndim)), keepdim=True)

    def self_weight(self, event_shape: Sequence[int]) -> float:
        """One over the number of oscillators."""
        return 1.0 / torch.Size(event_shape).numel()

    def pair_weight(self, event_shape: Sequence[int]) -> float | None:
        """One over the number of oscillators; zero for a single one; None with a lag."""
        n = torch.Size(event_shape).numel()
        return None if self.lagged else 1.0 / n if n > 1 else 0.0


@dataclass(frozen=True)
class LocalCoupling(Coupling):
    """The mean over a window of side ``2 radius + 1`` in the last two event axes (or the only one), per channel.

    Attributes:
        radius: Neighbours on each side; at least 1, and the window must fit into the image.
        boundary: ``"periodic"``, or ``"reflecting"``: the image is mirrored at its edge, the edge pixel repeated.
            Either way the operator is symmetric, so that without a lag the equilibrium is a Gibbs law (eq. 3).
        lag: The phase lag alpha, radians, a number, or one for each oscillator.

    Raises:
        ValueError: If ``radius`` is below 1, the boundary unknown, the lag not finite, or the oscillators do not fit.

    Source: the windows of Song et al., 2025, arXiv 2509.15328, but averaging ``e^{i theta}``.

    >>> LocalCoupling(radius=1).mean(torch.tensor([[0.0, 0.0, 3.0, 0.0, 0.0]])).round()
    tensor([[0., 1., 1., 1., 0.]])
    """

    radius: int
    boundary: Boundary = "periodic"
    lag: float | Tensor = 0.0

    structure = Structure.DIAGONAL

    def __post_init__(self) -> None:
        """Refuse a radius below 1 and an unknown boundary."""
        if self.radius < 1:
            raise ValueError(f"radius must be at least 1, got {self.radius}; for no coupling use NoCoupling()")
        if self.boundary not in ("periodic", "reflecting"):
            raise ValueError(f'boundary must be "periodic" or "reflecting", got {self.boundary!r}')
        object.__setattr__(self, "lag", as_lag(self.lag))

    def check(self, event_shape: Sequence[int]) -> None:
        """Raise ValueError where the window is wider than the image, or the lag does not fit."""
        super().check(event_shape)
        if not event_shape or 2 * self.radius + 1 > min(event_shape[-2:]):
            raise ValueError(
                f"a window of radius {self.radius} is {2 * self.radius + 1} wide and does not fit oscillators of shape "
                f"{tuple(event_shape)}; use a smaller radius, or GlobalCoupling()"
            )

    def mean(self, x: Tensor) -> Tensor:
        """The box filter, separable: along rows, then along columns."""
        for axis in range(max(1, x.ndim - 2), x.ndim):
            x = box_filter(x, axis, self.radius, self.boundary)
        return x

    def fast_mean(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """The mean as products with a matrix for each side, on small images on a CPU."""
        sides = like.shape[1:][-2:]
        if like.device.type != "cpu" or max(sides) > _MATRIX:
            return self.mean
        matrices = [window_matrix(self.radius, self.boundary, side, like.dtype) for side in sides]
        if len(matrices) == 1:
            return lambda x: x @ matrices[0]
        return lambda x: matrices[0] @ x @ matrices[1]

    def self_weight(self, event_shape: Sequence[int]) -> float | Tensor:
        """One over the window's size, times how often a mirrored edge shows the oscillator to itself."""
        weight = torch.ones((), dtype=torch.float64)
        for side in event_shape[-2:]:
            weight = weight[..., None] * own_weights(self.radius, self.boundary, side)
        return weight.expand(tuple(event_shape))


COUPLINGS: dict[str, type[Coupling]] = {"none": NoCoupling, "global": GlobalCoupling, "local": LocalCoupling}
"""The couplings by their names on the command line."""

r"""Laws of whole samples at the horizon, from which sampling can start, in the order of what they keep.

At the horizon phases are nearly independent draws around a field, the mean of ``e^{i theta}`` given the data. A short
horizon leaves a part of the data in that field, which is small for each phase but coherent over a sample.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circsde.contracts import Sampled
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.laws.settled import SettledLaw
from circsde.laws.special import concentration_from_length
from circsde.torus import require_finite, wrap
from circsde.typing import Angles

_LONGEST = 0.995  # length of a drawn field, so that a phase around it keeps a finite concentration


@dataclass(frozen=True)
class Independent:
    """Every phase von Mises, alike but for the mean direction.

    Attributes:
        event_shape: The shape of a sample.
        loc: Mean direction, rad: one, or of ``event_shape``.
        concentration: Its kappa.
    """

    event_shape: tuple[int, ...]
    loc: Tensor
    concentration: float

    def sample(self, sample_shape: tuple[int, ...], /, *, generator: torch.Generator) -> Tensor:
        """Independent draws, ``(*sample_shape, *event)``."""
        return self._law().sample(sample_shape, generator=generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at each phase, nats."""
        return self._law().log_prob(value)

    def _law(self) -> VonMises:
        return VonMises(self.loc.expand(self.event_shape), self.concentration)


@dataclass(frozen=True)
class Gibbs:
    """The exact law of a finite number of globally coupled phases at constant rates, ``MeanFieldGibbs``.

    Attributes:
        event_shape: The shape of a sample.
        rates: K, K_ref and D.
        phase: psi, rad.
    """

    event_shape: tuple[int, ...]
    rates: tuple[float, float, float]
    phase: float

    def sample(self, sample_shape: tuple[int, ...], /, *, generator: torch.Generator) -> Tensor:
        """Independent draws, ``(*sample_shape, *event)``."""
        drawn = self._law().sample(sample_shape, generator=generator)
        return drawn.reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of each sample ``(batch, *event)``, nats."""
        return self._law().log_prob(value.flatten(1))

    def _law(self) -> MeanFieldGibbs:
        return MeanFieldGibbs(math.prod(self.event_shape), *self.rates, self.phase)


@dataclass(frozen=True)
class Coherent:
    """Phases independent around a field that is one for all of a sample, per channel, drawn from given ones.

    Attributes:
        event_shape: The shape of a sample.
        fields: The cosines of the channels and then their sines, shape ``(n, 2 channels)``.
    """

    event_shape: tuple[int, ...]
    fields: Tensor

    def sample(self, sample_shape: tuple[int, ...], /, *, generator: torch.Generator) -> Tensor:
        """Independent draws, ``(*sample_shape, *event)``."""
        return _around(_drawn(self.fields, self.event_shape, sample_shape, generator), self.event_shape, generator)


@dataclass(frozen=True)
class Patterned:
    """The same for images, with a stationary normal field of mean zero added to the one that is drawn.

    Attributes:
        event_shape: The shape of a sample.
        fields: The same as in :class:`Coherent`.
        root: At each wave number the Hermitian root of the spectral matrix of the other, as real and imaginary parts,
            shape ``(rows, columns, 2 channels, 2 channels, 2)``.
    """

    event_shape: tuple[int, ...]
    fields: Tensor
    root: Tensor

    def sample(self, sample_shape: tuple[int, ...], /, *, generator: torch.Generator) -> Tensor:
        """Independent draws, ``(*sample_shape, *event)``."""
        field = _drawn(self.fields, self.event_shape, sample_shape, generator)
        shape = (*sample_shape, field.shape[-3], *_grid(self.event_shape))
        white = torch.fft.fft2(torch.randn(shape, generator=generator, dtype=field.dtype))
        pattern = torch.einsum("xyij,...jxy->...ixy", torch.view_as_complex(self.root), white)
        return _around(field + torch.fft.ifft2(pattern).real, self.event_shape, generator)


@dataclass(frozen=True)
class Resampled:
    """Simulated states themselves, drawn with replacement.

    Attributes:
        states: Angles, ``(n, *event)``, as 16-bit integers that count ``pi / 32767``.
    """

    states: Tensor

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return tuple(self.states.shape[1:])

    @classmethod
    def of(cls, theta: Angles) -> "Resampled":
        """Make the law from angles, which must be finite, as integers hold no others."""
        require_finite(theta, "the simulated states")
        return cls((wrap(theta.double()) * (32767 / math.pi)).round().short())

    def sample(self, sample_shape: tuple[int, ...], /, *, generator: torch.Generator) -> Tensor:
        """Independent draws, ``(*sample_shape, *event)``."""
        rows = torch.randint(len(self.states), sample_shape, generator=generator)
        return wrap(self.states[rows].double() * (math.pi / 32767))


Law = Independent | Gibbs | Coherent | Patterned | Resampled
LAWS: tuple[type, ...] = (Independent, Gibbs, Coherent, Patterned, Resampled)
"""The laws that can be saved."""


def stationary(sde: KuramotoSDE) -> SettledLaw:
    """The stationary law of the final rates, as :meth:`circsde.KuramotoSDE.settled_law` knows it (eq. 3).

    Where the coupling joins some pairs more than others, as windows do, that law is not known. Then it is the law of
    many oscillators in one mean field: an approximation, to be compared with simulated states as
    :mod:`circsde.sampling.choose_start` does.

    Raises:
        ValueError: If neither is known.
    """
    return sde.terminal_law() if sde.coupling.pair_weight(sde.event_shape) is None else sde.settled_law()


def settled(sde: KuramotoSDE) -> Law:
    """The law :func:`stationary` as one that can be saved.

    Raises:
        ValueError: If it is not known, or oscillators have natural frequencies.
    """
    shape, law = tuple(sde.event_shape), stationary(sde)
    if isinstance(law, MeanFieldGibbs):
        return Gibbs(shape, (law.coupling.item(), law.reference.item(), law.diffusion.item()), law.phase.item())
    if not isinstance(law, VonMises):
        raise ValueError("images start from phases without natural frequencies: fit a law to simulated states")
    return Independent(shape, law.loc, float(law.concentration.max()))


def fit_independent(states: Angles) -> Independent:
    """One von Mises law for all phases."""
    law = VonMises.fit(states.double())
    return Independent(tuple(states.shape[1:]), law.loc, law.concentration.item())


def fit_coherent(states: Angles) -> Coherent:
    """Fit the fields: sample means, drawn towards their mean until phases around them have the same covariance."""
    points = components(states).flatten(2)
    means, n = points.mean(2), points.shape[2]
    rest = points - means[:, :, None]
    own = _per_channel(torch.einsum("bip,bjp->ij", rest, rest) / (len(points) * n * max(1, n - 1)))
    covariance, mean = torch.cov(means.T), means.mean(0)
    shrink = _root(covariance - own) @ torch.linalg.pinv(_root(covariance), hermitian=True)
    return Coherent(tuple(states.shape[1:]), mean + (means - mean) @ shrink.T)


def fit_patterned(states: Angles) -> Patterned:
    r"""Fit the spectra of ``cos theta`` and ``sin theta`` above the white level of independent phases.

    That level is the one at the quarter of highest wave numbers. Whatever is not above what chance makes of it (the
    Marchenko-Pastur edge for that many samples, and half as much again) is left out.
    """
    points = components(states)
    modes = torch.fft.fft2(points - points.mean((0, 2, 3))[:, None, None], norm="ortho")
    spectrum = torch.einsum("bixy,bjxy->xyij", modes, modes.conj()) / len(points)
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64).abs() for n in points.shape[2:])
    wave_number = torch.hypot(rows[:, None], columns)
    white = _per_channel(spectrum[wave_number >= wave_number.flatten().quantile(0.75)].mean(0).real)
    factor = torch.linalg.cholesky(white).to(spectrum.dtype)
    inverse, size = torch.linalg.inv(factor), len(white)
    values, vectors = torch.linalg.eigh(inverse @ spectrum @ inverse.mH - torch.eye(size, dtype=spectrum.dtype))
    edge = (1.0 + math.sqrt(size / len(points))) ** 2 - 1.0
    kept = torch.where(values > 1.5 * edge, values, 0.0).to(vectors.dtype)
    field = factor @ (vectors * kept[..., None, :]) @ vectors.mH @ factor.mH
    field[0, 0] = 0.0  # the mean over a sample is drawn
    root = torch.view_as_real(_root(field)).contiguous()
    return Patterned(tuple(states.shape[1:]), fit_coherent(states).fields, root)


CANDIDATES: dict[str, Callable[[KuramotoSDE, Angles], Sampled | None]] = {
    "settled": lambda sde, _: settled(sde),
    "independent": lambda _, states: fit_independent(states),
    "coherent": lambda _, states: fit_coherent(states),
    "patterned": lambda _, states: fit_patterned(states) if states.ndim > 2 else None,
    "resampled": lambda _, states: Resampled.of(states),
}
"""The candidates, the simplest first; each fits a law to simulated states, or gives None where it does not apply."""


def components(theta: Angles) -> Tensor:
    """``cos theta`` of all channels and then ``sin theta``, ``(batch, 2 channels, *grid)``, float64.

    Raises:
        ValueError: If an angle is not finite.
    """
    require_finite(theta, "the simulated states")
    theta = theta.double() if theta.ndim == 4 else theta.double()[:, None]
    return torch.cat((theta.cos(), theta.sin()), 1)


def _grid(event_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one channel."""
    return tuple(event_shape[1:] if len(event_shape) == 3 else event_shape)


def _per_channel(covariance: Tensor) -> Tensor:
    """The matrix without its entries between different channels."""
    channels = len(covariance) // 2
    same = torch.eye(channels, dtype=torch.bool).repeat(2, 2)
    return torch.where(same, covariance, 0.0)


def _root(covariance: Tensor) -> Tensor:
    """The Hermitian root of a matrix, its negative eigenvalues set to zero."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0.0).sqrt().to(vectors.dtype)[..., None, :]) @ vectors.mH
    return root


def _drawn(
    fields: Tensor, event_shape: tuple[int, ...], sample_shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Some of the fields, with an axis of length 1 for each axis of a channel."""
    drawn = fields[torch.randint(len(fields), sample_shape, generator=generator)]
    return drawn.reshape(*drawn.shape, *(1,) * len(_grid(event_shape)))


def _around(field: Tensor, event_shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Von Mises phases whose mean of ``e^{i theta}`` is the field, ``(*sample, 2 channels, *grid)``."""
    axis = -1 - len(_grid(event_shape))
    cos, sin = field.chunk(2, axis)
    length, direction = torch.hypot(cos, sin).clamp(max=_LONGEST), torch.atan2(sin, cos)
    shape = (*field.shape[:axis], *event_shape)
    if len(event_shape) < 3:
        length, direction = length.squeeze(axis), direction.squeeze(axis)
    return VonMises(direction.expand(shape), concentration_from_length(length).expand(shape)).sample(
        generator=generator
    )

r"""Laws on the circle and the torus, as ``torch.distributions`` that also know their score.

Densities are with respect to ``d theta`` on ``[-pi, pi)`` and 2 pi-periodic: any representative of an angle will do.
Work is done in float64 and returned in the dtype of the inputs, half precision included. Parameters are tensors or
numbers. Numbers and integer tensors are exact: they take the dtype of the other parameters, and a law made of them
alone has dtype float64. Parameters keep their own shapes and broadcast when used, so that a scale per sample costs
nothing per oscillator. Draws take a ``torch.Generator`` and are reproducible from its seed.
Arguments are checked unless ``validate_args=False``, also after ``torch.compile``, which clears torch's global default.
"""

import functools
import math

import numpy as np
import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints, register_kl

from circsde.laws.special import (
    bessel_ratio,
    bessel_ratio_complement,
    bessel_ratio_slope,
    concentration_from_variance,
    log_euler_function,
    log_i0e,
    theta_function,
)
from circsde.torus import TWO_PI, Axes, Finite, circular_variance, mean_direction, require_finite, to_circle

Shape = Size | list[int] | tuple[int, ...]


class WrappedNormal(Distribution):
    r"""The law of ``wrap(loc + scale Z)`` with Z standard normal: the heat kernel of the circle (eq. 13).

    .. math:: p(\theta) = \sum_k N(d + 2 \pi k; 0, \sigma^2)
                        = \frac{1}{2 \pi} \sum_k e^{-\sigma^2 k^2 / 2} \cos(k d), \qquad d = \theta - \mu

    The two series are one theta function and its image under Jacobi's imaginary transformation; of the one that
    converges faster, three terms are exact to rounding, for the density and for the score, at any angle.

    Args:
        loc: Mean direction mu, radians.
        scale: Standard deviation sigma before wrapping, radians, positive.

    Raises:
        ValueError: If ``loc`` or an angle is not finite, or ``scale`` is NaN or not positive.

    Source: Mardia and Jupp, 2000, doi:10.1002/9780470316979, section 3.5.7.

    >>> WrappedNormal(0.0, torch.tensor([0.1, 10.0])).score(torch.tensor(1.0))
    tensor([-1.0000e+02, -3.2460e-22])
    """

    arg_constraints = {"loc": Finite(), "scale": constraints.positive}
    support = Finite()
    has_rsample = True

    def __init__(self, loc: float | Tensor, scale: float | Tensor, validate_args: bool = True) -> None:
        self.loc, self.scale = as_parameters(loc, scale)
        super().__init__(broadcast_shape(self.loc, self.scale), validate_args=validate_args)

    @property
    def mean_resultant_length(self) -> Tensor:
        """``|E e^{i theta}| = exp(-sigma^2 / 2)``."""
        return torch.exp(-0.5 * self.scale.double().square()).to(self.scale.dtype).expand(self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats; ``value`` in radians, broadcastable with the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        d = _offset(value, self.loc)
        variance = self.scale.to(d).square()
        theta, _ = theta_function(d, variance)
        gaussian = -0.5 * (d.square() / variance + torch.log(TWO_PI * variance))
        envelope = torch.where(variance > TWO_PI, -math.log(TWO_PI), gaussian)
        return (envelope + theta.log()).to(common_dtype(value, self.loc))

    def score(self, value: Tensor) -> Tensor:
        """``d/d theta log p``, 1/rad; ``value`` in radians, broadcastable with the batch shape."""
        d = _offset(value, self.loc)
        variance = self.scale.to(d).square()
        theta, slope = theta_function(d, variance)
        gaussian = d * torch.where(variance > TWO_PI, 0.0, -1.0 / variance)
        return torch.addcdiv(gaussian, slope, theta).to(common_dtype(value, self.loc))

    def entropy(self) -> Tensor:
        r"""Differential entropy in nats: ``log 2 pi`` for the uniform law, ``log(2 pi e sigma^2) / 2`` for small sigma.

        With ``s = sigma^2`` and Euler's function ``phi(x) = prod_k (1 - x^k)``, the Fourier series of the logarithm of
        Jacobi's triple product gives ``H = log(2 pi / phi(e^-s)) + sum_n (-1)^n e^{-n^2 s / 2} / (n sinh(n s / 2))``.
        Below s = 1/8 what overlaps is under 1e-17 of the mass.
        """
        variance = self.scale.double().square()
        s = variance.clamp(min=0.125).unsqueeze(-1)
        n = torch.arange(1, 26, dtype=s.dtype, device=s.device)
        sign = 1.0 - 2.0 * (n % 2)
        series = (2.0 * sign / n * torch.exp(-0.5 * n * (n + 1) * s) / -torch.expm1(-n * s)).sum(-1)
        wrapped = math.log(TWO_PI) - log_euler_function(s.squeeze(-1)) + series
        entropy = torch.where(variance < 0.125, 0.5 * (1.0 + torch.log(TWO_PI * variance)), wrapped)
        return entropy.to(self.loc.dtype).expand(self.batch_shape)

    def rsample(self, sample_shape: Shape = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Angles in ``[-pi, pi)``, differentiable with respect to ``loc`` and ``scale``."""
        shape = self._extended_shape(sample_shape)
        dtype = torch.promote_types(self.loc.dtype, torch.float32)  # normals of half precision are too coarse
        noise = torch.randn(shape, generator=generator, dtype=dtype, device=self.loc.device)
        return to_circle(self.loc.double() + self.scale.double() * noise, self.loc.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Angles in ``[-pi, pi)``, shape ``(*sample_shape, *batch_shape)``."""
        return self.rsample(sample_shape, generator=generator)


class VonMises(Distribution):
    r"""The von Mises law ``exp(kappa cos(theta - mu)) / (2 pi I_0(kappa))``, uniform at ``kappa = 0`` (eq. 14).

    The stationary law of ``d theta = K_ref sin(mu - theta) dt + sqrt(2 D) dW``, with ``kappa = K_ref / D``.

    Args:
        loc: Mean direction mu, radians.
        concentration: kappa, non-negative and finite.

    Raises:
        ValueError: If ``loc`` or an angle is not finite, or ``concentration`` is negative, infinite or NaN.

    Source: Mardia and Jupp, 2000, doi:10.1002/9780470316979, section 3.5.4.

    >>> VonMises(0.0, 2.0).score(torch.tensor([math.pi / 2]))
    tensor([-2.])
    """

    arg_constraints = {"loc": Finite(), "concentration": Finite(least=0.0)}
    support = Finite()

    def __init__(self, loc: float | Tensor, concentration: float | Tensor, validate_args: bool = True) -> None:
        self.loc, self.concentration = as_parameters(loc, concentration)
        super().__init__(broadcast_shape(self.loc, self.concentration), validate_args=validate_args)

    @classmethod
    def fit(cls, theta: Tensor, dim: Axes = None) -> "VonMises":
        """The maximum-likelihood law of the angles ``theta`` along ``dim`` (all axes by default).

        The concentration comes from the circular variance, so that it is accurate for angles however close together.
        Parameters are float32 for angles of half precision, which cannot hold a concentration above 65504.

        Raises:
            TypeError: If ``theta`` is not a floating-point tensor.
            ValueError: If an angle is not finite, or all of them are one point.

        >>> law = VonMises.fit(torch.tensor([0.5 - 1e-6, 0.5 + 1e-6], dtype=torch.float64))
        >>> round(law.loc.item(), 6), round(law.concentration.item() / 1e12, 6)
        (0.5, 1.0)
        """
        require_finite(theta, "angles that a law is fitted to")
        dtype = torch.promote_types(theta.dtype, torch.float32)
        variance, direction = circular_variance(theta, dim), mean_direction(theta.double(), dim)
        return cls(to_circle(direction, dtype), concentration_from_variance(variance).to(dtype))

    @property
    def mean_resultant_length(self) -> Tensor:
        """``|E e^{i theta}| = A(kappa) = I_1(kappa) / I_0(kappa)``."""
        return bessel_ratio(self.concentration.double()).to(self.loc.dtype).expand(self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats; ``value`` in radians, broadcastable with the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        d = _offset(value, self.loc)
        kappa = self.concentration.to(d)
        depth = 2.0 * kappa * torch.sin(0.5 * d).square()
        return (-depth - log_i0e(kappa) - math.log(TWO_PI)).to(common_dtype(value, self.loc))

    def score(self, value: Tensor) -> Tensor:
        """``d/d theta log p = -kappa sin(theta - mu)``, 1/rad."""
        d = _offset(value, self.loc)
        return (-self.concentration.to(d) * torch.sin(d)).to(common_dtype(value, self.loc))

    def entropy(self) -> Tensor:
        """Differential entropy in nats, ``log(2 pi I_0(kappa)) - kappa A(kappa)``."""
        kappa = self.concentration.double()
        entropy = math.log(TWO_PI) + log_i0e(kappa) + kappa * bessel_ratio_complement(kappa)
        return entropy.to(self.loc.dtype).expand(self.batch_shape)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), *, generator: torch.Generator | None = None) -> Tensor:
        r"""Exact angles in ``[-pi, pi)``, shape ``(*sample_shape, *batch_shape)``.

        Rejection from the best wrapped Cauchy envelope. With ``h = (1 + sqrt(1 + 4 kappa^2)) / 2`` a proposal is
        ``tan(theta / 2) = sqrt((h - kappa) / (h + kappa)) tan(pi (U - 1/2))``, accepted with probability
        ``c e^{1 - c}``, ``c = h - kappa cos theta``: at least 0.65 for every kappa, 1 at ``kappa = 0``. Written in
        ``h - kappa`` and half-angles nothing cancels or overflows, from kappa = 0 on.

        Source: Best and Fisher, Appl. Statist. 28 (1979) 152, in other variables.
        """
        shape = self._extended_shape(sample_shape)
        kappa = self.concentration.double().expand(shape).reshape(-1)
        root = torch.hypot(torch.ones_like(kappa), 2.0 * kappa)
        gap = 0.5 + 0.5 / (root + 2.0 * kappa)  # h - kappa
        contraction = torch.sqrt(gap / (gap + 2.0 * kappa))
        half, pending = torch.empty_like(kappa), torch.arange(kappa.numel(), device=kappa.device)
        while pending.numel():
            u, v = torch.rand(2, pending.numel(), generator=generator, dtype=kappa.dtype, device=kappa.device)
            proposal = torch.atan(contraction[pending] * torch.tan(math.pi * (u - 0.5)))
            c = gap[pending] + 2.0 * kappa[pending] * proposal.sin().square()
            half[pending] = proposal
            pending = pending[v > c * torch.exp(1.0 - c)]
        return to_circle(self.loc.double() + 2.0 * half.reshape(shape), self.loc.dtype)


@register_kl(VonMises, VonMises)  # type: ignore[no-untyped-call, untyped-decorator]
def _kl_von_mises(p: VonMises, q: VonMises) -> Tensor:
    r"""The Kullback-Leibler divergence as two parts that cannot be negative, relatively accurate also as p nears q.

    The rotation costs ``2 kappa_q A(kappa_p) sin^2((mu_p - mu_q) / 2)``. The rest is the Bregman divergence of log I_0,
    ``int_{kappa_p}^{kappa_q} (kappa_q - t) A'(t) dt``, by 64 Gauss-Legendre nodes in ``u = asinh t``, in which the
    integrand is smooth over any range: the relative error is below 1e-12 for concentrations up to 1e6.
    """
    a, b = p.concentration.double(), q.concentration.double()
    rotation = 2.0 * b * bessel_ratio(a) * torch.sin(0.5 * _offset(p.loc, q.loc)).square()

    one = torch.ones_like(a)
    mean = (a + b) / (b * torch.hypot(one, a) + a * torch.hypot(one, b)).clamp(min=1e-300)
    length = torch.asinh((b - a) * mean).unsqueeze(-1)  # asinh(b) - asinh(a)
    x, w = (torch.as_tensor(v, device=a.device) for v in np.polynomial.legendre.leggauss(64))
    ahead = length * 0.5 * (1.0 - x)  # from t to the end
    u = torch.asinh(b).unsqueeze(-1) - ahead
    rise = 2.0 * torch.cosh(u + 0.5 * ahead) * torch.sinh(0.5 * ahead)  # kappa_q - t
    integrand = rise * bessel_ratio_slope(torch.sinh(u).clamp(min=0.0)) * torch.cosh(u)
    stretch = 0.5 * (length * w * integrand).sum(-1)
    return (rotation + stretch).to(common_dtype(p.loc, q.loc))


def self_consistent_concentration(coupling: float, reference: float, diffusion: float) -> float:
    r"""The concentration of the von Mises law that infinitely many coupled oscillators settle to (eq. 3).

    The largest root of ``kappa = (K A(kappa) + K_ref) / D``, the stable one. Without a reference it is 0 up to the
    critical coupling ``K_c = 2 D``: no synchrony. Newton's method descends monotonically from ``(K + K_ref) / D``,
    because A is concave and below 1, until rounding stops it.

    Args:
        coupling: K, 1/time, non-negative.
        reference: K_ref, 1/time, non-negative.
        diffusion: D, rad^2/time, positive.

    Raises:
        ValueError: If a rate is out of range.

    >>> self_consistent_concentration(coupling=1.9, reference=0.0, diffusion=1.0)
    0.0
    >>> round(self_consistent_concentration(coupling=4.0, reference=0.0, diffusion=1.0), 4)
    3.3258
    """
    if not (coupling >= 0 and reference >= 0 and diffusion > 0):
        raise ValueError(
            "expected non-negative coupling and reference rates and positive diffusion, got"
            f" coupling={coupling:g}, reference={reference:g}, diffusion={diffusion:g}"
        )
    a, b = coupling / diffusion, reference / diffusion
    if b == 0.0 and a <= 2.0:
        return 0.0
    kappa = torch.tensor(a + b, dtype=torch.float64)
    while True:
        excess = kappa - b - a * bessel_ratio(kappa)
        slope = (1.0 - a * bessel_ratio_slope(kappa)).clamp(min=1e-16)
        lower = (kappa - excess / slope).clamp(min=b)
        if not bool(lower < kappa):
            return kappa.item()
        kappa = lower


def as_parameters(*values: float | Tensor) -> list[Tensor]:
    """The values as tensors of one device and one dtype: numbers are float64, and yield to tensors with axes."""
    device = next((v.device for v in values if isinstance(v, Tensor)), None)
    tensors = [v if isinstance(v, Tensor) else torch.tensor(v, dtype=torch.float64, device=device) for v in values]
    return [t.to(common_dtype(*tensors)) for t in tensors]


def common_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype of results: that of the floating-point tensors, of which those without axes yield to the others.

    Integers are exact and yield to all; where there is nothing else it is float64.
    """
    floating = [t.new_zeros((1,) * t.ndim) for t in tensors if t.is_floating_point()]
    return functools.reduce(torch.add, floating).dtype if floating else torch.float64


def broadcast_shape(*tensors: Tensor) -> Size:
    """The common shape of the tensors."""
    return Size(torch.broadcast_shapes(*(t.shape for t in tensors)))  # type: ignore[no-untyped-call]


def _offset(value: Tensor, loc: Tensor) -> Tensor:
    """``value - loc`` modulo 2 pi in ``[-pi, pi]``, float64, with the gradient of the difference."""
    difference = value.double() - loc
    return difference.sub(torch.round(difference / TWO_PI), alpha=TWO_PI)

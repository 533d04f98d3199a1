"""The equilibrium law of finitely many noisy, globally coupled Kuramoto oscillators."""

import math
from collections.abc import Sequence

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from circsde.laws.distributions import Shape, VonMises, as_parameters, broadcast_shape, common_dtype
from circsde.laws.special import bessel_ratio, log_i0e
from circsde.laws.unimodal import UnimodalDensity
from circsde.torus import TWO_PI, Finite, to_circle


class MeanFieldGibbs(Distribution):
    r"""The law ``exp(-U / D) / Z`` of n noisy Kuramoto oscillators with global coupling, exact for every n (eq. 3).

    .. math:: p(\theta) = \frac{1}{Z} \exp\Big( \frac{a}{2 n} \Big| \sum_j e^{i \theta_j} \Big|^2
                        + b \sum_j \cos(\theta_j - \psi) \Big), \qquad a = K / D, \quad b = K_{ref} / D

    A Gaussian in the plane makes the square linear (Hubbard-Stratonovich): with ``v e^{i phi} = b e^{i psi} + eps z``,
    ``eps = sqrt(a / n)`` and z standard normal in the plane, ``Z = (2 pi)^n E I_0(v)^n``. Given ``(v, phi)`` the phases
    are independent von Mises, of concentration v about phi; given v, phi is von Mises, of concentration ``n b v / a``
    about psi. What remains is one integral over v. So sampling is exact and the draws are independent.

    Args:
        n: Number of oscillators, or the shape of one sample of them.
        coupling: K, 1/time, non-negative. Without coupling the phases are independent von Mises.
        reference: K_ref, 1/time, non-negative. Without it the law does not change under common rotations.
        diffusion: D, rad^2/time, positive.
        phase: The reference phase psi, radians.

    The common shape of the rates is the batch shape; the event shape is ``(n,)``, or the given one.

    Raises:
        ValueError: If ``n`` is not positive or a rate is out of range.

    Sources: Sakaguchi, 1988, doi:10.1143/PTP.79.39; Hubbard, 1959, doi:10.1103/PhysRevLett.3.77.

    >>> law = MeanFieldGibbs(10, coupling=4.0, reference=0.5, diffusion=1.0)
    >>> law.sample((1000,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([1000, 10])
    """

    arg_constraints = {
        "coupling": Finite(least=0.0),
        "reference": Finite(least=0.0),
        "diffusion": constraints.positive,
        "phase": Finite(),
    }
    support = constraints.independent(constraints.real, 1)  # type: ignore[no-untyped-call]

    def __init__(
        self,
        n: int | Sequence[int],
        coupling: float | Tensor,
        reference: float | Tensor,
        diffusion: float | Tensor,
        phase: float | Tensor = 0.0,
        validate_args: bool = True,
    ) -> None:
        event_shape = Size((n,) if isinstance(n, int) else n)
        n = event_shape.numel()
        if n < 1:
            raise ValueError(f"the number of oscillators must be at least 1, got {n}")
        rates = as_parameters(coupling, reference, diffusion, phase)
        shape = broadcast_shape(*rates)
        self.coupling, self.reference, self.diffusion, self.phase = (rate.expand(shape) for rate in rates)
        super().__init__(shape, event_shape, validate_args=validate_args)
        self.n = n
        self._a = self.coupling.double() / self.diffusion.double() + 1e-16 / n  # K = 0 as a limit, within rounding
        self._b = self.reference.double() / self.diffusion.double()
        self._radial = self._radial_density()

    def _radial_density(self) -> UnimodalDensity:
        r"""The density of v, in the variable y of ``v = a + b + eps y``; its mass lies in ``-sqrt(a n) - 10 < y < 11``.

        With ``rho = v / eps`` and ``beta = b / eps`` it is a Rice density times I_0^n,
        ``rho e^{-(rho^2 + beta^2) / 2} I_0(beta rho) I_0(v)^n``. Completing the square takes out
        ``e^{n (b + a / 2)}`` and leaves ``rho e^{-y^2 / 2}`` times exponentially scaled Bessel functions.
        """
        eps = (self._a / self.n).sqrt()

        def log_density(y: Tensor) -> Tensor:
            v, kappa = self._field(y)
            return torch.log(v / eps.unsqueeze(-1)) - 0.5 * y.square() + self.n * log_i0e(v) + log_i0e(kappa)

        with torch.no_grad():
            low = torch.maximum(1e-9 - (self._a + self._b) / eps, -10.0 - (self._a * self.n).sqrt())  # v > 0
        return UnimodalDensity(log_density, low, torch.full_like(low, 11.0))

    def _field(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The concentration v of the phases, and that of the direction phi, ``n b v / a``; ``y`` is ``(*batch, m)``."""
        a, b = self._a.unsqueeze(-1), self._b.unsqueeze(-1)
        v = (a + b + (a / self.n).sqrt() * y).clamp(min=1e-300)
        return v, self.n * b * v / a

    @property
    def log_partition(self) -> Tensor:
        """``log Z``, float64, shape ``batch_shape``."""
        return self.n * (math.log(TWO_PI) + self._b + 0.5 * self._a) + self._radial.log_integral

    @property
    def mean_resultant_length(self) -> Tensor:
        """``E cos(theta_j - psi)``, the same for every j, shape ``batch_shape``; 0 without a reference."""
        return self._mean_cosine().to(self.phase.dtype)

    @property
    def mean_square_order_parameter(self) -> Tensor:
        """``E R^2`` of the order parameter ``R e^{i Psi} = mean_j e^{i theta_j}``, shape ``batch_shape``."""
        return self._mean_square().to(self.phase.dtype)

    def _mean_cosine(self) -> Tensor:
        v, kappa = self._field(self._radial.points)
        return self._radial.expectation(bessel_ratio(v) * bessel_ratio(kappa))

    def _mean_square(self) -> Tensor:
        v, _ = self._field(self._radial.points)
        pair = self._radial.expectation(bessel_ratio(v).square())  # E cos(theta_j - theta_k) for j != k
        return pair + (1.0 - pair) / self.n

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats with respect to ``d theta`` on ``[-pi, pi)^n``; ``value`` is ``(..., *event)``, rad."""
        if self._validate_args:
            self._validate_sample(value)
        offset, a, b = self._with_offset(value)
        along, across = offset.cos().mean(-1), offset.sin().mean(-1)
        energy = 0.5 * a * (along.square() + across.square()) + b * along
        return (self.n * energy - self.log_partition.to(energy)).to(common_dtype(value, self.phase))

    def score(self, value: Tensor) -> Tensor:
        """``d/d theta_i log p = a mean_j sin(theta_j - theta_i) + b sin(psi - theta_i)``, 1/rad: the drift over D."""
        offset, a, b = self._with_offset(value)
        cos, sin = offset.cos(), offset.sin()
        score = (a * sin.mean(-1)).unsqueeze(-1) * cos - (a * cos.mean(-1) + b).unsqueeze(-1) * sin
        return score.reshape(score.shape[:-1] + self.event_shape).to(common_dtype(value, self.phase))

    def entropy(self) -> Tensor:
        """Differential entropy in nats, ``log Z - n (a E R^2 / 2 + b E cos(theta_j - psi))``, shape ``batch_shape``."""
        energy = 0.5 * self._a * self._mean_square() + self._b * self._mean_cosine()
        return (self.log_partition - self.n * energy).to(self.phase.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Exact independent draws in ``[-pi, pi)``, shape ``(*sample_shape, *batch_shape, *event_shape)``."""
        shape, batch = Size(sample_shape), self.batch_shape
        uniform = torch.rand(
            (*batch, shape.numel()), generator=generator, dtype=torch.float64, device=self.phase.device
        )
        v, kappa = (x.movedim(-1, 0).reshape(shape + batch) for x in self._field(self._radial.quantile(uniform)))
        direction = VonMises(self.phase.double(), kappa).sample(generator=generator)
        phases = VonMises(direction, v).sample((self.n,), generator=generator)
        return to_circle(phases.movedim(0, -1).reshape(shape + batch + self.event_shape), self.phase.dtype)

    def _with_offset(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``theta - psi`` with the oscillators in a row, a and b, in float64 on the device of ``value``."""
        wide = value.double().flatten(-len(self.event_shape))
        return wide - self.phase.to(wide).unsqueeze(-1), self._a.to(wide), self._b.to(wide)

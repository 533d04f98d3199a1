"""The equilibrium laws of eq. (3): what the equations leave invariant, and what each method makes of it."""

import math

import pytest
import torch
from scipy import special, stats
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.schedule import Schedule
from circsde.solvers import METHODS, sdeint
from circsde.torus import order_parameter
from strategies import COUPLINGS, assert_agree, dense_weights, random_angles

K, K_REF, D, PSI = 3.0, 0.5, 0.8, 0.7
FALSE_ALARM = 1e-6  # of each t-test below, all seeded

PATH_GRAPH = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
SYMMETRIC: dict[str, tuple[Coupling, Tensor]] = {
    "one oscillator": (GlobalCoupling(), torch.ones(1, 1)),
    "two oscillators": (GlobalCoupling(), torch.full((2, 2), 0.5)),
    "ring of three": (LocalCoupling(1), torch.ones(3, 3).double() / 3),
    "reflecting row of three": (
        LocalCoupling(1, "reflecting"),
        torch.tensor([[2, 1, 0], [1, 1, 1], [0, 1, 2]]).double() / 3,
    ),
    "path of three": (GraphCoupling(PATH_GRAPH, normalise=False), PATH_GRAPH),
}


def frozen(event: tuple[int, ...], coupling: Coupling, reference: float | Tensor = PSI) -> KuramotoSDE:
    """The equation with constant rates K, K_ref and D."""
    return KuramotoSDE(event, coupling, Schedule.constant(K, K_REF, D, horizon=100.0), reference)


def energy(theta: Tensor, weights: Tensor, reference: float | Tensor) -> Tensor:
    """``U = -K/2 sum_ij c_ij cos(theta_i - theta_j) - K_ref sum_i cos(theta_i - psi)`` of ``(batch, n)`` angles."""
    pairs = weights.to(theta) * (theta[:, :, None] - theta[:, None, :]).cos()
    return -0.5 * K * pairs.sum((1, 2)) - K_REF * (theta - reference).cos().sum(1)


def applied_generator(sde: KuramotoSDE, theta: Tensor, mode: Tensor, noise: float = D) -> Tensor:
    """``L u = f . grad u + D laplacian u`` of ``u = cos(m . theta)`` and ``sin(m . theta)``, shape ``(batch, 2)``."""
    mode = mode.to(theta)
    phase, along = theta @ mode, sde.drift(0.0, theta) @ mode
    decay = noise * mode.square().sum()
    return torch.stack([-along * phase.sin() - decay * phase.cos(), along * phase.cos() - decay * phase.sin()], -1)


@pytest.mark.parametrize("name", [name for name in COUPLINGS if name != "graph"])
def test_under_mutual_coupling_the_drift_is_minus_the_gradient_of_the_energy(name: str) -> None:
    coupling, event = COUPLINGS[name]
    psi = random_angles(*event, seed=1)
    theta = random_angles(3, *event, seed=2).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(theta.flatten(1), dense_weights(name), psi.flatten()).sum(), theta)
    assert_agree(frozen(event, coupling, psi).drift(0.0, theta.detach()), -gradient)


def asymmetry(coupling: Coupling, event: tuple[int, ...]) -> float:
    """The largest entry of the Jacobian of the drift less its transpose: zero where it is a gradient."""
    sde, theta = frozen(event, coupling), random_angles(1, *event)
    jacobian = torch.autograd.functional.jacobian(lambda x: sde.drift(0.0, x), theta)  # type: ignore[no-untyped-call]
    n = theta.numel()
    matrix: Tensor = jacobian.reshape(n, n)
    return float((matrix - matrix.T).abs().max())


def test_the_drift_on_a_graph_divided_by_unequal_degrees_is_no_gradient() -> None:
    assert asymmetry(GraphCoupling(PATH_GRAPH, normalise=False), (3,)) < 1e-14
    assert asymmetry(GraphCoupling(PATH_GRAPH), (3,)) > 0.1
    assert asymmetry(LocalCoupling(2, "reflecting"), (5, 6)) < 1e-14


def quadrature_miss(sde: KuramotoSDE, weights: Tensor) -> float:
    """The largest ``|E_pi[L u]|`` over modes up to 2, by the trapezoid rule, which is spectrally accurate."""
    n, points = len(weights), {1: 400, 2: 120, 3: 40}[len(weights)]
    axis = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    theta = torch.cartesian_prod(*[axis] * n).reshape(-1, n)
    p = (-energy(theta, weights, PSI) / D).softmax(0)
    modes = torch.cartesian_prod(*[torch.arange(-2, 3)] * n).reshape(-1, n)
    return max((p @ applied_generator(sde, theta, mode)).abs().max().item() for mode in modes)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_the_gibbs_law_is_invariant_by_quadrature(name: str) -> None:
    coupling, weights = SYMMETRIC[name]
    assert quadrature_miss(frozen((len(weights),), coupling), weights) < 1e-11


def test_quadrature_tells_a_law_that_is_not_invariant() -> None:
    assert quadrature_miss(frozen((3,), GraphCoupling(PATH_GRAPH)), PATH_GRAPH) > 0.1
    rotating = KuramotoSDE((1,), None, Schedule.constant(K, K_REF, D), PSI, natural_frequency=1.0)
    assert quadrature_miss(rotating, torch.ones(1, 1)) > 0.1


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_exact_draws_of_the_mean_field_law_average_the_generator_to_zero(n: int) -> None:
    sde = frozen((n,), GlobalCoupling())
    theta = MeanFieldGibbs(n, K, K_REF, D, PSI).sample((20_000,), generator=torch.Generator().manual_seed(n))
    modes = torch.zeros(4, n, dtype=torch.float64)
    modes[0, 0], modes[1, 0], modes[1, 1], modes[2, :2], modes[3] = 1, 1, -1, 1, 1  # one, a pair, a sum, all
    for mode in modes:
        for values in applied_generator(sde, theta, mode).T:
            assert stats.ttest_1samp(values, 0.0).pvalue > FALSE_ALARM


def test_a_law_that_is_hotter_by_a_tenth_is_told_apart_by_its_draws() -> None:
    theta = MeanFieldGibbs(10, K, K_REF, D, PSI).sample((20_000,), generator=torch.Generator().manual_seed(1))
    mode = torch.tensor([1.0, -1.0] + [0.0] * 8)
    values = applied_generator(frozen((10,), GlobalCoupling()), theta, mode, noise=1.1 * D)
    assert stats.ttest_1samp(values[:, 0], 0.0).pvalue < FALSE_ALARM


KAPPA = 2.0  # of the single phase below, with D = 1
CONSTANT = {1.0: 0.6, 2.0: 0.5}  # bias <= C h^p of E cos 2(theta - psi), p = the invariant order; for h <= 0.4


def bias_of_one_phase(method: str, h: float) -> tuple[float, float]:
    """``E cos 2(theta - psi)`` less its value in the von Mises law, and its standard error, after 8 units of time.

    From a uniform start, of which e^-13 is left.
    """
    schedule = Schedule.constant(0.0, KAPPA, 1.0, horizon=10.0)
    sde, theta0 = KuramotoSDE((1,), NoCoupling(), schedule, PSI), random_angles(100_000, 1).float()
    end = sdeint(sde, theta0, (0.0, 8.0), dt=h, method=method, generator=1).theta[-1].double()
    values = (2 * (end - PSI)).cos()
    exact = special.ive(2, KAPPA) / special.ive(0, KAPPA)
    return values.mean().item() - float(exact), values.std().item() / math.sqrt(len(values))


@pytest.mark.parametrize("method", METHODS)
def test_a_phase_settles_to_the_von_mises_law_up_to_a_bias_of_the_claimed_order(method: str) -> None:
    """Bound plus five standard errors: false alarm rate 6e-7 for each step size, were the bias at its bound."""
    order = METHODS[method].invariant_order
    for h in (0.4, 0.2):
        bias, error = bias_of_one_phase(method, h)
        assert abs(bias) < CONSTANT[order] * h**order + 5 * error


def test_euler_maruyama_settles_to_a_law_that_a_method_of_order_two_may_not_have() -> None:
    bias, error = bias_of_one_phase("euler_maruyama", 0.2)
    assert abs(bias) > CONSTANT[2.0] * 0.2**2 + 5 * error


def synchrony_miss(method: str) -> float:
    """``E R^2`` of ten oscillators started from their exact law, 2 units of time in steps of 0.1, less the exact one.

    In excess of five standard errors.
    """
    law = MeanFieldGibbs(10, K, K_REF, D, PSI)
    theta0 = law.sample((20_000,), generator=torch.Generator().manual_seed(0)).float()
    end = sdeint(frozen((10,), GlobalCoupling()), theta0, (0.0, 2.0), dt=0.1, method=method, generator=1).theta[-1]
    R2 = order_parameter(end.double(), -1)[0].square()
    miss = abs(R2.mean().item() - law.mean_square_order_parameter.item())
    return miss - 5 * R2.std().item() / math.sqrt(len(R2))


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.invariant_order == 2])
def test_ten_oscillators_stay_in_their_exact_law(method: str) -> None:
    assert synchrony_miss(method) < 0.5 * 0.1**2


def test_ten_oscillators_leave_their_exact_law_under_euler_maruyama() -> None:
    assert synchrony_miss("euler_maruyama") > 0.5 * 0.1**2

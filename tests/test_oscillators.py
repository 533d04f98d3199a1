"""Lags, signed and learnt weights, harmonics, triads, forcing: against double and triple loops, and autograd."""

import copy
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import networkx
import numpy as np
import pytest
import scipy.integrate
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circsde.adjacency import as_matrix
from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import DenseCoupling, GraphCoupling
from circsde.harmonics import DaidoSDE, FieldSDE, SimplicialCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.matching.jacobian import drift_step
from circsde.models.analytic import FokkerPlanckScore
from circsde.models.checkpoint import describe, rebuild
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers import integrate
from circsde.solvers.brownian import Brownian
from circsde.solvers.fused import fused
from circsde.solvers.integrate import sdeint
from circsde.solvers.registry import find_method
from circsde.studies.forward import forward
from strategies import SCHEDULE, adjacency, assert_agree, dense_weights, random, random_angles, seeds

N = 6
SIGNED = random(N, N, seed=3)
LAGS: dict[str, float | Tensor] = {"one": 0.7, "each": random(N, seed=4)}
EDGES = random(N, N, seed=5)
GLOBAL = torch.full((N, N), 1.0 / N, dtype=torch.float64)


def ring() -> Tensor:
    """Weights of a window of radius 1, as a matrix."""
    eye = torch.eye(N, dtype=torch.float64)
    return (eye + eye.roll(1, 0) + eye.roll(-1, 0)) / 3.0


COUPLINGS: dict[str, tuple[Coupling, Callable[[], Tensor], float | Tensor]] = {
    **{f"global, {name}": (GlobalCoupling(lag), lambda: GLOBAL, lag) for name, lag in LAGS.items()},
    **{f"local, {name}": (LocalCoupling(1, lag=lag), ring, lag) for name, lag in LAGS.items()},
    **{f"graph, {name}": (GraphCoupling(adjacency(), lag=lag), lambda: dense_weights("graph"), lag)
       for name, lag in {**LAGS, "edges": EDGES}.items()},
    "graph, signed": (GraphCoupling(SIGNED, normalise=False), lambda: SIGNED, 0.0),
    **{f"dense, {name}": (DenseCoupling(SIGNED, lag=lag), lambda: SIGNED, lag)
       for name, lag in {**LAGS, "none": 0.0, "edges": EDGES}.items()},
}  # fmt: skip

names = st.sampled_from(list(COUPLINGS))
times = st.floats(0.0, 1.0)


def equation(name: str, seed: int = 0, schedule: Schedule = SCHEDULE) -> KuramotoSDE:
    psi, w = random_angles(N, seed=seed), random(N, seed=seed + 1)
    return KuramotoSDE((N,), COUPLINGS[name][0], schedule, psi, w)


def loops(name: str, sde: KuramotoSDE, t: float, theta: Tensor) -> Tensor:
    """Eq. (1) with lags, by a double loop over oscillators."""
    _, weights, lag = COUPLINGS[name]
    K, K_ref, _ = sde.schedule.at(t)
    alpha = torch.as_tensor(lag, dtype=torch.float64)
    alpha = alpha.expand(N, N) if alpha.ndim in (0, 2) else alpha[:, None].expand(N, N)
    drift = torch.empty_like(theta)
    for b, row in enumerate(theta.tolist()):
        for i in range(N):
            heard = sum(weights()[i, j].item() * math.sin(row[j] - row[i] - alpha[i, j].item()) for j in range(N))
            pull = K_ref * math.sin(sde.reference_phase[i].item() - row[i])
            drift[b, i] = sde.natural_frequency[i].item() + K * heard + pull
    return drift


def trace(sde: SDE, t: float, theta: Tensor) -> Tensor:
    """The trace of the drift's Jacobian, by autograd."""
    jacobian: Tensor = torch.func.vmap(torch.func.jacrev(lambda x: sde.drift(t, x[None])[0]))(theta)
    return jacobian.diagonal(dim1=1, dim2=2).sum(1)


@given(names, seeds, times)
def test_the_drift_is_the_double_loop_over_pairs(name: str, seed: int, t: float) -> None:
    sde, theta = equation(name, seed), random_angles(2, N, seed=seed + 2)
    assert_agree(sde.drift(t, theta), loops(name, sde, t, theta), 1e-12)


@given(names, seeds, times)
def test_the_divergence_is_the_trace_of_the_jacobian(name: str, seed: int, t: float) -> None:
    sde, theta = equation(name, seed), random_angles(2, N, seed=seed + 2)
    assert_agree(sde.divergence(t, theta), trace(sde, t, theta), 1e-11)


@given(names, seeds, st.floats(-7.0, 7.0))
def test_a_common_turn_turns_everything(name: str, seed: int, angle: float) -> None:
    sde, theta = equation(name, seed), random_angles(2, N, seed=seed + 2)
    turned = KuramotoSDE((N,), sde.coupling, SCHEDULE, sde.reference_phase + angle, sde.natural_frequency)
    assert_agree(turned.drift(0.3, theta + angle), sde.drift(0.3, theta), 1e-11)


@given(names, seeds)
def test_a_mirror_image_has_the_opposite_lag(name: str, seed: int) -> None:
    """``theta -> -theta`` with w and alpha of the other sign turns the drift round; with the same alpha it does not."""
    coupling, _, lag = COUPLINGS[name]
    theta, sde = random_angles(2, N, seed=seed), KuramotoSDE((N,), coupling, SCHEDULE)
    mirrored = dict(sde.coupling.arguments) | {"lag": -torch.as_tensor(lag, dtype=torch.float64)}
    other = KuramotoSDE((N,), type(coupling)(**mirrored), SCHEDULE)
    assert_agree(other.drift(0.3, -theta), -sde.drift(0.3, theta), 1e-12)
    if not name.endswith(("none", "signed")):
        assert (sde.drift(0.3, -theta) + sde.drift(0.3, theta)).abs().max() > 1e-3


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("method", ["euler_maruyama", "heun", "sra1", "leimkuhler_matthews"])
def test_compiled_loops_follow_the_step_by_step_solve(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sde, theta0 = equation(name), random_angles(5, N)

    def solve() -> Tensor:
        return sdeint(sde, theta0, (0.0, 0.4, 1.0), method=method, n_steps=10, generator=1).lifted

    with monkeypatch.context() as patch:
        patch.setattr(integrate, "fused", lambda *_: None)
        steps = solve()
    taken: list[bool] = []

    def watched(*given: Any) -> Any:
        chosen = fused(*given)
        taken.append(chosen is not None)
        return chosen

    monkeypatch.setattr(integrate, "fused", watched)
    assert (solve() - steps).abs().max() < 1e-11
    assert taken == [True]


@pytest.mark.parametrize("name", ["global, each", "local, one", "graph, edges", "dense, edges"])
def test_the_mobius_methods_follow_a_lagged_field(name: str) -> None:
    """Without noise a step of mobius_strang has order 2: a tenth of the step, a hundredth of the error."""
    sde = equation(name, schedule=Schedule.constant(2.0, 0.5, 0.0))
    theta0 = random_angles(2, N)
    exact = scipy.integrate.solve_ivp(
        lambda t, y: loops(name, sde, t, torch.from_numpy(y.reshape(2, N))).flatten().numpy(),
        (0.0, 0.5), theta0.flatten().numpy(), rtol=1e-10, atol=1e-10,
    ).y[:, -1].reshape(2, N)  # fmt: skip
    errors = [
        np.abs(sdeint(sde, theta0, (0.0, 0.5), method="mobius_strang", n_steps=n).lifted[-1].numpy() - exact).max()
        for n in (20, 40)
    ]
    assert 3.3 < errors[0] / errors[1] < 4.7


@pytest.mark.parametrize("name", ["global, one", "global, each", "local, one", "local, each", "graph, edges"])
def test_the_adjoint_transport_is_that_of_the_jacobian(name: str) -> None:
    """Exactly, and in a window to ``(h K)^3``: by autograd, with the determinant's gradient by differences."""
    sde, theta, h = equation(name, schedule=Schedule.constant(4.0, 2.0, 1.0)), random_angles(2, N), 0.02
    step, v = drift_step(sde, 0.0, h, theta), random(2, N)

    def moved(x: Tensor) -> Tensor:
        return x + h * sde.drift(0.0, x[None])[0]

    M = torch.func.vmap(torch.func.jacrev(moved))(theta)
    window = (h * 4.0) ** 3 if name.startswith("local") else 1e-13
    assert_agree(step.apply(v), (M.mT @ v[..., None])[..., 0], 1e-13)
    assert (step.solve(v) - torch.linalg.solve(M.mT, v)).abs().max() < window * (1.0 + v.abs().max())
    log_det = torch.func.vmap(torch.func.grad(lambda x: torch.linalg.slogdet(torch.func.jacrev(moved)(x)).logabsdet))(
        theta
    )
    assert (step.log_det_gradient - log_det).abs().max() < (2.0 * (h * 4.0) ** 2 / 3 if window > 1e-13 else 1e-13)


@pytest.mark.parametrize("name", [name for name in COUPLINGS if not name.endswith(("none", "signed"))])
def test_with_a_lag_there_is_no_equilibrium_to_be_had(name: str) -> None:
    sde = KuramotoSDE((N,), COUPLINGS[name][0], Schedule.constant(1.0, 0.5, 1.0))
    for law in (sde.settled_law, sde.terminal_law):
        with pytest.raises(ValueError, match="with a phase lag the drift is no gradient .* no Gibbs law; give prior="):
            law()
    assert sde.coupling.pair_weight((N,)) is None
    free = KuramotoSDE((N,), COUPLINGS[name][0], Schedule.constant(0.0, 0.5, 1.0)).settled_law()
    assert isinstance(free, VonMises)
    assert free.concentration.mean() == 0.5


def test_two_lagged_oscillators_are_not_taken_for_those_whose_score_is_known() -> None:
    with pytest.raises(ValueError, match="the exact score is known for oscillators that are independent"):
        FokkerPlanckScore(KuramotoSDE((2,), GlobalCoupling(0.3), SCHEDULE), VonMises(0.0, 1.0)).law  # noqa: B018


def test_oscillators_that_repel_one_another_have_no_law_here() -> None:
    repelling = DenseCoupling(-torch.ones(3, 3))
    with pytest.raises(ValueError, match="repel one another, by weights -1, is not known"):
        KuramotoSDE((3,), repelling, Schedule.constant(1.0, 0.0, 1.0)).settled_law()


def test_equal_dense_weights_settle_as_global_coupling_does() -> None:
    rates = Schedule.constant(2.0, 0.0, 1.0)
    dense = KuramotoSDE((3,), DenseCoupling(torch.full((3, 3), 1.0 / 3, dtype=torch.float64)), rates).settled_law()
    assert_agree(
        dense.log_prob(random_angles(4, 3)), KuramotoSDE((3,), None, rates).settled_law().log_prob(random_angles(4, 3))
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor([0.1, math.nan])])
@pytest.mark.parametrize("make", [GlobalCoupling, lambda lag: DenseCoupling(torch.ones(2, 2), lag=lag)])
def test_a_lag_that_is_not_finite_is_refused(make: Callable[..., Coupling], value: float | Tensor) -> None:
    with pytest.raises(ValueError, match="lag must be finite"):
        make(lag=value)


@pytest.mark.parametrize("coupling", [GlobalCoupling(torch.zeros(4)), GraphCoupling(adjacency(), lag=torch.zeros(4))])
def test_a_lag_of_another_shape_is_refused(coupling: Coupling) -> None:
    with pytest.raises(ValueError, match=r"lag must be a number or have the event shape \(6,\), got \(4,\)"):
        KuramotoSDE((N,), coupling)


def test_a_matrix_is_taken_from_every_library() -> None:
    matrix = adjacency().numpy()
    given = [scipy.sparse.csr_matrix(matrix), scipy.sparse.coo_array(matrix), torch.from_numpy(matrix), matrix]
    given.append(networkx.from_numpy_array(matrix, create_using=networkx.DiGraph))
    x = random(2, N)
    for each in given:
        assert_agree(GraphCoupling(each).mean(x), GraphCoupling(adjacency()).mean(x))
        assert_agree(DenseCoupling(each).mean(x), x @ adjacency().T)
    assert as_matrix(networkx.path_graph(3)).to_dense().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_reach_weights_lags_and_what_is_solved(sparse: bool) -> None:
    theta0, weights = random_angles(2, 3), random(3, 3, seed=1).abs().requires_grad_()
    edges, each = random(3, 3, seed=2).requires_grad_(), random(3, seed=3).requires_grad_()

    def end(weights: Tensor, lag: Tensor) -> Tensor:
        coupling = GraphCoupling(weights, lag=lag, normalise=False) if sparse else DenseCoupling(weights, lag=lag)
        return sdeint(KuramotoSDE((3,), coupling, SCHEDULE), theta0, (0.0, 0.3), n_steps=2, generator=0).lifted[-1]

    for lag in (edges, each):
        assert torch.autograd.gradcheck(end, (weights, lag))


def test_learnt_weights_and_lags_are_parameters_of_the_equation_and_train() -> None:
    """A network of four oscillators learns from its velocities the weights and the lag of another."""
    true = KuramotoSDE((4,), DenseCoupling(random(4, 4, seed=1), lag=0.4), Schedule.constant(1.0))
    weights, lag = torch.nn.Parameter(torch.zeros(4, 4).double()), torch.nn.Parameter(torch.zeros(()).double())
    sde = KuramotoSDE((4,), DenseCoupling(weights, lag=lag), Schedule.constant(1.0))
    assert {id(p) for p in sde.parameters()} == {id(weights), id(lag)}
    alone = torch.nn.Parameter(torch.tensor(0.1))
    assert [id(p) for p in KuramotoSDE((2,), GlobalCoupling(alone)).parameters()] == [id(alone)]
    theta, optimiser = (
        random_angles(200, 4),
        torch.optim.LBFGS(sde.parameters(), max_iter=200, line_search_fn="strong_wolfe"),
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (sde.drift(0.0, theta) - true.drift(0.0, theta)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    off = ~torch.eye(4, dtype=torch.bool)
    turned = weights.detach() * torch.exp(-1j * lag.detach()), random(4, 4, seed=1) * np.exp(-0.4j)
    assert (turned[0] - turned[1])[off].abs().max() < 1e-3


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_coupling_survives_copies_pickles_and_checkpoints(name: str) -> None:
    coupling = COUPLINGS[name][0]
    cos, sin = random(2, N), random(2, N, seed=1)
    coupling.field(cos, sin)
    for twin in (copy.deepcopy(coupling), pickle.loads(pickle.dumps(coupling)), rebuild(describe(coupling))):
        for actual, expected in zip(twin.field(cos, sin), coupling.field(cos, sin), strict=True):
            assert_agree(actual, expected)


def test_weights_that_are_changed_in_place_are_seen() -> None:
    coupling, x = DenseCoupling(torch.eye(3)), random(1, 3)
    coupling.mean(x)
    coupling.weights.mul_(2.0)
    assert_agree(coupling.mean(x), 2.0 * x)


def triads(sde_coupling: SimplicialCoupling, weights: Tensor, theta: Sequence[float], i: int) -> float:
    """``p``, ``q`` and ``r`` terms of one oscillator, by loops over one, two and three others."""
    p, q, r, c = sde_coupling.pairs, sde_coupling.triangles, sde_coupling.tetrahedra, weights[i].tolist()
    alpha, mine = float(sde_coupling.lag), theta[i]

    def terms() -> Iterator[float]:
        for j in range(N):
            yield p * c[j] * math.sin(theta[j] - mine - alpha)
            for k in range(N):
                yield q * c[j] * c[k] * math.sin(2 * theta[j] - theta[k] - mine - alpha)
                for m in range(N):
                    yield r * c[j] * c[k] * c[m] * math.sin(theta[j] + theta[k] - theta[m] - mine - alpha)

    return sum(terms())


@pytest.mark.parametrize(("inner", "weights"), [(GlobalCoupling(), lambda: GLOBAL), (LocalCoupling(1), ring)])
@pytest.mark.parametrize("lag", [0.0, 0.6])
def test_triads_are_the_triple_loop(inner: Coupling, weights: Callable[[], Tensor], lag: float) -> None:
    coupling = SimplicialCoupling(inner, 0.8, -1.3, 0.7, lag)
    sde, theta = KuramotoSDE((N,), coupling, Schedule.constant(1.5)), random_angles(2, N)
    expected = [[1.5 * triads(coupling, weights(), row, i) for i in range(N)] for row in theta.tolist()]
    assert_agree(sde.drift(0.0, theta), torch.tensor(expected, dtype=torch.float64), 1e-12)
    assert_agree(sde.divergence(0.0, theta), trace(sde, 0.0, theta), 1e-12)
    default = Coupling.self_response(coupling, theta.cos(), theta.sin())
    assert_agree(coupling.self_response(theta.cos(), theta.sin()), torch.as_tensor(default), 1e-12)
    with pytest.raises(ValueError, match="is not known"):
        KuramotoSDE((N,), SimplicialCoupling(inner, 1.0, 1.0), Schedule.constant(1.0)).settled_law()


@pytest.mark.parametrize("lag", [0.0, 0.3])
def test_several_harmonics_are_the_double_loop(lag: float) -> None:
    harmonics: dict[int, float | tuple[float, float]] = {1: 0.5, 2: (-0.7, 0.4), 3: 0.2}
    psi, w, theta = random_angles(N), random(N), random_angles(2, N, seed=1)
    sde = DaidoSDE(N, GlobalCoupling(lag), Schedule.constant(1.5, 0.3, 1.0), psi, w, harmonics=harmonics)
    expected = torch.empty_like(theta)
    for b, row in enumerate(theta.tolist()):
        for i in range(N):
            pairs = [row[j] - row[i] for j in range(N)]
            heard = [0.5 * math.sin(d - lag) - 0.7 * math.sin(2 * d - 0.4) + 0.2 * math.sin(3 * d) for d in pairs]
            expected[b, i] = w[i] + 1.5 * sum(heard) / N + 0.3 * math.sin(psi[i] - row[i])
    assert_agree(sde.drift(0.0, theta), expected, 1e-12)
    assert_agree(sde.divergence(0.0, theta), trace(sde, 0.0, theta), 1e-11)
    real, imaginary, turned = sde.impulse(0.0, 1.0, theta)
    sinusoidal = imaginary * theta.cos() - real * theta.sin() + turned
    assert_agree(sinusoidal + sde.remainder(0.0, theta), expected, 1e-12)
    with pytest.raises(ValueError, match="knows no law at its horizon: give prior="):
        sde.settled_law()


def test_harmonics_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="positive whole numbers, got 0"):
        DaidoSDE(3, harmonics={0: 1.0})
    with pytest.raises(ValueError, match=r"that of the coupling: give it lag=0\.3"):
        DaidoSDE(3, harmonics={1: (1.0, 0.3)})


def test_a_reference_phase_that_moves_is_read_at_its_time() -> None:
    rates, speeds = Schedule.linear((1.0, 1.0, 0.5), (1.0, 3.0, 0.5)), random(N)

    def phase(t: Any) -> Tensor:
        return speeds * torch.as_tensor(t, dtype=torch.float64)

    sde, theta = KuramotoSDE((N,), None, rates, phase), random_angles(2, N)
    still = KuramotoSDE((N,), None, rates, speeds * 0.4)
    assert_agree(sde.drift(0.4, theta), still.drift(0.4, theta))
    assert_agree(sde.divergence(0.4, theta), still.divergence(0.4, theta))
    each = sde.drift(torch.tensor([0.4, 0.7], dtype=torch.float64), theta)
    assert_agree(each[1:], sde.drift(0.7, theta[1:]))
    real, imaginary, _ = sde.impulse(0.0, 0.5, theta)
    mean = theta.cos().mean(1, keepdim=True), theta.sin().mean(1, keepdim=True)
    for i, w in enumerate(speeds.tolist()):
        pull = scipy.integrate.quad(lambda t, w: (1 + 2 * t) * math.cos(w * t), 0, 0.5, args=(w,))[0]
        assert (real[:, i] - 0.5 * mean[0][:, 0] - pull).abs().max() < 1e-8
    path = Brownian((0.0, 1.0), tuple(theta.shape), 0, theta.dtype)
    assert fused(sde, theta.dtype, theta, (0.0, 1.0), find_method("heun"), path, 2) is None
    assert fused(still, theta.dtype, theta, (0.0, 1.0), find_method("heun"), path, 2) is not None
    with pytest.raises(ValueError, match="with a reference phase that moves there is no stationary law"):
        sde.settled_law()


@pytest.mark.parametrize("method", ["heun", "mobius_strang", "noise_flow_noise"])
def test_an_oscillator_follows_a_forcing_that_turns(method: str) -> None:
    """In the frame of the forcing, ``psi = 2 t``, it locks where ``w - 2 = K_ref sin(theta - psi)``."""
    sde = KuramotoSDE(1, NoCoupling(), Schedule.constant(0.0, 4.0, 0.0, horizon=20.0), lambda t: 2.0 * t, 1.0)
    end = sdeint(sde, torch.zeros(1, 1).double(), (0.0, 20.0), method=method, n_steps=400).lifted[-1].item()
    assert end - 40.0 == pytest.approx(-math.asin(0.25), abs=2e-3)


def test_any_field_is_an_equation_whose_mobius_flow_is_taken() -> None:
    def field(t: Any, theta: Tensor) -> Tensor:
        z: Tensor = (1.0 + t) * torch.exp(1j * theta).mean(1, keepdim=True)
        return z

    sde, w = FieldSDE(field, 0.0, natural_frequency=random(N)), random(N)
    twin = KuramotoSDE(N, None, Schedule.linear((1.0, 0.0, 0.0), (2.0, 0.0, 0.0)), natural_frequency=w)
    theta0 = random_angles(3, N)
    assert_agree(sde.drift(0.3, theta0), twin.drift(0.3, theta0))
    for method in ("heun", "mobius_strang"):
        ends = [sdeint(each, theta0, (0.0, 1.0), method=method, n_steps=5).lifted[-1] for each in (sde, twin)]
        assert_agree(ends[0], ends[1], 1e-12)


def test_the_study_of_a_lagged_process_predicts_nothing_that_it_does_not_know() -> None:
    sde = KuramotoSDE((40,), GlobalCoupling(0.5), Schedule.constant(2.0, 0.0, 0.5))
    dataset = forward(
        sde, random_angles(2, 40), method="heun", n_steps=10, frames=2, generator=torch.Generator().manual_seed(0)
    )
    assert "mean_field_order_parameter" not in dataset
    assert "terminal_density" not in dataset

"""The law of a numerical scheme: published figures, quadrature, Monte Carlo, orders, and methods that are broken."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.integrate import dblquad, quad
from torch import Tensor

from circsde.coupling import GlobalCoupling
from circsde.exact import problems
from circsde.kuramoto import KuramotoSDE
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.laws.mixture import WrappedNormalMixture
from circsde.mobius import mobius_flow
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers import METHODS, Method, Noise, sdeint
from circsde.solvers.methods import Step, heun_step, sra1_step
from circsde.studies.exact import law_convergence, stationary_convergence
from circsde.studies.grids import graded_grid
from circsde.studies.markov import Grid, markov_matrix, operator
from circsde.studies.propagation import propagate
from circsde.studies.transfer import numerical_law, stationary_law, transfer_operator

LADDER = (5, 10, 20, 40, 80)
TABLE = {
    "euler_maruyama": ("1.92e-01", "1.03e-01", "5.20e-02", "2.61e-02", "1.30e-02"),
    "heun": ("1.12e-01", "3.22e-02", "7.97e-03", "1.93e-03", "4.73e-04"),
    "mobius_strang": ("8.14e-02", "2.56e-02", "6.88e-03", "1.75e-03", "4.41e-04"),
}
STEEP = KuramotoSDE((1,), schedule=Schedule.linear((0.0, 1.0, 0.2), (0.0, 4.0, 2.0)), reference_phase=0.3)


def left_end_heun(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:
    """Heun with the noise amplitude at the left end of the step, not averaged: broken."""
    g = sde.diffusion(t)
    slope = sde.drift(t, theta)
    predicted = theta + h * slope + g * noise.dW
    return theta + 0.5 * h * (slope + sde.drift(t + h, predicted)) + g * noise.dW


def without_area(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:
    """SRA1 with dZ replaced by its mean given dW: broken."""
    return sra1_step(sde, t, h, theta, Noise(noise.dW, 0.5 * h * noise.dW))


def broken(name: str, step: object) -> Method:
    return dataclasses.replace(METHODS[name], name=f"broken {name}", step=step)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", TABLE)
def test_weak_error_table_is_reproduced(method: str) -> None:
    """The published figures of eq. (9), three digits each; a figure half-way between two may round to either."""
    errors = law_convergence("published_doubled", [method], LADDER).moment_error.to_numpy()[0]
    for error, figure in zip(errors, TABLE[method], strict=True):
        assert abs(error - float(figure)) <= 0.5001 * 10.0 ** (int(figure[-3:]) - 2), (error, figure)


def uneven(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:  # noqa: ARG001
    """Noise of an amplitude that depends on the angle: straight along the noise, and not the same everywhere."""
    step: Tensor = (1.0 + 0.3 * theta.cos()) * noise.dW
    return theta + step


def bent(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:  # noqa: ARG001
    """The same bend along the noise at every angle."""
    step: Tensor = noise.dW + 0.3 * (noise.dW / h**0.5).cos()
    return theta + step


STEPS = {name: METHODS[name].step for name in ("euler_maruyama", "heun", "mobius_strang")}


@pytest.mark.parametrize("step", [*STEPS.values(), uneven, bent], ids=[*STEPS, "uneven", "bent"])
def test_operator_is_the_expectation_of_the_step(step: Step) -> None:
    grid = Grid(41)
    matrix = markov_matrix(step, STEEP, 0.3, 0.2, grid, levy_area=False)

    def image(theta: float, x: float) -> float:
        wide = torch.tensor([[theta]], dtype=torch.float64)
        return step(STEEP, 0.3, 0.2, wide, Noise(torch.full_like(wide, math.sqrt(0.2) * x))).item()

    for j, m in ((0, 1), (13, 2), (30, 5)):
        u, theta = np.cos(m * grid.axis), grid.axis[j]
        expected = quad(
            lambda x, theta=theta, m=m: math.cos(m * image(theta, x)) * math.exp(-0.5 * x * x), -9, 9, limit=200
        )[0] / math.sqrt(2 * math.pi)
        assert (matrix @ u)[j] == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_operator_of_a_method_with_two_noises_is_the_expectation_of_its_step() -> None:
    grid, h = Grid(31), 0.3
    matrix = markov_matrix(sra1_step, STEEP, 0.3, h, grid, levy_area=True)
    theta = grid.axis[7]

    def integrand(y: float, x: float) -> float:
        wide = torch.tensor([[theta]], dtype=torch.float64)
        dW = torch.full_like(wide, math.sqrt(h) * x)
        dZ = 0.5 * h * dW + h**1.5 / math.sqrt(12.0) * y
        value = sra1_step(STEEP, 0.3, h, wide, Noise(dW, dZ)).item()
        return math.cos(2 * value) * math.exp(-0.5 * (x * x + y * y)) / (2 * math.pi)

    expected = dblquad(integrand, -6, 6, -6, 6, epsabs=1e-7)[0]
    assert (matrix @ np.cos(2 * grid.axis))[7] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.parts])
def test_operator_of_a_method_with_parts_is_that_of_its_step(name: str) -> None:
    """The product of the parts against both noises of the whole step at once: halves are independent normals."""
    grid, method = Grid(49), METHODS[name]
    whole = markov_matrix(method.step, STEEP, 0.3, 0.1, grid, levy_area=True)
    waves = np.exp(1j * np.outer(grid.axis, np.arange(6)))
    assert np.abs((operator(method, STEEP, 0.3, 0.1, grid) - whole) @ waves).max() < 1e-9
    swapped = dataclasses.replace(method, parts=method.parts[::-1])
    assert np.abs((operator(swapped, STEEP, 0.3, 0.1, grid) - whole) @ waves).max() > 1e-4


@pytest.mark.parametrize("h", [1e-3, 0.1, 5.0])
def test_operator_is_exact_for_waves_of_every_length(h: float) -> None:
    """Pure diffusion multiplies ``e^{ikx}`` by ``exp(-k^2 D h)``, from almost 1 to below rounding."""
    grid = Grid(65)
    sde = KuramotoSDE((1,), schedule=Schedule.constant(diffusion=1.0, horizon=10.0))
    matrix = markov_matrix(METHODS["euler_maruyama"].step, sde, 0.0, h, grid, levy_area=False)
    for k in (1, 7, 31):
        wave = np.exp(1j * k * grid.axis)
        assert np.abs(matrix @ wave - math.exp(-(k**2) * h) * wave).max() < 1e-12


def test_operator_keeps_probability() -> None:
    for name in METHODS:
        matrix = markov_matrix(METHODS[name].step, STEEP, 0.1, 0.25, Grid(49), levy_area=METHODS[name].levy_area)
        assert np.abs(matrix.sum(1) - 1.0).max() < 1e-12


def test_exact_variances_leave_pure_diffusion_without_error() -> None:
    study = law_convergence("wrapped_brownian_motion", ["heun", "mobius_strang", "euler_maruyama"], (2, 4))
    assert study.moment_error.to_numpy()[:2].max() < 1e-13
    assert study.moment_error.to_numpy()[2].min() > 0.01


CELLS = [
    ("euler_maruyama", "published_doubled", 7),
    ("heun", "stiff_well", 25),
    ("sra1", "noise_dominated", 4),
    ("mobius_strang", "published", 6),
    ("leimkuhler_matthews", "von_mises_well", 5),
    ("heun", "drifting", 9),
    ("mobius_strang", "reverse", 12),
    ("euler_maruyama", "reverse", 15),
    pytest.param("heun", "two_coupled", 5, marks=pytest.mark.slow),
    ("mobius_strang", "stiff_well", 10),
    ("noise_flow_noise", "stiff_well", 10),
    ("noise_flow_noise", "reverse", 12),
    pytest.param("noise_flow_noise", "two_coupled", 5, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("method", "name", "steps"), CELLS)
def test_errors_agree_with_monte_carlo(method: str, name: str, steps: int) -> None:
    """Every observable within 4.5 standard errors of 60,000 paths: a false-alarm rate below 1e-4 per cell (seeded)."""
    problem = problems.get(name)
    law = numerical_law(METHODS[method], problem.sde, problem.start, steps, 1e-6)
    theta = problem.sample(60_000, torch.Generator().manual_seed(4))
    ends = sdeint(problem.sde, theta, (0.0, problem.sde.horizon), method=method, n_steps=steps, generator=5).theta[-1]
    for observable in problem.observables:
        values = observable.function(ends)
        assert abs(values.mean().item() - law.mean(observable.function)) < 4.5 * values.std().item() / math.sqrt(60_000)


@pytest.mark.parametrize("name", METHODS)
def test_weak_orders_are_those_claimed(name: str) -> None:
    for problem in ("von_mises_well", "noise_dominated"):
        study = law_convergence(problem, [name], (40, 80))
        claimed = float(study.claimed_order[0])
        assert float(study.order[0, 1]) > claimed - 0.05, problem
    assert float(study.order[0, 1]) < claimed + 0.3


@pytest.mark.parametrize(("name", "order"), [("heun", 2.0), ("srk", 2.0), ("midpoint", 1.0), ("euler", 1.0)])
def test_weak_orders_of_torchsde_are_those_that_the_comparison_tells(name: str, order: float) -> None:
    study = law_convergence("noise_dominated", [f"torchsde:{name}"], (40, 80))
    assert float(study.order[0, 1]) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("name", METHODS)
def test_stationary_orders_are_those_claimed(name: str) -> None:
    study = stationary_convergence("von_mises_well", [name], (40, 80))
    assert float(study.order[0, 1]) == pytest.approx(float(study.claimed_order[0]), abs=0.1)


def test_noise_at_the_left_end_is_caught() -> None:
    study = law_convergence("noise_dominated", [broken("heun", left_end_heun), "heun"], (40, 80))
    assert float(study.order[0, 1]) == pytest.approx(1.0, abs=0.1)
    assert float(study.order[1, 1]) == pytest.approx(2.0, abs=0.1)


def test_missing_area_is_caught() -> None:
    study = law_convergence("von_mises_well", [broken("sra1", without_area), "sra1"], (40, 80))
    assert float(study.moment_error[0, 1]) > 1.2 * float(study.moment_error[1, 1])


def test_stationary_law_is_what_many_steps_lead_to() -> None:
    sde = KuramotoSDE((1,), schedule=Schedule.constant(reference=2.0, diffusion=1.0, horizon=30.0))
    start = WrappedNormalMixture((1.0,), (1.0,), (0.5,))
    for name in ("heun", "leimkuhler_matthews"):
        fixed = stationary_law(METHODS[name], sde, 0.2)
        late = numerical_law(METHODS[name], sde, start, 150)
        assert np.abs(fixed.low_moments() - late.low_moments()).max() < 1e-9


def test_output_of_leimkuhler_matthews_is_not_the_state_that_it_carries() -> None:
    unobserved = dataclasses.replace(METHODS["leimkuhler_matthews"], observe=None)
    study = stationary_convergence("von_mises_well", [unobserved], (40, 80))
    assert float(study.order[0, 1]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_flow_and_reverse_equation_lead_back_to_the_start() -> None:
    """Exact score, exact law at the horizon: the laws converge to the two modes at the methods' orders."""
    for name in ("reverse", "probability_flow"):
        study = law_convergence(name, ["heun"], (40, 80), tolerance=1e-6)
        assert float(study.total_variation[0, 1]) < 2e-3
        assert float(study.order[0, 1]) == pytest.approx(2.0, abs=0.25)


def test_laws_of_maps_are_composed_not_projected() -> None:
    """Five coarse steps of a flow against the mean over 20,000 equally spaced points."""
    problem = problems.get("probability_flow")
    law = numerical_law(METHODS["heun"], problem.sde, problem.start, 5)
    theta = torch.arange(20_000, dtype=torch.float64)[:, None] * (2 * math.pi / 20_000)
    ends = sdeint(problem.sde, theta, (0.0, 1.0), method="heun", n_steps=5, generator=0).theta[-1, :, 0]
    assert not isinstance(problem.start, tuple)
    weight = problem.start.log_prob(theta[:, 0]).exp() * (2 * math.pi / 20_000)
    for m in (1, 2, 5):
        expected = (weight * (m * ends).cos()).sum().item()
        assert law.grid.moments(law.density)[m].real == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_uncoupled_phases_make_the_product_of_their_laws() -> None:
    start = WrappedNormalMixture((1.0,), (2.0,), (0.7,)), WrappedNormalMixture((1.0,), (-1.0,), (0.8,))
    schedule = Schedule.linear((0.0, 1.0, 0.5), (0.0, 2.0, 1.0))
    pair = numerical_law(METHODS["heun"], KuramotoSDE((2,), GlobalCoupling(), schedule), start, 3, 1e-4)
    alone = [numerical_law(METHODS["heun"], KuramotoSDE((1,), schedule=schedule), law, 3) for law in start]
    first, second = (law.low_moments()[3:8] for law in alone)
    assert np.abs(pair.low_moments() - np.multiply.outer(first, second)).max() < 1e-5


def frozen(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:  # noqa: ARG001
    """The Mobius flow in the field of the start of the step: broken where oscillators are coupled."""
    return mobius_flow(theta, *sde.impulse(t, t + h, theta))


@pytest.mark.slow
def test_a_field_at_the_start_of_the_flow_is_caught() -> None:
    """Between two half noises the order is then 1; the next test has 2 with the field in the middle."""
    method = METHODS["noise_flow_noise"]
    early = dataclasses.replace(method, name="early field", parts=(method.parts[0], frozen, method.parts[2]))
    study = stationary_convergence("two_coupled_well", [early], (20, 40))
    assert float(study.order[0, 1]) == pytest.approx(1.0, abs=0.1)


def test_noise_flow_noise_takes_half_the_evaluations_to_a_hundredth() -> None:
    for name, evaluations in (("stiff_well", 95), ("drifting", 7)):
        ours = law_convergence(name, ["noise_flow_noise"], (evaluations,))
        strang = law_convergence(name, ["mobius_strang"], (evaluations // 2,))
        assert ours.moment_error.item() <= 1e-2 < strang.moment_error.item(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobius_strang", "noise_flow_noise"])
def test_coupled_phases_settle_at_their_gibbs_law(name: str) -> None:
    study = stationary_convergence("two_coupled_well", [name], (20, 40))
    assert float(study.order[0, 1]) == pytest.approx(2.0, abs=0.1)
    law = stationary_law(METHODS[name], problems.get("two_coupled_well").sde, 0.025)
    assert law.against(MeanFieldGibbs(2, 3.0, 1.0, 1.0))[0] < 1e-3
    assert law.against(MeanFieldGibbs(2, 2.5, 1.0, 1.0))[0] > 1e-2


def test_divergence_and_distance_fall_as_they_must() -> None:
    """KL falls like the square of the distance, and Pinsker's inequality binds them."""
    study = law_convergence("published_doubled", ["euler_maruyama"], (20, 40, 80))
    distance, divergence = study.total_variation.to_numpy()[0], study.divergence.to_numpy()[0]
    assert (distance <= np.sqrt(divergence / 2)).all()
    assert divergence[1] / divergence[2] == pytest.approx(4.0, rel=0.1)
    assert distance[1] / distance[2] == pytest.approx(2.0, rel=0.05)


def test_resolution_says_how_far_a_finer_grid_is() -> None:
    problem = problems.get("published_doubled")
    assert not isinstance(problem.start, tuple)
    law = numerical_law(METHODS["heun"], problem.sde, problem.start, 10)
    fine = Grid(201)
    density = problem.start.log_prob(fine.theta[:, 0]).exp().numpy()
    moments = fine.moments(propagate(METHODS["heun"], problem.sde, density, fine, graded_grid(1.0, 10)))
    assert np.abs(moments[:6] - law.grid.moments(law.density)[:6]).max() < 1e-12
    assert law.resolution < 1e-9
    coarse = numerical_law(METHODS["heun"], problems.get("reverse").sde, problems.get("reverse").start, 5)
    assert coarse.resolution > 1e-8


def test_operator_is_reported_with_its_resolution(tmp_path: Path) -> None:
    data = transfer_operator("heun", STEEP, 0.1, t=0.2)
    assert float(data.fourier_tail) < 1e-9
    assert float(data.quadrature_error) < 1e-12
    assert data.theta.attrs["units"] == "rad"
    theta = data.theta.to_numpy()
    rough = transfer_operator("heun", STEEP, 0.1, t=0.2, points=9)
    assert float(rough.fourier_tail) > 1e-6
    image = data.operator.to_numpy() @ np.cos(theta)
    direct = markov_matrix(heun_step, STEEP, 0.2, 0.1, Grid(len(theta)), levy_area=False) @ np.cos(theta)
    assert np.array_equal(image, direct)
    path = tmp_path / "operator.nc"
    data.to_netcdf(path)
    with xr.open_dataset(path) as again:
        xr.testing.assert_identical(again, data)


def test_operator_on_the_torus_moves_densities() -> None:
    data = transfer_operator("euler_maruyama", problems.get("two_coupled_well").sde, 0.1, points=15)
    p = data.stationary
    moved = (p * data.operator).sum(("theta", "theta_2"))
    assert np.abs(moved.to_numpy() - p.to_numpy()).max() < 1e-12
    assert float(p.sum() * (2 * math.pi / 15) ** 2) == pytest.approx(1.0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"exist for one or two phases, got event shape \(3,\)"):
        transfer_operator("heun", KuramotoSDE((3,)), 0.1)
    with pytest.raises(ValueError, match="unknown method 'rk4'; choose one of euler_maruyama, heun"):
        transfer_operator("rk4", STEEP, 0.1)
    with pytest.raises(ValueError, match="must be odd, .* got 48"):
        transfer_operator("heun", STEEP, 0.1, points=48)
    with pytest.raises(ValueError, match="law of 'mean_field_10' is not known"):
        law_convergence("mean_field_10")
    with pytest.raises(ValueError, match="'drifting' has no known stationary law"):
        stationary_convergence("drifting")

"""A method with memory: its law on pairs of angles, its orders, and steps of uneven lengths."""

import math

import pytest
import torch
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.exact import problems
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers import Method, Noise, sdeint
from circsde.solvers.adams import ADAMS_BASHFORTH2
from circsde.solvers.methods import HEUN, Step
from circsde.solvers.multistep import MULTISTEP
from circsde.studies import select, study
from circsde.studies.exact import law_convergence
from circsde.studies.memory import remembers_one_state
from circsde.studies.transfer import numerical_law


def remembering(last: int) -> Method:
    """Adams-Bashforth with the weights of equal steps, of 2 or 3 slopes."""

    def begin() -> Step:
        slopes: list[Tensor] = []

        def step(sde: SDE, t: float, h: float, theta: Tensor, noise: Noise) -> Tensor:
            slopes.insert(0, sde.drift(t, theta))
            weights = {1: (1.0,), 2: (1.5, -0.5), 3: (23 / 12, -16 / 12, 5 / 12)}[min(last, len(slopes))]
            ahead = sum((w * f for w, f in zip(weights, slopes, strict=False)), 0.0 * theta)
            moved: Tensor = theta + h * ahead + (sde.variance(t, t + h) / h) ** 0.5 * noise.dW
            return moved

        return step

    return Method("remembering", lambda *given: begin()(*given), None, 1.0, 1.0, nfe=1, begin=begin)


@pytest.mark.parametrize("name", ["von_mises_well", "noise_dominated", "drifting"])
def test_its_weak_order_is_2_at_one_evaluation(name: str) -> None:
    table = law_convergence(name, [ADAMS_BASHFORTH2], (80, 160))
    assert table.order[0, 1].item() == pytest.approx(2.0, abs=0.1)
    assert table.drift_evaluations[0].values.tolist() == [81, 161]


def test_it_takes_half_of_the_error_of_heun_at_equal_evaluations() -> None:
    ours, heun = (law_convergence("von_mises_well", [m], [n]) for m, n in ((ADAMS_BASHFORTH2, 80), (HEUN, 40)))
    assert ours.moment_error.item() < 0.6 * heun.moment_error.item()


@pytest.mark.parametrize(("name", "steps"), [("drifting", 9), ("stiff_well", 40), ("published", 7)])
def test_its_law_on_pairs_is_that_of_its_paths(name: str, steps: int) -> None:
    """Every observable within 4.5 standard errors of 60,000 paths: a false-alarm rate below 1e-4 (seeded)."""
    problem = problems.get(name)
    law = numerical_law(ADAMS_BASHFORTH2, problem.sde, problem.start, steps)
    theta = problem.sample(60_000, torch.Generator().manual_seed(4))
    span = (0.0, problem.sde.horizon)
    ends = sdeint(problem.sde, theta, span, method="adams_bashforth2", n_steps=steps, generator=5).theta[-1]
    heun = numerical_law(HEUN, problem.sde, problem.start, steps)
    apart = 0.0
    for observable in problem.observables:
        values = observable.function(ends)
        error = values.std().item() / math.sqrt(60_000)
        assert abs(values.mean().item() - law.mean(observable.function)) < 4.5 * error
        apart = max(apart, abs(heun.mean(observable.function) - law.mean(observable.function)) / error)
    assert apart > 9.0  # another law of that order would not pass


def test_its_stationary_bias_is_of_order_2() -> None:
    """Ten times the relaxation time, from the law of rest: what is left of it is the method's."""
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=2.0, diffusion=1.0, horizon=10.0))
    rest = VonMises(0.0, 2.0)
    errors = [numerical_law(ADAMS_BASHFORTH2, sde, rest, n).against(rest)[0] for n in (200, 400)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


def test_on_uneven_steps_its_order_stays() -> None:
    """Steps 2 : 1 in turns; the weights of equal steps have order 1 there."""
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=2.0, diffusion=0.0))
    theta0 = torch.tensor([[2.8]], dtype=torch.float64)
    exact = 2 * (torch.tan(theta0 / 2) * math.exp(-2.0)).atan()

    def order(method: Method) -> float:
        errors = []
        for pairs in (40, 80):
            grid = [(i + part) / pairs for i in range(pairs) for part in (0.0, 2.0 / 3.0)] + [1.0]
            end = sdeint(sde, theta0, (0.0, 1.0), grid=grid, method=method).lifted[-1]
            errors.append((end - exact).abs().item())
        return math.log2(errors[0] / errors[1])

    assert order(ADAMS_BASHFORTH2) == pytest.approx(2.0, abs=0.1)
    assert order(remembering(2)) < 1.5


def test_longer_memories_are_sampled() -> None:
    sde = problems.get("drifting").sde
    assert remembers_one_state(ADAMS_BASHFORTH2, sde)
    assert remembers_one_state(remembering(2), sde)
    assert not remembers_one_state(remembering(3), sde)
    assert not remembers_one_state(MULTISTEP, problems.get("reverse").sde)
    with pytest.raises(ValueError, match="remembers earlier steps, so that no transfer operator tells its law"):
        numerical_law(remembering(3), sde, problems.get("drifting").start, 5)


def test_it_is_studied_and_chosen_by_name_without_sampling() -> None:
    assert study("drifting", "weak", ["adams_bashforth2"], [10, 20]).attrs["evidence"] == "transfer operators"
    choice = select("von_mises_well", 2e-3, methods=["euler_maruyama", "heun", "adams_bashforth2"])
    assert (choice.method, choice.n_steps, choice.verdict) == ("adams_bashforth2", 17, "resolved")

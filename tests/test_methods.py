"""The cost of a step: a method makes as many expensive evaluations as it claims."""

from collections import Counter
from collections.abc import Callable

import pytest
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers.ancestral import ANCESTRAL
from circsde.solvers.correctors import langevin
from circsde.solvers.integrate import sdeint
from circsde.solvers.methods import METHODS, Method
from circsde.solvers.multistep import DPMPP_2M, MULTISTEP, MULTISTEP3
from circsde.typing import Angles, Tangent, Time
from strategies import ALL_METHODS, SINUSOIDAL, random_angles

RATES = Schedule.constant(0.5, 0.5, 1.0)
ON_REVERSED = ALL_METHODS | {
    method.name: method for method in (ANCESTRAL, MULTISTEP, DPMPP_2M, MULTISTEP3, langevin("heun", 0.1))
}
ON_REVERSED |= {"langevin mobius_strang": langevin("mobius_strang", 0.1)}


class Counted(KuramotoSDE):
    """Eq. (1), which counts the evaluations of its field; closed forms and all."""

    def __init__(self, coupling: Coupling) -> None:
        super().__init__((4,), coupling, RATES)
        self.calls: Counter[str] = Counter()

    def drift(self, t: Time, theta: Angles) -> Tangent:
        self.calls["field"] += 1
        return super().drift(t, theta)

    def impulse(self, t0: float, t1: float, theta: Angles) -> tuple[Tensor, Tensor, float | Tensor]:
        self.calls["field"] += 1
        return super().impulse(t0, t1, theta)

    coupled = KuramotoSDE.coupled


def claimed_and_counted(sde: SDE, method: Method, count: Callable[[], int]) -> tuple[int, int]:
    """Evaluations claimed and counted in steps 6 to 10 of a solve; those before the first step are not counted."""
    nfe, calls = [], []
    for steps in (5, 10):
        before = count()
        nfe.append(sdeint(sde, random_angles(2, 4), (0.0, 0.9), n_steps=steps, method=method, generator=0).stats.nfe)
        calls.append(count() - before)
    return nfe[1] - nfe[0], calls[1] - calls[0]


@pytest.mark.parametrize("coupling", [NoCoupling(), GlobalCoupling()], ids=["independent", "coupled"])
@pytest.mark.parametrize("name", ALL_METHODS)
def test_on_an_equation_evaluations_of_its_field_are_counted(name: str, coupling: Coupling) -> None:
    sde, method = Counted(coupling), ALL_METHODS[name]
    claimed, counted = claimed_and_counted(sde, method, lambda: sde.calls["field"])
    assert claimed == counted == 5 * method.evaluations(sde)


@pytest.mark.parametrize("coupling", [NoCoupling(), GlobalCoupling()], ids=["independent", "coupled"])
@pytest.mark.parametrize("name", ON_REVERSED)
def test_on_a_reversed_equation_evaluations_of_the_score_are_counted(name: str, coupling: Coupling) -> None:
    calls = 0

    def score(t: Time, theta: Tensor) -> Tensor:  # noqa: ARG001
        nonlocal calls
        calls += 1
        return -theta.sin()

    sde, method = reverse(KuramotoSDE((4,), coupling, RATES), score), ON_REVERSED[name]
    claimed, counted = claimed_and_counted(sde, method, lambda: calls)
    assert claimed == counted == 5 * method.evaluations(sde)


def test_a_general_equation_has_its_drift_counted() -> None:
    calls = 0

    def drift(t: Time, theta: Tensor) -> Tensor:  # noqa: ARG001
        nonlocal calls
        calls += 1
        return -theta.sin()

    for name in set(METHODS) - SINUSOIDAL:
        claimed, counted = claimed_and_counted(SDE(drift, 0.3, 1.0), METHODS[name], lambda: calls)
        assert claimed == counted == 5 * METHODS[name].nfe


def test_a_coupled_field_takes_more_evaluations_than_the_score_of_its_reversal() -> None:
    mobius, sde = METHODS["mobius_strang"], KuramotoSDE((4,))
    assert (mobius.evaluations(sde), mobius.evaluations(reverse(sde, lambda t, x: -x.sin()))) == (4, 2)
    one = METHODS["noise_flow_noise"]
    equations = KuramotoSDE((4,), NoCoupling()), sde, reverse(sde, lambda t, x: -x.sin())
    assert [one.evaluations(equation) for equation in equations] == [1, 2, 2]

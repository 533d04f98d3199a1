"""The 1/N correction to the mean-field limit against exact laws of finitely many oscillators."""

import math

import numpy as np
import pytest
from scipy.special import ive

from circsde.exact.finite_size import FiniteSizeLaw, finite_size
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.fokker_planck_torus import fokker_planck_torus
from circsde.laws.mixture import WrappedNormalMixture
from circsde.schedule import Schedule

START = WrappedNormalMixture((1.0,), (1.5,), (0.8,))


def gibbs_mean(n: int, a: float, b: float) -> float:
    """``E cos theta_1`` of the n-oscillator Gibbs law with a = K/D, b = K_ref/D: ``(1/n) d log Z / db`` (eq. 3)."""

    def log_normaliser(b: float) -> float:
        r = np.linspace(1e-9, a + b + 2.0 + 12 * math.sqrt(a / n), 100001)
        log = np.log(r) - n * (r - b) ** 2 / (2 * a) + np.log(ive(0, n * b * r / a)) + n * (np.log(ive(0, r)) + r)
        return float(log.max() + math.log(np.trapezoid(np.exp(log - log.max()), r)))

    h = 1e-4
    return (log_normaliser(b + h) - log_normaliser(b - h)) / (2 * h * n)


@pytest.mark.slow
def test_equilibrium_of_n_oscillators_is_reproduced_to_second_order() -> None:
    law = finite_size(Schedule.constant(1.5, 2.0, 2.0, horizon=5.0), START, reference_phase=1.5, tolerance=1e-8)
    turn = np.exp(-1.5j)
    second, first = {}, {}
    for n in (10, 20, 40):
        exact = gibbs_mean(n, 0.75, 1.0)
        second[n] = n**2 * (exact - (law.moment(5.0, 1, n) * turn).real)
        first[n] = n * (exact - (law.moment(5.0, 1, 10**12) * turn).real)
    assert second[40] == pytest.approx(second[20], rel=0.1)
    assert abs(second[40]) < 0.3
    assert first[40] == pytest.approx(first[20], rel=0.1)
    assert abs(first[40]) > 0.03


def correction_error(law: FiniteSizeLaw, schedule: Schedule, frequency: float) -> tuple[float, float]:
    """The misses of ``E z_1`` and ``E z_1 z_{-1}`` for two oscillators, whose law is known."""
    exact = fokker_planck_torus(schedule, (START, START), reference_phase=0.3, natural_frequency=(frequency, frequency))
    pair = 0.5 + 0.5 * exact.moment(1.0, 1, -1)
    return abs(law.moment(1.0, 1, 2) - exact.moment(1.0, 1, 0)), abs(law.pair(1.0, 1, -1, 2) - pair)


def test_weakly_coupled_pairs_are_exact_to_first_order_in_the_coupling() -> None:
    """Every 1/N^2 term is of second order in K; so halving K divides the error by four. Without c it would halve."""
    errors = []
    for K in (0.05, 0.025):
        schedule = Schedule.linear((K, 0.5, 0.2), (2 * K, 1.0, 0.8))
        law = finite_size(schedule, START, reference_phase=0.3, natural_frequency=1.2)
        errors.append(correction_error(law, schedule, 1.2))
    assert errors[0][0] / errors[1][0] == pytest.approx(4.0, abs=0.6)
    assert errors[0][1] / errors[1][1] == pytest.approx(4.0, abs=0.6)


def test_limit_is_the_mean_field_law() -> None:
    schedule = Schedule.linear((1.0, 0.5, 0.5), (4.0, 0.5, 1.0))
    law, limit = finite_size(schedule, START), fokker_planck(schedule, START)
    assert max(abs(law.moment(0.7, k, 10**15) - limit.moment(0.7, k)) for k in (-2, 0, 1, 3)) < 1e-10
    start = law.pair(0.0, 1, -1, 7)
    assert abs(start - (abs(limit.moment(0.0, 1)) ** 2 * 6 / 7 + 1 / 7)) < 1e-12


def test_uncoupled_oscillators_need_no_correction() -> None:
    law = finite_size(Schedule.constant(0.0, 1.0, 0.5), START)
    assert abs(law.moment(1.0, 1, 1) - law.moment(1.0, 1, 10**15)) < 1e-12
    z = law.moment(1.0, 1, 1)
    assert abs(law.pair(1.0, 1, -1, 4) - (0.75 * abs(z) ** 2 + 0.25)) < 1e-11


def test_unresolved_starts_are_refused() -> None:
    with pytest.raises(ValueError, match="6 modes do not resolve the initial law"):
        finite_size(Schedule.constant(1.0), START, modes=6)

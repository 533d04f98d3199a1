"""Finitely many oscillators approach the mean-field limit at rate 1/N, with the coefficient that theory gives."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from circsde.contracts import SampledLaw
from circsde.exact import problems
from circsde.exact.finite_size import finite_size
from circsde.schedule import Schedule
from circsde.solvers import sdeint
from circsde.studies.limit import limit_convergence

PROBLEM = problems.get("mean_field_100")
SCHEDULE = Schedule.linear((1.0, 0.5, 0.5), (4.0, 0.5, 1.0))


def start() -> SampledLaw:
    assert not isinstance(PROBLEM.start, tuple)
    return PROBLEM.start


@pytest.fixture(scope="module")
def study() -> xr.Dataset:
    return limit_convergence(SCHEDULE, start(), (32, 100, 250), paths=600, steps=64)


def test_the_difference_falls_like_one_over_n(study: xr.Dataset) -> None:
    """Within three standard errors, and 0.05 for the correction of order 1/N^2 (false alarms: 0.3 %)."""
    assert study["resolved"].all()
    assert study["order_standard_error"].item() < 0.06
    assert abs(study["order"].item() - 1.0) < 0.05 + 3 * study["order_standard_error"].item()


def test_the_difference_is_the_one_that_theory_predicts(study: xr.Dataset) -> None:
    """Within four standard errors and 3/N^2 of the correction that an expansion gives (false alarms: 0.1 %)."""
    theory = finite_size(SCHEDULE, start())
    for n in (100, 250):
        predicted = [theory.moment(1.0, k, n) - theory.moment(1.0, k, 10**12) for k in (1, 2, 3)]
        parts = np.array([part for moment in predicted for part in (moment.real, moment.imag)])
        one = study.sel(oscillators=n)
        reach = (one["upper"] - one["lower"]) / 2
        assert (abs(one["difference"] - parts) < 2.04 * reach + 3 / n**2).all()
        assert (abs(one["difference"]) > 3 * reach).any()  # it differs from zero


def test_plain_averages_would_take_ten_times_the_paths(study: xr.Dataset) -> None:
    """What the control variates are for: the standard error of a plain mean of E sin 2 theta at N = 100."""
    theta = PROBLEM.sample(400, torch.Generator().manual_seed(0))
    ends = sdeint(PROBLEM.sde, theta, (0.0, 1.0), n_steps=20, generator=0).theta[-1]
    plain = (2 * ends).sin().mean(1).std().item() / 400**0.5
    reach = (study["upper"] - study["lower"]).sel(oscillators=100, observable="E sin 2 theta").item() / 2
    ours = reach / 1.96 * 2**0.5  # the standard error of half as many paths
    assert plain**2 > 10 * ours**2


def test_too_few_paths_for_the_control_variates_are_refused() -> None:
    with pytest.raises(ValueError, match="48 control variates need more than 96 paths, got 50"):
        limit_convergence(SCHEDULE, start(), (10,), paths=50)


def test_control_variates_cost_degrees_of_freedom(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 100 paths and 48 of them, Student's t has 51 degrees: 2.008 standard errors, not 1.960."""
    one = np.full(6, 1.0)
    monkeypatch.setattr("circsde.studies.limit._differences", lambda *_: (one, one))
    table = limit_convergence(SCHEDULE, start(), (10, 20, 40), paths=100)
    assert (table["upper"] - table["difference"]).values == pytest.approx(np.full((3, 6), stats.t.ppf(0.975, 51)))

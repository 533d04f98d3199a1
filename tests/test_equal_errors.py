"""Grids of equal local errors: found from the score, they make errors equal, and a selection offers them."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from circsde.exact import problems
from circsde.sde import SDE
from circsde.solvers.mesh import local_errors
from circsde.solvers.methods import METHODS
from circsde.streams import torch_stream
from circsde.studies import Simulation, exact_convergence, select
from circsde.studies.choice import Choice
from circsde.studies.equal_errors import equal_errors
from circsde.studies.grids import common_grid, graded_grid


def spread(times: list[float]) -> float:
    """The largest local error along the flow over the least, on fresh paths."""
    problem = problems.get("probability_flow")
    errors = local_errors(problem.sde, problem.sample(512, torch_stream(1, "starts")), times, METHODS["heun"])
    return float(errors.max() / errors.min())


def test_on_the_grid_that_is_found_local_errors_are_equal_to_a_factor_of_three() -> None:
    times = equal_errors(problems.get("probability_flow"))
    assert spread([*times]) < 3.0
    assert spread([*graded_grid(1.0, len(times) - 1, 2.0)]) > 30.0


def test_the_grid_is_the_same_with_noise() -> None:
    assert equal_errors(problems.get("reverse")) == equal_errors(problems.get("probability_flow"))


def test_along_the_flow_heun_errs_less_on_it_than_on_grids_of_a_power() -> None:
    errors = {
        power: exact_convergence("probability_flow", methods=["heun"], steps=[6], power=power, resolution=1e-5)[
            "error"
        ].item()
        for power in (0.0, 1.0, 1.5, 2.0, 3.0)
    }
    assert errors[0.0] < 0.7 * min(errors[power] for power in errors if power)


def test_a_selection_offers_it_and_its_settings_are_of_that_grid(tmp_path: Path) -> None:
    choice = select("probability_flow", 3e-2, methods=["heun"])
    assert choice.dataset["solver"].values.tolist() == ["heun", "heun, power 2", "heun, equal errors"]
    assert (choice.power, choice.verdict) == (0.0, "resolved")
    choice.dataset.to_netcdf(tmp_path / "choice.nc")
    for one in (choice, Choice(xr.load_dataset(tmp_path / "choice.nc"))):
        assert one.n_steps is not None
        assert one.settings["grid"] == graded_grid(1.0, one.n_steps, equal_errors(problems.get("probability_flow")))


def test_steps_are_shared_out_alike_on_every_grid_of_them() -> None:
    times = (0.0, 0.1, 0.3, 1.0)
    assert set(graded_grid(1.0, 4, times)) < set(common_grid(1.0, (4, 6), times))
    np.testing.assert_allclose(graded_grid(1.0, 6, times), (0.0, 0.05, 0.1, 0.2, 0.3, 0.65, 1.0), atol=1e-15)


@pytest.mark.slow
def test_paths_are_sampled_on_it_too() -> None:
    """The same number by coupled paths as by transfer operators, within its interval."""
    exact = exact_convergence("reverse", methods=["heun"], steps=[6], power=0.0)["error"].item()
    choice = select("reverse", 0.9 * exact, methods=["heun"], steps=[6], power=[0.0], monte_carlo=True, budget=3e6)
    one = choice.dataset.sel(solver="heun, equal errors", steps=6)
    assert one["lower"].item() <= exact <= one["upper"].item()
    assert one["paths"].item() > 0


def test_only_reversed_equations_have_one() -> None:
    forward = SDE(lambda t, theta: -theta.sin(), 1.0, event_shape=(1,))
    with pytest.raises(ValueError, match="power 0, the grid of equal local errors, is for reversed equations, and SDE"):
        select(Simulation(forward), 0.1, power=[0.0, 1.0])

"""The numbers of the published code, reproduced step by step by Euler-Maruyama on the published schedule."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling
from circsde.distributions import WrappedNormal
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.sde import reverse
from circsde.solvers import sdeint
from circsde.torus import distance
from strategies import scaled_replay

TOLERANCE = 1e-4  # rad: both sides compute 99 steps in float32, whose rounding they order differently
Chain = dict[str, Tensor]


@pytest.fixture
def chain(shared_data: Callable[..., Path]) -> Chain:
    with np.load(shared_data("oracles", "published_code_chain.npz")) as arrays:
        return {name: torch.as_tensor(array) for name, array in arrays.items()}


class PerChannelRows:
    """A wrong global coupling: the mean over the rows and columns of each channel, not over the channels too."""

    def check(self, event_shape: object) -> None:
        pass

    def mean(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1), keepdim=True)

    def self_weight(self, event_shape: object) -> float:
        raise NotImplementedError


def equation(chain: Chain, coupling: Coupling) -> KuramotoSDE:
    schedule = Schedule.published(100, reference_weight=float(chain["reference_weight"]))
    return KuramotoSDE(chain["theta0"].shape[1:], coupling, schedule)


def forward_error(chain: Chain, coupling: Coupling) -> list[float]:
    """The largest error over the oscillators after each recorded number of steps."""
    grid = [i / 100 for i in range(100)]
    ts = [0.0, *(grid[i] for i in chain["forward_steps"].tolist())]
    path = scaled_replay(chain["forward_noise"], grid)
    solution = sdeint(equation(chain, coupling), chain["theta0"], ts, method="euler_maruyama", grid=grid, brownian=path)
    assert solution.theta.dtype == torch.float32
    return distance(solution.theta[1:], chain["forward_theta"]).amax((1, 2, 3, 4)).tolist()


def reverse_error(chain: Chain, rate_index_of_first_step: int) -> list[float]:
    """The largest error, with the stand-in score ``-sin theta``, whose first step reads the rates of that index."""
    sde = reverse(equation(chain, GlobalCoupling()), lambda t, theta: -theta.sin())
    grid = [(100 - rate_index_of_first_step + i) / 100 for i in range(100)]
    ts = [grid[0], *(grid[i] for i in chain["reverse_steps"].tolist())]
    path = scaled_replay(chain["reverse_noise"], grid)
    start = chain["forward_theta"][-1]
    solution = sdeint(sde, start, ts, method="euler_maruyama", grid=grid, brownian=path)
    return distance(solution.theta[1:], chain["reverse_theta"]).amax((1, 2, 3, 4)).tolist()


def test_forward_states_are_those_of_the_published_code(chain: Chain) -> None:
    assert max(forward_error(chain, GlobalCoupling())) < TOLERANCE


def test_averaging_within_each_channel_is_another_chain(chain: Chain) -> None:
    assert forward_error(chain, PerChannelRows())[-1] > 100 * TOLERANCE


def test_reverse_states_are_those_of_the_published_code(chain: Chain) -> None:
    assert max(reverse_error(chain, rate_index_of_first_step=99)) < TOLERANCE


def test_reading_the_rates_one_step_off_is_another_chain(chain: Chain) -> None:
    assert reverse_error(chain, rate_index_of_first_step=100)[-1] > 10 * TOLERANCE


def test_wrapped_normal_scores_are_those_of_the_published_code(chain: Chain) -> None:
    for sigma, score in zip(chain["score_sigma"], chain["score"], strict=True):
        ours = WrappedNormal(torch.zeros(()), sigma).score(chain["score_theta"])
        torch.testing.assert_close(ours, score, rtol=1e-4, atol=1e-4)

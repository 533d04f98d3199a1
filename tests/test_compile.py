"""A compiled step takes the same path as an eager one, though its noise is drawn by other threads."""

import shutil

import pytest
import torch

from circsde.coupling import LocalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.solvers import METHODS, Brownian, sdeint

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
    pytest.mark.filterwarnings("ignore"),  # of torch's compiler
]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_method_follows_the_eager_path(method: str) -> None:
    torch.compiler.reset()  # the type checks around all methods share one code object, whose compilations are limited
    sde = KuramotoSDE((8, 8), LocalCoupling(1), Schedule.linear((1, 0, 0.2), (3, 2, 1)), natural_frequency=0.5)
    theta0 = torch.randn(300, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eager, compiled = (
        sdeint(sde, theta0, (0.0, 0.5, 1.0), method=method, n_steps=20, generator=1, compile=c) for c in (False, True)
    )
    assert compiled.stats == eager.stats
    # the same operations in another order: some ulps per step, amplified by at most e^(K T) = e^2
    torch.testing.assert_close(compiled.lifted, eager.lifted, rtol=0, atol=1e-12)


def test_threads_that_draw_ahead_are_of_no_consequence_for_the_path() -> None:
    grid = tuple(i / 50 for i in range(51))
    alone, helped = (Brownian(grid, (300, 100), 3, workers=w) for w in (0, 3))
    for a, b in zip(alone.increments(grid, levy_area=True), helped.increments(grid, levy_area=True), strict=True):
        assert torch.equal(a.dW, b.dW)
        assert a.dZ is not None
        assert b.dZ is not None
        assert torch.equal(a.dZ, b.dZ)


def test_the_number_of_threads_is_restored_after_a_compiled_solve_fails() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="finite"):
            sdeint(KuramotoSDE((2,)), torch.full((1, 2), torch.nan), (0, 1), n_steps=1, compile=True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

"""A step compiled by torch takes the same path as an eager one."""

import shutil

import pytest
import torch

from circsde.coupling import LocalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Schedule
from circsde.solvers import METHODS, sdeint

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

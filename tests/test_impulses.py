"""Laws of affine samplers from single impulses: those of Gaussian chains, and what is not affine is refused."""

import pytest
import torch
from test_ancestral import HORIZON_VARIANCE, SDE_, gaussian_score
from test_ancestral import moments as propagated

from circsde.sde import SDE, reverse
from circsde.solvers.ancestral import ancestral_step
from circsde.studies.impulses import affine_law, normal_law


@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
def test_impulses_find_the_law_that_moves_from_step_to_step(stochasticity: float) -> None:
    """For a method without memory mean and variance can be moved step by step instead."""
    sde, n = reverse(SDE_, gaussian_score(0.004), stochasticity), 7
    found = normal_law("ancestral", sde, [i / n for i in range(n + 1)], 1.0, 0.004 + HORIZON_VARIANCE)
    expected = propagated(ancestral_step, 0.004, n, stochasticity)
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=1e-7, atol=0.0)


def test_what_is_not_affine_is_refused() -> None:
    with pytest.raises(ValueError, match="not affine in start and noise"):
        normal_law("heun", SDE(lambda t, theta: -theta.sin(), 1.0), (0.0, 0.5, 1.0), 0.0, 1.0)
    with pytest.raises(ValueError, match="not affine in start and noise"):
        affine_law(lambda x, xi: x + x * xi.sum(0), 2, 1.0, 1.0)

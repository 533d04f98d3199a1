r"""The law of a method that remembers its last state, on one angle: an operator on pairs of angles (eq. 9).

Its step is ``theta' = Phi(theta_before, theta) + c xi``: what it remembers is known from where the last step began, and
the noise is only added. A density on pairs ``(theta_before, theta)`` then moves to pairs
``(theta, theta')`` by

    ``E e^{ik theta'} = e^{-k^2 c^2 / 2} sum_before p(theta_before, theta) e^{ik Phi(theta_before, theta)}``

for each theta on the grid: no quadrature over the noise. That a method remembers no more is seen, not believed: after
three steps with noise, its next one is compared with that of a solution that began at the state before. (``multistep``
remembers how far it has moved, in turns, too, which pairs of angles do not tell.)
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from circsde.sde import SDE
from circsde.solvers.methods import Method
from circsde.streams import torch_stream
from circsde.studies.markov import Array, Grid, dimensions, from_waves, image_of, markov_matrix


def remembers_one_state(method: Method, sde: SDE) -> bool:
    """Whether the operator on pairs of angles tells the law of a method with memory on this equation.

    One angle, a next step that depends on the last two states only, and noise that is only added.
    """
    if method.begin is None or method.levy_area or method.observe is not None or dimensions(sde) != 1:
        return False
    h, generator = sde.horizon / 8, torch_stream(0, "checks")
    theta, noise = (torch.randn(64, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    step, states = method.begin(), [theta]
    for i in range(4):
        moved = image_of(step, sde, i * h, h, False, states[-1], noise[i : i + 1, None])
        states.append(moved[:, 0])
    times = 2 * h, 3 * h, 4 * h
    again = _images(method, sde, times, states[2], states[3], noise[3])
    if (again - states[4]).abs().max() > 1e-12:
        return False
    slopes = _images(method, sde, times, states[2], states[3], torch.tensor([-2.0, 0.0, 1.0, 3.0])).diff(dim=1)
    unit = slopes / torch.tensor([2.0, 1.0, 2.0])
    return bool((unit - unit[0, 0]).abs().max() < 1e-12)


def propagate_pairs(method: Method, sde: SDE, density: Array, grid: Grid, times: Sequence[float]) -> Array:
    """The density of the output of a method that :func:`remembers_one_state`, after steps through ``times``."""
    points, highest = grid.points, grid.points // 2
    first = markov_matrix(method.step, sde, times[0], times[1] - times[0], grid, levy_area=False)
    pairs = density[:, None] * first  # over the state before, and the state
    axis, k = grid.theta[:, 0], np.arange(highest + 1)
    before, now = axis.repeat_interleave(points)[:, None], axis.repeat(points)[:, None]
    for i in range(1, len(times) - 1):
        images = _images(method, sde, times[i - 1 : i + 2], before, now, torch.tensor([0.0, 1.0]))
        c = float(images[0, 1] - images[0, 0])
        wave = np.exp(1j * images[:, 0].numpy().reshape(points, points))
        power, means = pairs.astype(np.complex128), np.empty((points, highest + 1), dtype=np.complex128)
        for m in k:
            means[:, m] = power.sum(0)
            power *= wave
        pairs = from_waves(means * np.exp(-0.5 * (c * k) ** 2), grid)
    return np.asarray(pairs.sum(0))


@torch.no_grad()
def _images(method: Method, sde: SDE, times: Sequence[float], before: Tensor, now: Tensor, xi: Tensor) -> Tensor:
    """The next state for each pair and each of the normals, shape ``(n, len(xi))``, at the last of three times.

    Each time a solution makes one step from ``before``, without noise, to remember it, and then the one from ``now``.
    """
    images, still = [], torch.zeros(1, 1, 1, dtype=torch.float64)
    begin, middle, end = times
    for x in xi.double().tolist():
        step = method.first_step()
        image_of(step, sde, begin, middle - begin, False, before, still)
        images.append(image_of(step, sde, middle, end - middle, False, now, still + x)[:, 0, 0])
    return torch.stack(images, 1)

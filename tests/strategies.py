"""Shared by tests of the dynamics: every coupling and every method by name, small equations, paths to replay."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Custom, Schedule
from circsde.solvers.brownian import Brownian, Noise
from circsde.solvers.interop import torchsde_method
from circsde.solvers.methods import METHODS, Method
from circsde.solvers.registry import ON_REQUEST

SCHEDULE = Schedule.linear((3.0, 0.5, 0.2), (1.0, 2.0, 1.0))
TORCHSDE_NAMES = ("euler", "milstein", "srk", "heun", "midpoint", "euler_heun", "log_ode", "reversible_heun")
ALL_METHODS: dict[str, Method] = (
    METHODS | ON_REQUEST | {f"torchsde:{name}": torchsde_method(name) for name in TORCHSDE_NAMES}
)

SINUSOIDAL = {"mobius_strang", "noise_flow_noise"}
"""Methods for drifts with a sinusoidal part, which they follow exactly: they are stable at any step."""


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Reproducible normal numbers, float64."""
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_angles(*shape: int, seed: int = 0) -> Tensor:
    """Reproducible uniform angles in ``[-pi, pi)``, float64."""
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.pi * (2.0 * uniform - 1.0)


def random_waves(count: int, size: int, longest: float, seed: int = 0) -> Tensor:
    """Phases of periodic complex normal fields, all waves of at most ``longest`` periods across being as strong."""
    spectrum = torch.complex(random(count, size, size, seed=seed), random(count, size, size, seed=seed + 1))
    waves = torch.fft.fftfreq(size, 1 / size)
    field: Tensor = torch.fft.ifft2(spectrum * (torch.hypot(waves[:, None], waves) <= longest))
    return field.angle()


def assert_agree(actual: Tensor, expected: Tensor, tolerance: float = 1e-13) -> None:
    """Equal shapes, dtypes and, to ``tolerance`` absolute or relative, values."""
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def adjacency() -> Tensor:
    """Six vertices: directed weights of several sizes, a self-loop at 1, no neighbours at 5."""
    edges = {(0, 1): 1.0, (0, 2): 0.5, (1, 1): 2.0, (1, 3): 1.0, (2, 0): 0.3, (3, 4): 1.0, (4, 0): 4.0, (4, 5): 1.0}
    matrix = torch.zeros(6, 6, dtype=torch.float64)
    for (i, j), weight in edges.items():
        matrix[i, j] = weight
    return matrix


def symmetric_adjacency() -> Tensor:
    """The same graph, every edge in both directions."""
    return adjacency() + adjacency().T


COUPLINGS: dict[str, tuple[Coupling, tuple[int, ...]]] = {
    "none": (NoCoupling(), (4,)),
    "global": (GlobalCoupling(), (5,)),
    "global image": (GlobalCoupling(), (2, 3, 4)),
    "periodic ring": (LocalCoupling(2), (7,)),
    "periodic image": (LocalCoupling(1), (2, 5, 6)),
    "reflecting image": (LocalCoupling(2, "reflecting"), (5, 8)),
    "graph": (GraphCoupling(adjacency()), (6,)),
    "symmetric graph": (GraphCoupling(symmetric_adjacency(), normalise=False), (2, 3)),
}

couplings = st.sampled_from(list(COUPLINGS))
methods = st.sampled_from(list(ALL_METHODS))
seeds = st.integers(0, 2**62 - 1)
tilts = st.floats(-7.0, 7.0)


def kuramoto(name: str, seed: int = 0, schedule: Schedule = SCHEDULE) -> KuramotoSDE:
    """The equation with the coupling of that name, a reference phase and a frequency for each oscillator."""
    coupling, event = COUPLINGS[name]
    return KuramotoSDE(event, coupling, schedule, random_angles(*event, seed=seed), random(*event, seed=seed + 1))


def rebuilt(
    sde: KuramotoSDE,
    phase: Callable[[Tensor], Tensor] = torch.clone,
    frequency: Callable[[Tensor], Tensor] = torch.clone,
    coupling: Coupling | None = None,
) -> KuramotoSDE:
    """The equation with its reference phases and its frequencies changed, perhaps with another coupling."""
    psi, w = phase(sde.reference_phase), frequency(sde.natural_frequency)
    return KuramotoSDE(sde.event_shape, coupling or sde.coupling, sde.schedule, psi, w)


@dataclass(frozen=True)
class Replay:
    """A Brownian path that repeats given noise, one per step; a grid with fewer steps gets the last of them."""

    noises: tuple[Noise, ...]

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:  # noqa: ARG002
        """The recorded noise."""
        assert len(grid) <= len(self.noises) + 1
        return iter(self.noises[len(self.noises) + 1 - len(grid) :])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Replay":
        """The same path with every ``dW`` and ``dZ`` changed."""
        return Replay(tuple(Noise(change(n.dW), None if n.dZ is None else change(n.dZ)) for n in self.noises))

    def without_areas(self) -> "Replay":
        """The same path without its areas."""
        return Replay(tuple(Noise(noise.dW) for noise in self.noises))


def recorded(shape: tuple[int, ...], n_steps: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Replay:
    """A path on ``n_steps`` equal steps of ``[0, 1]``, with areas."""
    grid = tuple(i / n_steps for i in range(n_steps + 1))
    return Replay(tuple(Brownian(grid, shape, seed, dtype).increments(grid, levy_area=True)))


def scaled_replay(draws: Tensor, grid: Sequence[float]) -> Replay:
    """The path whose increments are ``sqrt(h)`` times the given standard normals, one row per step."""
    return Replay(tuple(Noise((b - a) ** 0.5 * z) for (a, b), z in zip(pairwise(grid), draws, strict=True)))


@cache
def dense_weights(name: str) -> Tensor:
    """The matrix ``c_ij`` of the coupling over flattened oscillators, entry by entry from its definition."""
    coupling, event = COUPLINGS[name]
    n = torch.Size(event).numel()
    if isinstance(coupling, NoCoupling):
        return torch.zeros(n, n, dtype=torch.float64)
    if isinstance(coupling, GlobalCoupling):
        return torch.full((n, n), 1.0 / n, dtype=torch.float64)
    if isinstance(coupling, LocalCoupling):
        return _window_weights(coupling, event)
    if name == "symmetric graph":
        return symmetric_adjacency()
    degree = adjacency().sum(1, keepdim=True)
    return adjacency() / degree.where(degree > 0, 1.0)


def _window_weights(coupling: LocalCoupling, event: tuple[int, ...]) -> Tensor:
    index = torch.arange(torch.Size(event).numel()).reshape(event)
    matrix = torch.zeros(index.numel(), index.numel(), dtype=torch.float64)
    sides, r = event[-2:], coupling.radius
    for place in torch.cartesian_prod(*(torch.arange(side) for side in event)).reshape(-1, len(event)).tolist():
        for shift in torch.cartesian_prod(*[torch.arange(-r, r + 1)] * len(sides)).reshape(-1, len(sides)).tolist():
            lead, centre = place[: -len(sides)], place[-len(sides) :]
            seen = [_reach(i + d, side, coupling) for i, d, side in zip(centre, shift, sides, strict=True)]
            matrix[index[tuple(place)], index[tuple(lead + seen)]] += 1.0 / (2 * r + 1) ** len(sides)
    return matrix


def _reach(i: int, side: int, coupling: LocalCoupling) -> int:
    """The oscillator seen at position ``i`` of a row that goes on periodically, or mirrored with its edge repeated."""
    if coupling.boundary == "periodic":
        return i % side
    folded = i % (2 * side)
    return min(folded, 2 * side - 1 - folded)


def pulse(width: float, area: float, at: float) -> Custom:
    """A rate that is a Gaussian pulse, with its integral."""

    def height(t: float | Tensor) -> float:
        return area / (width * math.sqrt(2.0 * math.pi)) * math.exp(-0.5 * ((float(t) - at) / width) ** 2)

    return Custom(height, lambda t: 0.5 * area * math.erf((float(t) - at) / (width * math.sqrt(2.0))))

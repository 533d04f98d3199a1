"""How fast are many coupled oscillators, at equal error, against packages for oscillators?

    python benchmarks/oscillators.py --quick                    # seconds: 100 oscillators
    taskset -c 0 python benchmarks/oscillators.py --out benchmarks/results/oscillators.json

``N`` oscillators of one natural frequency, global coupling ``K = 4``, noise ``D = 0.5``, from wrapped normal phases of
deviation 1.5 to time 1 by Euler-Maruyama; float64, one thread. oscillatools is timed in each of its forms: the force of
its mean field, a force that the user writes, and a matrix in numpy and in JAX. The weak error is that of
``E |z|^2``, which :mod:`circsde.exact.finite_size` knows up to 1/N^2. Without noise, and with different frequencies,
the error is the largest of any phase, against DOP853 at a tolerance of 1e-12.

That all integrate the same equation is checked: ``agreement`` is the largest difference from circsde on the same noise.
The weak error is measured once for forms that follow the same paths. No peer takes more than one path at once.

What is not installed is left out, with a note: ``pip install oscillatools jax kuramoto xgi jitcdde``. The file is not
named after the model, as it would hide the peer of that name.
"""

import importlib.util
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from report import Record, Row, keep, options
from scipy.integrate import solve_ivp
from torch import Tensor

from circsde import DenseCoupling, KuramotoSDE, Schedule, order_parameter, sdeint
from circsde.coupling import Coupling
from circsde.exact.finite_size import finite_size
from circsde.exact.problems import normal
from circsde.solvers.brownian import Noise

K, D, DEVIATION, STEPS, BATCH = 4.0, 0.5, 1.5, 50, 64
PEERS = ("jax", "jitcdde", "kuramoto", "oscillatools", "xgi")
Phases = NDArray[np.float64]
Work = Callable[[Phases, int], Phases]
"""A function from phases ``(n,)`` and a seed to the phases at time 1, not wrapped."""


@dataclass(frozen=True)
class Fed:
    """The noise that numpy's generator gives a peer, as a Brownian path."""

    seed: int
    n: int

    def increments(self, grid: Sequence[float], *, levy_area: bool) -> Iterator[Noise]:
        """Standard normals, step by step."""
        del levy_area
        draws = np.random.default_rng(self.seed).standard_normal((len(grid) - 1, self.n))
        return (Noise(torch.from_numpy(x)[None] * math.sqrt(1 / STEPS)) for x in draws)


def starts(n: int, paths: int) -> Tensor:
    """Independent phases, float64."""
    return DEVIATION * torch.randn(paths, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def frequencies(n: int) -> Phases:
    """The natural frequencies without noise."""
    return np.linspace(-1.0, 1.0, n)


def mean_field(theta: Phases) -> Phases:
    """The force of global coupling, by one sine and one cosine."""
    cos, sin = np.cos(theta), np.sin(theta)
    return np.asarray(K * (sin.mean() * cos - cos.mean() * sin))


def equation(n: int, coupling: Coupling | None = None, noise: float = D, rotating: bool = False) -> KuramotoSDE:
    """The equation of all contenders."""
    frequency = torch.from_numpy(frequencies(n)) if rotating else 0.0
    return KuramotoSDE((n,), coupling, Schedule.constant(coupling=K, diffusion=noise), natural_frequency=frequency)


def oscillatools(n: int, jax: bool) -> dict[str, tuple[str, Work]]:
    """The coupling, and the solve, of its four forms."""
    from oscillatools import accel

    still, matrix, h = np.zeros(n), np.full((n, n), K / n), 1 / STEPS

    def force_of_its_own(theta: Phases, seed: int) -> Phases:
        run = accel.integrate_noisy_kuramoto(
            theta, still, lambda x: accel.mean_field_force(x, K), diffusion=D, dt=h, n_steps=STEPS, seed=seed
        )
        return np.asarray(run.terminal_phases)

    def step(theta: Phases, seed: int) -> Phases:
        for noise in np.random.default_rng(seed).standard_normal((STEPS, n)):
            theta = accel.noisy_kuramoto_step(theta, still, mean_field, D, h, noise)
        return theta

    def networked(solve: Callable[..., Any]) -> Work:
        return lambda theta, seed: np.asarray(
            solve(theta, still, matrix, D, dt=h, n_steps=STEPS, seed=seed).terminal_phases
        )

    found: dict[str, tuple[str, Work]] = {
        "oscillatools, its mean field": ("global", force_of_its_own),
        "oscillatools, its step and a numpy force": ("global", step),
        "oscillatools, matrix in numpy": ("matrix", networked(accel.networked_noisy_trajectory)),
    }
    if jax:
        found["oscillatools, matrix in JAX"] = ("matrix", networked(accel.jax_networked_noisy_trajectory))
    return found


def timed(work: Callable[[], object], budget: float) -> list[float]:
    """Seconds of two to five calls after the first, by ``budget`` seconds; of the first alone if it takes 1.5 s."""
    spent: list[float] = []
    while len(spent) < 6 and (len(spent) < 3 or sum(spent) < budget) and max(spent, default=0.0) < 1.5:
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return spent[1:] or spent


def line(record: dict[str, Any], seconds: list[float], per: int) -> dict[str, Any]:
    """A row of the results with microseconds per step and path, and their range; printed."""
    micro = sorted(1e6 * x / per for x in seconds)
    row = record | {"us": statistics.median(micro), "range": [micro[0], micro[-1]]}
    print(*(f"{key} {value:.3g}" if isinstance(value, float) else value for key, value in row.items()), flush=True)
    return row


def weak(phases: Tensor, exact: float) -> list[float]:
    """The error of ``E |z|^2``, and its standard error."""
    square = order_parameter(phases, dim=1)[0] ** 2
    return [float(square.mean()) - exact, float(square.std()) / math.sqrt(len(square))]


def noisy(n: int, budget: float, installed: set[str]) -> list[dict[str, Any]]:
    """Euler-Maruyama, and Heun's method with a tenth of the steps, against oscillatools."""
    exact = finite_size(Schedule.constant(coupling=K, diffusion=D), normal(0.0, DEVIATION)).pair(1.0, 1, -1, n).real
    matrix = DenseCoupling(torch.full((n, n), 1 / n, dtype=torch.float64))
    equations = {"global": equation(n), "matrix": equation(n, matrix)}
    rows = []

    def own(kind: str, theta: Tensor, method: str, steps: int) -> Tensor:
        return sdeint(equations[kind], theta, (0.0, 1.0), method=method, n_steps=steps, generator=1).theta[-1]

    for kind in equations:
        for method, steps in (("euler_maruyama", STEPS), ("heun", 5)):
            many = own(kind, starts(n, 32 * BATCH if kind == "global" else 4 * BATCH), method, steps)
            about = {"case": kind, "contender": f"circsde, {method}", "steps": steps, "error": weak(many, exact)}
            for paths in (1, BATCH):
                theta = starts(n, paths)
                spent = timed(lambda k=kind, x=theta, m=method, s=steps: own(k, x, m, s), budget)  # type: ignore[misc]
                rows.append(line(about | {"paths": paths}, spent, steps * paths))
    if "oscillatools" not in installed:
        return rows
    theta = starts(n, 1)
    for name, (kind, solve) in oscillatools(n, "jax" in installed).items():
        same = sdeint(
            equations[kind], theta, (0.0, 1.0), method="euler_maruyama", n_steps=STEPS, brownian=Fed(7, n)
        ).theta[-1]
        gap = np.angle(np.exp(1j * (solve(theta[0].numpy(), 7) - same[0].numpy())))
        about = {"case": kind, "contender": name, "steps": STEPS, "agreement": float(np.abs(gap).max()), "paths": 1}
        if "numpy force" in name:
            many = torch.from_numpy(np.stack([solve(x.numpy(), i) for i, x in enumerate(starts(n, 8 * BATCH))]))
            about["error"] = weak(many, exact)
        rows.append(line(about, timed(lambda s=solve: s(theta[0].numpy(), 7), budget), STEPS))  # type: ignore[misc]
    return rows


def noiseless(n: int, budget: float, installed: set[str]) -> list[dict[str, Any]]:
    """Different frequencies and no noise: a whole solve, and the largest error of a phase."""
    theta, w, rows = starts(n, 1)[0].numpy(), frequencies(n), []
    exact = solve_ivp(lambda _, x: w + mean_field(x), (0.0, 1.0), theta, "DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    sde = equation(n, noise=0.0, rotating=True)

    def measure(name: str, work: Callable[[], Phases], steps: int | None = None, step: bool = False) -> None:
        case = "without noise, step of Euler" if step else "without noise, solve"
        error = float(np.abs(np.angle(np.exp(1j * (work() - exact)))).max())
        about = {"case": case, "contender": name, "steps": steps, "paths": 1, "error": error}
        rows.append(line(about, timed(work, budget), STEPS if step else 1))

    def own(method: str, steps: int) -> Phases:
        solved = sdeint(sde, torch.from_numpy(theta)[None], (0.0, 1.0), method=method, n_steps=steps, generator=0)
        return solved.theta[-1, 0].numpy()

    measure("circsde, heun", lambda: own("heun", 2000), 2000)
    measure("circsde, torchdiffeq:rk4", lambda: own("torchdiffeq:rk4", 40), 40)
    measure("circsde, euler_maruyama", lambda: own("euler_maruyama", STEPS), STEPS, step=True)
    if "kuramoto" in installed:
        from kuramoto import Kuramoto

        model = Kuramoto(coupling=K, dt=0.5, T=1.0, natfreqs=w)
        measure("kuramoto", lambda: np.asarray(model.run(np.ones((n, n)), theta)[:, -1]))
    if "jitcdde" in installed:
        measure("JiTCDDE, compiled", jitcdde(theta, w))
    if "xgi" in installed:
        import xgi

        size, h = n // 4, 1 / STEPS  # with all n it takes 20 s before the first step
        graph, few, speed = xgi.complete_hypergraph(size, order=1), theta[:size], w[:size]

        def euler(times: int) -> tuple[Phases, float]:
            begin = time.perf_counter()
            path, _ = xgi.simulate_kuramoto(graph, K / size, 0.0, omega=speed, theta=few, timesteps=times, dt=h)
            return path, time.perf_counter() - begin

        (path, before), (_, after) = euler(2), euler(22)
        gap = float(np.abs(path[1] - few - h * (speed + mean_field(few))).max())
        row = {"case": "without noise, step of Euler", "contender": f"XGI, {size} oscillators", "steps": 20, "paths": 1}
        rows.append(line(row | {"agreement": gap}, [after - before], 20))
    return rows


def jitcdde(theta: Phases, w: Phases) -> Callable[[], Phases]:
    """A solve by JiTCDDE: no delay, the two means as helpers, compiled before."""
    from jitcdde import jitcdde as delayed
    from jitcdde import y
    from symengine import Symbol, cos, sin

    n, means = len(w), (Symbol("mean_sin"), Symbol("mean_cos"))
    sums = [(mean, sum(f(y(i)) for i in range(n)) / n) for mean, f in zip(means, (sin, cos), strict=True)]
    forces = [w[i] + K * (means[0] * cos(y(i)) - means[1] * sin(y(i))) for i in range(n)]
    solver = delayed(forces, helpers=sums, n=n, delays=[0], max_delay=1.0, verbose=False)
    solver.compile_C(simplify=False)

    def work() -> Phases:
        solver.purge_past()
        solver.constant_past(theta, 0.0)
        solver.set_integration_parameters(first_step=0.01)
        solver.reset_integrator()
        return np.asarray(solver.integrate(1.0))

    return work


def summary(record: Record) -> list[Row]:
    """Time per step and path of each peer over that of circsde, alone and in a batch; without noise that of a solve."""
    rows, found = record["results"], []
    for peer in (row for row in rows if not row["contender"].startswith("circsde")):
        method = "torchdiffeq:rk4" if peer["case"].endswith("solve") else "euler_maruyama"  # the peers' error
        for own in (row for row in rows if (row["case"], row["contender"]) == (peer["case"], f"circsde, {method}")):
            times = zip((peer["us"], *peer["range"]), (own["us"], *reversed(own["range"])), strict=True)
            kind = "a batch" if own["paths"] > 1 else "one path"
            title = f"{record['oscillators']} oscillators, {own['case']}, {kind}"
            found.append(Row(title, peer["contender"], *(a / b for a, b in times)))
    return found


def main() -> None:
    """Run, print, and keep the results."""
    arguments = options(__doc__, "100 oscillators: shows that it runs").parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    n, budget = (100, 0.05) if arguments.quick else (1000, 1.0)
    installed = {name for name in PEERS if importlib.util.find_spec(name)}
    if missing := sorted(set(PEERS) - installed):
        print(f"not installed, left out: {', '.join(missing)}")
    results = noisy(n, budget, installed) + noiseless(n, budget, installed)
    keep(arguments.out, *sorted(installed), oscillators=n, results=results)


if __name__ == "__main__":
    main()

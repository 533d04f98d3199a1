"""How fast is the forward SDE, against torchsde, diffrax, the published update and the normals alone?

    python benchmarks/forward.py --quick                     # seconds: a tiny shape, without diffrax
    python benchmarks/forward.py --out benchmarks/results/forward.json
    python benchmarks/forward.py --device cuda --out benchmarks/results/forward-gpu.json

Everything runs in one process, contenders in turn with a pause between them, round after round; a ratio is the median
over rounds of the ratio within a round, its spread the quartiles. Peers run at their best settings: torchsde with
float64 times, additive noise as a vector product, and a BrownianInterval given its step; diffrax compiled, with
UnsafeBrownianPath, compile time excluded. diffrax is left out, with a note, where it is not installed
(``pip install jax diffrax``).
"""

import math
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from report import Record, Row, keep, options
from torch import Tensor

from circsde import DenseCoupling, KuramotoSDE, LocalCoupling, Schedule, sdeint
from circsde.coupling import Coupling

STEPS = 100
DEVICE = torch.device("cuda" if "cuda" in sys.argv else "cpu")
Work = Callable[[], object]


def starts(shape: tuple[int, ...]) -> Tensor:
    """The angles at which all contenders start."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def normals_alone(shape: tuple[int, ...]) -> Work:
    """The draws that any Euler-Maruyama must make, from one generator, into one buffer."""
    buffer = torch.empty(shape, device=DEVICE)

    def work() -> None:
        for _ in range(STEPS):
            buffer.normal_()

    return work


def published_update(theta0: Tensor) -> Work:
    """The published chain as one would write it down: ``wrap(theta + coupling + reference + noise)``."""
    coupling = torch.linspace(3e-5, 0.03, STEPS).tolist()
    deviation = torch.linspace(1e-4, 0.1, STEPS).sqrt().tolist()
    axes = tuple(range(1, theta0.ndim))

    def work() -> Tensor:
        theta = theta0
        for K, sigma in zip(coupling, deviation, strict=True):
            cos, sin = theta.cos(), theta.sin()
            pull = cos * sin.mean(axes, keepdim=True) - sin * cos.mean(axes, keepdim=True) - 1.5 * sin
            theta = theta + K * pull + sigma * torch.randn_like(theta)
            theta = (theta + math.pi) % (2 * math.pi) - math.pi
        return theta

    return work


def circsde_forward(theta0: Tensor, method: str = "euler_maruyama", coupling: Coupling | None = None) -> Work:
    """Our solver as a user calls it."""
    sde = KuramotoSDE(theta0.shape[1:], coupling, Schedule.published(STEPS)).to(DEVICE)
    return lambda: sdeint(sde, theta0, (0.0, 1.0), method=method, n_steps=STEPS, generator=0)


def products(theta0: Tensor, matrix: Tensor) -> Work:
    """The two matrix products of a step with a dense coupling, alone."""
    flat, transposed = theta0.flatten(1), matrix.T.contiguous()

    def work() -> None:
        for _ in range(STEPS):
            flat @ transposed
            flat @ transposed

    return work


def torchsde_forward(theta0: Tensor, method: str = "euler", diagonal: bool = False) -> Work:
    """The loop of torchsde at its best: float64 times, a Brownian motion given its step; or with diagonal noise."""
    import torchsde

    sde = KuramotoSDE((theta0[0].numel(),), schedule=Schedule.published(STEPS)).to(DEVICE)

    class Additive:
        noise_type, sde_type = "additive", "stratonovich" if method == "heun" else "ito"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return sde.drift(t, y)

        def g_prod(self, t: Tensor, y: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002
            return (sde.diffusion(t) * v).to(v.dtype)

    y0, ts = theta0.flatten(1), torch.tensor([0.0, 1.0], dtype=torch.float64)
    equation = sde if diagonal else Additive()
    area = "space-time" if method == "srk" else "none"

    def work() -> Tensor:
        bm = torchsde.BrownianInterval(
            *(0.0, 1.0, tuple(y0.shape), y0.dtype, DEVICE), dt=1 / STEPS, levy_area_approximation=area, entropy=0
        )
        solution: Tensor = torchsde.sdeint(equation, y0, ts, bm=bm, method=method, dt=1 / STEPS * (1 + 1e-12))
        return solution

    return work


def diffrax_forward(theta0: Tensor) -> Work | None:
    """diffrax, jitted, on the vector field written out in jax."""
    try:
        import diffrax
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    schedule = Schedule.published(STEPS)
    K, K_ref, D = schedule.coupling, schedule.reference, schedule.diffusion
    axes = tuple(range(1, theta0.ndim))

    def drift(t, y, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        cos, sin = jnp.cos(y), jnp.sin(y)
        mean_cos, mean_sin = cos.mean(axes, keepdims=True), sin.mean(axes, keepdims=True)
        return K(t) * (cos * mean_sin - sin * mean_cos) - K_ref(t) * sin

    def diffusion(t, y, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        import lineax

        return lineax.DiagonalLinearOperator(jnp.sqrt(2 * D(t)) * jnp.ones_like(y))

    @jax.jit
    def solve(y0, key):  # type: ignore[no-untyped-def]
        path = diffrax.UnsafeBrownianPath(shape=y0.shape, key=key)
        terms: Any = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))
        return diffrax.diffeqsolve(
            terms, diffrax.Euler(), 0.0, 1.0, 1 / STEPS, y0, max_steps=STEPS + 1, adjoint=diffrax.DirectAdjoint()
        ).ys

    y0, key = jnp.asarray(theta0.numpy()), jax.random.key(0)
    return lambda: solve(y0, key).block_until_ready()


def finish() -> None:
    """Wait for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def measure(contenders: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per step of every contender in every round, after one warm-up each."""
    for work in contenders.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            finish()
            time.sleep(0.02)  # let the threads of the last contender stop waiting busily
            start = time.perf_counter()
            work()
            finish()
            times[name].append((time.perf_counter() - start) / STEPS * 1e3)
    return times


def rows(title: str, times: dict[str, list[float]], baseline: str) -> list[dict[str, object]]:
    """Median and quartiles of each contender, and of its ratio to the baseline within each round."""
    table = []
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        ratio = statistics.quantiles([a / b for a, b in zip(values, times[baseline], strict=True)], n=4)
        table.append(
            {
                "question": title,
                "contender": name,
                "ms_per_step": round(middle, 4),
                "quartiles": [round(low, 4), round(high, 4)],
                f"ratio_to_{baseline}": round(ratio[1], 3),
                "ratio_quartiles": [round(ratio[0], 3), round(ratio[2], 3)],
            }
        )
        print(f"{title:24s} {name:34s} {middle:9.3f} ms/step   x {ratio[1]:6.2f} of {baseline}", flush=True)
    return table


def forward(shape: tuple[int, ...], rounds: int, peers: bool = True) -> list[dict[str, object]]:
    """Time Euler-Maruyama against all contenders."""
    theta0 = starts(shape)
    contenders: dict[str, Work] = {
        "normals": normals_alone(shape),
        "circsde": circsde_forward(theta0),
        "published update": published_update(theta0),
        "torchsde euler": torchsde_forward(theta0),
    }
    peer = diffrax_forward(theta0) if peers else None
    if peer is None:
        print("diffrax is not installed, or not asked for: left out")
    else:
        contenders["diffrax Euler, jitted"] = peer
    return rows(f"forward {shape}", measure(contenders, rounds), "normals")


def second(shape: tuple[int, ...], rounds: int) -> list[dict[str, object]]:
    """Methods of two evaluations: heun against torchsde's, sra1 against its srk, all with additive noise."""
    theta0 = starts(shape)
    contenders = {
        "sra1": circsde_forward(theta0, "sra1"),
        "torchsde srk, additive noise": torchsde_forward(theta0, "srk"),
        "torchsde srk, diagonal noise": torchsde_forward(theta0, "srk", diagonal=True),
    }
    table = rows(f"order 1.5 {shape}", measure(contenders, rounds), "sra1")
    contenders = {"heun": circsde_forward(theta0, "heun"), "torchsde heun": torchsde_forward(theta0, "heun")}
    return table + rows(f"order 1 {shape}", measure(contenders, rounds), "heun")


def couplings(shape: tuple[int, ...], rounds: int) -> list[dict[str, object]]:
    """One mean field, and windows of several radii."""
    theta0 = starts(shape)
    contenders = {"global": circsde_forward(theta0)}
    contenders |= {f"radius {r}": circsde_forward(theta0, coupling=LocalCoupling(r)) for r in (1, 2, 5, 8, 12)}
    return rows(f"coupling {shape}", measure(contenders, rounds), "global")


def dense(shape: tuple[int, int], rounds: int) -> list[dict[str, object]]:
    """A dense matrix against its products alone."""
    theta0 = starts(shape)
    matrix = torch.rand(shape[1], shape[1], generator=torch.Generator().manual_seed(1))
    contenders = {
        "two products": products(theta0, matrix),
        "dense matrix": circsde_forward(theta0, coupling=DenseCoupling(matrix)),
    }
    return rows(f"dense {shape}", measure(contenders, rounds), "two products")


def scaling(largest: int) -> list[dict[str, object]]:
    """Time and peak memory per oscillator up to ``largest`` oscillators in one sample, 20 steps."""
    table = []
    n = 10_000
    while n <= largest:
        theta0 = torch.zeros(1, n)
        sde = KuramotoSDE((n,))
        circsde_forward(torch.zeros(1, 1 << 17))()  # compiled loops are loaded
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        sdeint(sde, theta0, (0.0, 1.0), method="euler_maruyama", n_steps=20, generator=0)
        seconds = time.perf_counter() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        row = {"question": "scaling", "oscillators": n, "ns_per_oscillator_step": round(seconds / n / 20 * 1e9, 2)}
        row["peak_memory_in_states"] = round(max(grown, 0) / (4 * n), 1)
        print(
            f"{n:>10d} oscillators: {row['ns_per_oscillator_step']} ns per oscillator and step, "
            f"peak memory grew by {row['peak_memory_in_states']} states"
        )
        table.append(row)
        n *= 10
    return table


OWN = {"forward": "circsde", "order 1.5": "sra1", "order 1": "heun"}
"""The name of circsde's contender for each question."""


def summary(record: Record) -> list[Row]:
    """Time per step of each peer over that of circsde; quartiles of both put against each other."""
    timed = [row for row in record["results"] if "contender" in row]
    own = {row["question"]: row for row in timed if row["contender"] in OWN.values()}
    found = []
    for row in timed:
        kind = row["question"].partition(" (")[0]
        if kind in OWN and row["contender"] not in ("normals", OWN[kind]):
            mine = own[row["question"]]
            question = f"time per step, {row['question'].removeprefix(kind + ' ')}: {OWN[kind]}"
            ratio, low, high = (
                a / b
                for a, b in zip(
                    (row["ms_per_step"], *row["quartiles"]),
                    (mine["ms_per_step"], *reversed(mine["quartiles"])),
                    strict=True,
                )
            )
            found.append(Row(question, row["contender"], ratio, low, high))
    return found


def main() -> None:
    """Run, print, and keep the results."""
    parser = options(__doc__, "a tiny shape, three rounds of one thread, without diffrax: shows that it runs")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: without diffrax and scaling")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1 if arguments.quick else arguments.threads)
    rounds = 3 if arguments.quick else arguments.rounds
    if arguments.quick:
        table = scaling(10_000)
        table += forward((4, 64), rounds, peers=False)
        table += second((4, 64), rounds)
        table += dense((4, 80), rounds)
    elif arguments.device == "cuda":
        table = [{"question": "device", "name": torch.cuda.get_device_name()}]
        for shape in ((64, 1024), (128, 3, 32, 32), (4096, 1024)):
            table += forward(shape, rounds, peers=False) + second(shape, rounds)
    else:
        table = scaling(10_000_000)
        table += forward((64, 1024), rounds)
        table += second((64, 1024), rounds)
        table += forward((128, 3, 32, 32), rounds)
        table += couplings((128, 3, 32, 32), rounds)
        table += dense((64, 1024), rounds)
    peers = ("jax", "diffrax") if "jax" in sys.modules else ()
    keep(arguments.out, "torchsde", *peers, seed=0, rounds=rounds, results=table)


if __name__ == "__main__":
    main()

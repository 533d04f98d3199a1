"""What do other packages do with angles and noise? Claims about them, each measured here, as a page: docs/others.md.

    python benchmarks/others.py --quick
    python benchmarks/others.py --out benchmarks/results/others.json     # then docs/others.md is written anew

Weak orders come from transfer operators, without sampling noise. Variances that samplers make of normal data come from
single impulses; diffusers computes them in float32. Where paths are sampled the interval has confidence 0.95. The
extra ``samplers`` is needed; ``--quick`` leaves out what is missing.
"""

import math
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
import torchsde
from report import Record, keep, options

from circsde import KuramotoSDE, NoCoupling, Schedule, reverse
from circsde.studies.exact import law_convergence
from circsde.studies.impulses import affine_law, normal_law

PAGE = Path(__file__).parents[1] / "docs" / "others.md"
Claim = dict[str, Any]

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
DATA = 0.5  # the standard deviation of normal data
MULTISTEP, UNIPC, HEUN = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler"
SAMPLERS = {  # at any noise levels, by stochasticity
    0.0: (
        "diffusers:dpmsolver++2",
        "diffusers:dpmsolver++3",
        "diffusers:unipc2",
        "k-diffusion:heun",
        "k-diffusion:lms",
    ),
    1.0: ("diffusers:sde-dpmsolver++2", "diffusers:sde-dpmsolver++3", "k-diffusion:dpmpp_3m_sde"),
}


def claim(package: str, said: str, measured: str, numbers: list[float]) -> Claim:
    """A row of the page."""
    print(f"{package}: {said} {measured}", flush=True)
    return {"package": f"{package} {version(package)}", "claim": said, "measured": measured, "numbers": numbers}


def adams_on_uneven_steps() -> Claim:
    """The implicit Adams method of torchdiffeq on steps 2 : 1, against rk4 on the same, by the exact curve."""
    theta0 = torch.tensor([[2.0]], dtype=torch.float64)
    exact = 2 * (torch.tan(theta0 / 2) * math.exp(-2.0)).atan().item()

    def error(method: str, pairs: int) -> float:
        grid = torch.tensor([(i + part) / pairs for i in range(pairs) for part in (0.0, 2 / 3)] + [1.0]).double()
        end = torchdiffeq.odeint(lambda _, x: -2.0 * x.sin(), theta0, grid, method=method)[-1]
        return abs(float(end) - exact)

    errors = [error(method, pairs) for method in ("implicit_adams", "rk4") for pairs in (16, 64, 256)]
    adams, rk4 = (", ".join(f"{e:.1e}" for e in part) for part in (errors[:3], errors[3:]))
    said = "Its Adams methods weigh slopes as if steps were equal."
    text = (
        "On 32, 128 and 512 steps of lengths 2 : 1 `implicit_adams`, which warns that its iteration may not have"
        f" converged, is off by {adams} rad, `rk4` by {rk4}."
    )
    return claim("torchdiffeq", said, text, errors)


def reversible_heun(paths: int) -> Claim:
    """The reversible Heun method of torchsde on a strongly attracted phase."""
    rate, horizon = 32.0, 1.0
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=rate, diffusion=0.5), sde_type="stratonovich")

    def mean(method: str, n: int) -> tuple[float, float]:
        y0, ts = torch.zeros(paths, 1).double(), torch.tensor([0.0, horizon]).double()
        bm = torchsde.BrownianInterval(0.0, horizon, (paths, 1), dtype=torch.float64, entropy=1)
        wave = torchsde.sdeint(sde, y0, ts, method=method, dt=horizon / n, bm=bm)[-1].cos()
        return wave.mean().item(), 1.96 * wave.std().item() / math.sqrt(paths)

    exact = 1.0 - 0.5 * 0.5 / rate
    found = [mean(method, n) for method in ("heun", "reversible_heun") for n in (64, 1024)]
    shown = [f"{m:.3f} ± {e:.3f}" for m, e in found]
    text = (
        f"At rate 32 over one unit of time, from rest, E cos θ is {exact:.3f}; `heun` has {shown[0]} with 64 and"
        f" {shown[1]} with 1024 steps, `reversible_heun` {shown[2]} and {shown[3]}."
    )
    said = "Its reversible method does not stay at an attracting point."
    return claim("torchsde", said, text, [number for pair in found for number in pair])


def weak_orders(steps: tuple[int, int]) -> list[Claim]:
    """Weak orders that torchsde does not claim, at additive noise."""
    found = []
    for name in ("heun", "srk", "midpoint"):
        order = law_convergence("von_mises_well", [f"torchsde:{name}"], steps).order[0, 1].item()
        text = f"On `von_mises_well` from {steps[0]} to {steps[1]} steps, without sampling: {order:.2f}."
        found.append(
            claim(
                "torchsde",
                f"Of `{name}` only the strong order is claimed; this is the weak one for additive noise.",
                text,
                [order],
            )
        )
    return found


def variance_error(name: str, n: int, **options: Any) -> float:
    """The relative error of the variance that a scheduler of diffusers makes of normal data in ``n`` of its own steps.

    Its times are its own, on the schedule of Stable Diffusion; the start and the estimate of the noise are exact.
    """
    import diffusers

    scheduler = getattr(diffusers, name)(**STABLE_DIFFUSION, **options)
    noisy, unscaled = "sde" in options.get("algorithm_type", ""), name == HEUN

    def signal(level: float) -> float:
        """The rate of the data in the state."""
        return 1.0 if unscaled else (1.0 + level**2) ** -0.5

    def run(x: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
        scheduler.set_timesteps(n)
        scheduler.set_begin_index(0)
        for i, t in enumerate(scheduler.timesteps):
            scheduler.scale_model_input(x, t)
            level = float(scheduler.sigmas[scheduler.step_index or 0])
            noise = level / (DATA**2 + level**2) * x / signal(level)
            given = {"variance_noise": normals[i]} if noisy else {}
            x = scheduler.step(noise, t, x, **given).prev_sample.double()
        return x

    scheduler.set_timesteps(n)
    level = float(scheduler.sigmas[0])
    return affine_law(run, n if noisy else 0, 0.0, signal(level) ** 2 * (DATA**2 + level**2))[1] / DATA**2 - 1.0


def schedulers(steps: tuple[int, ...]) -> list[Claim]:
    """Measure schedulers of diffusers on the schedule of Stable Diffusion, with normal data and the exact estimate."""
    import diffusers

    def errors(name: str, **options: Any) -> list[float]:
        return [variance_error(name, n, **options) for n in steps]

    scheduler = diffusers.HeunDiscreteScheduler(**STABLE_DIFFUSION)
    scheduler.set_timesteps(steps[-1])
    last = -(float(scheduler.sigmas[-2]) ** 2) / (DATA**2 + float(scheduler.sigmas[-2]) ** 2)
    third, second = (errors(MULTISTEP, solver_order=k, algorithm_type="sde-dpmsolver++") for k in (3, 2))
    bh1, bh2 = (errors(UNIPC, solver_type=kind) for kind in ("bh1", "bh2"))
    flow, heun = errors(MULTISTEP, solver_order=2), errors(HEUN)
    order = math.log2(flow[-2] / flow[-1])
    where = f"Relative error of the variance with {listed(steps)} steps, data of standard deviation {DATA:g}:"
    return [
        claim(
            "diffusers",
            "`sde-dpmsolver++` of order 3 does not converge.",
            f"{where} {shown(third)}; order 2 has {shown(second)}.",
            third + second,
        ),
        claim(
            "diffusers",
            "UniPC with `bh1` ends at NaN by default: its last step is one to no noise.",
            f"{where} {shown(bh1)}; `bh2` has {shown(bh2)}.",
            bh1 + bh2,
        ),
        claim(
            "diffusers",
            "DPM-Solver++ 2M, its default, is not of order 2 on the schedule of Stable Diffusion.",
            f"{where} {shown(flow)}, of order {order:.2f} at the end.",
            flow,
        ),
        claim(
            "diffusers",
            "Heun's errors reach a floor: the last step, from the least noise to none, does not shrink.",
            f"{where} {shown(heun)}. That step from the exact law alone leaves {last:+.2g}.",
            [*heun, last],
        ),
    ]


def any_levels(package: str, steps: tuple[int, ...]) -> Claim:
    """Errors of samplers on our noise levels, of equal times from the horizon to before the data."""
    forward = KuramotoSDE((1,), NoCoupling(), Schedule.linear((0.0, 0.0, 0.0005), (0.0, 0.0, 0.01)))
    noise, left = (float(forward.variance(0.0, t)) for t in (1.0, 0.3))
    data, errors = 0.3 * noise, dict[str, list[float]]()
    for level, names in SAMPLERS.items():
        sde = reverse(forward, lambda t, x: -x / (data + forward.variance(0.0, float(t))), level)
        for name in (one for one in names if one.startswith(package)):
            laws = [normal_law(name, sde, [0.7 * i / n for i in range(n + 1)], 0.0, data + noise) for n in steps]
            errors[name.partition(":")[2]] = [variance / (data + left) - 1.0 for _, variance in laws]
    found = "; ".join(f"`{name}` {shown(values)}" for name, values in errors.items())
    text = f"Relative error of the variance of normal data with {listed(steps)} steps, without sampling: {found}."
    said = "What its samplers err at noise levels of equal times, stopped before the data, by our adapters."
    return claim(package, said, text, sum(errors.values(), []))


def shown(values: list[float]) -> str:
    """Errors with their signs."""
    return ", ".join(f"{value:+.2g}" for value in values)


def listed(steps: tuple[int, ...]) -> str:
    """Numbers of steps in words."""
    return f"{', '.join(map(str, steps[:-1]))} and {steps[-1]}"


def page(record: Record) -> str:
    """The page, from the numbers that were kept."""
    lines = ["| package | what | measured |", "| --- | --- | --- |"]
    lines += [f"| {row['package']} | {row['claim']} | {row['measured']} |" for row in record["claims"]]
    return (
        "# Others, measured\n\n"
        "The command `python benchmarks/others.py` measured what follows, with the versions named, and wrote this page."
        " Faults are listed so that users can avoid them; what each package does better is in"
        " [Comparison](comparison.md).\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    """Run, print, keep the results, and write the page."""
    arguments = options(__doc__, "few steps and paths").parse_args()
    torch.set_num_threads(1)
    quick = arguments.quick
    claims = [adams_on_uneven_steps(), reversible_heun(64 if quick else 1000)]
    claims += weak_orders((4, 8) if quick else (10, 20))
    peers = {"diffusers": "diffusers", "k-diffusion": "k_diffusion"}
    there = [name for name, module in peers.items() if not quick or find_spec(module) is not None]
    if "diffusers" in there:
        claims += schedulers((20, 40) if quick else (20, 40, 80, 160, 320, 640))
    claims += [any_levels(name, (8, 16) if quick else (16, 32, 64)) for name in there]
    keep(arguments.out, "torchsde", "torchdiffeq", *there, claims=claims)
    if arguments.out is not None and not quick:
        PAGE.write_text(page({"claims": claims}))


if __name__ == "__main__":
    main()

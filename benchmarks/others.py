"""What do other packages do with angles and noise? Claims about them, each measured here, as a page: docs/others.md.

    python benchmarks/others.py --quick
    python benchmarks/others.py --out benchmarks/results/others.json     # then docs/others.md is written anew

Weak orders are of transfer operators, without sampling noise. Where paths are sampled the interval has confidence 0.95.
"""

import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
import torchsde
from report import Record, keep, options

from circsde import KuramotoSDE, NoCoupling, Schedule
from circsde.studies.exact import law_convergence

PAGE = Path(__file__).parents[1] / "docs" / "others.md"
Claim = dict[str, Any]


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


def page(record: Record) -> str:
    """The page, from the numbers that were kept."""
    lines = ["| package | what | measured |", "| --- | --- | --- |"]
    lines += [f"| {row['package']} | {row['claim']} | {row['measured']} |" for row in record["claims"]]
    return (
        "# Others, measured\n\n"
        "What follows was measured with the versions named, by `python benchmarks/others.py`, which writes this page."
        " Faults are told so that a user can go round them; what each package does better is in"
        " [Comparison](comparison.md).\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    """Run, print, keep the results, and write the page."""
    arguments = options(__doc__, "few steps and paths").parse_args()
    torch.set_num_threads(1)
    quick = arguments.quick
    claims = [adams_on_uneven_steps(), reversible_heun(64 if quick else 1000)]
    claims += weak_orders((4, 8) if quick else (10, 20))
    keep(arguments.out, "torchsde", "torchdiffeq", claims=claims)
    if arguments.out is not None and not quick:
        PAGE.write_text(page({"claims": claims}))


if __name__ == "__main__":
    main()

"""Do the methods have the orders that they claim? One table: claimed and measured strong, weak and stationary orders.

    python benchmarks/orders.py --quick                    # seconds: few steps and paths
    python benchmarks/orders.py --out benchmarks/results/orders.json

Weak and stationary orders come from transfer operators, free of sampling noise; strong orders from coupled Brownian
paths, with a standard error. Two broken methods show that the studies can tell: Heun with the noise amplitude of the
left end, and SRA1 without the area of the path.
"""

from dataclasses import replace
from typing import Any

import xarray as xr
from report import Record, Row, keep, options

from circsde.sde import SDE
from circsde.solvers import METHODS, Method, Noise
from circsde.solvers.methods import axpy
from circsde.studies import strong_convergence, study
from circsde.typing import Angles

WEAK, STATIONARY, STRONG = "published_doubled", "von_mises_well", "noise_dominated"


def heun_left(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """Heun with ``g`` at the left end of the step: the noise variance is wrong at first order."""
    g, slope = sde.diffusion(t), sde.drift(t, theta)
    predicted = axpy(axpy(theta, h, slope), g, noise.dW)
    return axpy(axpy(theta, 0.5 * h, slope + sde.drift(t + h, predicted)), g, noise.dW)


def sra1_without_area(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """SRA1 with the expected area given ``dW`` in place of the area."""
    return METHODS["sra1"].step(sde, t, h, theta, Noise(noise.dW, 0.5 * h * noise.dW))


BROKEN = (
    replace(METHODS["heun"], name="heun, g at the left end", step=heun_left),
    replace(METHODS["sra1"], name="sra1 without dZ", step=sra1_without_area),
)


def order(result: xr.Dataset, name: str) -> tuple[float, float] | None:
    """A fitted order and its standard error, where anything was resolved."""
    row = result.sel(solver=name)
    return None if row.order.isnull() else (round(float(row.order), 3), round(float(row.order_standard_error), 3))


def measure(paths: int, halvings: int) -> list[dict[str, Any]]:
    """A row per method, from its errors at a first number of steps and at that number doubled so many times."""
    methods: tuple[Method, ...] = (*METHODS.values(), *BROKEN)
    pathwise = [method for method in methods if method.strong_order is not None]
    weak = study(WEAK, "weak", methods=methods, steps=doubled(20, halvings))
    stationary = study(STATIONARY, "stationary", methods=methods, steps=doubled(5, halvings))
    strong = strong_convergence(STRONG, methods=pathwise, steps=doubled(16, halvings), paths=paths, seed=0)
    return [
        {
            "method": method.name,
            "claimed": {
                "strong": method.strong_order,
                "weak": method.weak_order,
                "stationary": method.invariant_order,
            },
            "strong": None if method.strong_order is None else order(strong, method.name),
            "weak": order(weak, method.name),
            "stationary": order(stationary, method.name),
        }
        for method in methods
    ]


def doubled(first: int, times: int) -> list[int]:
    """Numbers of steps."""
    return [first * 2**i for i in range(times + 1)]


def summary(record: Record) -> list[Row]:
    """Measured strong and weak orders over the claims, two standard errors each way."""
    found = []
    for row in record["results"]:
        for kind in ("strong", "weak"):
            if row["method"] in METHODS and row[kind] is not None:
                claim = row["claimed"][kind]
                order, error = (x / claim for x in row[kind])
                found.append(
                    Row(
                        f"{kind} order of {row['method']}",
                        f"its claim, {claim:g}",
                        order,
                        order - 2 * error,
                        order + 2 * error,
                    )
                )
    return found


def main() -> None:
    """Run, print, and keep the results."""
    parser = options(__doc__, "fewer steps and paths")
    parser.add_argument("--paths", type=int, default=8192)
    arguments = parser.parse_args()
    table = measure(128, 2) if arguments.quick else measure(arguments.paths, 3)
    for row in table:
        cells = (f"{kind} {row[kind]} (claims {row['claimed'][kind]})" for kind in ("strong", "weak", "stationary"))
        print(f"{row['method']:28s}", *cells, sep="   ")
    keep(
        arguments.out,
        problems={"weak": WEAK, "stationary": STATIONARY, "strong": STRONG},
        seed=0,
        results=table,
    )


if __name__ == "__main__":
    main()

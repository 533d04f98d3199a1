"""What does the loop of reverse sampling take, beside the calls of the network?

    python benchmarks/sampling.py --quick                            # one round
    python benchmarks/sampling.py --out benchmarks/results/sampling.json

64 images of 32 x 32 phases, the network ``tiny``, 50 steps by ``generate`` (starts, noise from a generator per sample,
drift, time reversal, wrapping), against as many calls of the network alone at the times of the same grid; one thread,
CPU time. Both take turns; the overhead of each round, its median and range.
"""

import statistics
import time
from itertools import repeat

import torch
from report import Record, Row, keep, options

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.matching import Chain
from circsde.models.unet import PRESETS, ScoreUNet
from circsde.models.wiener import Wiener
from circsde.schedule import Schedule
from circsde.studies.reverse_sampling import Recipe, reverse_times
from circsde.studies.start_laws import settled
from circsde.studies.synthesis import generate

SHAPE, COUNT, STEPS = (32, 32), 64, 50
COUPLINGS: dict[str, Coupling] = {"global": GlobalCoupling(), "local": LocalCoupling(5)}
METHODS = {"multistep": 1, "euler_maruyama": 1, "sra1": 2}
"""With evaluations of the network per step."""


def overheads(coupling: Coupling, method: str, rounds: int) -> list[float]:
    """Of each round: the time of sampling over that of the calls alone, less one."""
    sde = KuramotoSDE(SHAPE, coupling, Schedule.settling())
    torch.manual_seed(0)
    answer = ScoreUNet(SHAPE, sde.schedule.diffusion, head="scalar", padding="zeros", **PRESETS["tiny"])
    network = Wiener(answer, sde, STEPS).eval().requires_grad_(False)
    chain, recipe = Chain.uniform(sde, STEPS), Recipe(method, STEPS, denoise=METHODS[method] > 1)
    law, theta = settled(sde), torch.zeros(COUNT, *SHAPE)
    times = [t for t in reverse_times(chain, STEPS)[:-1] for _ in range(METHODS[method])]
    calls = times[: generate(chain, network, law, 1, recipe).attrs["nfe"]]
    found = []
    for _ in repeat(None, rounds):
        begin = time.process_time()
        generate(chain, network, law, COUNT, recipe)
        middle = time.process_time()
        with torch.no_grad():
            for t in calls:
                network(t, theta)
        found.append((middle - begin) / (time.process_time() - middle) - 1.0)
    return found


def summary(record: Record) -> list[Row]:
    """The calls alone over all of sampling."""
    found = []
    for row in record["results"]:
        low, middle, high = (1.0 / (1.0 + row[name]) for name in ("most", "median", "least"))
        found.append(
            Row(f"64 images, 50 steps: {row['method']}, {row['coupling']}", "network alone", middle, low, high)
        )
    return found


def main() -> None:
    """Run, print, and keep the results."""
    arguments = options(__doc__, "one round each").parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, coupling in COUPLINGS.items():
        for method in METHODS:
            found = overheads(coupling, method, 1 if arguments.quick else 5)
            row = {"coupling": name, "method": method, "median": statistics.median(found)}
            rows.append({**row, "least": min(found), "most": max(found), "rounds": len(found)})
            print(
                f"{name:7s} {method:15s} {100 * row['median']:.1f} % ({100 * min(found):.1f} to {100 * max(found):.1f})"
            )
    keep(arguments.out, results=rows)


if __name__ == "__main__":
    main()

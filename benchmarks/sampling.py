"""What does the loop of reverse sampling take, beside the calls of the network?

    python benchmarks/sampling.py --quick                            # one round
    python benchmarks/sampling.py --out benchmarks/results/sampling.json

64 images of 32 x 32 phases, the network ``tiny``, 50 steps by ``generate`` (starts, noise from a generator per sample,
drift, time reversal, wrapping): the time that it takes with a score that is zero at once, over that of as many calls of
the network alone, at the times of the same grid. One thread, CPU time; both take turns, median and range of rounds. The
difference of sampling with the network and the calls alone is the same, but far less certain.
"""

import statistics
import time

import torch
from report import Record, Row, keep, options
from torch import nn

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.matching import Chain
from circsde.models.unet import PRESETS, ScoreUNet
from circsde.models.wiener import Wiener
from circsde.schedule import Schedule
from circsde.studies.reverse_sampling import Recipe, reverse_times
from circsde.studies.start_laws import settled
from circsde.studies.synthesis import generate
from circsde.typing import Angles, Tangent, Time

SHAPE, COUNT, STEPS = (32, 32), 64, 50
COUPLINGS: dict[str, Coupling] = {"global": GlobalCoupling(), "local": LocalCoupling(5)}
METHODS = {"multistep": 1, "euler_maruyama": 1, "sra1": 2}
"""With evaluations of the network per step."""


class Nothing(nn.Module):
    """A score of zero."""

    def forward(self, t: Time, theta: Angles) -> Tangent:  # noqa: ARG002
        """Zero."""
        return torch.zeros_like(theta)


def overheads(coupling: Coupling, method: str, rounds: int) -> list[float]:
    """Of each round: the time of all but the network, over that of the network."""
    sde = KuramotoSDE(SHAPE, coupling, Schedule.settling())
    torch.manual_seed(0)
    answer = ScoreUNet(SHAPE, sde.schedule.diffusion, head="scalar", padding="zeros", **PRESETS["tiny"])
    network = Wiener(answer, sde, STEPS).eval().requires_grad_(False)
    chain, recipe = Chain.uniform(sde, STEPS), Recipe(method, STEPS, denoise=METHODS[method] > 1)
    law, theta = settled(sde), torch.zeros(COUNT, *SHAPE)
    times = [t for t in reverse_times(chain, STEPS)[:-1] for _ in range(METHODS[method])]
    calls = times[: generate(chain, Nothing(), law, COUNT, recipe).attrs["nfe"]]
    found = []
    for _ in range(rounds):
        begin = time.process_time()
        generate(chain, Nothing(), law, COUNT, recipe)
        middle = time.process_time()
        with torch.no_grad():
            for t in calls:
                network(t, theta)
        found.append((middle - begin) / (time.process_time() - middle))
    return found


def summary(record: Record) -> list[Row]:
    """The calls alone over the calls and the loop."""
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

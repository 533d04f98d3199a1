"""What does the loop of reverse sampling take, beside the calls of the network?

    python benchmarks/sampling.py --quick                            # 4 images, 5 steps, one round
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
from circsde.matching.chain import Chain
from circsde.models.linear_residual import LinearResidual
from circsde.models.unet import PRESETS, ScoreUNet
from circsde.sampling.generate import generate
from circsde.sampling.reverse import Recipe, reverse_times
from circsde.sampling.start_laws import settled
from circsde.schedule import Schedule
from circsde.typing import Angles, Tangent, Time

SHAPE, COUNT, STEPS = (32, 32), 64, 50
COUPLINGS: dict[str, Coupling] = {"global": GlobalCoupling(), "local": LocalCoupling(5)}
METHODS = {"multistep": 1, "euler_maruyama": 1, "sra1": 2}
"""The methods, with their evaluations of the network per step."""


class Nothing(nn.Module):
    """A score of zero."""

    def forward(self, t: Time, theta: Angles) -> Tangent:  # noqa: ARG002
        """Zero."""
        return torch.zeros_like(theta)


def overheads(coupling: Coupling, method: str, rounds: int, count: int, steps: int) -> list[float]:
    """For each round, the time of all but the network over the time of the network."""
    sde = KuramotoSDE(SHAPE, coupling, Schedule.settling())
    torch.manual_seed(0)
    answer = ScoreUNet(SHAPE, sde.schedule.diffusion, head="scalar", padding="zeros", **PRESETS["tiny"])
    network = LinearResidual(answer, sde, steps).eval().requires_grad_(False)
    chain, recipe = Chain.uniform(sde, steps), Recipe(method, steps, denoise=METHODS[method] > 1)
    law, theta = settled(sde), torch.zeros(count, *SHAPE)
    times = [t for t in reverse_times(chain, steps)[:-1] for _ in range(METHODS[method])]
    calls = times[: generate(chain, Nothing(), law, count, recipe).attrs["nfe"]]
    found = []
    for _ in range(rounds):
        begin = time.process_time()
        generate(chain, Nothing(), law, count, recipe)
        middle = time.process_time()
        with torch.no_grad():
            for t in calls:
                network(t, theta)
        found.append((middle - begin) / (time.process_time() - middle))
    return found


def summary(record: Record) -> list[Row]:
    """The calls alone over the calls and the loop."""
    found = []
    sizes = f"{record.get('images', COUNT)} images, {record.get('steps', STEPS)} steps"
    for row in record["results"]:
        low, middle, high = (1.0 / (1.0 + row[name]) for name in ("most", "median", "least"))
        found.append(Row(f"{sizes}: {row['method']}, {row['coupling']}", "network alone", middle, low, high))
    return found


def main() -> None:
    """Run, print, and keep the results."""
    arguments = options(__doc__, "few images, steps and one round: shows that it runs").parse_args()
    torch.set_num_threads(1)
    rounds, count, steps = (1, 4, 5) if arguments.quick else (5, COUNT, STEPS)
    rows = []
    for name, coupling in COUPLINGS.items():
        for method in METHODS:
            found = overheads(coupling, method, rounds, count, steps)
            low, middle, high = min(found), statistics.median(found), max(found)
            numbers = {"median": middle, "least": low, "most": high, "rounds": len(found)}
            rows.append({"coupling": name, "method": method, **numbers})
            print(f"{name:7s} {method:15s} {100 * middle:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
    keep(arguments.out, images=count, steps=steps, results=rows)


if __name__ == "__main__":
    main()

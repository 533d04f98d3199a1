"""``circsde train`` on tables of angles: rows, a process, a network, and the centre from which angles are counted."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circsde.commands import angles
from circsde.commands.answer import Answer, counted
from circsde.commands.training import ObjectiveName, ProcessName, training_bar

if TYPE_CHECKING:
    from torch import Tensor

    from circsde.data import Phases
    from circsde.models.settings import Settings


@dataclass(frozen=True)
class Table:
    """The rows and the table to train on; see :func:`circsde.data.load`."""

    source: str
    reading: angles.Reading
    data: "Phases"
    held_out: float

    def parts(self, seed: int) -> "tuple[Tensor, Tensor]":
        """Rows for training and for validation; the test rows of torsions are in neither."""
        import torch

        from circsde.data.torsion import split
        from circsde.streams import torch_stream

        data = self.data
        if self.source.startswith("torsion:") and "/" not in self.source:
            training, validation, _ = (data.theta[torch.from_numpy(rows)] for rows in split(len(data.theta)))
            return training, validation
        if not 0 < self.held_out < 1:
            raise ValueError(f"the part held out must be between 0 and 1, got {self.held_out:g}")
        order = torch.randperm(len(data.theta), generator=torch_stream(seed, "split"))
        cut = round(self.held_out * len(order))
        if not 0 < cut < len(order):
            raise ValueError(
                f"{counted(len(order), 'row')} cannot be parted: --held-out {self.held_out:g} leaves none here or there"
            )
        return data.theta[order[cut:]], data.theta[order[:cut]]


@dataclass(frozen=True)
class Model:
    """The model to learn: a process, its chain, and the size of the network."""

    process: ProcessName
    attraction: float
    smallest_noise: float
    steps: int
    width: int
    depth: int
    harmonics: int


def fit(
    table: Table, learnt: Model, objective: ObjectiveName, settings: "Settings", out: Path, device: str, begin: float
) -> Answer:
    """Train; the command began at the time ``begin`` of the monotonic clock."""
    if learnt.process in ("local", "standard"):
        raise ValueError(
            f"--process {learnt.process} is for images, and {table.source} is a table of angles: take global"
        )
    data = table.data
    training, validation = table.parts(settings.seed)

    from circsde.matching.chain import Chain
    from circsde.models.mlp import ScoreMLP
    from circsde.models.processes import Process, angle_process, best_objective
    from circsde.models.settled_residual import SettledResidual
    from circsde.models.training import train
    from circsde.models.transitions import Objective
    from circsde.streams import seed_torch
    from circsde.torus import difference, mean_direction

    centre = mean_direction(training.double(), 0)
    process = Process(learnt.process)
    sde = angle_process(process, training.shape[1:], learnt.attraction)
    chain = Chain.geometric(sde, learnt.steps, learnt.smallest_noise, linear_from=2.0)
    seed_torch(settings.seed, "weights")
    network = ScoreMLP(
        training.shape[1:],
        sde.schedule.diffusion,
        width=learnt.width,
        depth=learnt.depth,
        harmonics=learnt.harmonics,
        smallest_noise=learnt.smallest_noise,
    )
    about = {
        "source": table.source,
        "unit": data.unit,
        "columns": table.reading.columns,
        "reading": table.reading.described,
        "names": list(data.names),
        "centre": centre.tolist(),
    }
    parts = f"{counted(len(training), 'row')} to learn from, {len(validation)} to validate"
    with training_bar(settings, [*data.notes, f"{parts}, {counted(training.shape[1], 'angle')}"], begin) as moved:
        model = train(
            network if learnt.process == "diffusion" else SettledResidual(network, sde),
            chain,
            best_objective(process) if objective == "best" else Objective(objective),
            difference(training, centre.float()),
            difference(validation, centre.float()),
            out,
            settings,
            about=about,
            accelerator=device,
            **moved,
        )
    values = {"update": model.update, "training": len(training), "validation": len(validation), "angles": data.names}
    return Answer([f"least validation loss after update {model.update}"], values, {"run": out})

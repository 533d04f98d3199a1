"""Training on several processes, started by the script itself and by torchrun; Dask is in test_study_cli."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path

import torch

from circsde.distributions import WrappedNormal
from circsde.matching import Chain
from circsde.models.mlp import ScoreMLP
from circsde.models.presets import Process, forward_process
from circsde.models.training import Settings, train
from circsde.models.transitions import Objective

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, processes = Path(sys.argv[1]), int(sys.argv[2])
    sde = forward_process(Process.DIFFUSION, (2,))
    torch.manual_seed(0)
    network = ScoreMLP((2,), sde.schedule.diffusion, width=16, depth=1)
    theta = WrappedNormal(torch.tensor([2.0, -1.0]), 0.4).sample((200,), generator=torch.Generator().manual_seed(0))
    options = {"strategy": "ddp", "devices": processes} if processes > 1 else {}
    model = train(
        network, Chain.geometric(sde, 10, 0.1), Objective.DENOISING, theta[:150], theta[150:], folder / "run",
        Settings(epochs=2, updates=5, batch=32, warmup=2), accelerator="cpu", **options,
    )
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    weights = torch.cat([p.flatten() for p in model.network.parameters()]).tolist()
    (folder / f"{processes}-{rank}.json").write_text(json.dumps({"update": model.update, "weights": weights}))
"""


def weights_of(folder: Path, processes: int, *launcher: str) -> list[list[float]]:
    """The weights that each process returned, all of which must have made the 10 updates."""
    folder.mkdir(exist_ok=True)
    script = folder / "train_mine.py"
    script.write_text(SCRIPT)
    command = [*launcher, str(script), str(folder), str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    answers = [json.loads((folder / f"{processes}-{rank}.json").read_text()) for rank in range(processes)]
    assert [answer["update"] for answer in answers] == [10] * processes
    return [answer["weights"] for answer in answers]


@pytest.mark.slow
def test_processes_train_one_network_together_however_they_are_started(tmp_path: Path) -> None:
    launched = weights_of(tmp_path / "launched", 2, sys.executable)
    by_torchrun = weights_of(
        tmp_path / "torchrun", 2, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
    )
    alone = weights_of(tmp_path / "alone", 1, sys.executable)
    assert launched[0] == launched[1] == by_torchrun[0] == by_torchrun[1]
    assert launched[0] != alone[0]  # the second process brought pairs of its own
    assert (tmp_path / "launched" / "run" / "best.safetensors").exists()

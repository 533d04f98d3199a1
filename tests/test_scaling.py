"""Training started by torchrun; by the script itself it is in test_training, studies on Dask in test_study_cli."""

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

from circsde.laws.distributions import WrappedNormal
from circsde.matching.chain import Chain
from circsde.models.mlp import ScoreMLP
from circsde.models.processes import Process, angle_process
from circsde.models.training import Settings, train
from circsde.models.transitions import Objective

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    sde = angle_process(Process.DIFFUSION, (2,))
    torch.manual_seed(0)
    network = ScoreMLP((2,), sde.schedule.diffusion, width=16, depth=1)
    theta = WrappedNormal(torch.tensor([2.0, -1.0]), 0.4).sample((200,), generator=torch.Generator().manual_seed(0))
    model = train(
        network, Chain.geometric(sde, 10, 0.1), Objective.DENOISING, theta[:150], theta[150:], folder / "run",
        Settings(epochs=2, updates=5, batch=32, warmup=2), accelerator="cpu", strategy="ddp", devices=2,
    )
    rank = torch.distributed.get_rank()
    weights = torch.cat([p.flatten() for p in model.network.parameters()]).tolist()
    (folder / f"{rank}.json").write_text(json.dumps({"update": model.update, "weights": weights}))
"""


@pytest.mark.slow
def test_processes_that_torchrun_starts_train_one_network(tmp_path: Path) -> None:
    script = tmp_path / "train_mine.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [*command, str(script), str(tmp_path)], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["update"] == 10
    assert (tmp_path / "run" / "best.safetensors").exists()

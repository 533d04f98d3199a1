"""Checkpoints come back as they were saved, whole or not at all, and say what does not fit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from circsde import models
from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.models import checkpoint
from circsde.models.mlp import ScoreMLP
from circsde.models.unet import ScoreUNet
from circsde.schedule import Cosine, Linear, Schedule


def network(width: int) -> ScoreMLP:
    return ScoreMLP((2,), Linear(0.1, 2.0), width=width, depth=1, harmonics=2)


def test_a_file_of_someone_else_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no checkpoint of circsde"):
        checkpoint.load(tmp_path / "other.safetensors")


def test_weights_of_another_architecture_are_refused_with_what_differs() -> None:
    with pytest.raises(ValueError, match=r"enter.weight is \(16, 8\) and not \(8, 8\).* more differences"):
        checkpoint.load_weights(network(8), network(16).state_dict(), Path("other"))
    weights = network(8).state_dict()
    weights["extra"] = weights.pop("enter.bias")
    with pytest.raises(ValueError, match="enter.bias is missing; extra is unknown"):
        checkpoint.load_weights(network(8), weights, Path("other"))


def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:  # noqa: ARG001
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "state.safetensors"
    checkpoint.save({"a": torch.ones(2)}, path)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", no_space)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save({"a": torch.zeros(2)}, path)
    assert checkpoint.load(path)["a"].tolist() == [1.0, 1.0]
    assert os.listdir(tmp_path) == ["state.safetensors"]


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from circsde import models
from circsde.models import checkpoint
path = Path(sys.argv[1])
checkpoint.save({"a": torch.ones(10)}, path)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save({"a": torch.ones(100_000)}, path)
except OSError as error:
    print(error)
print(checkpoint.load(path)["a"].shape, len(list(path.parent.iterdir())))
"""


@pytest.mark.slow
def test_a_file_that_the_system_cuts_off_is_an_error_and_the_previous_one_stays(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "state")], check=True, capture_output=True, text=True
    ).stdout
    assert "could not write" in said
    assert "torch.Size([10]) 1" in said


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    state = {
        "a": [1, 2.5, None, {"b": torch.arange(3), 7: "text"}],
        "c": torch.ones(2, 3, dtype=torch.float64).T,
        "d": {},
    }
    checkpoint.save(state, tmp_path / "state")
    back = checkpoint.load(tmp_path / "state")
    assert back["a"][:3] == [1, 2.5, None]
    assert back["a"][3].keys() == {"b", 7}
    assert back["a"][3][7] == "text"
    assert torch.equal(back["a"][3]["b"], torch.arange(3))
    assert torch.equal(back["c"], torch.ones(3, 2, dtype=torch.float64))
    assert back["d"] == {}


@pytest.mark.parametrize("coupling", [NoCoupling(), GlobalCoupling(), LocalCoupling(1, "reflecting")])
def test_an_equation_comes_back_as_it_was_described(coupling: Coupling) -> None:
    schedule = Schedule(Cosine(0.0, 2.0), Cosine(0.1, 1.0), Cosine(0.3, 1.5))
    phases, frequencies = (
        torch.linspace(-1, 1, 12).reshape(3, 4).double(),
        torch.linspace(0, 2, 12).reshape(3, 4).double(),
    )
    sde = KuramotoSDE((3, 4), coupling, schedule, reference_phase=phases, natural_frequency=frequencies)
    back = checkpoint.rebuild(checkpoint.describe(sde))
    assert (back.coupling, back.schedule, back.event_shape) == (coupling, schedule, sde.event_shape)
    theta = torch.rand(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(back.drift(0.4, theta), sde.drift(0.4, theta))


@pytest.mark.parametrize(("old", "new"), list(checkpoint.RENAMED.items()))
def test_names_of_an_earlier_version_still_work_and_say_what_they_are_now(old: str, new: str) -> None:
    """In a program, with a warning, and in a checkpoint, which holds them for good."""
    with pytest.warns(DeprecationWarning, match=f"{old} is now circsde.models.{new}"):
        renamed = getattr(models, old)
    assert renamed is getattr(models, new)
    assert type(checkpoint.rebuild(DESCRIPTIONS[old])) is renamed


SDE = KuramotoSDE((8, 8), schedule=Schedule.constant(1.0, 1.0, 1.0))
UNET = checkpoint.describe(ScoreUNet((8, 8), SDE.schedule.diffusion, width=8, multipliers=(1,), attention=()))
DESCRIPTIONS = {
    "Relative": {"type": "Relative", "network": UNET, "sde": checkpoint.describe(SDE)},
    "Wiener": {"type": "Wiener", "network": UNET, "sde": checkpoint.describe(SDE), "steps": 4},
}

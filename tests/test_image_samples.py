"""``circsde sample`` for models of images: files, sheets, videos, laws to start from, and bad input."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from command_line import ran
from PIL import Image

from circsde.coupling import GlobalCoupling
from circsde.encoding import PhaseEncoding
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import Chain
from circsde.models.settings import Settings
from circsde.models.training import train, trained
from circsde.models.transitions import Objective
from circsde.models.unet import ScoreUNet
from circsde.models.variance_preserving import EpsilonUNet, VariancePreserving
from circsde.sampling.choose_start import FILE, choose, save_law
from circsde.schedule import Schedule

SIZES = {"grey": (8, 8), "colour": (3, 8, 8)}
TINY = {"width": 8, "multipliers": (1, 2), "attention": ()}
SETTINGS = Settings(epochs=1, updates=2, batch=8, pool=1)


def opened(path: Path) -> xr.Dataset:
    with xr.open_dataset(path) as dataset:
        return dataset.load()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run for grey images, one for colour, and one along the standard diffusion."""
    folder = tmp_path_factory.mktemp("images")
    about = {"kind": "images", "encoding_scale": math.pi / 2, "source": "noise"}
    for name, event in SIZES.items():
        torch.manual_seed(0)
        sde = KuramotoSDE(event, GlobalCoupling(), Schedule.published(20))
        network = ScoreUNet(event, sde.schedule.diffusion, **TINY)  # type: ignore[arg-type]
        data = math.pi * (torch.rand(20, *event) - 0.5)
        chain = Chain.uniform(sde, 8)
        train(network, chain, Objective.PATHWISE, data, data, folder / name, SETTINGS, about=about, accelerator="cpu")
    standard = VariancePreserving((8, 8))
    epsilon = EpsilonUNet(standard, **TINY)
    data = 2 * torch.rand(20, 8, 8) - 1
    objective = Objective.DENOISING
    train(epsilon, standard, objective, data, data, folder / "standard", SETTINGS, about=about, accelerator="cpu")
    return folder


@pytest.mark.parametrize("name", list(SIZES))
def test_samples_are_phases_in_a_file_a_sheet_of_their_pictures_and_a_video(
    name: str, runs: Path, tmp_path: Path
) -> None:
    told = ran(f"sample {runs}/{name} -n 5 --steps 4 --batch 3 --out {tmp_path}/drawn --video {tmp_path}/v.gif")
    assert "started from the law: settled" in told
    drawn = opened(tmp_path / "drawn.nc")
    assert drawn["theta"].shape == (5, *SIZES[name])
    assert "path" not in drawn
    with Image.open(tmp_path / "drawn.png") as picture:
        assert (picture.mode, picture.size) == ("L" if name == "grey" else "RGB", (3 * 130 - 2, 2 * 130 - 2))
        corner = np.asarray(picture, dtype=float)[0, 0]
    encoding = PhaseEncoding(drawn.attrs["encoding_scale"])
    expected = 127.5 * (encoding.decode(torch.from_numpy(drawn["theta"].values[0, ..., 0, 0])) + 1)
    assert np.abs(corner - expected.numpy()).max() <= 0.5 + 1e-4
    with Image.open(tmp_path / "v.gif") as video:
        assert video.size == picture.size
        assert 1 < getattr(video, "n_frames", 1) <= 5


@pytest.mark.parametrize("how", ["--flow rk4", "--corrector 0.1 --noisy", "--spacing log-noise --method sra1"])
def test_every_way_back_is_an_option_and_batches_do_not_matter(how: str, runs: Path, tmp_path: Path) -> None:
    """To the rounding of convolutions in batches of other sizes, and what four coarse steps make of it."""
    ran(f"sample {runs}/grey -n 4 --steps 4 --out {tmp_path}/all {how}")
    ran(f"sample {runs}/grey -n 2 --first-sample 2 --batch 1 --steps 4 --out {tmp_path}/some {how}")
    both = (opened(tmp_path / f"{name}.nc")["theta"] for name in ("all", "some"))
    whole, part = (np.exp(1j * theta.values) for theta in both)
    assert np.abs(whole[2:] - part).max() < 1e-3
    assert np.abs(whole[:2] - part).max() > 0.1


def test_the_law_beside_a_checkpoint_is_where_sampling_starts(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "grey", run)
    model = trained(run)
    law, table = choose(model.chain, torch.zeros(20, 8, 8), fitted=60, compared=20, permutations=19)
    save_law(law, table, run / FILE)
    assert f"started from the law: {table.attrs['chosen']}, {run / FILE}" in ran(f"sample {run} -n 2 --steps 3")
    again = ran(f"sample {runs}/grey -n 2 --steps 3 --start-law {run / FILE} --out {tmp_path}/x")
    assert f"{table.attrs['chosen']}, {run / FILE}" in again
    assert "law: settled" in ran(f"sample {run} -n 2 --steps 3 --start-law settled --out {tmp_path}/y")
    said = ran(f"sample {runs}/colour -n 2 --start-law {run / FILE} --out {tmp_path}/z", 2)
    assert "law of samples of shape (8, 8)" in said


@pytest.mark.parametrize(("how", "method", "steps"), [("", "multistep", 25), ("--corrector 0.1", "heun", 100)])
def test_images_are_sampled_in_few_steps_unless_asked(
    how: str, method: str, steps: int, runs: Path, tmp_path: Path
) -> None:
    ran(f"sample {runs}/grey -n 1 --out {tmp_path}/drawn {how}")
    options = json.loads(opened(tmp_path / "drawn.nc").attrs["options"])
    assert (options["method"], options["steps"]) == (method, steps)


@pytest.mark.parametrize("how", ["--method heun", "--stochasticity 0", "--spacing time", "--noisy", "--start-law a"])
def test_what_the_standard_diffusion_does_not_read_is_refused(how: str, runs: Path, tmp_path: Path) -> None:
    said = ran(f"sample {runs}/standard -n 2 --out {tmp_path}/x {how}", 2)
    assert f"{how.split()[0]}: for models of phases" in said


def test_an_adaptive_flow_goes_down_to_the_first_step_of_the_chain(runs: Path, tmp_path: Path) -> None:
    ran(f"sample {runs}/grey -n 1 --flow bosh3 --out {tmp_path}/x")
    assert json.loads(opened(tmp_path / "x.nc").attrs["options"])["steps"] == 8


@pytest.mark.parametrize("how", ["", "--flow ddim"])
def test_a_model_of_the_standard_diffusion_is_sampled_too(how: str, runs: Path, tmp_path: Path) -> None:
    ran(f"sample {runs}/standard -n 3 --batch 2 --steps 3 --out {tmp_path}/drawn {how}")
    assert opened(tmp_path / "drawn.nc")["value"].shape == (3, 8, 8)
    assert (tmp_path / "drawn.png").exists()


def test_samples_of_images_are_told_in_json(runs: Path, tmp_path: Path) -> None:
    told = json.loads(ran(f"sample {runs}/grey -n 2 --steps 2 --out {tmp_path}/x --video {tmp_path}/x.gif --json -q"))
    assert told["result"] == {"count": 2, "start_law": "settled"}
    assert {Path(file).name for file in told["files"].values()} == {"x.nc", "x.png", "x.gif"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--video {1}/v.mp4", "written as a GIF"),
        ("--start-law {1}/nowhere", "there is no checkpoint"),
        ("--method euler", "unknown method 'euler'"),
        ("--flow euler_maruyama", "unknown method 'euler_maruyama'"),
        ("--flow rk4 --corrector 0.1", "takes no Langevin steps"),
        ("--flow dopri5 --method heun --stochasticity 0", "--method, --stochasticity: of the reverse equation"),
        ("--flow dopri5 --steps 7", "--steps: the flow method dopri5 chooses its own steps"),
        ("--out {1}/x.csv", "would be a table of angles"),
        ("--corrector -1", "signal-to-noise ratio must be positive"),
        ("--steps 1", "n_steps must be at least 2"),
        ("--sheet {1}/s.xyz", "does not say which kind of picture"),
        ("--video {1}/v.gif --sheet {1}/v.gif", "both the sheet and the video"),
        ("-n 100000000000", "GiB of memory"),
        ("--sheet {1}/nowhere/s.png", "does not exist"),
    ],
)
def test_bad_input_is_answered_by_one_message(options: str, message: str, runs: Path, tmp_path: Path) -> None:
    said = ran(f"sample {runs}/grey -n 2 --out {tmp_path}/x " + options.format(runs, tmp_path), 2)
    assert message in said
    assert said.startswith("error: ")
    assert not list(tmp_path.iterdir())

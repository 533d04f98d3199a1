"""``circsde train`` and ``diagnose`` for images: from a texture to a folder, its law to start from, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from command_line import ran
from PIL import Image

from circsde.commands import image_diagnosis
from circsde.data import image_set
from circsde.data.orientation import OrientationEncoding
from circsde.kuramoto import KuramotoSDE
from circsde.models.linear_residual import LinearResidual
from circsde.models.training import trained
from circsde.models.transitions import Objective
from circsde.models.variance_preserving import VariancePreserving
from circsde.sampling.choose_start import FILE, load_law
from circsde.schedule import Schedule

SMALL = "--crop 16 --epochs 1 --updates 2 --batch 4 --steps 6 --device cpu"


def test_a_texture_is_learnt_its_start_law_chosen_and_samples_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ran(f"train texture:grass --process local --radius 2 {SMALL} --sheets 1 --out {tmp_path}/run")
    assert "windows of 16 x 16" in told
    model = trained(tmp_path / "run")
    assert model.objective is Objective.PATHWISE
    assert model.about["encoding_scale"] == pytest.approx(0.15 * np.pi)
    _, table = load_law(tmp_path / "run" / FILE)
    assert f"sampling starts from the law {table.attrs['chosen']!r}" in told
    with Image.open(tmp_path / "run" / "sheets" / "000002.png") as picture:
        assert picture.width >= 5 * 16  # 24 samples, five in a row

    monkeypatch.setattr(image_diagnosis, "COUNT", 12)
    monkeypatch.setattr(image_diagnosis, "STEPS", 3)
    told = ran(f"diagnose {tmp_path}/run")
    assert "gabor_frechet" in told
    with xr.open_dataset(tmp_path / "run" / "diagnosis.nc") as result:
        assert result["sampled"].shape == (12, 16, 16)
        assert result["forward"].shape == (6, 6, 16, 16)
        assert float(result["value"].sel(measure="grey")) > 0.0
    with Image.open(tmp_path / "run" / "diagnosis.png") as picture:
        assert picture.width > picture.height


@pytest.mark.slow
def test_orientations_are_learnt_and_judged_as_the_ridges_that_they_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(f"train fingerprint --process diffusion --encode orientation {SMALL} --out {tmp_path}/run")
    model = trained(tmp_path / "run")
    assert model.about["encoding"] == "orientation"
    monkeypatch.setattr(image_diagnosis, "COUNT", 8)
    monkeypatch.setattr(image_diagnosis, "STEPS", 3)
    ran(f"diagnose {tmp_path}/run")
    with xr.open_dataset(tmp_path / "run" / "diagnosis.nc") as result:
        held_out = image_set("fingerprint", crop=16, part="test")
        phases = held_out.phases(8, OrientationEncoding(), 0)
        np.testing.assert_allclose(result["data"], OrientationEncoding().decode(phases))
        np.testing.assert_allclose(result["forward"][0], phases[:6], atol=1e-6)
    ran(f"sample {tmp_path}/run -n 4 --steps 3 --sheet {tmp_path}/sheet.png --out {tmp_path}/s")
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.slow
def test_the_standard_model_is_trained_on_values_and_starts_from_normals(tmp_path: Path) -> None:
    small = SMALL.replace("--steps 6", "")  # there is no chain
    told = ran(f"train fingerprint:arch --process standard {small} --sheets 1 --out {tmp_path}/run")
    assert "start" not in told
    model = trained(tmp_path / "run")
    assert isinstance(model.process, VariancePreserving)
    assert "encoding_scale" not in model.about
    assert [path.name for path in (tmp_path / "run" / "sheets").iterdir()] == ["000002.png"]


def test_the_published_chain_is_that_of_one_step_matching(tmp_path: Path) -> None:
    answer = json.loads(
        ran(f"train texture:brick --process global --objective one-step {SMALL} --out {tmp_path}/run -q --json")
    )
    assert trained(tmp_path / "run").chain.published
    assert answer["result"]["windows"] == [16, 16]
    _, table = load_law(tmp_path / "run" / FILE)
    assert answer["result"]["start_law"] == table.attrs["chosen"]
    assert answer["result"]["start_law_p"].keys() == set(table["candidate"].values)


@pytest.mark.parametrize(
    ("options", "settling", "scale"),
    [
        ("--process local --radius 2", True, 0.15),
        ("--process global --scale 0.4", True, 0.4),
        ("--process reference --rates published", False, 0.5),
        ("--process diffusion", False, 0.5),
    ],
)
@pytest.mark.slow
def test_phases_that_are_attracted_settle_unless_asked(
    options: str, settling: bool, scale: float, tmp_path: Path
) -> None:
    ran(f"train texture:brick {options} {SMALL} --out {tmp_path}/run")
    model = trained(tmp_path / "run")
    sde = model.chain.sde
    assert isinstance(sde, KuramotoSDE)
    attracted = sde.schedule.at(1.0).reference > 0.0
    published = Schedule.published(6, reference_weight=1.5 if attracted else 0.0)
    assert sde.schedule == (Schedule.settling(0.25 if sde.coupled else 0.0) if settling else published)
    assert model.about["encoding_scale"] == pytest.approx(scale * np.pi)
    assert isinstance(model.network, LinearResidual) == (model.objective is Objective.PATHWISE) == attracted


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train fingerprint --process diffusion --rates settling --crop 16 --out {0}/x", "has no settling rates"),
        ("train fingerprint --process standard --rates published --crop 16 --out {0}/x", "has no published rates"),
        ("train fingerprint --process global --radius 2 --crop 16 --out {0}/x", "couples no windows"),
        ("train texture:brick --process local --radius 2 --crop 12 --device cpu --out {0}/x", "multiples of 8"),
        ("train texture:brick --process local --radius 9 --crop 16 --device cpu --out {0}/x", "does not fit"),
        ("train fingerprint --encode orientation --scale 0.9 --crop 16 --out {0}/x", "scale is of grey values"),
        ("train fingerprint --process standard --encode orientation --crop 16 --out {0}/x", "not of orientations"),
        ("train texture:brick --process standard --objective pathwise --crop 16 --out {0}/x", "trained by denoising"),
        ("train texture:brick --process standard --steps 7 --crop 16 --out {0}/x", "--steps: of a chain of phases"),
        ("train texture:brick --process local --crop 32 --seconds 0.5 --device cpu --out {0}/x", "give at least"),
        ("train texture:brick --size 32 --process diffusion --device cpu --out {0}/x", "give --crop"),
        ("train texture:wood --device cpu --out {0}/x", "unknown texture"),
        ("train {0} --device cpu --out {0}/x", "no images in the folder"),
    ],
)
def test_bad_input_is_one_message(line: str, message: str, tmp_path: Path) -> None:
    assert message in ran(line.format(tmp_path), status=2)


@pytest.mark.parametrize(("most", "limit", "colours"), [(0.4, 0.38, "RdBu_r"), (3.0, np.pi, "twilight_shifted")])
def test_the_colours_of_the_forward_process_fit_the_range_of_its_phases(
    most: float, limit: float, colours: str
) -> None:
    pictures = np.zeros((8, 4, 4))
    phases = most * np.linspace(-1, 1, 6 * 6 * 16).reshape(6, 6, 4, 4)
    result = xr.Dataset(
        {
            "data": (("image", "row", "column"), pictures),
            "sampled": (("image", "row", "column"), pictures),
            "forward": (("time", "start", "row", "column"), phases),
        },
        {"time": np.linspace(0, 1, 6)},
    )
    figure = image_diagnosis.draw(result)
    titles = {axes.get_title(): axes for axes in figure.get_axes()}
    drawn = titles["how four of them synchronise"]
    (image,) = drawn.get_images()
    assert image.get_clim() == pytest.approx((-limit, limit), rel=0.02)
    assert image.get_cmap().name == colours
    assert [label.get_text() for label in drawn.get_yticklabels()][:2] == ["t = 0", "t = 0.2"]
    assert {"held-out windows", "samples of the model"} < titles.keys()
    assert "left in the last row" in figure.get_supxlabel()
    assert "last row" not in image_diagnosis.draw(result.drop_vars("forward")).get_supxlabel()

"""``circsde loglik``: rows that are finished are kept, and images have the bits that they should."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import norm
from torch import Tensor
from typer.testing import CliRunner

from circsde.cli import app
from circsde.commands import loglik
from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.laws.gibbs import MeanFieldGibbs
from circsde.matching.chain import Chain
from circsde.models.processes import Family, Process, image_process
from circsde.models.training import Trained
from circsde.models.transitions import Objective
from circsde.models.variance_preserving import VariancePreserving
from circsde.sampling.likelihoods import Estimate, OfAngles, OfImages, levels, prior_of
from circsde.sampling.start_laws import Gibbs, Independent, Resampled
from circsde.solvers.likelihood import log_density
from strategies import random_angles

TINY = "--epochs 1 --updates 2 --batch 8 --steps 4 --device cpu"


def ran(line: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, line.split())
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


def answer(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran(f"{line} --json --quiet"))["result"]
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that were hardly trained: of angles, of grey images and of fields of phases."""
    folder = tmp_path_factory.mktemp("loglik")
    draw = np.random.default_rng(0).normal
    np.save(folder / "angles.npy", draw(0.0, 0.4, (40, 2)))
    np.save(folder / "fields.npy", draw(0.0, 0.4, (12, 8, 8)))
    ran(f"train {folder}/angles.npy --unit rad --out {folder}/angles {TINY} --width 8 --depth 1")
    ran(f"train texture:brick --process diffusion --crop 64 --size 8 --preset tiny --out {folder}/grey {TINY}")
    ran(f"train {folder}/fields.npy --unit rad --process diffusion --preset tiny --out {folder}/fields {TINY}")
    return folder


class Nothing(torch.nn.Module):
    """A score of zero."""

    def forward(self, t: Tensor, theta: Tensor) -> Tensor:
        del t
        return 0.0 * theta


# Interruptions


def test_rows_that_are_finished_are_kept_and_not_computed_again(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loglik, "ROWS", 10)
    line = f"loglik {runs}/angles {runs}/angles.npy --unit rad --out {tmp_path}/values"
    compute, seen = OfAngles.compute, list[float]()

    def counted(cell: OfAngles) -> xr.Dataset:
        seen.append(cell.atol)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return compute(cell)

    monkeypatch.setattr(OfAngles, "compute", counted)
    assert "the same command resumes from there" in ran(line, 130)
    assert not (tmp_path / "values.nc").exists()
    (tmp_path / "values.cells" / "mine.txt").write_text("not of the command")
    ran(f"loglik {runs}/angles {runs}/angles.npy --unit rad --out {tmp_path}/other")
    assert len(seen) == 3 + 4  # nothing was kept there
    ran(line)
    assert len(seen) == 3 + 4 + 2
    assert [path.name for path in (tmp_path / "values.cells").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "other.cells").exists()
    with xr.open_dataset(tmp_path / "values.nc") as values, xr.open_dataset(tmp_path / "other.nc") as whole:
        assert values.sizes["row"] == 40
        xr.testing.assert_equal(values, whole)


def test_rows_of_another_tolerance_or_data_are_computed_anew() -> None:
    theta, sde = random_angles(4, 2).float(), image_process(Process.DIFFUSION, (2, 1), Family.PUBLISHED, 4)
    model = Trained(Nothing(), Chain.uniform(sde, 4), Objective.DENOISING, {}, 1)
    cells = [OfAngles(model, digest, x, atol) for digest, x, atol in (
        ("a", theta, 1e-5), ("b", theta, 1e-5), ("a", theta + 0.1, 1e-5), ("a", theta, 1e-4), ("a", theta[:2], 1e-5)
    )]  # fmt: skip
    assert len({cell.key() for cell in cells}) == 5


# Images


@pytest.mark.parametrize("scale", [0.5 * math.pi, math.pi])
def test_an_image_under_the_uniform_law_has_the_bits_of_its_levels(scale: float) -> None:
    """``log2 2 pi`` bits for a phase, less those of the length of a level: 8 on the whole circle."""
    sde = image_process(Process.DIFFUSION, (8, 8), Family.PUBLISHED, 4)
    model = Trained(Nothing(), Chain.uniform(sde, 4), Objective.DENOISING, {"encoding_scale": scale}, 1)
    images = torch.randint(256, (3, 8, 8), generator=torch.Generator().manual_seed(0))
    prior, name = prior_of(model, None)
    found = OfImages(model, prior, "", images, 0, Estimate(draws=2)).compute()
    assert name == "settled"
    np.testing.assert_allclose(found["bits_per_dim"], 8.0 + math.log2(math.pi / scale), atol=1e-5)


class Gaussian(torch.nn.Module):
    """The exact score of independent normal phases or values, ``N(loc, scale^2)`` at time 0."""

    def __init__(self, process: Chain | VariancePreserving, loc: float, scale: float) -> None:
        super().__init__()
        self.process, self.loc, self.scale = process, loc, scale

    def law(self, t: Tensor | float) -> WrappedNormal:
        """The law on a circle at time ``t``."""
        assert isinstance(self.process, Chain)
        return WrappedNormal(self.loc, (self.scale**2 + torch.as_tensor(self.process.sde.variance(0.0, t))).sqrt())

    def forward(self, t: Tensor, theta: Tensor) -> Tensor:
        if isinstance(self.process, Chain):
            return self.law(t).score(theta)
        alpha, sigma = (float(scale) for scale in self.process.scales(t))
        return (alpha * self.loc - theta) / (alpha**2 * self.scale**2 + sigma**2)


@pytest.mark.parametrize("kind", ["diffusion", "standard"])
def test_normal_grey_levels_have_the_bits_of_their_law(kind: str) -> None:
    """Mean and standard deviation of 140 and 20 levels, so that noise between levels costs 1e-4 bits.

    The bound is the mean of a quadratic over each cell. Student's law of 7 degrees of freedom; false alarm 1e-3 for
    each of 2 images.
    """
    unit = 0.5 * math.pi / 128.0 if kind == "diffusion" else 1.0 / 128.0
    sde = image_process(Process.DIFFUSION, (8, 8), Family.PUBLISHED, 4)
    process = Chain.uniform(sde, 4) if kind == "diffusion" else VariancePreserving((8, 8))
    score = Gaussian(process, 12.0 * unit, 20.0 * unit)
    model = Trained(score, process, Objective.DENOISING, {"encoding_scale": 0.5 * math.pi}, 1)
    images = (140.0 + 20.0 * torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))).long()
    prior = score.law(sde.horizon) if kind == "diffusion" else prior_of(model, None)[0]
    found = OfImages(model, prior, "", images, 0, Estimate(draws=8)).compute()
    middle = images.double() + 0.5 - 140.0
    bound = (0.5 * (middle**2 + 1.0 / 12.0) / 400.0 + math.log(20.0 * math.sqrt(2.0 * math.pi))) / math.log(2.0)
    code = -np.log2(norm.cdf(middle + 0.5, scale=20.0) - norm.cdf(middle - 0.5, scale=20.0))
    z = (torch.from_numpy(found["bits_per_dim"].values) - bound.mean((1, 2))) / torch.from_numpy(found["stderr"].values)
    assert z.abs().max() < 5.41
    np.testing.assert_allclose(bound.mean((1, 2)), code.mean((1, 2)), atol=2e-4)
    assert found["stderr"].max() < 0.01


@pytest.mark.slow
def test_bits_of_images_are_the_same_however_the_divergence_is_taken(runs: Path, tmp_path: Path) -> None:
    line = f"loglik {runs}/grey texture:brick -n 2 --atol 0.01"
    exact = answer(f"{line} --probes 64 --draws 3 --out {tmp_path}/exact")
    few = answer(f"{line} --probes 4 --draws 4 --out {tmp_path}/few")
    assert set(exact) == {"rows", "bits_per_dim", "standard_error"}
    assert exact["rows"] == 2
    with xr.open_dataset(tmp_path / "exact.nc") as a, xr.open_dataset(tmp_path / "few.nc") as b:
        z = (a["bits_per_dim"] - b["bits_per_dim"]) / np.hypot(a["stderr"], b["stderr"])
        assert float(abs(z).max()) < 31.6  # Student's law of 2 degrees of freedom; false alarm 1e-3 for each of 2
        assert a.attrs["start_law"] in ("settled", "independent")
    assert few["bits_per_dim"] == pytest.approx(exact["bits_per_dim"], abs=0.1)
    assert few["bits_per_dim"] != exact["bits_per_dim"]


def test_windows_of_all_images_are_taken_but_of_the_training_only_those_held_out(runs: Path, tmp_path: Path) -> None:
    assert answer(f"loglik {runs}/fields {runs}/fields.npy --unit rad --out {tmp_path}/held")["rows"] == 2
    np.save(tmp_path / "others.npy", np.load(runs / "fields.npy")[:5])
    found = answer(f"loglik {runs}/fields {tmp_path}/others.npy --unit rad --probes 64 --out {tmp_path}/others")
    assert found["rows"] == 5
    assert {"negative_log_likelihood", "discretisation_error"} < set(found)
    with xr.open_dataset(tmp_path / "others.nc") as values:
        assert values["stderr"].values.tolist() == [0.0] * 5


def test_a_likelihood_starts_from_a_law_whose_density_is_known() -> None:
    theta = random_angles(3, 4, 4)
    sde = image_process(Process.LOCAL, (4, 4), Family.PUBLISHED, 4, 1)
    model = Trained(Nothing(), Chain.uniform(sde, 4), Objective.DENOISING, {}, 1)
    independent = Independent((4, 4), torch.tensor(0.3).double(), 2.0)
    assert prior_of(model, independent) == (independent, "independent")
    expected = VonMises(0.3, 2.0).log_prob(theta).sum((1, 2))
    torch.testing.assert_close(log_density(independent, theta), expected)
    gibbs = Gibbs((4, 4), (2.0, 1.0, 0.5), 0.2)
    torch.testing.assert_close(
        log_density(gibbs, theta), MeanFieldGibbs(16, 2.0, 1.0, 0.5, 0.2).log_prob(theta.flatten(1))
    )
    assert prior_of(model, Resampled.of(theta))[1] == "settled"


def test_levels_are_whole_and_encode_what_was_read() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(levels(every.float().div(127.5).sub(1.0)), every.long())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{0}/angles {0}/angles.npy --unit rad --probes 4", "--probes: for models of images"),
        ("{0}/grey texture:brick --columns 1", "--columns: for models of angles"),
        ("{0}/grey {0}/fields.npy", "cannot"),
        ("{0}/fields {0}/angles.npy --unit rad", "fields of phases have the shape"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(line: str, message: str, runs: Path, tmp_path: Path) -> None:
    said = ran(f"loglik {line.format(runs)} --out {tmp_path}/x", 2)
    assert message in " ".join(said.split())

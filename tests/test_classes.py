"""Classes: labels stay with their data, a network learns the score of each, and samples are of those asked for."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from command_line import ran
from PIL import Image
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.data import RandomWindows, image_set
from circsde.encoding import PhaseEncoding
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.matching.chain import Chain
from circsde.models.guidance import Conditioned
from circsde.models.linear_residual import LinearResidual
from circsde.models.mlp import ScoreMLP
from circsde.models.processes import Process, angle_process
from circsde.models.settings import Settings
from circsde.models.settled_residual import SettledResidual
from circsde.models.training import train, trained
from circsde.models.transitions import Objective, PairStream, TensorSampler, Transitions
from circsde.models.unet import ScoreUNet
from circsde.models.variance_preserving import EpsilonUNet, NoisedData, VariancePreserving
from circsde.sampling.generate import generate
from circsde.sampling.reverse import Recipe
from circsde.sampling.trained import class_labels, sample
from circsde.schedule import Schedule
from circsde.typing import Angles, Labels

SHAPE = (4, 4)
NAMES = ("left", "middle", "right")
CENTRES = torch.tensor([-1.2, 0.0, 1.2])
"""The centres of the phases of three classes."""


@dataclass(frozen=True)
class Classes:
    """Images whose phases are all near the centre of their class."""

    spread: float = 0.0
    shape: tuple[int, int] = SHAPE
    classes: tuple[str, ...] = ("left", "middle", "right")
    digest: str = "three classes"

    def labelled(self, count: int, generator: torch.Generator) -> tuple[Angles, Labels]:
        labels = torch.randint(len(self.classes), (count,), generator=generator)
        noise = self.spread * torch.randn(count, *self.shape, generator=generator)
        return CENTRES[labels, None, None] + noise, labels

    def __call__(self, count: int, generator: torch.Generator) -> Angles:
        return self.labelled(count, generator)[0]


def stream(objective: Objective | None, starts: Any, seed: int = 0) -> PairStream:
    """A stream of pairs of phases that hardly move, or without an objective of values."""
    generator = torch.Generator().manual_seed(seed)
    if objective is None:
        return NoisedData(VariancePreserving(SHAPE), starts, 60, generator)
    sde = KuramotoSDE(SHAPE, NoCoupling(), Schedule.constant(0.0, 0.0, 1e-4))
    return Transitions(Chain.uniform(sde, 5), objective, starts, 60, generator, pool=3, stride=2)


EVERY = pytest.mark.parametrize("objective", [*Objective, None], ids=str)


@EVERY
def test_a_label_stays_with_its_path_until_another_begins(objective: Objective | None) -> None:
    """Over several lives of every path, and through a saved state; the labels of the batch before do not fit."""
    source = stream(objective, Classes())
    counts, before = Counter[int](), torch.zeros(60, dtype=torch.int64)
    for draw in range(24):
        if draw == 12:
            state, source = source.state_dict(), stream(objective, Classes(), seed=1)
            source.load_state_dict(state)
        pairs = source.draw()
        origin = pairs.theta
        if objective is None:
            alpha, _ = VariancePreserving(SHAPE).scales(pairs.t)
            moved = pairs.theta + pairs.variance.float()[:, None, None] * pairs.target
            origin = moved / alpha.float()[:, None, None]
        nearest = (origin.mean((1, 2))[:, None] - CENTRES).abs().argmin(1)
        assert torch.equal(pairs.labels, nearest)
        assert not torch.equal(pairs.labels, before)
        before = pairs.labels
        counts.update(pairs.labels.tolist())
    assert sorted(counts) == [0, 1, 2]


@EVERY
def test_data_without_classes_have_no_labels(objective: Objective | None) -> None:
    def zeros(count: int, generator: torch.Generator) -> Angles:  # noqa: ARG001
        return torch.zeros(count, *SHAPE)

    assert (stream(objective, zeros).draw().labels == -1).all()


NETWORK: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "attention": (), "classes": 3}
SDE = KuramotoSDE(SHAPE, NoCoupling(), Schedule.linear((0.0, 0.0, 0.2), (0.0, 0.0, 1.0)))


def networks() -> dict[str, torch.nn.Module]:
    """Networks with random weights everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        score = ScoreUNet(SHAPE, SDE.schedule.diffusion, **NETWORK)
        rest = ScoreMLP(SHAPE, SDE.schedule.diffusion, width=8, depth=1, classes=3)
        made: dict[str, torch.nn.Module] = {
            "SettledResidual": SettledResidual(rest, SDE),
            "ScoreUNet": score,
            "LinearResidual": LinearResidual(ScoreUNet(SHAPE, SDE.schedule.diffusion, **NETWORK), SDE, 4),
            "ScoreMLP": ScoreMLP(SHAPE, SDE.schedule.diffusion, width=8, depth=1, classes=3),
            "EpsilonUNet": EpsilonUNet(VariancePreserving(SHAPE), **NETWORK),
        }
        for network in made.values():
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
        return {name: network.double().eval() for name, network in made.items()}


@pytest.mark.parametrize("guidance", [-1.0, 0.0, 1.0, 2.5])
@pytest.mark.parametrize("name", ["ScoreUNet", "ScoreMLP", "SettledResidual", "LinearResidual", "EpsilonUNet"])
def test_guidance_leads_from_the_score_of_all_to_that_of_a_class(name: str, guidance: float) -> None:
    network, theta = networks()[name], torch.randn(3, *SHAPE, dtype=torch.float64)
    labels = torch.tensor([2, -1, 0])
    for t in (0.3, torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)):
        of_class, of_all = network(t, theta, labels), network(t, theta)
        expected = guidance * of_class + (1.0 - guidance) * of_all
        got = Conditioned(network, labels, guidance=guidance)(t, theta)
        torch.testing.assert_close(got, expected)
        assert (of_class - of_all)[[0, 2]].abs().amax((1, 2)).min() > 1e-3
        torch.testing.assert_close(of_class[1], of_all[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.tensor([0, 3])}, "labels from 0 to 2, or -1, got 0 to 3"),
        ({"labels": torch.tensor([-2])}, "got -2 to -2"),
        ({"guidance": 2.0}, "without labels"),
    ],
)
def test_classes_that_a_network_does_not_know_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conditioned(networks()["ScoreUNet"], **arguments)
    with pytest.raises(ValueError, match="knows no labels"):
        Conditioned(ScoreUNet(SHAPE, SDE.schedule.diffusion, width=8), torch.tensor([0]))


def law(label: int, t: float) -> WrappedNormal:
    """The law of each phase of a class: wrapped diffusion of a wrapped normal law."""
    variance = 0.09 + 2.0 * float(SDE.schedule.diffusion.integral(0.0, t))
    return WrappedNormal(CENTRES[label].double(), torch.tensor(variance**0.5, dtype=torch.float64))


def score_of_all(t: float, theta: Tensor) -> Tensor:
    """The score of the mixture: the scores of the classes, weighted by their probabilities given all phases."""
    weights = torch.stack([law(c, t).log_prob(theta).sum((1, 2)) for c in range(3)]).softmax(0)
    scores = torch.stack([law(c, t).score(theta) for c in range(3)])
    return (weights[..., None, None] * scores).sum(0)


@pytest.mark.slow
def test_a_network_learns_the_score_of_each_class_and_of_all_together(tmp_path: Path) -> None:
    """Of images of one pixel, where it is known, to a sixth of its size; that of another class is off by three such."""
    torch.manual_seed(0)
    shape = (1, 1)
    sde = KuramotoSDE(shape, NoCoupling(), SDE.schedule)
    network = ScoreUNet(shape, SDE.schedule.diffusion, width=16, multipliers=(1,), attention=(), classes=3)
    settings = Settings(4, 150, 128, 5e-3, warmup=20, averaging=0.98, unlabelled=0.25)
    data = Classes(0.3, shape)
    chain = Chain.uniform(sde, 20)
    got = train(network, chain, Objective.DENOISING, data, data, tmp_path, settings, accelerator="cpu").network
    for t in (0.3, 0.8):
        for label in range(3):
            theta = law(label, t).sample((4000, *shape), generator=torch.Generator().manual_seed(1)).float()
            size = law(label, t).score(theta.double()).square().mean().sqrt()

            def error(of: int, exact: Tensor, t: float = t, theta: Tensor = theta, size: Tensor = size) -> float:
                answer = Conditioned(got, torch.tensor([of]))(t, theta)
                return float((answer - exact).square().mean().sqrt() / size)

            assert error(label, law(label, t).score(theta.double())) < 1 / 6
            assert error((label + 1) % 3, law(label, t).score(theta.double())) > 0.5
            assert error(-1, score_of_all(t, theta.double())) < 1 / 6


@pytest.mark.parametrize("changes", [{"network": None}, {"data": None}])
def test_a_network_and_data_of_other_classes_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    data: Any = torch.zeros(10, *SHAPE) if "data" in changes else Classes()
    classes = 2 if "network" in changes else 3
    network = ScoreUNet(SHAPE, SDE.schedule.diffusion, **NETWORK | {"classes": classes})
    with pytest.raises(ValueError, match=f"made with classes={classes} and the data have"):
        train(network, Chain.uniform(SDE, 4), Objective.DENOISING, data, data, tmp_path, Settings(1, 1, 4))


def test_there_is_a_label_for_each_sample() -> None:
    chain, law = Chain.uniform(SDE, 4), WrappedNormal(torch.zeros(SHAPE), torch.ones(SHAPE))
    network = ScoreUNet(SHAPE, SDE.schedule.diffusion, **NETWORK)
    recipe = Recipe(n_steps=2)
    with pytest.raises(ValueError, match="a label for each of 3 samples, got 2"):
        generate(chain, network, law, 3, recipe, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="without labels"):
        generate(chain, network, law, 3, recipe, guidance=2.0)


def test_angles_are_sampled_by_the_class_that_is_asked_for(tmp_path: Path) -> None:
    """Three angles near a centre of their own in each class: a short training tells them apart by a radian."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    data = TensorSampler(CENTRES[labels, None] + 0.2 * torch.randn(300, 3, generator=generator), labels, NAMES)
    sde = angle_process(Process.DIFFUSION, (3,))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ScoreMLP((3,), sde.schedule.diffusion, width=32, depth=1, smallest_noise=0.2, classes=3)
    settings = Settings(1, 300, 128, 3e-3, warmup=20, averaging=0.95)
    about = {"classes": dict.fromkeys(NAMES, 100), "names": ["a", "b", "c"]}
    chain = Chain.geometric(sde, 40, 0.2, linear_from=2.0)
    model = train(network, chain, Objective.DENOISING, data, data, tmp_path, settings, about=about, accelerator="cpu")
    drawn = sample(model, 60, Recipe("multistep", 15), classes=("right", "left"))
    assert drawn["class"].values[:3].tolist() == ["right", "left", "right"]
    near = np.cos(drawn["theta"].values[:, :, None] - CENTRES.numpy()).mean(1)  # how near to each centre, 1 at most
    assert near[::2].mean(0).argmax() == 2
    assert near[1::2].mean(0).argmax() == 0
    assert near[::2, 2].mean() > 0.8
    assert near[1::2, 0].mean() > 0.8


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), (), "need the names of their classes"),
        (None, NAMES, "and classes labels"),
        (torch.tensor([0, 1, 3, -1]), NAMES, "2 of them of no class"),
        (torch.tensor([0, 1]), NAMES, "each of 4 rows, got 2"),
    ],
)
def test_labels_of_rows_that_do_not_fit_are_refused(
    labels: Tensor | None, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TensorSampler(torch.zeros(4, 2), labels, names)


# data with classes


def save(path: Path, grey: int, seed: int = 0) -> None:
    """An image about a grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 21, (16, 16))
    Image.fromarray((grey + noise).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve dark images and four bright ones."""
    root = tmp_path_factory.mktemp("classes")
    for i in range(12):
        save(root / "dark" / f"{i}.png", 60, i)
        if i < 4:
            save(root / "bright" / "deeper" / f"{i}.png", 200, i)
    return root


def test_the_classes_of_a_folder_are_the_folders_in_it(folder: Path, tmp_path: Path) -> None:
    images = image_set(folder)
    assert images.labels == ("bright",) * 4 + ("dark",) * 12
    assert set(images.of([name for name in images.names if "bright" in name]).labels) == {"bright"}
    assert {label for part in images.split() for label in part.labels} == {"bright", "dark"}
    save(tmp_path / "a" / "one.png", 60)
    save(tmp_path / "two.png", 60, 1)
    assert image_set(tmp_path).labels == ()


@pytest.mark.parametrize(
    ("source", "names", "labels"),
    [
        ("brodatz", ("D001.png", "D034.png"), ("D001", "D034")),
        ("socofing", ("1__M_Left_index_finger.png", "2__F_Right_thumb_finger_CR.png"), ("Left_index", "Right_thumb")),
        ("socofing", ("1__.png", "2__F_Right_thumb_finger.png"), ()),
    ],
)
def test_known_sets_name_their_classes(
    source: str, names: tuple[str, ...], labels: tuple[str, ...], tmp_path: Path
) -> None:
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (103, 96), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    assert image_set(f"{source}:{tmp_path}", crop=8).labels == labels


@pytest.mark.parametrize("encoding", [None, PhaseEncoding(1.0)])
def test_random_windows_have_the_label_of_their_image(folder: Path, encoding: PhaseEncoding | None) -> None:
    images = image_set(folder, crop=8)
    draws = RandomWindows(images, encoding, ("bright", "dark"))
    windows, labels = draws.labelled(200, torch.Generator().manual_seed(0))
    assert torch.equal(windows.mean((1, 2)) < 0.0, labels == 1)
    assert torch.equal(draws(200, torch.Generator().manual_seed(0)), windows)
    share = float((labels == 1).double().mean())
    assert share == pytest.approx(0.75, abs=4.42 * (0.75 * 0.25 / 200) ** 0.5)  # a false alarm in 1e5 seeds
    assert draws.digest != RandomWindows(images, encoding).digest
    with pytest.raises(ValueError, match=r"the classes are dark, and there are images of bright"):
        RandomWindows(images, encoding, ("dark",))
    with pytest.raises(ValueError, match="of no class"):
        RandomWindows(replace(images, labels=()), encoding, ("dark",))


# the command line


def test_samples_have_the_classes_that_are_asked_for_or_those_of_the_data() -> None:
    known = {"a": 6, "b": 3, "c": 1}
    whole = class_labels(known, 1000)
    assert whole is not None
    counts = torch.bincount(whole)
    assert (counts - torch.tensor([600, 300, 100])).abs().max() <= 3  # multiples of the golden section are that even
    part = class_labels(known, 20, first_sample=300)
    assert part is not None
    assert torch.equal(part, whole[300:320])
    asked = class_labels(known, 5, ("c", "a"), first_sample=1)
    assert asked is not None
    assert asked.tolist() == [0, 2, 0, 2, 0]
    assert class_labels({}, 3) is None


@pytest.mark.parametrize("process", ["diffusion", "standard", "local --radius 1"])
@pytest.mark.slow
def test_chosen_classes_are_sampled(process: str, folder: Path, tmp_path: Path) -> None:
    """After some fifty updates brightness distinguishes dark and bright images."""
    fast = "--epochs 2 --updates 25 --batch 32 --learning-rate 0.005 --device cpu"
    fast += "" if process == "standard" else " --steps 12"
    told = ran(f"train {folder} --process {process} --crop 8 --classes {fast} --out {tmp_path}/run")
    assert "of 2 classes to learn from" in told
    assert trained(tmp_path / "run").about["classes"] == {"bright": 2, "dark": 11}
    ran(f"sample {tmp_path}/run -n 12 --classes dark,bright --steps 8 --batch 5 --out {tmp_path}/asked")
    with xr.open_dataset(tmp_path / "asked.nc") as drawn:
        assert drawn["class"].values.tolist() == ["dark", "bright"] * 6
        name = "value" if process == "standard" else "theta"
        shade = drawn[name].mean(("row", "column")).groupby("class").mean()
        assert float(shade.sel({"class": "bright"}) - shade.sel({"class": "dark"})) > 0.0
    ran(f"sample {tmp_path}/run -n 12 --steps 4 --guidance 3 --out {tmp_path}/all")
    with xr.open_dataset(tmp_path / "all.nc") as drawn:
        assert Counter(drawn["class"].values.tolist())["dark"] in (9, 10)
    for line, message in (
        ("--classes dark,grey", "got the classes grey, and the model knows the classes bright, dark"),
        ("--guidance nan", "guidance"),
    ):
        assert message in ran(f"sample {tmp_path}/run {line} --out {tmp_path}/no", status=2)
    assert not list(tmp_path.glob("no*"))


def test_classes_are_refused_where_there_are_none(folder: Path, tmp_path: Path) -> None:
    fast = "--crop 8 --epochs 1 --updates 2 --batch 4 --steps 4 --device cpu"
    told = ran(f"train {folder / 'dark'} --process diffusion --classes {fast} --out {tmp_path}/run", status=2)
    assert "are not of two classes or more" in told
    ran(f"train {folder} --process diffusion {fast} --out {tmp_path}/run")
    for option in ("--classes dark", "--guidance 2"):
        assert "was trained without classes" in ran(f"sample {tmp_path}/run {option}", status=2)
    angles = tmp_path / "angles.csv"
    angles.write_text("a,b\n" + "0.1,0.2\n0.3,0.1\n" * 20)
    told = ran(f"train {angles} --unit rad --classes --out {tmp_path}/angles", status=2)
    assert "--classes: for images" in told

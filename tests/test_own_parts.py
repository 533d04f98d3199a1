"""A user's own parts work like those of circsde: coupling, network, method, metric, start law, command, source."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from circsde.cli import app as cli
from circsde.commands import options
from circsde.commands.answer import Answer
from circsde.commands.console import Program, command
from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.data import image_set, load
from circsde.data.image_sources import SOURCES, Found, ImageSource, Options, Picture
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import Chain
from circsde.metrics.comparison import Measure
from circsde.metrics.images import MEASURES, compare
from circsde.models import checkpoint
from circsde.models.mlp import ScoreMLP
from circsde.models.processes import Process, angle_process
from circsde.models.training import Settings, Trained, train, trained
from circsde.models.transitions import Objective
from circsde.sampling import choose_start, start_laws
from circsde.sampling.reverse import Recipe
from circsde.sampling.trained import sample
from circsde.schedule import Schedule
from circsde.sde import SDE
from circsde.solvers import Method, sdeint
from circsde.studies import work_precision
from circsde.torus import TWO_PI
from circsde.typing import Angles, Tangent, Time

SHAPE = (5,)
RATES = Schedule.constant(coupling=1.0, reference=1.0, diffusion=1.0)


@dataclass(frozen=True)
class Ring(Coupling):
    """Each oscillator listens to those some places before and after it."""

    distance: int = 1

    def mean(self, x: Tensor) -> Tensor:
        return 0.5 * (x.roll(self.distance, -1) + x.roll(-self.distance, -1))


class FirstHarmonic(nn.Module):
    """``b cos theta - a sin theta``."""

    def __init__(self, angles: int) -> None:
        super().__init__()
        self.arguments = {"angles": angles}
        self.ab = nn.Parameter(torch.zeros(2, angles))

    def forward(self, t: Time, theta: Angles) -> Tangent:  # noqa: ARG002
        score: Tensor = self.ab[1] * theta.cos() - self.ab[0] * theta.sin()
        return score


def ring_graph() -> GraphCoupling:
    eye = torch.eye(5, dtype=torch.float64)
    return GraphCoupling(eye.roll(1, 0) + 2.0 * eye.roll(-1, 0))


def run_of(network: nn.Module, coupling: Coupling, run: Path) -> Any:
    sde = KuramotoSDE(SHAPE, coupling, RATES)
    data = 0.5 * torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(0))
    settings = Settings(epochs=1, updates=3, batch=16, pool=2)
    chain = Chain.uniform(sde, 10)
    return train(network, chain, Objective.PATHWISE, data, data, run, settings, accelerator="cpu")


@pytest.mark.parametrize("coupling", [Ring(2), ring_graph()], ids=["own", "graph"])
def test_a_coupling_trains_saves_and_loads(coupling: Coupling, tmp_path: Path) -> None:
    network = ScoreMLP(SHAPE, RATES.diffusion, width=8, depth=1)
    made = run_of(network, coupling, tmp_path)
    again = trained(tmp_path, known=(Ring,))
    theta = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for model in (made, again):
        expected = KuramotoSDE(SHAPE, coupling, RATES).drift(0.3, theta)
        torch.testing.assert_close(model.sde.drift(0.3, theta), expected, rtol=1e-14, atol=1e-14)
    assert torch.equal(made.network(0.3, theta.float()), again.network(0.3, theta.float()))


def test_a_network_trains_saves_and_loads_and_its_class_has_to_be_given(tmp_path: Path) -> None:
    made = run_of(FirstHarmonic(5), Ring(), tmp_path)
    with pytest.raises(ValueError, match=r"holds a FirstHarmonic, .* give the class, as in trained\(run, known="):
        trained(tmp_path)
    with pytest.raises(ValueError, match="holds a Ring, and circsde knows"):
        trained(tmp_path, known=(FirstHarmonic,))
    again = trained(tmp_path, known=(FirstHarmonic, Ring))
    assert isinstance(again.network, FirstHarmonic)
    assert torch.equal(made.network.ab, again.network.ab)
    assert bool(made.network.ab.any())  # it has learnt something


def test_what_does_not_say_how_it_was_made_is_refused_before_training(tmp_path: Path) -> None:
    class Silent(FirstHarmonic):
        def __init__(self) -> None:
            super().__init__(5)
            del self.arguments

    with pytest.raises(ValueError, match="cannot hold .*Silent.* give its class an attribute arguments"):
        run_of(Silent(), NoCoupling(), tmp_path)


def test_a_class_with_the_name_of_another_is_refused() -> None:
    imposter = type("LocalCoupling", (Ring,), {})()
    with pytest.raises(ValueError, match="has the name of another class that checkpoints know"):
        checkpoint.describe(imposter)


SHAPES: list[tuple[Coupling, Sequence[int]]] = [
    (NoCoupling(), (4,)),
    (GlobalCoupling(), (4,)),
    (GlobalCoupling(), (1,)),
    (LocalCoupling(1), (5,)),
    (LocalCoupling(1), (3,)),
    (LocalCoupling(1, "reflecting"), (4, 5)),
    (LocalCoupling(2), (2, 5, 6)),
]


@pytest.mark.parametrize(("coupling", "shape"), SHAPES, ids=str)
def test_the_formulas_of_the_couplings_that_ship_are_the_defaults(coupling: Coupling, shape: Sequence[int]) -> None:
    """The weights of an oscillator and of pairs, against those read off the mean."""
    expected = torch.as_tensor(Coupling.self_weight(coupling, shape))
    found = torch.as_tensor(coupling.self_weight(shape), dtype=torch.float64).expand(expected.shape)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    weight = Coupling.pair_weight(coupling, shape)
    assert coupling.pair_weight(shape) == (weight if weight is None else pytest.approx(weight, rel=1e-14))


def test_the_fast_mean_is_the_mean() -> None:
    for coupling, shape in SHAPES:
        x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(coupling.fast_mean(x)(x).expand(x.shape), coupling.mean(x).expand(x.shape))


def test_a_coupling_needs_its_mean_only() -> None:
    with pytest.raises(NotImplementedError, match="Coupling must define mean"):
        Coupling().mean(torch.zeros(1, 2))
    sde, shape = KuramotoSDE((6,), Ring(2), RATES), (6,)
    theta = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: sde.drift(0.5, x[None])[0]))(theta)
    torch.testing.assert_close(sde.divergence(0.5, theta), jacobian.diagonal(dim1=1, dim2=2).sum(1))
    weights = [Ring(1).pair_weight((n,)) for n in itertools.islice(itertools.count(3), 3)]
    assert weights == [0.5, None, None]


EULER = Method("own", lambda sde, t, h, theta, noise: theta + h * sde.drift(t, theta) + noise.dW, None, 1.0, 1.0, 1)
"""Euler-Maruyama for unit noise."""


def test_a_method_is_taken_by_solves_and_chosen_by_its_cost() -> None:
    """Beside Heun's, at whose weak order two a tolerance of 0.02 is cheaper."""
    well = SDE(lambda t, theta: -theta.sin(), 1.0, 1.0, event_shape=(1,))
    ours, ships = (
        sdeint(well, torch.zeros(3, 1), (0.0, 1.0), n_steps=5, method=method, generator=0)
        for method in (EULER, "euler_maruyama")
    )
    torch.testing.assert_close(ours.theta, ships.theta)
    study = work_precision("von_mises_well", [EULER, "heun"], (8, 16), paths=64, timed_paths=8, repeats=1)
    assert study["solver"].values.tolist() == ["own", "heun"]


def test_a_metric_of_images_is_an_entry_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean grey level, on which the bright and the dark differ by one."""

    def apart(real: Tensor, drawn: Tensor) -> float:
        return float((real.mean() - drawn.mean()).abs())

    monkeypatch.setitem(MEASURES, "brightness", Measure(lambda images: images.mean((1, 2))[:, None], apart, "1"))
    noise = 0.1 * torch.randn(20, 16, 16, generator=torch.Generator().manual_seed(0))
    result = compare(noise.clamp(-1, 1), (noise + 1.0).clamp(-1, 1), generator=torch.Generator().manual_seed(1))
    assert float(result["value"].sel(measure="brightness")) == pytest.approx(1.0, abs=0.05)


@dataclass(frozen=True)
class Uniform:
    """Every phase uniform."""

    event_shape: tuple[int, ...]

    def sample(self, sample_shape: tuple[int, ...], /, *, generator: torch.Generator) -> Tensor:
        return TWO_PI * torch.rand(*sample_shape, *self.event_shape, generator=generator) - torch.pi


def test_a_start_law_is_a_candidate_kept_in_a_file_and_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of diffusion it is the right one: the simplest, as it is the first candidate."""
    own = {"uniform": lambda sde, _: Uniform(tuple(sde.event_shape))}
    monkeypatch.setattr(choose_start, "CANDIDATES", own | start_laws.CANDIDATES)
    sde = angle_process(Process.DIFFUSION, SHAPE)
    chain = Chain.uniform(sde, 40)
    law, table = choose_start.choose(chain, torch.zeros(50, *SHAPE), fitted=200, compared=100, permutations=99)
    assert table.attrs["chosen"] == "uniform"
    choose_start.save_law(law, table, tmp_path / choose_start.FILE)
    with pytest.raises(ValueError, match="holds a law Uniform, and circsde knows .* give its class as known="):
        choose_start.load_law(tmp_path / choose_start.FILE)
    read, said = choose_start.start_law(chain, tmp_path, known=(Uniform,))
    assert read == law
    assert said.startswith("uniform")
    model = Trained(ScoreMLP(SHAPE, sde.schedule.diffusion, width=8, depth=1), chain, Objective.DENOISING, {}, 0)
    drawn = sample(model, 500, Recipe(n_steps=2), start=read)["theta"].values
    assert abs(np.exp(1j * drawn).mean()) < 4 / drawn.size**0.5  # the score is zero: what it started from, and noise


def test_a_command_is_a_function_and_a_line() -> None:
    """With ``--json``, one message for bad input, and its status, as the others have them."""

    @command
    def largest(numbers: Annotated[str, typer.Argument()]) -> Answer:
        most = max(options.numbers(numbers) or [])
        return Answer([f"the largest is {most}"], {"largest": most}, {})

    app = typer.Typer(cls=Program)
    app.command()(largest)
    app.command("another")(largest)
    runner = CliRunner()
    assert json.loads(runner.invoke(app, ["largest", "3,7,5", "--json"]).stdout)["result"] == {"largest": 7}
    bad = runner.invoke(app, ["largest", "3,x"])
    assert (bad.exit_code, bad.stderr) == (2, "error: '3,x' is not a list of whole numbers: give steps as 5,10,20\n")


def test_a_source_of_images_is_simulated_and_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripes, made in two classes; the parts share none."""
    monkeypatch.chdir(tmp_path)

    def find(rest: str, _: Options) -> Found:
        def pictures() -> Iterator[Picture]:
            for i in range(10):
                rows = np.arange(16) * (1 + i % 2) * 40 % 256
                grey = np.broadcast_to(rows[:, None], (16, 16)).astype(np.uint8)
                yield f"{rest}/{'fine' if i % 2 else 'coarse'}-{i}", Image.fromarray(grey + np.uint8(i))

        return Found(pictures, count=10)

    stripes = ImageSource(find, label=lambda name: name.rpartition("/")[2].partition("-")[0])
    monkeypatch.setitem(SOURCES, "stripes", stripes)
    training, held_out = (image_set("stripes:wide", part=part) for part in ("train", "test"))
    assert (len(training), len(held_out)) == (8, 2)
    assert not set(training.names) & set(held_out.names)
    assert set(training.labels) == {"fine", "coarse"}
    phases = load("stripes:wide", count=3)
    assert phases.theta.shape == (3, 16, 16)
    answer = CliRunner().invoke(cli, ["simulate", "stripes:wide", "-n", "2", "--size", "8", "--steps", "2", "--json"])
    assert json.loads(answer.stdout)["result"]["samples"] == 2

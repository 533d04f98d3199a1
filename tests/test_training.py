"""Training goes on after a kill as if nothing had happened, learns exact scores, and says what is wrong."""

import csv
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import save_file
from torch import Tensor, nn

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import WrappedNormal
from circsde.matching.chain import Chain, Paths, step_with_adjoint
from circsde.models import checkpoint, preparation, training
from circsde.models.loop import BEST, LAST, METRICS, averaging
from circsde.models.mlp import ScoreMLP
from circsde.models.settled_residual import SettledResidual
from circsde.models.training import Settings, Trained, train, trained
from circsde.models.transitions import Objective, Transitions
from circsde.models.unet import ScoreUNet
from circsde.schedule import Cosine, Custom, Schedule
from circsde.typing import Angles, Tangent, Time

START = WrappedNormal(torch.tensor([2.0, -1.0]), 0.4)
DATA = START.sample((1000,), generator=torch.Generator().manual_seed(0)).float()
SCHEDULES = {
    Objective.DENOISING: Schedule.linear((0.0, 0.0, 0.05), (0.0, 0.0, 2.0)),
    Objective.ONE_STEP: Schedule.published(100),
    Objective.PATHWISE: Schedule.published(100),
}
SHORT = Settings(epochs=3, updates=4, batch=32, warmup=3, pool=2, stride=2)


def network(width: int = 8, schedule: Schedule = SCHEDULES[Objective.PATHWISE]) -> ScoreMLP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ScoreMLP((2,), schedule.diffusion, width=width, depth=1, harmonics=2)


def run_of(
    folder: Path,
    objective: Objective = Objective.PATHWISE,
    settings: Settings = SHORT,
    progress: Callable[[int], object] | None = None,
    **changes: Any,
) -> Trained:
    schedule = SCHEDULES[objective]
    sde = KuramotoSDE((2,), NoCoupling() if objective is Objective.DENOISING else GlobalCoupling(), schedule)
    net = changes.pop("net", network(schedule=schedule))
    data = changes.pop("data", DATA)
    chain = Chain.uniform(sde, 4)
    return train(
        net, chain, objective, data[:800], data[800:], folder, settings, progress=progress, accelerator="cpu", **changes
    )


def state_of(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint without the time that it took."""
    state = checkpoint.load(path)
    record = state["callbacks"]["Record"]
    for name in ("seconds", "prepared"):
        record.pop(name)
    for row in record["rows"]:
        row.pop("seconds")
    return state


def same(a: Any, b: Any) -> bool:
    """Equality of trees, bit for bit in their tensors."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[Objective, Path]:
    """Folders of runs that nothing interrupted, only to be read."""
    folders = {objective: tmp_path_factory.mktemp("finished") for objective in Objective}
    for objective, folder in folders.items():
        run_of(folder, objective)
    return folders


class Stop(BaseException):
    """An exception that nothing handles."""


def stop_at(update: int) -> Callable[[int], None]:
    def progress(done: int) -> None:
        if done == update:
            raise Stop

    return progress


@pytest.mark.parametrize("update", [2, 6, 8])
@pytest.mark.parametrize("objective", list(Objective))
def test_interrupted_training_goes_on_to_the_same_state(
    objective: Objective, update: int, finished: dict[Objective, Path], tmp_path: Path
) -> None:
    """Weights, averages, moments of the optimiser, random states and log: before and after an epoch, and at its end."""
    with pytest.raises(Stop):
        run_of(tmp_path, objective, progress=stop_at(update))
    run_of(tmp_path, objective)
    whole, parts = (state_of(folder / LAST) for folder in (finished[objective], tmp_path))
    assert same(whole, parts)
    parts["state_dict"]["network.enter.bias"][0] += 1e-7
    assert not same(whole, parts)


def unet(dropout: float = 0.1) -> ScoreUNet:
    """A U-Net that draws random numbers itself."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rate = SCHEDULES[Objective.PATHWISE].diffusion
        return ScoreUNet((1, 8, 8), rate, width=8, multipliers=(1, 2), attention=(4,), dropout=dropout)


@dataclass(frozen=True)
class Crops:
    """Images that are drawn, each another piece of one picture."""

    digest: str = "a wave"

    def __call__(self, count: int, generator: torch.Generator) -> Angles:
        shift = 6.0 * torch.rand(count, 1, 1, 1, generator=generator)
        return 2.0 * torch.sin(torch.arange(64.0).reshape(8, 8) + shift)


def image_run(
    folder: Path,
    objective: Objective = Objective.PATHWISE,
    coupling: Coupling | None = None,
    **options: Any,
) -> Trained:
    sde = KuramotoSDE((1, 8, 8), coupling or LocalCoupling(1), SCHEDULES[objective])
    chain = Chain.uniform(sde, 4, published=True)
    options = {"net": unet(), "data": Crops(), "settings": replace(SHORT, batch=8), "accelerator": "cpu", **options}
    net, data, settings = (options.pop(name) for name in ("net", "data", "settings"))
    return train(net, chain, objective, data, data, folder, settings, **options)


KILLED = """
import os, signal, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
torch.set_num_threads(1)
import test_training as t
kill = lambda done: os.kill(os.getpid(), signal.SIGKILL) if done == 7 else None
getattr(t, sys.argv[3])(Path(sys.argv[1]), progress=kill)
"""


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_of, image_run])
def test_training_killed_without_warning_goes_on_to_the_same_state(run: Callable[..., Trained], tmp_path: Path) -> None:
    run(tmp_path / "whole")
    arguments = [str(tmp_path / "parts"), str(Path(__file__).parent), run.__name__]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not list((tmp_path / "parts").glob(".*"))
    run(tmp_path / "parts")
    assert same(state_of(tmp_path / "whole" / LAST), state_of(tmp_path / "parts" / LAST))


@pytest.mark.parametrize("coupling", [GlobalCoupling(), pytest.param(LocalCoupling(1), marks=pytest.mark.slow)])
@pytest.mark.parametrize("objective", [Objective.ONE_STEP, pytest.param(Objective.PATHWISE, marks=pytest.mark.slow)])
def test_images_that_are_drawn_train_a_network_and_go_on(
    objective: Objective, coupling: Coupling, tmp_path: Path
) -> None:
    image_run(tmp_path / "whole", objective, coupling)
    with pytest.raises(Stop):
        image_run(tmp_path / "parts", objective, coupling, progress=stop_at(6))
    image_run(tmp_path / "parts", objective, coupling)
    assert same(state_of(tmp_path / "whole" / LAST), state_of(tmp_path / "parts" / LAST))


def test_other_drawn_data_or_data_without_a_name_are_refused(tmp_path: Path) -> None:
    image_run(tmp_path)
    with pytest.raises(ValueError, match="data.training was a wave and is now another"):
        image_run(tmp_path, data=Crops("another"))
    with pytest.raises(ValueError, match="must say what they are"):
        image_run(tmp_path, data=lambda count, generator: Crops()(count, generator))


@pytest.mark.slow
def test_mixed_precision_changes_the_network_but_not_its_pairs(tmp_path: Path) -> None:
    """The pool does not know the network: bit for bit the same. Weights stay in full precision."""
    image_run(tmp_path / "full", net=unet(0.0))
    image_run(tmp_path / "mixed", net=unet(0.0), precision="bf16-mixed")
    full, mixed = (state_of(tmp_path / name / LAST) for name in ("full", "mixed"))
    assert same(full["PairSource"], mixed["PairSource"])
    assert not same(full["state_dict"], mixed["state_dict"])
    assert {weight.dtype for weight in mixed["state_dict"].values()} == {torch.float32}
    losses = [[row["validation_loss"] for row in state["callbacks"]["Record"]["rows"]] for state in (full, mixed)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_recording_is_refused_where_there_is_no_graphics_card(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="recorded=True is for one graphics card"):
        run_of(tmp_path, settings=replace(SHORT, recorded=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_recorded_network_is_trained_alike(tmp_path: Path) -> None:
    """To the order of sums in single precision; pairs come from the processor, the same ones."""
    last = []
    for recorded in (False, True):
        settings = replace(SHORT, batch=8, recorded=recorded, paths_on="cpu")
        image_run(tmp_path / str(recorded), net=unet(0.0), settings=settings, accelerator="gpu")
        last.append(checkpoint.load(tmp_path / str(recorded) / LAST)["callbacks"]["Record"]["rows"][-1])
    assert last[0]["validation_loss"] == pytest.approx(last[1]["validation_loss"], rel=1e-3)


@pytest.mark.slow
def test_looking_at_the_averaged_network_disturbs_nothing(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(network: nn.Module, update: int) -> None:
        torch.randn(7)
        averaged = checkpoint.load(tmp_path / "watched" / LAST)["state_dict"]
        assert all(torch.equal(averaged[f"network.{name}"], weight) for name, weight in network.named_parameters())
        assert not network.training
        seen.append(update)

    image_run(tmp_path / "alone")
    before = torch.get_rng_state()
    image_run(tmp_path / "watched", watch=look, every=2)
    assert torch.equal(before, torch.get_rng_state())
    assert seen == [8]
    assert same(state_of(tmp_path / "alone" / LAST), state_of(tmp_path / "watched" / LAST))


def test_loggers_are_told_what_the_log_says(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, "logs", flush_logs_every_n_steps=1)
    run_of(tmp_path / "run", logger=logger)
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        told = [float(row["validation_loss"]) for row in csv.DictReader(file)]
    with (tmp_path / "run" / METRICS).open(newline="") as file:
        assert told == [float(row["validation_loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_time_ends_training_and_the_learning_rate_follows_it(tmp_path: Path) -> None:
    """On a clock that goes on by a hundredth of a second whenever it is read, some six times an update or less."""
    ticks = count()

    def clock() -> float:
        return next(ticks) / 100

    settings = Settings(epochs=1, updates=10, batch=32, warmup=1, pool=2, seconds=1.0)
    with pytest.raises(Stop):
        run_of(tmp_path, settings=settings, progress=stop_at(25), clock=clock)
    assert len((tmp_path / METRICS).read_text().splitlines()) == 1 + 2
    run_of(tmp_path, settings=settings, clock=clock)
    record = checkpoint.load(tmp_path / LAST)["callbacks"]["Record"]
    assert len(record["rows"]) > 2
    assert 1.0 <= record["seconds"] < 1.1
    for row in record["rows"]:
        done = min(1.0, (row["seconds"] - record["prepared"]) / (1.0 - record["prepared"]))
        assert row["learning_rate"] / settings.learning_rate == pytest.approx(
            0.5 + 0.5 * math.cos(math.pi * done), abs=0.1
        )
    updates: list[int] = []
    run_of(tmp_path, settings=settings, progress=updates.append, clock=clock)
    assert updates == []


@pytest.mark.parametrize("slow", ["calibrated", "held_out_pairs"])
def test_preparation_counts_and_a_time_that_it_uses_up_is_refused_with_what_is_needed(
    slow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that goes on by a second while discounts or pairs are made, and stands still otherwise."""
    now = [0.0]
    module = preparation if slow == "calibrated" else training
    made = getattr(module, slow)
    monkeypatch.setattr(module, slow, lambda *given: (now.__setitem__(0, now[0] + 1.0), made(*given))[1])
    with pytest.raises(ValueError, match=r"preparation took 1 s, and the time to train for is 1 s in all: give more"):
        run_of(tmp_path, settings=replace(SHORT, seconds=1.0), clock=lambda: now[0])
    assert not (tmp_path / LAST).exists()

    def tick(_: int) -> None:
        now[0] += 0.1

    run_of(tmp_path, settings=replace(SHORT, seconds=2.0), progress=tick, clock=lambda: now[0])
    record = checkpoint.load(tmp_path / LAST)["callbacks"]["Record"]
    assert record["prepared"] == 1.0
    assert 2.0 <= record["seconds"] < 2.2
    rates = [row["learning_rate"] / SHORT.learning_rate for row in record["rows"]]
    halves = [0.5 + 0.5 * math.cos(math.pi * min(1.0, row["seconds"] - 1.0)) for row in record["rows"]]
    assert rates == pytest.approx(halves, abs=0.2)  # of what preparation leaves, an update behind at most


def test_a_time_that_preparation_would_use_up_is_refused_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of a path takes a second: those of 4096 paths that find discounts and of 64 others, four steps each."""
    now = [0.0]

    def clock() -> float:
        return now[0]

    def timed(chain: Chain, paths: Paths, generator: torch.Generator) -> Paths:
        now[0] += len(paths.n)
        return step_with_adjoint(chain, paths, generator)

    monkeypatch.setattr(preparation, "step_with_adjoint", timed)
    monkeypatch.setattr(preparation, "process_time", clock)
    needed, timing = 4.0 * (4096 + 64), 3.0 * (4096 + 16)
    settings = replace(SHORT, seconds=needed - 10.0)
    with monkeypatch.context() as patched:
        patched.setattr(preparation, "calibrated", lambda *_: pytest.fail("it was prepared"))
        with pytest.raises(ValueError, match=r"the time to train for is 16630 s in all, .* give at least \d+ s"):
            run_of(tmp_path, settings=settings, clock=clock)
        with pytest.raises(ValueError, match="give at least"):
            run_of(tmp_path, settings=replace(settings, seconds=needed + timing), spent=10.0, clock=clock)
    longer = replace(settings, seconds=needed + timing + 10.0)
    with pytest.raises(Stop):
        run_of(tmp_path, settings=longer, progress=stop_at(2), clock=clock)


def test_what_is_made_before_the_first_update_is_said_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with pytest.raises(Stop):
        run_of(tmp_path, preparing=said.append, progress=stop_at(6))
    assert said == ["the discounts of the chain", "the first paths"]
    pools: list[int] = []
    staggered = Transitions._staggered

    def counted(self: Transitions) -> Paths:
        pools.append(self.pool)
        return staggered(self)

    monkeypatch.setattr(Transitions, "_staggered", counted)
    run_of(tmp_path)
    assert pools == [2]  # the pool of validation; training keeps the paths that it had


def test_paths_on_a_graphics_card_that_is_not_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="there is no graphics card for paths_on='cuda:0'"):
        run_of(tmp_path, settings=replace(SHORT, paths_on="cuda:0"))


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("objective", list(Objective))
def test_a_row_that_is_not_finite_is_refused_before_training(objective: Objective, part: str, tmp_path: Path) -> None:
    data = DATA.clone()
    data[5 if part == "training" else 805, 1] = torch.nan
    with pytest.raises(ValueError, match="rows of data"):
        run_of(tmp_path, objective, data=data)
    assert not list(tmp_path.iterdir())


def test_a_run_has_one_training_at_a_time_and_one_that_is_gone_does_not_count(tmp_path: Path) -> None:
    def second(_: int) -> None:
        with pytest.raises(BlockingIOError, match="another process is at work in"):
            run_of(tmp_path)
        raise Stop

    with pytest.raises(Stop):
        run_of(tmp_path, progress=second)
    run_of(str(tmp_path))  # type: ignore[arg-type]
    assert trained(str(tmp_path)).update == trained(str(tmp_path / BEST)).update


def test_a_validation_loss_that_is_not_finite_stops_training_and_keeps_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of weights that ran away in the last update of an epoch, after a loss that was finite."""
    monkeypatch.setitem(checkpoint.DESCRIBED, "Unvalidated", Unvalidated)
    with pytest.raises(FloatingPointError, match="the validation loss is nan after update 8; the state of the last"):
        run_of(tmp_path, net=Unvalidated(1))
    assert checkpoint.load(tmp_path / LAST)["global_step"] == 4
    assert checkpoint.load(tmp_path / BEST)["global_step"] == 4


class Unvalidated(nn.Module):
    """NaN in validation after so many epochs."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.inner, self.after, self.epochs = network(), after, 0
        self.arguments = self.inner.arguments

    def train(self, mode: bool = True) -> "Unvalidated":
        self.epochs += self.training and not mode
        return super().train(mode)

    def forward(self, t: Time, theta: Angles) -> Tangent:
        score: Tangent = self.inner(t, theta)
        return score if self.training or self.epochs <= self.after else score * torch.nan


def test_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        Settings(seconds=0.0)


def test_a_full_disk_stops_training_and_keeps_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, writes = tmp_path / "whole", []
    image_run(whole)

    def filling(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        writes.append(path)
        if len(writes) > 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, path, metadata)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", filling)
        with pytest.raises(OSError, match=r"could not write .* No space left on device"):
            image_run(tmp_path / "parts")
    assert checkpoint.load(tmp_path / "parts" / LAST)["global_step"] == 4
    assert not list((tmp_path / "parts").glob(".*"))
    image_run(tmp_path / "parts")
    assert same(state_of(whole / LAST), state_of(tmp_path / "parts" / LAST))


DISTRIBUTED = """
import sys, torch
from pathlib import Path
if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    torch.set_num_threads(1)
    import test_training as t
    stop = t.stop_at(6) if sys.argv[3] == "stop" else None
    t.image_run(Path(sys.argv[1]), strategy="ddp", devices=2, progress=stop)
"""


@pytest.mark.slow
def test_two_processes_train_one_network_and_go_on_to_the_same_state(tmp_path: Path) -> None:
    """On gloo. Each makes pairs of its own; the state holds both."""
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED)

    def run(name: str, how: str) -> int:
        arguments = [sys.executable, str(script), str(tmp_path / name), str(Path(__file__).parent), how]
        return subprocess.run(arguments, check=False, timeout=300, capture_output=True).returncode

    assert run("whole", "go") == 0
    assert run("parts", "stop") != 0
    assert run("parts", "go") == 0
    whole, parts = (state_of(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert same(whole, parts)
    first, second = whole["PairSource"]["processes"]
    assert not same(first["paths"], second["paths"])
    image_run(tmp_path / "alone")
    assert not same(state_of(tmp_path / "alone" / LAST)["state_dict"], whole["state_dict"])


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    run_of(tmp_path)
    updates: list[int] = []
    run_of(tmp_path, progress=updates.append)
    assert updates == []


@pytest.mark.slow
@pytest.mark.parametrize("objective", [Objective.DENOISING, Objective.PATHWISE])
def test_a_network_learns_the_exact_score(objective: Objective, tmp_path: Path) -> None:
    """Independent angles under pure diffusion have a score in closed form; the error is a tenth of its size."""
    schedule = SCHEDULES[Objective.DENOISING]
    chain = Chain.uniform(KuramotoSDE((2,), NoCoupling(), schedule), 20)
    data = START.sample((8000,), generator=torch.Generator().manual_seed(1)).float()
    settings = Settings(epochs=4, updates=100, batch=256, learning_rate=5e-3, warmup=20, averaging=0.98, stride=4)
    net = network(32, schedule)
    got = train(net, chain, objective, data[:7000], data[7000:], tmp_path, settings, accelerator="cpu")
    for t in (0.15, 0.4):
        variance = 0.16 + 2 * schedule.diffusion.integral(0.0, t)
        law = WrappedNormal(START.loc, variance**0.5)
        theta = law.sample((2000,), generator=torch.Generator().manual_seed(2)).float()
        error = (got.network(t, theta) - law.score(theta)).square().mean() / law.score(theta).square().mean()
        assert error.sqrt() < 0.1


def test_the_log_has_a_line_per_epoch(finished: dict[Objective, Path]) -> None:
    folder = finished[Objective.PATHWISE]
    with (folder / METRICS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["update"]) for row in rows] == [4, 8, 12]
    assert set(rows[0]) == {"update", "seconds", "learning_rate", "loss", "validation_loss"}
    assert float(rows[-1]["learning_rate"]) == 0.0
    assert sorted(path.name for path in folder.iterdir()) == sorted([LAST, BEST, METRICS])


def test_the_learning_rate_rises_and_falls_by_half_a_cosine() -> None:
    settings = Settings(epochs=4, updates=25, warmup=10)
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(50) == pytest.approx(0.5)
    assert settings.rate(100) == pytest.approx(0.0)
    assert max(settings.rate(i) for i in range(100)) == settings.rate(9) > 0.97


def test_the_averaged_weights_are_those_of_the_recursion() -> None:
    net, callback = nn.Linear(1, 1, bias=False), averaging(0.9)
    model = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=callback._kwargs["multi_avg_fn"])
    expected = 0.0
    for n in range(200):
        with torch.no_grad():
            net.weight.fill_(float(n % 7))
        model.update_parameters(net)
        decay = 0.0 if n == 0 else min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * (n % 7)
    assert model.get_parameter("module.weight").item() == pytest.approx(expected, rel=1e-5)


def test_training_stops_early_where_validation_does_not_improve(tmp_path: Path) -> None:
    settings = Settings(epochs=8, updates=2, batch=32, warmup=0, learning_rate=0.0, patience=2, pool=1)
    run_of(tmp_path, settings=settings)
    assert len((tmp_path / METRICS).read_text().splitlines()) == 1 + 3


class Failing(nn.Module):
    """NaN from the ``after``-th training update on."""

    def __init__(self, after: int, where: str) -> None:
        super().__init__()
        self.inner, self.after, self.where, self.calls = network(), after, where, 0
        self.zero = nn.Parameter(torch.zeros(()))
        self.arguments = self.inner.arguments

    def forward(self, t: Time, theta: Angles) -> Tangent:
        self.calls += self.training
        score: Tensor = self.inner(t, theta)
        if self.calls <= self.after:
            return score
        if self.where == "loss":
            return score.index_fill(0, torch.tensor([3]), torch.nan)
        return score + 0.0 * self.zero.sqrt()


@pytest.mark.parametrize(
    ("where", "message"),
    [("loss", r"the loss .* update 7, for 1 of 32 pairs, first at t = [\d.]+;"), ("gradient", "update 7;")],
)
def test_a_number_that_is_not_finite_stops_training_and_keeps_the_last_state(
    where: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(checkpoint.DESCRIBED, "Failing", Failing)
    with pytest.raises(FloatingPointError, match=message):
        run_of(tmp_path, net=Failing(6, where))
    state = checkpoint.load(tmp_path / LAST)
    assert state["global_step"] == 4
    assert all(weight.isfinite().all() for weight in state["state_dict"].values())


def test_a_relative_score_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    sde = KuramotoSDE((2,), GlobalCoupling(), SCHEDULES[Objective.PATHWISE])
    made = run_of(tmp_path, net=SettledResidual(network(), sde))
    read = trained(tmp_path)
    assert isinstance(read.network, SettledResidual)
    assert torch.equal(read.network(0.3, DATA), made.network(0.3, DATA))


def test_what_a_checkpoint_says_is_enough_to_use_it(tmp_path: Path) -> None:
    made = run_of(tmp_path, about={"columns": ["phi", "psi"], "unit": "deg"})
    read = trained(tmp_path / LAST)
    assert read.about == {"columns": ["phi", "psi"], "unit": "deg"}
    assert (read.update, read.objective) == (12, Objective.PATHWISE)
    assert read.chain.discounts is not None
    assert (read.chain.times, read.chain.discounts) == (made.chain.times, made.chain.discounts)
    assert isinstance(read.sde.coupling, GlobalCoupling)
    assert read.sde.schedule == SCHEDULES[Objective.PATHWISE]
    assert not read.network.training
    theta = DATA[:5]
    averaged = checkpoint.load(tmp_path / LAST)["state_dict"]["network.enter.weight"]
    assert torch.equal(read.network.get_parameter("enter.weight"), averaged)
    assert read.network(0.3, theta).shape == theta.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"settings": replace(SHORT, batch=64)},
            "settings.batch was 32 and is now 64",
        ),
        ({"net": network(16)}, "network.width was 8 and is now 16"),
        ({"data": DATA.flip(0)}, "data.training"),
    ],
)
def test_a_folder_with_another_training_is_refused(
    changes: dict[str, Any], message: str, finished: dict[Objective, Path]
) -> None:
    with pytest.raises(ValueError, match=message):
        run_of(finished[Objective.PATHWISE], **changes)


def test_a_missing_checkpoint_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        trained(tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_off_is_refused(kept: float, finished: dict[Objective, Path], tmp_path: Path) -> None:
    whole = (finished[Objective.PATHWISE] / BEST).read_bytes()
    (tmp_path / BEST).write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match="only a part of one"):
        trained(tmp_path)


def test_what_cannot_be_saved_is_refused_before_training(tmp_path: Path) -> None:
    schedule = Schedule(Custom(lambda t: 0.0 * t, lambda t: 0.0 * t), Cosine(0.1, 1.0), Cosine(0.1, 1.0))
    chain = Chain.uniform(KuramotoSDE((2,), schedule=schedule), 5)
    with pytest.raises(ValueError, match="a checkpoint cannot hold <function"):
        train(network(), chain, Objective.PATHWISE, DATA, DATA, tmp_path, SHORT, accelerator="cpu")

"""Incorrect densities fail the verification, and correct ones pass it: laws whose integral is known."""

import json
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ive
from scipy.stats import binom, multivariate_normal
from torch import Tensor
from typer.testing import CliRunner

from circsde.cli import app
from circsde.coupling import NoCoupling
from circsde.exact.fokker_planck import fokker_planck
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises, WrappedNormal
from circsde.laws.joint_mixture import VonMisesMixture
from circsde.laws.mixture import WrappedNormalMixture
from circsde.neighbours import nearest
from circsde.sampling.entropy import entropy, floor_excess, near_duplicates
from circsde.sampling.verify import Verification, verify
from circsde.schedule import Schedule
from circsde.solvers.divergence import FlowField
from circsde.solvers.importance import integral, mean_weight
from circsde.solvers.likelihood import log_prob
from circsde.torus import TWO_PI
from circsde.typing import Angles

DEGREES = math.log(180.0 / math.pi)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotamers(dim: int) -> VonMisesMixture:
    """Twelve narrow clusters, as torsion angles have."""
    g = seeded(dim)
    weights, places = 0.1 + torch.rand(12, generator=g), TWO_PI * torch.rand(12, dim, generator=g)
    return VonMisesMixture(weights, places, 20.0 + 60.0 * torch.rand(12, dim, generator=g))


# The mixture that proposals come from


def test_a_mixture_is_the_density_of_its_draws() -> None:
    law = rotamers(2)
    parts = [VonMises(mean, kappa) for mean, kappa in zip(law.means, law.concentrations, strict=True)]
    theta = TWO_PI * torch.rand(50, 2, generator=seeded(), dtype=torch.float64)
    expected = torch.stack([part.log_prob(theta).sum(1) for part in parts]) + law.weights.log()[:, None]
    torch.testing.assert_close(law.log_prob(theta), expected.logsumexp(0))
    drawn = law.sample((20_000,), seeded())
    for harmonic in (1, 2):
        exact = sum(
            w * _moment(k, harmonic) * (harmonic * m).cos()
            for w, m, k in zip(law.weights, law.means, law.concentrations, strict=True)
        )
        assert bool(((harmonic * drawn).cos().mean(0) - exact).abs().max() < 3.9 / math.sqrt(2 * 20_000))


def _moment(kappa: Tensor, harmonic: int) -> Tensor:
    return torch.from_numpy(ive(harmonic, kappa.numpy()) / ive(0, kappa.numpy()))


def test_neighbours_are_those_of_all_distances_on_the_torus() -> None:
    theta = TWO_PI * torch.rand(60, 3, generator=seeded(), dtype=torch.float64)
    theta[7] = theta[3]
    gap = (theta[:, None] - theta + math.pi).remainder(TWO_PI) - math.pi
    for power, all_pairs in ((2.0, gap.norm(dim=2)), (math.inf, gap.abs().amax(2))):
        all_pairs = all_pairs.fill_diagonal_(math.inf)
        distance, index = nearest(theta, 5, power=power)
        torch.testing.assert_close(distance, all_pairs.sort(1).values[:, :5])
        assert (int(index[7, 0]), int(index[3, 0])) == (3, 7)  # and not themselves
    with pytest.raises(ValueError, match="need more than 5 samples, got 5"):
        nearest(theta[:5], 5)


# The integral


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_the_interval_of_an_integral_covers(dim: int) -> None:
    law, generator, covered, count = rotamers(dim), seeded(1), 0, 15
    for _ in range(count):
        found = integral(law.log_prob, law.sample((200,), generator), points=600, generator=generator)
        covered += found.low <= 0.0 <= found.high
    assert covered >= binom.ppf(1e-4, count, 0.95)


def test_the_interval_of_a_mean_of_weights_covers() -> None:
    """Lognormal weights of variance 1.7, whose mean is known: false alarm 1e-4."""
    drawn, count = torch.randn(100, 1000, generator=seeded(), dtype=torch.float64), 100
    found = [mean_weight(log_weights, 0.95) for log_weights in drawn - 0.5]
    covered = sum(one.low <= 0.0 <= one.high for one in found)
    assert binom.ppf(1e-4, count, 0.95) <= covered
    assert sum(one.known for one in found) > 0.9 * count
    assert sum(one.low <= 0.1 <= one.high for one in found) < 0.9 * count  # another mean is not


def test_weights_without_a_mean_have_no_interval() -> None:
    generator = np.random.default_rng(0)
    heavy, light = (torch.from_numpy(np.log(1.0 + generator.pareto(a, 4000))) for a in (0.8, 5.0))
    assert not mean_weight(heavy, 0.95).known
    assert mean_weight(light, 0.95).known
    found = mean_weight(light, 0.999)
    assert found.low < math.log(5.0 / 4.0) < found.high  # the mean of that Pareto law


# Densities with a fault, and the same without it

LAW = WrappedNormalMixture((0.4, 0.6), (-2.0, 1.0), (0.4, 0.6))
FLOW = Schedule.linear((0.0, 0.0, 0.005), (0.0, 0.0, 5.0))
DIM = 3


class Flow:
    """Three independent angles along a wrapped diffusion, whose score is exact."""

    def __init__(self) -> None:
        self.sde = KuramotoSDE((DIM,), NoCoupling(), FLOW)
        self.law = fokker_planck(FLOW, LAW, mean_field=False)

    def prior(self, theta: Angles) -> Tensor:
        return self.law.log_prob(self.sde.horizon, theta).sum(1)

    def exact(self, theta: Angles) -> Tensor:
        return LAW.log_prob(theta).sum(1)

    def left_sum(self, theta: Angles, steps: int = 10) -> Tensor:
        """Euler's path, and a left-end sum of the divergence along it, as in quick scripts."""
        flow, x, total = FlowField(self.sde, self.law.score), theta, torch.zeros(len(theta), dtype=torch.float64)
        for i in range(steps):
            t = torch.tensor(self.sde.horizon * i / steps, dtype=torch.float64)
            velocity, _, divergence = flow.linearise(t, x, None)
            total += divergence[0] * self.sde.horizon / steps
            x = x + velocity * self.sde.horizon / steps
        return self.prior(x) + total

    def one_probe(self, theta: Angles) -> Tensor:
        """The exact value, and the error of one Gaussian probe of each row, kept along its path."""
        probe = torch.randn(theta.shape, generator=seeded(5), dtype=torch.float64)
        step, total = self.sde.horizon / 50, torch.zeros(len(theta), dtype=torch.float64)
        flow, x = FlowField(self.sde, self.law.score), theta
        for i in range(50):
            t = torch.tensor(step * (i + 0.5), dtype=torch.float64)
            velocity, _, exact = flow.linearise(t, x, None)
            _, _, estimate = flow.linearise(t, x, probe[None])
            total += (estimate - exact)[0] * step
            x = x + velocity * step
        return self.exact(theta) + total


FAULTS: dict[str, tuple[Callable[[Flow, Angles], Tensor], str]] = {
    "a constant": (lambda flow, x: flow.exact(x) + 0.1, "integrates to 1.1"),
    "a left-end sum of ten steps": (lambda flow, x: flow.left_sum(x), "integrates to"),
    "one Gaussian probe frozen per row": (Flow.one_probe, "integrates to"),
    "the same, asked twice": (Flow.one_probe, "asked again one turn on, it answers"),
    "no function on the torus": (lambda flow, x: flow.exact(x) + 0.1 * x[:, 0], "asked again one turn on, it answers"),
    "degrees": (lambda flow, x: flow.exact(x) - DIM * DEGREES, r"lacks the Jacobian of radians, 3 log\(180 / pi\)"),
    "degrees twice": (lambda flow, x: flow.exact(x) + DIM * DEGREES, "has twice, or for nothing, the Jacobian"),
}
RIGHT: dict[str, Callable[[Flow, Angles], Tensor]] = {
    "exact": Flow.exact,
    "left-end sum of 800 steps": lambda flow, x: flow.left_sum(x, 800),
    "log_prob": lambda flow, x: log_prob(flow.sde, flow.law.score, x, prior=Horizon(flow), atol=1e-4).value,
}


class Horizon:
    """The exact law at the horizon."""

    def __init__(self, flow: Flow) -> None:
        self.log_prob = flow.prior


@cache
def verified(density: Callable[[Flow, Angles], Tensor], points: int = 2000) -> Verification:
    flow, generator = Flow(), seeded(3)
    samples = LAW.sample((800, DIM), generator)
    return verify(lambda x: density(flow, x), samples, points=points, generator=generator)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_density_with_a_fault_is_found_out(fault: str) -> None:
    density, message = FAULTS[fault]
    assert re.search(message, "; ".join(verified(density).failures))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "800" in n else n for n in RIGHT])
def test_a_density_without_a_fault_is_not(name: str) -> None:
    found = verified(RIGHT[name], 800)
    assert found.failures == found.doubts == ()
    assert found.integral.low < 0.0 < found.integral.high


SAMPLERS: dict[str, Callable[[Tensor], Tensor]] = {
    "turned": lambda x: x + torch.tensor([0.15, 0.0, 0.0, 0.0]),
    "without its dependence": lambda x: torch.stack([x[:, i].roll(7 * i) for i in range(4)], 1),
    "too narrow": lambda x: 0.8 * x,
    "with outliers": lambda x: torch.cat((x[60:], TWO_PI * torch.rand(60, 4, generator=seeded(), dtype=torch.float64))),
}  # fmt: skip


def along_a_line(count: int, generator: torch.Generator) -> Tensor:
    """Four angles that follow the first, all within a radian and a half."""
    shared, own = (torch.randn(count, k, generator=generator, dtype=torch.float64) for k in (1, 4))
    return 0.4 * shared + 0.2 * own


def of_the_line(theta: Angles) -> Tensor:
    covariance = 0.16 * np.ones((4, 4)) + 0.04 * np.eye(4)
    flat = (theta + math.pi).remainder(TWO_PI) - math.pi
    return torch.from_numpy(multivariate_normal(np.zeros(4), covariance).logpdf(flat.numpy()))


@pytest.mark.parametrize("fault", [None, *SAMPLERS])
def test_a_sampler_of_another_law_is_found_out(fault: str | None) -> None:
    generator = seeded(2)
    samples = along_a_line(1000, generator)
    found = verify(of_the_line, samples if fault is None else SAMPLERS[fault](samples), generator=generator)
    assert bool(found.failures) == (fault is not None)
    assert found.integral.low < 0.0 < found.integral.high or fault == "too narrow"


@pytest.mark.slow
def test_right_densities_are_accused_no_more_often_than_is_said() -> None:
    law, generator, accused, small = rotamers(3), seeded(4), 0, 0
    for _ in range(60):
        found = verify(
            law.log_prob, _independent(law, 300, generator), points=500, confidence=0.95, generator=generator
        )
        accused += not found.integral.low <= 0.0 <= found.integral.high
        small += found.agreement_p < 0.05
    for wrong in (accused, small):
        assert wrong <= binom.ppf(1.0 - 1e-4, 60, 0.05)


def _independent(law: VonMisesMixture, count: int, generator: torch.Generator) -> Tensor:
    """Draws that are not stratified."""
    j = torch.multinomial(law.weights, count, replacement=True, generator=generator)
    return VonMises(law.means[j], law.concentrations[j]).sample(generator=generator)


# The floor


@pytest.mark.parametrize("dim", [1, 2, 4, 7])
def test_the_entropy_is_that_of_the_law_to_its_bias(dim: int) -> None:
    law = VonMises(torch.zeros(dim, dtype=torch.float64), torch.linspace(4.0, 20.0, dim, dtype=torch.float64))
    exact, generator = float(law.entropy().sum()), seeded(0)
    found = entropy(law.sample((2000,), generator=generator), generator)
    assert len(found.duplicates) <= 1
    assert abs(float(found.value[0]) - exact) < 0.05 * dim + 4.0 * float(found.stderr[0])
    own = -law.log_prob(law.sample((2000,), generator=generator)).sum(1)
    assert bool((found.value - found.bias - 4.0 * found.stderr < exact).all())  # a floor is none if it is too high
    assert floor_excess(found, own, torch.arange(len(found.kept)), 3.1) <= 0.0


def test_the_interval_of_an_entropy_covers() -> None:
    law, generator = WrappedNormal(torch.zeros(1, dtype=torch.float64), 0.5), seeded(0)
    exact, covered = float(law.entropy()), 0
    for _ in range(100):
        found = entropy(law.sample((400,), generator=generator), generator)
        covered += abs(float(found.value[0]) - exact) < 1.96 * float(found.stderr[0])
    assert covered >= binom.ppf(1e-4, 100, 0.95)


def test_near_duplicates_are_named_and_left_out() -> None:
    law = rotamers(3)
    rows = _independent(law, 1000, seeded(0))
    assert len(near_duplicates(rows)) <= 1
    copies = torch.tensor([5, 17, 17])
    doubled = torch.cat(
        (rows, rows[copies] + 1e-5 * torch.randn(3, 3, generator=seeded(1), dtype=torch.float64), rows[:1])
    )
    found = entropy(doubled)
    assert {(5, 1000), (0, 1003)} <= set(map(tuple, found.duplicates.tolist()))
    assert not {1000, 1001, 1002, 1003} & set(found.kept.tolist())
    assert bool(found.value.isfinite().all())
    with pytest.raises(ValueError, match="near-duplicates of others, and the rest is too few"):
        entropy(rows[:1].expand(200, 3))


@pytest.mark.parametrize(("gain", "possible"), [(0.0, True), (1.0, False)])
def test_a_likelihood_that_no_model_can_have_is_found_out(gain: float, possible: bool) -> None:
    """A density that is sharper at the data, as one that was fitted to test rows: it integrates to one all the same."""
    law, generator = rotamers(3), seeded(0)
    data = _independent(law, 1000, generator)
    spikes = VonMisesMixture(torch.ones(1000), data, torch.full((1000, 3), 4000.0))
    density = law.mixed_with(spikes, 0.5) if gain else law
    found = verify(density.log_prob, density.sample((1000,), generator), data, generator=generator)
    assert any("lies below their entropy" in failure for failure in found.failures) != possible
    assert len(found.failures) == (not possible)


# The command


def ran(line: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    samples = VonMises(torch.zeros(3), 4.0).sample((400,), generator=seeded()).double().numpy()
    np.savetxt("samples.csv", samples, delimiter=",", header="a,b,c", comments="")
    Path("mine.py").write_text(
        "import torch\nfrom circsde import VonMises\n"
        "def right(x):\n    return VonMises(0.0, 4.0).log_prob(x).sum(1)\n"
        "def wrong(x):\n    return right(x) + 0.2\n"
    )
    return tmp_path


@pytest.mark.parametrize(("name", "status"), [("right", 0), ("wrong", 1)])
def test_a_function_in_a_file_is_examined(name: str, status: int, folder: Path) -> None:
    said = ran(f"verify mine.py:{name} --samples samples.csv --unit rad --json --quiet --out found", status)
    answer = json.loads(said[: said.rindex("}") + 1])
    assert (folder / "found.nc").exists()
    if status:
        assert "the density integrates to 1.22" in answer["error"]
    else:
        assert answer["result"]["low"] < 0.0 < answer["result"]["high"]


@pytest.mark.slow
def test_a_run_is_a_density_and_that_of_its_flow_but_not_of_its_reverse_equation(folder: Path) -> None:
    """A network that was hardly trained: its flow has a density all the same, but no score that is exact."""
    np.save(folder / "angles.npy", np.random.default_rng(0).normal(0.0, 0.5, (400, 2)))
    tiny = "--epochs 1 --updates 200 --batch 64 --width 16 --depth 1 --device cpu"
    ran(f"train angles.npy --unit rad --out run {tiny}")
    ran("sample run -n 1000 --out reverse")
    ran("verify run --points 1000 --data angles.npy")
    assert "samples are not those of the density" in ran("verify run --points 1000 --samples reverse.nc --out r", 1)


@pytest.mark.parametrize(("gain", "status"), [(0.0, 0), (2.0, 1)])
def test_log_densities_of_data_are_compared_with_their_floor(gain: float, status: int, folder: Path) -> None:
    ran("verify --samples samples.csv --unit rad --propose points.csv --points 400")
    points = np.genfromtxt(folder / "points.csv", delimiter=",", names=True)
    data = VonMises(torch.zeros(3), 4.0).sample((500,), generator=seeded(1)).double()
    data = torch.cat((data[:1] + 1e-7, data))  # a near-duplicate, as the first row
    for path, theta, more in (
        ("evaluated.csv", torch.from_numpy(np.stack([points[name] for name in "abc"], 1)), [points["log_proposal"]]),
        ("data.csv", data, []),
    ):
        values = VonMises(0.0, 4.0).log_prob(theta).sum(1).numpy() + (0.0 if more else gain)
        header = ",".join(["a", "b", "c", *(["log_proposal"] if more else []), "log_prob"])
        np.savetxt(path, np.column_stack([theta.numpy(), *more, values]), delimiter=",", header=header, comments="")
    said = ran("verify evaluated.csv --data data.csv --unit rad", status)
    assert ("lies below their entropy" in said) == bool(status)
    assert "1 near-duplicate left out: rows 1 and 2" in said
    assert "does not state its unit" in ran("verify evaluated.csv --data data.csv --out other", 2)


@pytest.mark.parametrize(("offset", "status"), [(0.0, 0), (-3 * DEGREES, 1)])
def test_points_that_another_program_evaluated_are_examined(offset: float, status: int, folder: Path) -> None:
    ran("verify --samples samples.csv --unit rad --propose points.csv --points 1000")
    points = np.genfromtxt(folder / "points.csv", delimiter=",", names=True)
    theta = torch.from_numpy(np.stack([points[name] for name in "abc"], 1))
    values = VonMises(0.0, 4.0).log_prob(theta).sum(1).numpy() + offset
    table = np.column_stack([theta.numpy(), points["log_proposal"], values])
    np.savetxt("points.csv", table, delimiter=",", header="a,b,c,log_proposal,log_prob", comments="")
    said = ran("verify points.csv --samples samples.csv --unit rad", status)
    assert ("lacks the Jacobian of radians" in said) == bool(status)

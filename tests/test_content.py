"""Digests: they change if and only if a result could change, and what cannot be digested is refused."""

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from circsde.coupling import LocalCoupling
from circsde.exact import problems
from circsde.exact.problems import Observable
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.models.mlp import ScoreMLP
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers.methods import HEUN
from circsde.solvers.registry import find_method
from circsde.studies import Runner, Simulation, exact_convergence, strong_convergence, weak_convergence
from circsde.studies.content import NoDigestError, digest
from circsde.studies.experiment import Variation, Wave

OWN = """
import math
import torch
from functools import partial
from circsde import KuramotoSDE, SDE, Schedule
from circsde.studies import Simulation
from circsde.exact.problems import Observable
from circsde.solvers.methods import HEUN
from dataclasses import replace

RATE = 1.5
def slope(theta):
    return RATE * theta.sin()
def drift(t, theta):
    return -slope(theta) - scale_of({"a", "b", "c"}) * theta.cos()
def scale_of(names):
    return len(names & {"a", "b"})
def start(mean, batch, generator):
    return mean + torch.randn(batch, 2, generator=generator, dtype=torch.float64)
class Well(KuramotoSDE):
    def drift(self, t, theta):
        return super().drift(t, theta) - torch.sin(2 * theta)
def step(sde, t, h, theta, noise):
    return theta + h * sde.drift(t, theta) + noise.dW
observables = (Observable("E cos 3 theta", lambda theta: (3 * theta).cos().mean(1), math.nan),)
own = Simulation(SDE(drift, lambda t: 0.5, 1.0, event_shape=(2,)), partial(start, 1.0), observables, "own")
well = Simulation(Well((2,), schedule=Schedule.constant(reference=1.0)), name="own")
everything = [own, well, replace(HEUN, step=step)]
"""


def module(source: str, folder: Path) -> ModuleType:
    """Import a user's module from a file."""
    path = folder / "own.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("own", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.slow
def test_another_process_makes_the_same_digests(tmp_path: Path) -> None:
    """With another seed of Python's hashes, so that sets come in another order, and at other addresses."""
    expected = digest(module(OWN, tmp_path).everything)
    script = "import own; from circsde.studies.content import digest; print(digest(own.everything))"
    environment = os.environ | {"PYTHONHASHSEED": "4711"}
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("RATE = 1.5", "RATE = 1.25"),
        ("theta.sin()", "theta.cos()"),
        ('"a", "b", "c"', '"a", "c"'),
        ("lambda t: 0.5", "lambda t: 0.25"),
        ("partial(start, 1.0)", "partial(start, 2.0)"),
        ("mean + torch.randn", "mean + torch.rand"),
        ("torch.sin(2 * theta)", "torch.sin(3 * theta)"),
        ("+ noise.dW", "+ 0.5 * noise.dW"),
        ("(3 * theta).cos()", "(4 * theta).cos()"),
        ("reference=1.0", "reference=2.0"),
        ("0.5, 1.0, event", "0.5, 2.0, event"),
        ("class Well(KuramotoSDE):", "class Well(KuramotoSDE):\n    horizon_in = 'hours'"),
    ],
)
def test_every_edit_of_an_equation_a_step_a_start_or_an_observable_shows(
    before: str, after: str, tmp_path: Path
) -> None:
    assert OWN.count(before) == 1
    first, again, edited = (
        digest(module(source, tmp_path).everything) for source in (OWN, f"# moved\n\n{OWN}", OWN.replace(before, after))
    )
    assert first == again
    assert first != edited


def scaled(scale: float) -> Callable[[float | Tensor, Tensor], Tensor]:
    return lambda t, theta: -scale * theta.sin()  # noqa: ARG005


def network(seed: int) -> ScoreMLP:
    torch.manual_seed(seed)
    return ScoreMLP((2,), Schedule.published(10).diffusion)


PAIRS: dict[str, Callable[[int], object]] = {
    "a closure": lambda i: SDE(scaled(1.0 + i), lambda t: 1.0, 1.0),
    "a horizon": lambda i: Schedule.constant(horizon=1.0 + i),
    "a default": lambda i: functools.partial(scaled, scale=1.0 + i),
    "weights": network,
    "a buffer": lambda i: KuramotoSDE((2,), reference_phase=torch.tensor([0.0, float(i)])),
    "a graph": lambda i: KuramotoSDE((2,), GraphCoupling(torch.tensor([[1.0, 1.0 + i], [1.0, 1.0]]))),
    "a window": lambda i: KuramotoSDE((9,), LocalCoupling(1 + i)),
    "a dtype": lambda i: torch.zeros(2, dtype=(torch.float32, torch.float64)[i]),
    "an array": lambda i: np.arange(3) + i,
    "a negative zero": lambda i: (0.0, -0.0)[i],
    "a whole number and a float": lambda i: (1, 1.0)[i],
    "a nesting": lambda i: ([[1], 2], [[1, 2]])[i],
    "training mode": lambda i: network(0).train(bool(i)),
    "a name": lambda i: find_method(("heun", "sra1")[i]),
    "a method of torchsde": lambda i: find_method(("torchsde:srk", "torchsde:heun")[i]),
    "a problem": lambda i: problems.get(("drifting", "published")[i]),
    "a changed problem": lambda i: replace(problems.get("drifting"), uncertainty=0.1 * (1 + i)),
    "a stochasticity": lambda i: Variation(Simulation(reverse(KuramotoSDE((2,)), network(0))), float(i)),
}


@pytest.mark.parametrize("what", PAIRS)
def test_different_contents_have_different_digests_and_equal_ones_the_same(what: str) -> None:
    make = PAIRS[what]
    assert digest(make(0)) == digest(make(0))
    assert digest(make(0)) != digest(make(1))


def test_a_digest_does_not_change_by_use() -> None:
    varied = Variation(Simulation(reverse(KuramotoSDE((2,)), network(0))), 0.5)
    before = digest(varied)
    assert varied.sde.horizon == 1.0  # computed now, and remembered
    assert digest(varied) == before


def test_a_changed_problem_is_not_the_one_whose_name_it_has() -> None:
    assert digest(replace(problems.get("drifting"), uncertainty=0.1)) != digest(problems.get("drifting"))


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (torch.Generator(), "Generator, whose state changes"),
        (np.random.default_rng(0), "Generator, whose state changes"),
        ([functools.partial(print, file=sys.__stdout__)], "TextIOWrapper, of which nothing is known"),
    ],
)
def test_what_has_a_hidden_state_is_refused(thing: object, message: str) -> None:
    with pytest.raises(NoDigestError, match=message):
        digest(thing)


def test_a_module_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    """Its functions could read anything in it; a function that is imported by name is identified by its code."""
    own = module("RATE = 1.0\ndef f(t): return RATE", tmp_path)
    with pytest.raises(NoDigestError, match="reads the module own, which is no installed package"):
        digest(lambda t: own.f(t))
    assert digest(own.f) == digest(module("RATE = 1.0\ndef f(t): return RATE", tmp_path).f)


def error(table: object) -> float:
    return float(table["error"].values.ravel()[0])  # type: ignore[index]


def test_an_edited_study_is_computed_anew(tmp_path: Path) -> None:
    """The same names with another coupling rate, another step, another observable, another drift: other numbers."""
    runner = Runner(tmp_path)

    def strong(rate: float) -> float:
        subject = Simulation(KuramotoSDE((3,), schedule=Schedule.constant(coupling=rate)), name="three")
        return error(strong_convergence(subject, ["euler_maruyama"], [4], paths=64, runner=runner))

    assert strong(1.0) == strong(1.0) != strong(8.0)

    def stepped(size: float) -> float:
        method = replace(HEUN, name="own", step=lambda sde, t, h, x, noise: x + size * h * sde.drift(t, x) + noise.dW)
        return error(exact_convergence("von_mises_well", methods=[method], steps=[4], runner=runner))

    assert stepped(1.0) == stepped(1.0) != stepped(0.5)

    def observed(m: int) -> float:
        subject = Simulation(KuramotoSDE((3,)), observables=(Observable("E", Wave("cos", m), 0.0),), name="three")
        return error(weak_convergence(subject, ["euler_maruyama"], [4], paths=64, runner=runner))

    assert observed(1) == observed(1) != observed(2)

    def drifting(scale: float) -> float:
        subject = Simulation(SDE(scaled(scale), lambda t: 1.0, 1.0, event_shape=(1,)), name="three")  # noqa: ARG005
        return error(strong_convergence(subject, ["euler_maruyama"], [4], paths=64, runner=runner))

    assert drifting(1.0) == drifting(1.0) != drifting(2.0)

"""A coupling and a network of one's own are trained, kept and loaded as those of the package are."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import GraphCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import Chain
from circsde.models import checkpoint
from circsde.models.mlp import ScoreMLP
from circsde.models.training import Settings, train, trained
from circsde.models.transitions import Objective
from circsde.schedule import Schedule
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

"""Gradients of likelihoods: those of exact laws, those of finite differences, and what is refused."""

import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from circsde.coupling import NoCoupling
from circsde.exact.fokker_planck import fokker_planck
from circsde.graph import DenseCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.laws.distributions import VonMises
from circsde.laws.mixture import WrappedNormalMixture
from circsde.schedule import Schedule
from circsde.solvers.likelihood import log_prob
from circsde.typing import Angles, Field, Tangent, Time
from strategies import assert_agree, random, random_angles

PRIOR = VonMises(0.0, 1.0)
SCHEDULE = Schedule.linear((2.0, 1.0, 0.3), (4.0, 2.0, 1.0))
STILL = KuramotoSDE((2,), NoCoupling(), Schedule.constant(reference=2.0))


def network(d: int) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2 * d, 8), torch.nn.Tanh(), torch.nn.Linear(8, d)).double()


def score_of(net: torch.nn.Module) -> Field:
    def score(t: Time, x: Angles) -> Tangent:  # noqa: ARG001
        value: Tensor = net(torch.cat((x.cos(), x.sin()), 1))
        return value - x.sin()

    return score


def test_the_gradient_in_the_data_is_the_score_of_an_exact_law() -> None:
    law = fokker_planck(
        Schedule.published(100), WrappedNormalMixture((0.4, 0.6), (-2.0, 1.0), (0.4, 0.6)), mean_field=False
    )
    sde, theta = KuramotoSDE((1,), schedule=Schedule.published(100)), random_angles(4, 1).requires_grad_()
    result = log_prob(sde, law.score, theta, prior=law.at(1.0), atol=1e-5, wrt=[theta])
    (found,) = torch.autograd.grad(result.value.sum(), theta)
    exact = law.score(0.0, theta.detach())
    assert (found - exact).abs().max() < 1e-3
    assert exact.abs().max() > 1.0
    assert not result.error.requires_grad
    assert not result.stderr.requires_grad


CHOICES: dict[str, dict[str, Any]] = {
    "exact": {},
    "hutchinson": {"divergence": "hutchinson", "generator": 0},
    "probing": {"divergence": "probing", "probes": 2, "generator": 0},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_gradients_are_those_of_finite_differences_on_the_same_steps(choice: str) -> None:
    """Central differences of width 1e-5 are good to about 1e-9."""
    coupling = DenseCoupling(torch.nn.Parameter(random(3, 3, seed=1)))
    sde, net, theta = KuramotoSDE((3,), coupling, SCHEDULE), network(3), random_angles(2, 3).requires_grad_()

    def value(wrt: tuple[Tensor, ...] = (), x: Tensor = theta) -> Tensor:
        how = CHOICES[choice]
        return log_prob(sde, score_of(net), x, prior=PRIOR, method="rk4", n_steps=2, wrt=wrt, **how).value

    weights = coupling.weights
    assert isinstance(weights, torch.nn.Parameter)
    wrt = theta, weights, *net.parameters()
    assert_agree(value(wrt).detach(), value())
    gradients = torch.autograd.grad(value(wrt).sum(), wrt)
    direction = random(*theta.shape, seed=2)
    near = [value(x=theta.detach() + h * direction).sum() for h in (1e-5, -1e-5)]
    assert_agree((gradients[0] * direction).sum(), (near[0] - near[1]) / 2e-5, 1e-7)
    for parameter, gradient in zip(wrt[1:], gradients[1:], strict=True):
        change = 1e-5 * random(*parameter.shape, seed=3)
        near = []
        for sign in (1.0, -2.0):
            with torch.no_grad():
                parameter.add_(change, alpha=sign)
            near.append(value().sum())
        with torch.no_grad():
            parameter.add_(change)
        assert_agree((gradient * change).sum(), 0.5 * (near[0] - near[1]), 1e-7)
        assert gradient.abs().max() > 1e-3


def test_a_batch_worked_on_in_parts_has_the_same_gradients_and_failed_samples_have_none() -> None:
    net, theta = network(2), random_angles(5, 2).requires_grad_()
    broken: Field = lambda t, x: torch.where(x > 3.0, math.nan, 1.0) * score_of(net)(t, x)  # noqa: E731
    with torch.no_grad():
        theta[1] = 3.1
    found = []
    for size in (None, 2):
        result = log_prob(
            STILL, broken, theta, prior=PRIOR, method="rk4", n_steps=4, batch_size=size, wrt=[theta, *net.parameters()]
        )
        kept = result.value.isfinite()
        assert not kept[1]
        found.append(torch.autograd.grad(result.value[kept].sum(), [theta, *net.parameters()]))
    for whole, parts in zip(*found, strict=True):
        assert_agree(whole, parts, 1e-12)
        assert bool(whole.isfinite().all())


def test_nothing_of_the_network_is_kept_until_the_backward_pass() -> None:
    class Noticed(torch.nn.Tanh):
        def forward(self, x: Tensor) -> Tensor:
            value = super().forward(x)
            alive.append(weakref.ref(value))
            return value

    alive: list[weakref.ref[Tensor]] = []
    net, theta = network(2), random_angles(3, 2)
    net[1] = Noticed()
    value = log_prob(STILL, score_of(net), theta, prior=PRIOR, atol=1e-4, wrt=[*net.parameters()]).value.sum()
    evaluated = len(alive)
    assert all(one() is None for one in alive)
    value.backward()  # type: ignore[no-untyped-call]
    assert len(alive) > evaluated
    assert net[0].weight.grad is not None


def test_the_likelihood_of_data_finds_the_concentration_that_they_were_drawn_with() -> None:
    """An inverse problem: of the score ``-k sin theta``, for which the flow stands still at the truth, 2."""
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    sde = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=2.0))
    theta = VonMises(0.0, 2.0).sample((400, 1), generator=torch.Generator().manual_seed(0)).double()
    optimiser = torch.optim.LBFGS([k], max_iter=8, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = -log_prob(sde, lambda t, x: -k * x.sin(), theta, method="rk4", n_steps=4, wrt=[k]).value.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    assert abs(k.item() - 2.0) < 0.5


class Once(torch.autograd.Function):
    """``-2 sin x`` with a derivative that torch does not differentiate."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return -2.0 * x.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = -2.0 * grad * x.cos()
        return slope


def once(t: Time, x: Angles) -> Tangent:  # noqa: ARG001
    value: Tensor = Once.apply(x)  # type: ignore[no-untyped-call]
    return value


class Cut:
    """A law whose density has no gradient."""

    def log_prob(self, value: Tensor) -> Tensor:
        return PRIOR.log_prob(value.detach())


REFUSED: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "no gradient": (lambda x: log_prob(STILL, lambda t, y: -y.sin(), x, wrt=[x.detach()]), r"wrt\[0\].*requires_grad_"),
    "several steps": (
        lambda x: log_prob(STILL, lambda t, y: -y.sin(), x, method="implicit_adams", n_steps=4, wrt=[x]),
        "choose dopri5 or rk4",
    ),
    "prior": (lambda x: log_prob(STILL, lambda t, y: -y.sin(), x, prior=Cut(), wrt=[x]), "log_prob of the prior"),
    "second derivative": (lambda x: log_prob(STILL, once, x, wrt=[x]), "slope of the score"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_have_a_wrong_gradient_is_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call(random_angles(3, 2).requires_grad_())

"""Gradients: recomputed steps against plain backpropagation, their memory, and ``torch.func`` through one step."""

import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from circsde.kuramoto import KuramotoSDE
from circsde.sde import SDE, reverse
from circsde.solvers import METHODS, Brownian, Method, Noise, SolveError, Stats, sdeint
from circsde.typing import Time
from strategies import assert_agree, kuramoto, random, random_angles, recorded

TS = (0.0, 0.3, 0.7, 1.0)


class Neural(SDE):
    """A network of sines and cosines as a drift."""

    def __init__(self, oscillators: int = 4, width: int = 32, amplitude: float = 0.5) -> None:
        super().__init__(self.network_drift, lambda t: amplitude, horizon=1.0)
        self.first = torch.nn.Parameter(random(2 * oscillators, width, scale=0.5))
        self.second = torch.nn.Parameter(random(width, oscillators, seed=1, scale=0.5))

    def network_drift(self, t: Time, theta: Tensor) -> Tensor:
        features = torch.cat([theta.cos(), (theta + t).sin()], -1)
        return (features @ self.first).tanh() @ self.second


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The gradients of a number in which every output has another weight."""
    return torch.autograd.grad((output * random(*output.shape, seed=5)).sum(), inputs)


def both(solve: Callable[[bool], Tensor], *inputs: Tensor) -> list[tuple[Tensor, ...]]:
    """The output and the gradients, plain and recomputed."""
    outputs = [solve(checkpoint) for checkpoint in (False, True)]
    return [(output, *gradients(output, *inputs)) for output in outputs]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_steps", [3, 50])
def test_recomputed_gradients_are_those_of_plain_backpropagation(method: str, n_steps: int) -> None:
    """Of the start and of the parameters of a score; parts of 7 steps do not divide the intervals of the outputs."""
    weight = torch.tensor([[0.8, -0.3, 0.1, 0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    sde = reverse(kuramoto("global"), lambda t, theta: -weight * (theta + t).sin())
    start = (3.0 * random_angles(3, 5)).requires_grad_()

    def solve(checkpoint: bool) -> Tensor:
        return sdeint(sde, start, TS, n_steps=n_steps, method=method, generator=0, checkpoint=checkpoint).lifted

    for plain, again in zip(*both(solve, start, weight), strict=True):
        assert_agree(again, plain, 1e-12)


def test_recomputed_gradients_are_right_where_angles_turn_far_and_only_parameters_ask_for_them() -> None:
    sde = Neural(amplitude=20.0)
    theta0, parameters = random_angles(3, 4), (sde.first, sde.second)

    def solve(checkpoint: bool) -> Tensor:
        solution = sdeint(sde, theta0, TS, n_steps=200, generator=0, checkpoint=checkpoint)
        assert solution.winding.abs().max() > 1
        return solution.lifted

    for plain, again in zip(*both(solve, *parameters), strict=True):
        assert_agree(again, plain, 1e-12)


def test_second_derivatives_are_recomputed_too() -> None:
    sde, start = Neural(), random_angles(2, 4).requires_grad_()
    found = []
    for checkpoint in (False, True):
        output = sdeint(sde, start, (0.0, 1.0), n_steps=9, generator=0, checkpoint=checkpoint).lifted[-1]
        (gradient,) = torch.autograd.grad(output.sin().sum(), start, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), start)[0])
    assert_agree(found[1], found[0], 1e-12)


def test_noise_that_is_not_replayed_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin whose second look at a step is at other noise."""
    looks = list[int]()
    normal = Brownian.normal

    def fresh(path: Brownian, step: int, kind: int) -> Tensor:
        looks.append(step)
        return normal(path, step + 1000 * looks.count(step), kind)

    def solve(checkpoint: bool) -> Tensor:
        looks.clear()
        return sdeint(sde, start, (0.0, 1.0), n_steps=9, generator=0, checkpoint=checkpoint).lifted

    sde, start = Neural(), random_angles(2, 4).requires_grad_()
    monkeypatch.setattr(Brownian, "normal", fresh)
    plain = solve(False)
    expected, *_ = gradients(plain, start)
    again = solve(True)
    assert_agree(again, plain)
    assert (gradients(again, start)[0] - expected).abs().max() > 1e-3


class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that the tensors made by torch hold at any time, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0  # bytes
        self.known = set[int]()  # storages

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name not in self.known:
            self.known.add(name)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.drop, name, size)

    def drop(self, name: int, size: int) -> None:
        self.known.discard(name)
        self.now -= size


def held(n_steps: int, checkpoint: bool) -> int:
    """The peak of a solve and its backward pass."""
    sde, theta0 = Neural(8, 64), random_angles(16, 8)
    with Held() as memory:
        method = "euler_maruyama"
        solution = sdeint(sde, theta0, (0.0, 1.0), n_steps=n_steps, method=method, generator=0, checkpoint=checkpoint)
        solution.theta.cos().sum().backward()  # type: ignore[no-untyped-call]
    return int(memory.most)


@pytest.mark.parametrize(("many", "few"), [(400, 40), pytest.param(10_000, 100, marks=pytest.mark.slow)])
def test_many_recomputed_steps_take_at_most_three_times_the_memory_of_a_few(many: int, few: int) -> None:
    """Plain ones take as many times more as there are more of them."""
    plain = held(few, checkpoint=False)
    assert held(many, checkpoint=True) < 3 * plain
    assert held(4 * few, checkpoint=False) > 3 * plain


def test_a_failure_among_recomputed_steps_is_told_as_ever() -> None:
    def sick(t: Time, theta: Tensor) -> Tensor:
        return theta.sin() + torch.tensor([[0.0], [math.nan if t >= 0.5 else 0.0], [0.0]])

    told, found = list[tuple[str, Stats]](), list[Tensor]()
    for checkpoint in (False, True):
        start = random_angles(3, 2).requires_grad_()
        with pytest.raises(SolveError) as raised:
            sdeint(SDE(sick, lambda t: 0.1, 1.0), start, TS, n_steps=100, generator=0, checkpoint=checkpoint)
        solution = raised.value.solution
        told.append((str(raised.value), solution.stats))
        found.append(gradients(solution.lifted, start)[0])
    assert told[0] == told[1]
    assert "step 49 to t = 0.5: an angle of sample 1 is not finite" in told[0][0]
    assert_agree(found[1], found[0], 1e-12)


def test_progress_is_told_for_every_step_of_a_part() -> None:
    steps = list[int]()
    start = random_angles(1, 4).requires_grad_()
    sdeint(Neural(), start, TS, n_steps=50, checkpoint=True, progress=steps.append)
    assert steps == list(range(1, 51))


def test_what_cannot_be_repeated_is_refused() -> None:
    sde = reverse(kuramoto("none"), lambda t, theta: -theta.sin())
    with pytest.raises(ValueError, match=r"checkpoint=True needs noise that can be repeated, .* got a Replay"):
        sdeint(sde, torch.zeros(1, 4).double(), (0, 1), n_steps=2, brownian=recorded((1, 4), 2), checkpoint=True)
    with pytest.raises(ValueError, match="multistep remembers earlier steps, .* leave out checkpoint"):
        sdeint(sde, torch.zeros(1, 4), (0, 1), n_steps=2, method="multistep", checkpoint=True)


def test_torch_func_in_a_drift_or_around_a_solve_is_refused_with_what_works_instead() -> None:
    """The same drift by ``torch.autograd.grad``, and ``torch.func`` around plain steps, give the gradients."""

    def energy(theta: Tensor) -> Tensor:
        return (weight * theta.cos()).sum()

    def by_func(t: Time, theta: Tensor) -> Tensor:  # noqa: ARG001
        gradient: Tensor = torch.func.grad(energy)(theta)
        return gradient

    def by_autograd(t: Time, theta: Tensor) -> Tensor:  # noqa: ARG001
        with torch.enable_grad():
            theta = theta if theta.requires_grad else theta.detach().requires_grad_()
            return torch.autograd.grad(energy(theta), theta, create_graph=True)[0]

    def solve(drift: Callable[[Time, Tensor], Tensor], checkpoint: bool) -> Tensor:
        sde = SDE(drift, lambda t: 0.1, horizon=1.0)
        return sdeint(sde, start, (0.0, 1.0), n_steps=9, generator=0, checkpoint=checkpoint).lifted

    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    start = random_angles(2, 3).requires_grad_()
    message = r"torch\.func does not work inside of checkpoint=True, nor around it .*torch\.autograd\.grad"
    with pytest.raises(ValueError, match=message):
        solve(by_func, True)

    def number(theta0: Tensor, checkpoint: bool) -> Tensor:
        return sdeint(Neural(3), theta0, (0.0, 1.0), n_steps=9, generator=0, checkpoint=checkpoint).lifted.sum()

    with pytest.raises(ValueError, match=message):
        torch.func.grad(number)(start.detach(), True)
    around = torch.func.grad(number)(start.detach(), False)
    assert_agree(around, torch.autograd.grad(number(start, True), start)[0], 1e-12)
    (expected,) = gradients(solve(by_func, False), weight)
    (again,) = gradients(solve(by_autograd, True), weight)
    assert_agree(again, expected, 1e-12)


def step_of(method: Method, sde: SDE) -> Callable[[Tensor], Tensor]:
    """One step as a function of the angles ``(2, 4)``."""
    (noise,) = Brownian((0.2, 0.3), (2, 4), 3, torch.float64).increments((0.2, 0.3), levy_area=True)
    return lambda theta: method.step(sde, 0.2, 0.1, theta, Noise(noise.dW, noise.dZ))


def equations() -> dict[str, SDE]:
    coupled = kuramoto("none")
    return {
        "network": Neural(),
        "coupled": KuramotoSDE((4,), reference_phase=coupled.reference_phase),
        "reversed": reverse(coupled, lambda t, theta: -0.7 * (theta + t).sin()),
    }


@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, method)
        for name in equations()
        for method in METHODS
        if name != "network" or method not in ("mobius_strang", "noise_flow_noise")
    ],
)
def test_one_step_is_a_function_for_torch_func(name: str, method: str) -> None:
    """``grad`` and ``jvp`` against central differences, whose error is 1e-10 here; ``vmap`` against a loop."""
    step = step_of(METHODS[method], equations()[name])
    theta, direction, weights = random_angles(2, 4), random(2, 4), random(2, 4, seed=1)

    def number(angles: Tensor) -> Tensor:
        return (weights * step(angles)).sum()

    width = 1e-5
    slope = (step(theta + width * direction) - step(theta - width * direction)) / (2.0 * width)
    value, tangent = torch.func.jvp(step, (theta,), (direction,))  # type: ignore[misc]
    assert_agree(value, step(theta))
    assert_agree(tangent, slope, 1e-8)
    assert_agree((torch.func.grad(number)(theta) * direction).sum(), (weights * slope).sum(), 1e-8)
    several = random_angles(3, 2, 4, seed=2)
    assert_agree(torch.func.vmap(step)(several), torch.stack([step(each) for each in several]))
    per_sample = torch.func.vmap(torch.func.grad(number))(several)
    assert_agree(per_sample, torch.stack([torch.func.grad(number)(each) for each in several]))

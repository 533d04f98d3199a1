r"""One-step methods for ``d theta = f dt + g(t) dW``, with the orders that they claim.

A method is a step function on the lift, ``step(sde, t, h, theta, noise) -> theta``, plus its claims: every order and
every evaluation count below is asserted by a test, and the table in the documentation is generated from these
objects. Steps never mutate their arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from circsde.mobius import mobius_flow
from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.typing import Amplitude, Angles

Step = Callable[[SDE, float, float, Angles, Noise], Angles]


@dataclass(frozen=True)
class Method:
    """A numerical method: a step function together with the orders that it claims.

    Attributes:
        name: What users call it.
        step: ``(sde, t, h, theta, noise) -> theta`` at ``t + h``, on the lift.
        strong_order: Order of the root-mean-square geodesic error on one Brownian path, for time-dependent ``g``;
            None if the method does not follow the path.
        weak_order: Order of the error of expectations at a fixed time.
        invariant_order: Order of the bias of the stationary law.
        nfe: The number of evaluations per step: of the score of a reversed equation, else of the drift or its field.
        nfe_coupled: The number of evaluations of the field if the oscillators are coupled and this takes more.
        nfe_composite: The number of evaluations of the remainder of the drift, such as a score, if this takes more.
        nfe_start: Further evaluations in the first step of a solution, of a method that remembers earlier steps.
        levy_area: Whether ``step`` or ``observe`` reads ``noise.dZ``.
        explicit: Whether the rates of a sinusoidal drift bound a stable step, too; how far, its steps say
            themselves: :mod:`circsde.solvers.stability`.
        note: A line that says what the method is for.
        source: The publication that the method comes from.
        observe: Makes the output from the state that the chain carries, where the two differ:
            ``(sde, t, h, state, noise) -> theta`` with the step that led to the state.
        begin: For a method that remembers earlier steps. It makes the step function of one solution, and ``step`` is
            then its first step.
        parts: Step functions whose composition is ``step``, each with a ``dW`` of variance ``h`` of its own that is
            independent of the others': then the operator of a step is the product of theirs.
        noises: The kinds of noise that it is for, of :data:`circsde.noise.NOISES`.
        calculus: How the equation must be read, ``"ito"`` or ``"stratonovich"``; None where it follows both.
        commutative: Whether the vector fields of general noise must commute.

    >>> from circsde.solvers import Method, sdeint
    >>> euler = Method("euler", lambda sde, t, h, theta, noise: theta + h * sde.drift(t, theta), None, 1.0, 1.0, nfe=1)
    >>> fall = SDE(lambda t, theta: -theta.sin(), lambda t: 0.0, horizon=1.0)
    >>> round(sdeint(fall, torch.ones(1, 1), (0.0, 1.0), n_steps=2, method=euler).theta[-1].item(), 4)  # exact: 0.396
    0.3056
    """

    name: str
    step: Step
    strong_order: float | None
    weak_order: float
    invariant_order: float
    nfe: int
    nfe_coupled: int | None = None
    nfe_composite: int | None = None
    nfe_start: int = 0
    levy_area: bool = False
    explicit: bool = True
    note: str = ""
    source: str = ""
    observe: Step | None = None
    begin: Callable[[], Step] | None = None
    parts: tuple[Step, ...] = ()
    noises: tuple[str, ...] = ("additive",)
    calculus: str | None = None
    commutative: bool = False

    def first_step(self) -> Step:
        """The step function of one solution, which has not remembered anything yet."""
        return self.step if self.begin is None else self.begin()

    def evaluations(self, sde: SDE) -> int:
        """Evaluations per step, on this equation, of what costs.

        That is the score of a reversed equation, or whatever else is the remainder of its drift, beside which fields
        are cheap; without a remainder it is the drift, or the field of its sinusoidal part.
        """
        special = self.nfe_composite if sde.composite else self.nfe_coupled if sde.coupled else None
        return self.nfe if special is None else special

    def work(self, sde: SDE, steps: int) -> int:
        """Evaluations of what costs, on this equation, in the first ``steps`` steps of a solution."""
        return steps * self.evaluations(sde) + self.nfe_start


def axpy(theta: Tensor, a: Amplitude, x: Tensor) -> Tensor:
    """``theta + a x`` in the dtype of ``theta``, in one pass where ``a`` is a number."""
    return torch.add(theta, x, alpha=a) if isinstance(a, float) else theta + (a * x).to(theta.dtype)


def moved(theta: Angles, a: Amplitude, x: Tensor, b: Amplitude, y: Tensor) -> Angles:
    """``theta + (a x + b y)``: the increment is summed in the dtype of ``x``; ``theta`` may be wider."""
    return theta + axpy((a * x).to(x.dtype), b, y)


def root_mean_square_diffusion(sde: SDE, t: float, h: float) -> Amplitude:
    """The constant amplitude that adds the same noise variance over the step as ``g`` does."""
    return (sde.variance(t, t + h) / h) ** 0.5


def euler_maruyama_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """``theta + f h + g dW``, both at the left end: the published chain (eq. 15)."""
    return moved(theta, h, sde.drift(t, theta), sde.diffusion(t), noise.dW)


def heun_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """Predict with Euler-Maruyama, correct with the average drift; the variance of the noise is exact (eq. 16)."""
    g = root_mean_square_diffusion(sde, t, h)
    slope = sde.drift(t, theta)
    predicted = moved(theta, h, slope, g, noise.dW)
    return moved(theta, 0.5 * h, slope + sde.drift(t + h, predicted), g, noise.dW)


def sra1_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    r"""Roessler's SRA1 (eq. 17): ``f1 = f(t, theta)``, ``f2 = f(t + 3h/4, theta + 3/4 h f1 + 3/2 g dZ/h)``.

    ``theta + h (f1 + 2 f2)/3 + g(t+h) dW - (g(t+h) - g(t)) dZ/h``; the last term is the time-dependent noise,
    integrated by parts.
    """
    assert noise.dZ is not None
    g_left, g_right = sde.diffusion(t), sde.diffusion(t + h)
    f1 = sde.drift(t, theta)
    f2 = sde.drift(t + 0.75 * h, moved(theta, 0.75 * h, f1, 1.5 / h * g_right, noise.dZ))
    theta = moved(theta, h / 3.0, f1, 2.0 / 3.0 * h, f2)
    return moved(theta, g_right, noise.dW, (g_left - g_right) / h, noise.dZ)


def mobius_strang_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """Half a Mobius flow of the sinusoidal part, the noise, half a flow (eq. 12); rates and variance integrated.

    Any part of the drift that is not sinusoidal (a score) goes with the noise, in a Heun step.
    """
    middle, end, g = t + 0.5 * h, t + h, root_mean_square_diffusion(sde, t, h)
    theta = _kicked(sde, t, end, _mobius(sde, t, middle, theta), g, noise.dW)
    return _mobius(sde, middle, end, theta)


def _mobius(sde: SDE, t0: float, t1: float, theta: Angles) -> Angles:
    """The flow in the mean field of its own midpoint, predicted: second order where the field moves, else exact."""
    impulse = sde.impulse(t0, t1, theta)
    if sde.coupled:
        middle = mobius_flow(theta, *(0.5 * part for part in impulse))
        impulse = sde.impulse(t0, t1, middle)
    return mobius_flow(theta, *impulse)


def _kicked(sde: SDE, t0: float, t1: float, theta: Angles, g: Amplitude, dW: Tensor) -> Angles:
    """The noise ``g dW`` and the remainder of the drift, if there is one, by a Heun step."""
    kick = sde.remainder(t0, theta)
    if kick is None:
        return axpy(theta, g, dW)
    corrected = sde.remainder(t1, moved(theta, t1 - t0, kick, g, dW))
    assert corrected is not None
    return moved(theta, 0.5 * (t1 - t0), kick + corrected, g, dW)


def noise_flow_noise_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    r"""Half the noise, a Mobius flow of the sinusoidal part, half the noise (eq. 12, exchanged); rates integrated.

    The halves come from ``dW/sqrt(2) +- sqrt(6)/h (dZ - h/2 dW)``: independent, each of variance ``h``, their sum
    ``sqrt(2) dW``.
    """
    assert noise.dZ is not None
    same, apart = 0.5**0.5 * noise.dW, 6.0**0.5 / h * axpy(noise.dZ, -0.5 * h, noise.dW)
    theta = first_half_noise(sde, t, h, theta, Noise(same + apart))
    theta = flow_between_noises(sde, t, h, theta, noise)
    return second_half_noise(sde, t, h, theta, Noise(same - apart))


def first_half_noise(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """The noise of the first half of a step, its variance exact, from a ``dW`` of variance ``h``."""
    return axpy(theta, (sde.variance(t, t + 0.5 * h) / h) ** 0.5, noise.dW)


def second_half_noise(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """The noise of the second half of a step, likewise."""
    return axpy(theta, (sde.variance(t + 0.5 * h, t + h) / h) ** 0.5, noise.dW)


def flow_between_noises(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:  # noqa: ARG001
    """The Mobius flow over a step, with a Heun step of the remainder of the drift, if there is one, half-way."""
    if not sde.composite:
        return _mobius(sde, t, t + h, theta)
    middle, end = t + 0.5 * h, t + h
    theta = _kicked(sde, t, end, _mobius(sde, t, middle, theta), 0.0, torch.zeros_like(theta))
    return _mobius(sde, middle, end, theta)


def leimkuhler_matthews_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """``y + h f(y + g dW / 2) + g dW``: the carried state ``y`` of the averaged-noise method (eq. 18)."""
    g = root_mean_square_diffusion(sde, t, h)
    return moved(theta, h, sde.drift(t + 0.5 * h, axpy(theta, 0.5 * g, noise.dW)), g, noise.dW)


def leimkuhler_matthews_observe(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """``y + g xi sqrt(h) / 2`` with a fresh normal ``xi``: the part of ``dZ`` that is independent of ``dW``."""
    assert noise.dZ is not None
    g = root_mean_square_diffusion(sde, t, h)
    independent = axpy(noise.dZ, -0.5 * h, noise.dW)  # variance h^3 / 12
    return axpy(theta, 3**0.5 / h * g, independent)


EULER_MARUYAMA = Method(
    "euler_maruyama",
    euler_maruyama_step,
    strong_order=1.0,
    weak_order=1.0,
    invariant_order=1.0,
    nfe=1,
    note="the published chain",
    source="Maruyama 1955, doi:10.1007/BF02846028",
)
HEUN = Method(
    "heun",
    heun_step,
    strong_order=1.0,
    weak_order=2.0,
    invariant_order=2.0,
    nfe=2,
    note="a good default; noise variance integrated over the step",
    source="Kloeden & Platen 1992, doi:10.1007/978-3-662-12616-5",
)
SRA1 = Method(
    "sra1",
    sra1_step,
    strong_order=1.5,
    weak_order=2.0,
    invariant_order=2.0,
    nfe=2,
    levy_area=True,
    note="follows the path most closely; reads dW and dZ",
    source="Roessler 2010, doi:10.1137/09076636X",
)
MOBIUS_STRANG = Method(
    "mobius_strang",
    mobius_strang_step,
    strong_order=1.0,
    weak_order=2.0,
    invariant_order=2.0,
    nfe=2,
    nfe_coupled=4,
    explicit=False,
    note="sinusoidal drifts; stable at any rate times step",
    source="eq. 12; Strang 1968, doi:10.1137/0705041",
)
NOISE_FLOW_NOISE = Method(
    "noise_flow_noise",
    noise_flow_noise_step,
    strong_order=1.0,
    weak_order=2.0,
    invariant_order=2.0,
    nfe=1,
    nfe_coupled=2,
    nfe_composite=2,
    levy_area=True,
    explicit=False,
    note="sinusoidal drifts; weak order 2 at one evaluation, stable at any rate times step",
    source="eq. 12, exchanged; Strang 1968, doi:10.1137/0705041",
    parts=(first_half_noise, flow_between_noises, second_half_noise),
)
LEIMKUHLER_MATTHEWS = Method(
    "leimkuhler_matthews",
    leimkuhler_matthews_step,
    strong_order=None,
    weak_order=1.0,
    invariant_order=2.0,
    nfe=1,
    levy_area=True,
    note="stationary sampling at one evaluation per step",
    source="Leimkuhler & Matthews 2013, doi:10.1093/amrx/abs010",
    observe=leimkuhler_matthews_observe,
)

METHODS = {
    method.name: method for method in (EULER_MARUYAMA, HEUN, SRA1, MOBIUS_STRANG, NOISE_FLOW_NOISE, LEIMKUHLER_MATTHEWS)
}
"""The methods that follow a path, by name, with their orders and costs."""

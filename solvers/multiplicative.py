r"""Methods for noise that depends on the angles, ``d theta = f dt + g(t, theta) dW``, with the orders that they claim.

``G(theta) = g(t, theta) dW`` is the noise of a step. :mod:`circsde.noise` describes the kinds of noise, and the
difference of Ito's and Stratonovich's readings. A method for additive noise that has a form here has it under the same
name. Its strong order falls to 1/2 where the vector fields of general noise do not commute; without iterated
integrals of the noise no method does better.

Sources: Kloeden & Platen 1992, doi:10.1007/978-3-662-12616-5; Roessler 2010, doi:10.1137/09076636X.
"""

from dataclasses import replace

from circsde.noise import amplitude, at, correction, derivative, ito_drift, kick
from circsde.sde import SDE
from circsde.solvers.brownian import Noise
from circsde.solvers.methods import Method
from circsde.typing import Angles, Tangent


def noise_of(sde: SDE, t: float, theta: Angles, noise: Noise) -> Tangent:
    """``G(theta) = g(t, theta) dW``, rad."""
    return kick(sde.noise, amplitude(sde, t, theta), noise.dW)


def euler_maruyama_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """``theta + h f + G(theta)``, all at the left end, as Ito reads it."""
    return theta + (h * sde.drift(t, theta) + noise_of(sde, t, theta, noise))


def heun_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """Predict with Euler's step, correct with the averages of drift and noise, as Stratonovich reads it."""
    slope, push = sde.drift(t, theta), noise_of(sde, t, theta, noise)
    predicted = theta + (h * slope + push)
    slope = slope + sde.drift(t + h, predicted)
    return theta + (0.5 * h * slope + 0.5 * (push + noise_of(sde, t + h, predicted, noise)))


def euler_heun_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    """``theta + h f + (G(theta) + G(theta + G(theta))) / 2``, as Stratonovich reads it; the last ``G`` at ``t + h``."""
    push = noise_of(sde, t, theta, noise)
    return theta + (h * sde.drift(t, theta) + 0.5 * (push + noise_of(sde, t + h, theta + push, noise)))


def milstein_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    r"""``theta + h f + G + (1/2) (G . grad) G``, with Stratonovich's drift, which Ito's is less ``correction``.

    For diagonal noise in Ito's reading this is ``theta + h f + g dW + g g' (dW^2 - h) / 2``.
    """
    push = noise_of(sde, t, theta, noise)
    iterated = derivative(lambda x: noise_of(sde, t, x, noise), theta, push)
    drift = sde.drift(t, theta)
    if sde.sde_type == "ito":
        drift = drift - correction(sde.noise, at(sde, t), theta)
    return theta + (h * drift + push + 0.5 * iterated)


def sri1w1_step(sde: SDE, t: float, h: float, theta: Angles, noise: Noise) -> Angles:
    r"""Roessler's SRI1W1, with Ito's drift ``f`` and ``I_11 = (dW^2 - h)/2``, ``I_111 = (dW^3 - 3 h dW)/6``.

    ``g1 = g(t, theta)``, ``g2 = g(t + h/4, theta + (h f1 + 2 sqrt(h) g1)/4)``,
    ``g3 = g(t + h, theta + h f1 - sqrt(h) g1)``, ``g4 = g(t + h/4, theta + h f3/4 + sqrt(h) (-5 g1 + 3 g2 + g3/2))``,
    ``f2 = f(t + 3h/4, theta + 3/4 h f1 + 3/2 g1 dZ/h)``, where ``f3 = f(t, theta) = f1``.

    Its weak order is 1.5: of the stages, which lie ``sqrt(h) u_i g1`` off the angles, the weights ``b_i`` of ``dW``
    have ``sum_i b_i u_i^3 = -1/2``, so that a part of ``g^3`` times the third derivative of ``g`` is left over in the
    variance. It is 2 where ``g`` is linear, where it is often measured; no such ``g`` is periodic.
    """
    assert noise.dZ is not None
    dW, area, root = noise.dW, noise.dZ / h, h**0.5
    twice, thrice = 0.5 * (dW**2 - h) / root, (dW**3 - 3.0 * h * dW) / (6.0 * h)
    f1, g1 = ito_drift(sde, t, theta), amplitude(sde, t, theta)
    g2 = amplitude(sde, t + 0.25 * h, theta + (0.25 * h * f1 + 0.5 * root * g1))
    g3 = amplitude(sde, t + h, theta + (h * f1 - root * g1))
    g4 = amplitude(sde, t + 0.25 * h, theta + (0.25 * h * f1 + root * (3.0 * g2 - 5.0 * g1 + 0.5 * g3)))
    f2 = ito_drift(sde, t + 0.75 * h, theta + (0.75 * h * f1 + 1.5 * area * g1))
    first = -dW - twice + 2.0 * area - 2.0 * thrice
    second = (4.0 * (dW + twice - area) + 5.0 * thrice) / 3.0
    third = (2.0 * (dW - area - thrice) - twice) / 3.0
    moved: Tangent = h / 3.0 * (f1 + 2.0 * f2) + first * g1 + second * g2 + third * g3 + thrice * g4
    return theta + moved


_ALIKE, _ALL = ("diagonal", "scalar"), ("diagonal", "scalar", "general")
_KLOEDEN_PLATEN = "Kloeden & Platen 1992, doi:10.1007/978-3-662-12616-5"

EULER_MARUYAMA = Method(
    "euler_maruyama",
    euler_maruyama_step,
    strong_order=0.5,
    weak_order=1.0,
    invariant_order=1.0,
    nfe=1,
    noises=_ALL,
    calculus="ito",
    note="Ito; any noise",
    source="Maruyama 1955, doi:10.1007/BF02846028",
)
HEUN = Method(
    "heun",
    heun_step,
    strong_order=1.0,
    weak_order=1.0,
    invariant_order=1.0,
    nfe=2,
    noises=_ALIKE,
    calculus="stratonovich",
    note="Stratonovich; any noise, of strong order 1/2 where its fields do not commute",
    source=_KLOEDEN_PLATEN,
)
EULER_HEUN = replace(
    HEUN, name="euler_heun", step=euler_heun_step, nfe=1, note="the same with one evaluation of the drift"
)
MILSTEIN = Method(
    "milstein",
    milstein_step,
    strong_order=1.0,
    weak_order=1.0,
    invariant_order=1.0,
    nfe=1,
    noises=_ALL,
    commutative=True,
    note="both readings; forward derivatives of the diffusion",
    source="Milstein 1974, doi:10.1137/1119062",
)
SRI1W1 = Method(
    "sri1w1",
    sri1w1_step,
    strong_order=1.5,
    weak_order=1.5,
    invariant_order=1.5,
    nfe=2,
    noises=_ALIKE,
    levy_area=True,
    note="both readings; follows the path most closely; four evaluations of the diffusion",
    source="Roessler 2010, doi:10.1137/09076636X",
)

FORMS = (
    *(EULER_MARUYAMA, HEUN, EULER_HEUN, MILSTEIN, SRI1W1),
    *(replace(method, noises=("general",), strong_order=0.5) for method in (HEUN, EULER_HEUN)),
)
"""The methods for noise that depends on the angles, each with the kinds of noise on which it has its orders."""

MULTIPLICATIVE = {form.name: form for form in reversed(FORMS)}
"""The same by name, in their form for diagonal and scalar noise."""

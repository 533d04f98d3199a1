"""Whoever overrides a drift, a noise or a field overrides what was known of it in closed form, or loses it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from circsde.coupling import GlobalCoupling, NoCoupling
from circsde.kuramoto import KuramotoSDE, has_closed_form
from circsde.laws.distributions import VonMises
from circsde.matching.chain import Chain, denoising
from circsde.matching.jacobian import drift_step
from circsde.matching.steps import drift
from circsde.models.analytic import FokkerPlanckScore
from circsde.models.checkpoint import describe
from circsde.schedule import Schedule
from circsde.sde import SDE, reverse
from circsde.solvers.integrate import sdeint
from circsde.solvers.likelihood import log_prob
from circsde.solvers.normalisation import normalisation
from circsde.studies import study
from circsde.typing import Angles, PerSample, Tangent, Time
from strategies import assert_agree, random_angles

RATES = Schedule.constant(reference=1.0, diffusion=1.0)


class Well(KuramotoSDE):
    """A second harmonic in the potential."""

    def drift(self, t: Time, theta: Angles) -> Tangent:
        return super().drift(t, theta) - torch.sin(2.0 * theta)


class Keeping(Well):
    """The class above without the rule: it keeps the closed forms of another drift."""

    divergence = KuramotoSDE.divergence
    impulse = KuramotoSDE.impulse
    terminal_law = KuramotoSDE.terminal_law
    settled_law = KuramotoSDE.settled_law


class Complete(Well):
    """A subclass that says what its drift has beside the sinusoidal part."""

    impulse = KuramotoSDE.impulse
    coupled = KuramotoSDE.coupled

    def remainder(self, t: Time, theta: Angles) -> Tangent:  # noqa: ARG002
        return -torch.sin(2.0 * theta)

    def divergence(self, t: Time, theta: Angles) -> PerSample:
        return KuramotoSDE.divergence(self, t, theta) - 2.0 * (2.0 * theta).cos().flatten(1).sum(1)


def well(kind: type[KuramotoSDE], n: int = 1) -> KuramotoSDE:
    return kind((n,), NoCoupling(), RATES)


def total(sde: KuramotoSDE) -> float:
    """The integral of the density of its likelihood, for a score that is zero: that of a flow from the prior."""
    prior = VonMises(0.0, 1.0)
    return normalisation(lambda x: log_prob(sde, lambda t, y: 0.0 * y, x, prior=prior, atol=1e-5).value, 1, 128)


def test_the_likelihood_of_a_subclass_with_a_drift_of_its_own_integrates_to_one() -> None:
    assert total(well(Well)) == pytest.approx(1.0, abs=1e-3)
    assert total(well(Complete)) == pytest.approx(1.0, abs=1e-3)
    assert abs(total(well(Keeping)) - 1.0) > 0.1


def test_a_drift_of_its_own_has_no_mobius_flow_unless_the_class_says_what_is_left() -> None:
    theta = random_angles(3, 1)
    for sde in (well(Well), reverse(well(Well), lambda t, x: 0.0 * x)):
        assert not sde.sinusoidal
        with pytest.raises(TypeError, match="needs a drift .* as in KuramotoSDE, got Well"):
            sdeint(sde, theta, (0.0, 1.0), n_steps=2, method="mobius_strang")
    ends = {
        method: sdeint(well(Complete), theta, (0.0, 1.0), n_steps=400, method=method, generator=1).lifted[-1]
        for method in ("mobius_strang", "heun")
    }
    assert (ends["mobius_strang"] - ends["heun"]).abs().max() < 0.02  # one path; both of strong order 1
    kept = sdeint(well(Keeping), theta, (0.0, 1.0), n_steps=400, method="mobius_strang", generator=1).lifted[-1]
    assert (kept - ends["heun"]).abs().max() > 0.1


def test_a_drift_of_its_own_knows_no_law_at_its_horizon() -> None:
    with pytest.raises(ValueError, match="Well knows no law at its horizon: give prior="):
        log_prob(well(Well), lambda t, x: 0.0 * x, random_angles(2, 1))
    with pytest.raises(ValueError, match="Well knows no law"):
        well(Well).terminal_law()


def test_the_fast_paths_of_training_follow_a_drift_of_its_own() -> None:
    sde, theta = well(Well, 3), random_angles(4, 3)
    assert_agree(drift(sde, 0.2, theta), sde.drift(0.2, theta))
    step = drift_step(sde, 0.2, 0.1, theta)
    assert_agree(step.moved, theta + 0.1 * sde.drift(0.2, theta))
    slope = 1.0 - 0.1 * (theta.cos() + 2.0 * (2.0 * theta).cos())  # by the law of independent angles
    assert_agree(step.apply(torch.ones_like(theta)), slope, 1e-12)
    assert not has_closed_form(sde)
    assert Chain.uniform(sde, 4)._sweeps == 2


def test_what_reads_the_rates_instead_of_the_equation_refuses_a_subclass() -> None:
    with pytest.raises(ValueError, match="not for the drift or noise of Well"):
        FokkerPlanckScore(well(Well), VonMises(0.0, 1.0))(0.5, random_angles(2, 1))
    imposter = type("KuramotoSDE", (Well,), {})((1,), NoCoupling(), RATES)
    with pytest.raises(ValueError, match="has the name of another class that checkpoints know"):
        describe(imposter)


class Louder(KuramotoSDE):
    def diffusion(self, t: float | Tensor) -> float | Tensor:
        return 3.0 * super().diffusion(t)


def test_a_noise_of_its_own_has_its_own_variance_and_no_law() -> None:
    sde = Louder((1,), NoCoupling(), Schedule.linear((0.0, 0.0, 0.1), (0.0, 0.0, 1.0)))
    assert sde.variance(0.0, 1.0) == pytest.approx(9.0 * 1.1, rel=1e-12)
    pairs = denoising(sde, torch.zeros(3, 1), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64))
    assert pairs.variance.tolist() == pytest.approx([18.0 * (0.1 * t + 0.45 * t * t) for t in (0.1, 0.5, 1.0)])
    with pytest.raises(ValueError, match="Louder knows no law"):
        sde.settled_law()
    assert KuramotoSDE((1,), NoCoupling(), sde.schedule).variance(0.0, 1.0) == pytest.approx(1.1)


class Given(SDE):
    """A variance given for one noise, and another noise."""

    def __init__(self) -> None:
        super().__init__(lambda t, x: 0.0 * x, 1.0, 1.0, variance=lambda a, b: b - a)

    def diffusion(self, t: float | Tensor) -> float | Tensor:
        return 2.0 + 0.0 * t


def test_a_given_variance_is_that_of_the_given_noise_only() -> None:
    assert Given().variance(0.0, 1.0) == pytest.approx(4.0)


def test_a_mixin_overrides_as_a_subclass_does() -> None:
    class Mixin:
        def drift(self, t: Time, theta: Angles) -> Tangent:  # noqa: ARG002
            return -torch.sin(2.0 * theta)

    class Mixed(Mixin, KuramotoSDE):
        pass

    assert Mixed.divergence is None
    assert not Mixed.closed_form


def test_a_subclass_of_a_subclass_keeps_what_belongs_to_the_drift_it_inherits() -> None:
    class Child(Complete):
        pass

    class Other(Complete):
        def drift(self, t: Time, theta: Angles) -> Tangent:  # noqa: ARG002
            return -theta.sin()

    assert Child.divergence is Complete.divergence
    assert (Child((1,)).sinusoidal, Other((1,)).sinusoidal, Other((1,)).composite) == (True, False, False)
    assert Other.divergence is None


def test_a_field_of_its_own_has_no_closed_forms_either() -> None:
    class Stronger(KuramotoSDE):
        def _field(
            self, cos: Tensor, sin: Tensor, coupling: float | Tensor, pull: tuple[float | Tensor, float | Tensor]
        ) -> tuple[Tensor, Tensor]:
            field_cos, field_sin = super()._field(cos, sin, coupling, pull)
            return field_cos + cos**3, field_sin

    assert Stronger.divergence is None
    assert not Stronger((2,)).sinusoidal
    with pytest.raises(TypeError, match="overrides field, which the drift does not read"):

        class Unread(KuramotoSDE):
            def field(self, t: Time, theta: Angles) -> tuple[Tensor, Tensor]:  # noqa: ARG002
                return theta, theta


def test_one_object_cannot_get_another_drift() -> None:
    sde = KuramotoSDE((2,), GlobalCoupling())
    with pytest.raises(AttributeError, match="drift belongs to the class: override it in a subclass"):
        sde.drift = lambda t, theta: theta  # type: ignore[method-assign]


def test_reversing_twice_keeps_both_scores_in_the_remainder() -> None:
    forward, theta, h = KuramotoSDE((3,), NoCoupling(), RATES), random_angles(4, 3), 1e-7
    again = reverse(reverse(forward, lambda t, x: x.sin()), lambda t, x: (2.0 * x).cos())
    H_cos, H_sin, _ = (part / h for part in again.impulse(0.4, 0.4 + h, theta))
    sinusoidal = H_sin * theta.cos() - H_cos * theta.sin()
    torch.testing.assert_close(
        sinusoidal + again.remainder(0.4, theta), again.drift(0.4, theta), rtol=0.0, atol=1e-6 * math.pi
    )


def test_a_study_takes_the_name_that_its_metric_had_and_says_what_it_is_now() -> None:
    given: dict[str, Any] = {"kind": "stationary"}
    with pytest.warns(DeprecationWarning, match="kind= of study is now metric="):
        old = study("von_mises_well", methods=["heun"], steps=[10, 20], **given)
    new = study("von_mises_well", "stationary", methods=["heun"], steps=[10, 20])
    assert old.attrs["metric"] == "stationary"
    np.testing.assert_array_equal(old["error"], new["error"])

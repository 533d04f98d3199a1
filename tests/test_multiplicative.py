"""Methods for noise that depends on the angles: orders, identities, torchsde's own steps, and what is refused."""

from dataclasses import replace
from functools import cache

import pytest
import torch
import torchsde
from hypothesis import given, settings
from hypothesis import strategies as st
from test_noise import CALCULI, KINDS, calculi, equation, gated, kinds
from test_strong_order import ASYMPTOTIC, BLOCKS, highest_order
from torch import Tensor

from circsde.calculus import as_ito, as_stratonovich
from circsde.exact.fokker_planck import fokker_planck
from circsde.exact.problems import Observable, Problem, normal
from circsde.kuramoto import KuramotoSDE
from circsde.noise import wiener_shape
from circsde.sde import SDE, reverse
from circsde.solvers import Brownian, Method, adapted_grid, sdeint
from circsde.solvers.interop import TorchsdePath
from circsde.solvers.multiplicative import FORMS, MULTIPLICATIVE
from circsde.solvers.registry import find_method, forms
from circsde.studies import select, strong_convergence, weak_convergence
from circsde.studies.exact import law_convergence
from circsde.studies.experiment import Simulation
from circsde.torus import TWO_PI, distance
from circsde.typing import Angles, Time
from strategies import assert_agree, random_angles, recorded, seeds

FINE, PATHS, STEPS = 128, 512, (4, 8, 16, 32)
FAST = ("diagonal", "ito"), ("scalar", "stratonovich")
CASES = [
    pytest.param(noise, kind, form.name, marks=[pytest.mark.slow] * ((noise, kind) not in FAST))
    for noise in KINDS
    for kind in CALCULI
    for form in forms(equation(noise, kind))
]


def commuting(t: Time, theta: Angles) -> Tensor:
    """Two fields, each of which pushes one angle: they commute."""
    return gated(t, theta).diag_embed()


def commutative(noise: str, sde_type: str) -> SDE:
    """Two angles; where the noise is general, it has fields that commute, as others have no reference."""
    sde = equation(noise, sde_type, dim=2)
    return (
        SDE(sde.drift, commuting, 1.0, noise=noise, sde_type=sde_type, event_shape=(2,)) if noise == "general" else sde
    )


@cache
def strong(noise: str, sde_type: str) -> dict[str, Tensor]:
    """Mean squared errors of every method, by blocks of paths, over numbers of steps."""
    sde, shape = commutative(noise, sde_type), (PATHS, 2)
    theta0 = random_angles(*shape, seed=1)
    path = Brownian(tuple(i / FINE for i in range(FINE + 1)), wiener_shape(sde, theta0), 2, torch.float64)

    def end(name: str, n: int) -> Tensor:
        return sdeint(sde, theta0, (0.0, 1.0), n_steps=n, method=name, brownian=path).lifted[-1]

    exact = end("milstein" if noise == "general" else "sri1w1", FINE)
    return {
        form.name: torch.stack([(end(form.name, n) - exact).square().reshape(BLOCKS, -1).mean(1) for n in STEPS], 1)
        for form in forms(sde)
    }


@pytest.mark.parametrize(("noise", "sde_type", "name"), CASES)
def test_methods_reach_their_strong_order(noise: str, sde_type: str, name: str) -> None:
    """At a false-alarm rate of 1e-6: see :mod:`test_strong_order`."""
    claimed = find_method(name, commutative(noise, sde_type)).strong_order
    assert claimed is not None
    assert highest_order(strong(noise, sde_type)[name]) > claimed - ASYMPTOTIC


@pytest.mark.parametrize(
    ("noise", "name", "more"),
    [("diagonal", "euler_maruyama", 1.0), ("diagonal", "milstein", 1.5)],
)
def test_methods_of_lower_order_are_not_taken_for_more(noise: str, name: str, more: float) -> None:
    assert highest_order(strong(noise, "ito")[name]) < more - ASYMPTOTIC


def test_the_study_of_strong_errors_measures_them_too() -> None:
    study = strong_convergence(Simulation(commutative("diagonal", "ito")), ["milstein"], (8, 16, 32), paths=1024)
    assert study["claimed_order"].item() == 1.0
    assert abs(study["order"].item() - 1.0) < 0.1 + 3.0 * study["order_standard_error"].item()
    assert study.attrs["reference"].startswith("sri1w1")


def test_where_fields_do_not_commute_no_method_has_order_one() -> None:
    """Against the same method with 32 times as many steps, whose own error is at most a fifth of what is measured."""
    sde, theta0 = equation("general", "stratonovich"), random_angles(512, 3)
    path = Brownian(tuple(i / 512 for i in range(513)), (512, 3), 1, torch.float64)
    ends = [sdeint(sde, theta0, (0.0, 1.0), n_steps=n, method="heun", brownian=path).lifted[-1] for n in (4, 16, 512)]
    coarse, fine = ((end - ends[-1]).square().mean().sqrt() for end in ends[:2])
    assert 0.4 < torch.log2(coarse / fine).item() / 2.0 < 0.75


@cache
def one_angle(sde_type: str) -> Problem:
    """Its law at the horizon is that of the Fokker-Planck equation, which knows nothing of steps."""

    def gate(t: Time, theta: Angles) -> Tensor:  # noqa: ARG001
        return gated(0.0, theta)

    sde = SDE(equation("diagonal").drift, gate, 1.0, noise="diagonal", sde_type=sde_type, event_shape=(1,))
    law = fokker_planck(sde, normal(2.0, 0.5), tolerance=1e-9)
    observables = (Observable("E cos theta", lambda theta: theta[:, 0].cos(), law.moment(1.0, 1).real),)
    return Problem("gated", "", "", sde, normal(2.0, 0.5), observables, target=law.at(1.0))


ONE = [(kind, form.name) for kind in CALCULI for form in forms(equation("diagonal", kind))]


@pytest.mark.parametrize(("sde_type", "name"), ONE)
def test_methods_reach_their_weak_order_without_sampling(sde_type: str, name: str) -> None:
    """An order of one or more, of an error against the exact law, is convergence to the right reading as well."""
    problem, steps = one_angle(sde_type), (20, 40)
    study = law_convergence(problem, [name], steps, tolerance=1e-7)
    claimed = find_method(name, problem.sde).weak_order
    assert study["order"].values[0, -1] > claimed - ASYMPTOTIC
    assert study["claimed_order"].item() == claimed
    assert study["resolution"].max() < 1e-2 * study["moment_error"].min()


def test_the_other_reading_has_another_law() -> None:
    ito, stratonovich = (one_angle(kind).observables[0].expected for kind in CALCULI)
    assert abs(ito - stratonovich) > 0.01


@settings(max_examples=6)
@given(st.sampled_from(["diagonal", "scalar"]), st.sampled_from(["milstein", "sri1w1"]), seeds)
def test_methods_for_both_readings_take_the_same_steps_after_conversion(noise: str, name: str, seed: int) -> None:
    sde, theta0 = equation(noise, "stratonovich"), random_angles(3, 3, seed=seed)
    path = recorded(wiener_shape(sde, theta0), 4, seed)
    ends = [
        sdeint(one, theta0, (0.0, 1.0), n_steps=4, method=name, brownian=path).lifted[-1]
        for one in (sde, as_ito(sde), as_stratonovich(as_ito(sde)))
    ]
    assert_agree(ends[1], ends[0], 1e-10)
    assert_agree(ends[2], ends[0], 1e-10)


@settings(max_examples=10)
@given(kinds, calculi, seeds, st.integers(-50, 50))
def test_turning_angles_by_whole_turns_changes_nothing(noise: str, sde_type: str, seed: int, turns: int) -> None:
    sde, theta0 = commutative(noise, sde_type), random_angles(3, 2, seed=seed)
    path = recorded(wiener_shape(sde, theta0), 4, seed)
    for form in forms(sde):
        before, after = (
            sdeint(sde, theta, (0.0, 1.0), n_steps=4, method=form, brownian=path)
            for theta in (theta0, theta0 + TWO_PI * turns)
        )
        assert distance(after.theta, before.theta).max() < 1e-9
        assert torch.equal(((after.lifted - before.lifted) / TWO_PI).round().long(), torch.full((2, 3, 2), turns))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name} {form.noises[0]}")
def test_noise_that_is_the_same_at_all_angles_is_additive_noise(form: Method) -> None:
    """Every step then is one for additive noise, on the same path: Euler's or Heun's, or of SRA1's order."""

    def flat(t: Time, theta: Angles) -> Tensor:  # noqa: ARG001
        g = 0.7 + 0.0 * theta
        return g.diag_embed() if form.noises == ("general",) else g

    kind = form.calculus or "ito"
    sde = SDE(equation("diagonal").drift, flat, 1.0, noise=form.noises[0], sde_type=kind, event_shape=(2,))
    additive, theta0, path = SDE(sde.drift, 0.7, 1.0), random_angles(3, 2), recorded((3, 2), 8)
    twin = {"heun": "heun", "sri1w1": "sra1"}.get(form.name, "euler_maruyama")
    ends = [
        sdeint(one, theta0, (0.0, 1.0), n_steps=8, method=method, brownian=path).lifted[-1]
        for one, method in ((sde, form), (additive, twin))
    ]
    assert_agree(ends[0], ends[1], 1e-12)


THEIRS = {"ito": ("euler", "milstein"), "stratonovich": ("heun", "euler_heun", "milstein")}
BOTH = [
    (noise, kind, name)
    for noise in KINDS
    for kind, names in THEIRS.items()
    for name in names
    if (noise, name) != ("general", "milstein")
]


@pytest.mark.parametrize(("noise", "sde_type", "name"), BOTH)
def test_torchsde_takes_the_same_steps_on_the_same_path(noise: str, sde_type: str, name: str) -> None:
    sde, theta0 = equation(noise, sde_type), random_angles(4, 3)
    if (noise, name) == ("scalar", "milstein"):  # torchsde 0.2.6 transposes the Jacobian of g: right if it is symmetric
        sde = SDE(sde.drift, gated, 1.0, noise=noise, sde_type=sde_type, event_shape=(3,))
    wiener = wiener_shape(sde, theta0)
    bm = torchsde.BrownianInterval(0.0, 1.0, wiener, torch.float64, entropy=1, dt=1 / 16)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    theirs = torchsde.sdeint(sde, theta0, ends, bm=bm, method=name, dt=1 / 16)[-1]
    mine = {"euler": "euler_maruyama"}.get(name, name)
    path = TorchsdePath(bm, wiener[1:])
    ours = sdeint(sde, theta0, (0.0, 1.0), n_steps=16, method=mine, brownian=path).lifted[-1]
    assert_agree(ours, theirs, 1e-11)


REFUSED = [
    (
        "heun",
        "diagonal",
        "ito",
        "heun converges to the solution of the stratonovich equation, and this one is read as ito",
    ),
    ("heun", "diagonal", "ito", "take euler_maruyama, milstein, sri1w1; or convert .* circsde.as_stratonovich"),
    ("euler_maruyama", "scalar", "stratonovich", "take heun, euler_heun, milstein, sri1w1; or .* circsde.as_ito"),
    (
        "sra1",
        "diagonal",
        "ito",
        "sra1 is for additive noise, and that of this equation, read as ito, is diagonal: take",
    ),
    ("mobius_strang", "scalar", "ito", "mobius_strang is for additive noise"),
    ("noise_flow_noise", "scalar", "ito", "noise_flow_noise is for additive noise"),
    ("kutta3", "diagonal", "stratonovich", "kutta3 is for additive noise"),
    ("adams_bashforth2", "diagonal", "stratonovich", "adams_bashforth2 is for additive noise"),
    ("torchsde:srk", "diagonal", "ito", "torchsde:srk is for additive noise"),
    ("ancestral", "diagonal", "ito", "ancestral is for additive noise"),
    ("sri1w1", "general", "ito", "sri1w1 is for diagonal or scalar noise"),
    ("milstein", "general", "ito", "fields commute.* take euler_maruyama, of strong order 1/2"),
    ("milstein", "general", "stratonovich", "fields commute.* take heun, of strong order 1/2"),
]


@pytest.mark.parametrize(("method", "noise", "sde_type", "message"), REFUSED)
def test_a_method_that_is_not_for_the_noise_is_refused(method: str, noise: str, sde_type: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sdeint(equation(noise, sde_type), random_angles(2, 3), (0.0, 1.0), n_steps=4, method=method)


@pytest.mark.parametrize("name", sorted(set(MULTIPLICATIVE) - {"euler_maruyama", "heun"}))
def test_a_method_for_such_noise_is_refused_where_it_is_additive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is for noise that depends on the angles, and this is additive"):
        sdeint(KuramotoSDE((3,)), random_angles(2, 3), (0.0, 1.0), n_steps=4, method=name)


def test_a_method_of_ones_own_is_taken_for_what_it_says() -> None:
    def step(sde: SDE, t: float, h: float, theta: Tensor, noise: object) -> Tensor:  # noqa: ARG001
        return theta + h * sde.drift(t, theta)

    own = Method("heun", step, None, 1.0, 1.0, nfe=1)
    sde, theta0 = equation("diagonal", "stratonovich"), random_angles(2, 3)
    with pytest.raises(ValueError, match="heun is for additive noise"):
        sdeint(sde, theta0, (0.0, 1.0), n_steps=4, method=own)
    drifted = sdeint(sde, theta0, (0.0, 1.0), n_steps=4, method=replace(own, noises=("diagonal",))).lifted[-1]
    assert_agree(drifted, sdeint(sde, theta0, (0.0, 1.0), n_steps=4, method=replace(own, noises=KINDS)).lifted[-1])


@pytest.mark.slow
def test_a_grid_is_adapted_to_such_noise() -> None:
    """Which is strong for a tenth of the time only."""

    def gust(t: Time, theta: Angles) -> Tensor:
        return (3.0 if 0.6 < float(t) < 0.7 else 0.3) * theta.sin()

    sde = SDE(equation("diagonal").drift, gust, 1.0, noise="scalar", event_shape=(2,))
    grid = adapted_grid(sde, random_angles(8, 2), (0.0, 0.6, 0.7, 1.0), atol=0.02, method="milstein")
    assert sum(0.6 <= t < 0.7 for t in grid) > 2 * sum(t < 0.6 for t in grid)


def test_weak_studies_sample_general_noise_and_select_chooses_among_what_applies() -> None:
    study = weak_convergence(Simulation(commutative("general", "ito")), steps=(4, 8), paths=256, refinement=2)
    assert study["solver"].values.tolist() == ["euler_maruyama"]
    choice = select(one_angle("ito"), 0.01, methods=["euler_maruyama", "milstein", "sri1w1"])
    assert choice.verdict == "resolved"
    assert choice.method != "euler_maruyama"


def test_an_equation_reversed_in_time_has_such_noise_and_is_ito() -> None:
    sde = equation("diagonal", "stratonovich")
    assert (reverse(sde, lambda t, x: -x.sin()).noise, reverse(sde, lambda t, x: -x.sin()).sde_type) == (
        "diagonal",
        "ito",
    )

"""Noise that depends on the angles: its vector fields against dense Jacobians, its two readings, what is refused."""

from collections.abc import Callable

import pytest
import torch
import torchsde
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from circsde.calculus import as_ito, as_stratonovich
from circsde.noise import NOISES, correction, covariance, covariance_divergence, kick, wiener_shape
from circsde.sde import SDE
from circsde.solvers import sdeint
from circsde.typing import Angles, Tangent, Time
from strategies import assert_agree, random, random_angles, seeds

KINDS = NOISES[1:]
CALCULI = ("ito", "stratonovich")
kinds, calculi = st.sampled_from(KINDS), st.sampled_from(CALCULI)


def drift(t: Time, theta: Angles) -> Tangent:  # noqa: ARG001
    return 0.5 - 0.8 * theta.sin()


def gated(t: Time, theta: Angles) -> Tensor:
    """Diagonal: each entry depends on its own angle."""
    return (0.7 + 0.2 * t) * (1.0 + 0.6 * (theta + 0.3).cos())


def common(t: Time, theta: Angles) -> Tensor:
    """Scalar: one field, whose entries depend on other angles too."""
    return 0.3 + 0.5 * (theta + theta.roll(1, -1)).sin() + 0.1 * t


def general(t: Time, theta: Angles) -> Tensor:
    """Three fields that do not commute."""
    return torch.stack((common(t, theta), gated(t, theta), 0.5 * theta.roll(1, -1).cos()), -1)


AMPLITUDES: dict[str, Callable[[Time, Angles], Tensor]] = {"diagonal": gated, "scalar": common, "general": general}


def equation(noise: str, sde_type: str = "ito", dim: int = 3) -> SDE:
    return SDE(drift, AMPLITUDES[noise], 1.0, noise=noise, sde_type=sde_type, event_shape=(dim,))


def dense(noise: str, theta: Tensor) -> Tensor:
    """The matrix ``(d, m)`` of one sample, from its definition."""
    g = AMPLITUDES[noise](0.3, theta[None])[0]
    return g.diag() if noise == "diagonal" else g[:, None] if noise == "scalar" else g


@settings(max_examples=8)
@given(kinds, seeds)
def test_the_correction_is_that_of_the_double_sum_over_a_dense_jacobian(noise: str, seed: int) -> None:
    """``(1/2) sum_jk g_kj d g_ij / d theta_k``."""
    theta = random_angles(2, 3, seed=seed)
    found = correction(noise, lambda x: AMPLITUDES[noise](0.3, x), theta)
    for sample, row in zip(theta, found, strict=True):
        g, slopes = dense(noise, sample), jacobian(lambda x: dense(noise, x), sample)  # type: ignore[no-untyped-call]
        assert_agree(row, 0.5 * torch.einsum("kj,ijk->i", g, slopes), 1e-12)


@settings(max_examples=8)
@given(kinds, seeds)
def test_the_divergence_of_the_covariance_is_that_of_its_dense_jacobian(noise: str, seed: int) -> None:
    theta, vector = random_angles(2, 3, seed=seed), random(2, 3, seed=seed)
    sde = equation(noise)
    divergence = covariance_divergence(sde, 0.3, theta)
    product = covariance(noise, AMPLITUDES[noise](0.3, theta), vector)
    for i, sample in enumerate(theta):
        slopes = jacobian(lambda x: dense(noise, x) @ dense(noise, x).T, sample)  # type: ignore[no-untyped-call]
        assert_agree(divergence[i], torch.einsum("ijj->i", slopes), 1e-12)
        assert_agree(product[i], dense(noise, sample) @ dense(noise, sample).T @ vector[i], 1e-12)


@settings(max_examples=8)
@given(kinds, seeds)
def test_the_noise_of_a_step_is_a_product_with_the_dense_matrix(noise: str, seed: int) -> None:
    sde, theta = equation(noise), random_angles(2, 3, seed=seed)
    shape = wiener_shape(sde, theta)
    dW = random(*shape, seed=seed)
    found = kick(noise, AMPLITUDES[noise](0.3, theta), dW)
    expected = [dense(noise, sample) @ own.reshape(-1) for sample, own in zip(theta, dW, strict=True)]
    assert_agree(found, torch.stack(expected), 1e-12)


@settings(max_examples=8)
@given(kinds, calculi, seeds)
def test_converting_there_and_back_gives_the_drift_again(noise: str, sde_type: str, seed: int) -> None:
    sde, theta = equation(noise, sde_type), random_angles(2, 3, seed=seed)
    there, back = (as_stratonovich, as_ito) if sde_type == "ito" else (as_ito, as_stratonovich)
    assert_agree(back(there(sde)).drift(0.2, theta), sde.drift(0.2, theta), 1e-12)
    assert (there(sde).drift(0.2, theta) - sde.drift(0.2, theta)).abs().max() > 1e-3
    assert back(sde) is sde


@pytest.mark.parametrize("sde_type", CALCULI)
def test_additive_noise_has_one_drift_in_both_readings(sde_type: str) -> None:
    sde = SDE(drift, lambda t: 0.5 + t, 1.0, sde_type=sde_type)
    other = as_ito(as_stratonovich(sde))
    theta = random_angles(2, 3)
    assert torch.equal(other.drift(0.4, theta), sde.drift(0.4, theta))
    assert other.variance(0.0, 1.0) == sde.variance(0.0, 1.0)


@pytest.mark.parametrize("sde_type", CALCULI)
@pytest.mark.parametrize("noise", KINDS)
def test_torchsde_takes_the_equation(noise: str, sde_type: str) -> None:
    """Shapes and words are torchsde's: it refuses what does not fit its own checks of the noise type."""
    sde, y0 = equation(noise, sde_type), random_angles(4, 3)
    assert (sde.noise_type, sde.sde_type) == (noise, sde_type)
    m = {"diagonal": 3, "scalar": 1, "general": 3}[noise]
    bm = torchsde.BrownianInterval(0.0, 1.0, (4, m), dtype=torch.float64, entropy=1)
    ts, method = torch.tensor([0.0, 1.0], dtype=torch.float64), "euler" if sde_type == "ito" else "heun"
    assert torchsde.sdeint(sde, y0, ts, bm=bm, dt=0.125, method=method).isfinite().all()


def test_a_subclass_says_of_which_kind_its_noise_is() -> None:
    class Gated(SDE):
        noise = "diagonal"

        def __init__(self) -> None:
            super().__init__(drift, horizon=1.0, event_shape=(2,))
            self.strength = nn.Parameter(torch.tensor(0.7))

        def diffusion(self, t: float | Tensor, theta: Tensor) -> Tensor:  # noqa: ARG002
            return self.strength * theta.cos()

    sde = Gated()
    assert sde.noise_type == "diagonal"
    theta = sdeint(sde, torch.zeros(3, 2), (0.0, 1.0), n_steps=4, method="milstein", generator=0).theta[-1]
    torch.autograd.backward(theta.sum())
    assert sde.strength.grad is not None
    assert sde.strength.grad.abs() > 0


@pytest.mark.parametrize("asked", [lambda sde: sde.diffusion(0.1), lambda sde: sde.variance(0.0, 1.0)])
def test_what_needs_additive_noise_says_so(asked: Callable[[SDE], object]) -> None:
    with pytest.raises(TypeError, match=r"needs additive noise g\(t\); the diagonal noise here depends on the angles"):
        asked(equation("diagonal"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "matrix"}, "noise must be one of additive, diagonal, scalar, general, got 'matrix'"),
        ({"noise": "diagonal", "variance": lambda a, b: b - a}, "variance= belongs to additive noise"),
    ],
)
def test_an_unclear_equation_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SDE(drift, gated, 1.0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("noise", "g"), [("diagonal", lambda t: 1.0), ("additive", gated), ("scalar", 1.0)])
def test_an_amplitude_with_other_arguments_is_refused(noise: str, g: Callable[..., Tensor]) -> None:
    with pytest.raises(TypeError, match=r"diffusion must be a function of the time"):
        SDE(drift, g, 1.0, noise=noise)


def solve(sde: SDE, dim: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    method = "euler_maruyama" if sde.sde_type == "ito" else "heun"
    theta0 = random_angles(5, dim).to(dtype)
    return sdeint(sde, theta0, (0.0, 1.0), n_steps=4, method=method, generator=0).lifted[-1]


REFUSED: list[tuple[str, Callable[[Time, Angles], Tensor], str]] = [
    ("diagonal", lambda t, x: x[:, :1].cos(), r"of diagonal noise must have shape \(5, 3\), got \(5, 1\)"),
    ("general", lambda t, x: x.cos(), r"of general noise must have shape \(5, 3, m\), got \(5, 3\)"),
    ("scalar", lambda t, x: 0.3 * x, "must be 2 pi-periodic in every angle, but changes by"),
    ("diagonal", common, 'entry i of g.* may depend on angle i alone.* give noise="general"'),
    ("diagonal", lambda t, x: 1.0 + 0.0 * x + 0.1 * x.cos().mean(1, keepdim=True), "may depend on angle i alone"),
]


@pytest.mark.parametrize(("noise", "g", "message"), REFUSED)
def test_an_amplitude_that_does_not_suit_its_kind_is_refused(
    noise: str, g: Callable[[Time, Angles], Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        solve(SDE(drift, g, 1.0, noise=noise))


@settings(max_examples=10)
@given(st.integers(2, 40), st.data())
def test_a_single_entry_that_leans_on_another_angle_is_found(dim: int, data: st.DataObject) -> None:
    i, j = data.draw(st.permutations(range(dim)).map(lambda order: order[:2]))

    def leaning(t: Time, theta: Angles) -> Tensor:  # noqa: ARG001
        g = 1.0 + 0.3 * theta.cos()
        g[:, i] += 0.1 * theta[:, j].sin()
        return g

    with pytest.raises(ValueError, match="may depend on angle i alone"):
        solve(SDE(drift, leaning, 1.0, noise="diagonal"), dim)


@pytest.mark.parametrize("noise", KINDS)
def test_common_noise_moves_equal_angles_alike_and_noise_of_their_own_does_not(noise: str) -> None:
    """From one angle for all of a sample, with a field that is the same function of each angle."""
    fields = {"general": lambda t, x: torch.stack((x.cos(), 0.3 + x.sin()), -1)}  # noqa: ARG005
    sde = SDE(drift, fields.get(noise, gated), 1.0, noise=noise)
    theta = sdeint(sde, torch.zeros(4, 3), (0.0, 1.0), n_steps=8, method="euler_maruyama", generator=0).theta[-1]
    apart = (theta - theta[:, :1]).abs().max()
    assert apart < 1e-6 if noise != "diagonal" else apart > 0.1
    assert (theta - theta[:1]).abs().max() > 0.1  # samples have noise of their own


@pytest.mark.parametrize("noise", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fields_are_given_their_angles_in_the_dtype_of_the_start(noise: str, dtype: torch.dtype) -> None:
    seen = set()

    def watched(t: Time, theta: Angles) -> Tensor:
        seen.add(theta.dtype)
        return AMPLITUDES[noise](t, theta)

    sde = SDE(drift, watched, 1.0, noise=noise, event_shape=(3,))
    exact, rough = solve(sde), None
    seen.clear()
    rough = solve(sde, dtype=dtype)
    assert seen == {torch.float32}
    assert (rough - exact).abs().max() < (0.1 if dtype == torch.bfloat16 else 1e-4)

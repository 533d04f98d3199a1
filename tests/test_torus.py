"""Wrapping, differences and circular averages, against exact arithmetic (mpmath), numpy and scipy."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from circsde.torus import (
    circular_moment,
    circular_variance,
    difference,
    distance,
    mean_direction,
    mean_resultant_length,
    order_parameter,
    require_angles,
    wrap,
)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EPS = 2.0**-52
mpmath.mp.dps = 60

dtypes = st.sampled_from(DTYPES)
turns = st.integers(-(10**6), 10**6)
angle = st.floats(-1e12, 1e12) | st.floats(-10.0, 10.0)
samples = st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=12).map(lambda x: torch.tensor(x, dtype=torch.float64))


def tensor(x: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(x, dtype=torch.float64).to(dtype)


def edges(dtype: torch.dtype) -> Tensor:
    """The values nearest to every seam from -5 pi to 5 pi, and the ends of the number line."""
    seams = torch.arange(-5, 6, dtype=torch.float64).mul(math.pi).to(dtype)
    up, down = torch.full_like(seams, math.inf), torch.full_like(seams, -math.inf)
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    ends = torch.tensor([0.0, -0.0, tiny, -tiny, huge, -huge], dtype=dtype)
    return torch.cat([seams, torch.nextafter(seams, up), torch.nextafter(seams, down), ends])


def assert_in_range(w: Tensor) -> None:
    rounded_pi = tensor(math.pi, w.dtype)
    assert bool(((w >= -rounded_pi) & (w < rounded_pi)).all())
    assert all(-mpmath.pi <= mpmath.mpf(value) < mpmath.pi for value in w.flatten().tolist())


def exactly_wrapped(x: float) -> mpmath.mpf:
    x = mpmath.mpf(x)
    return x - 2 * mpmath.pi * mpmath.floor((x + mpmath.pi) / (2 * mpmath.pi))


def circular_gap(a: mpmath.mpf, b: mpmath.mpf) -> float:
    return float(abs(exactly_wrapped(a - b)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wrap_is_half_open_and_idempotent_at_every_edge(dtype: torch.dtype) -> None:
    w = wrap(edges(dtype))
    assert w.dtype == dtype
    assert_in_range(w)
    assert torch.equal(wrap(w), w)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pi_itself_wraps_to_the_lower_end(dtype: torch.dtype) -> None:
    inside = torch.nextafter(tensor(-math.pi, dtype), tensor(0.0, dtype))
    assert wrap(tensor(math.pi, dtype)) in (tensor(-math.pi, dtype), inside)  # inside where pi rounds up


@given(angle, dtypes)
def test_wrap_is_half_open_and_idempotent(x: float, dtype: torch.dtype) -> None:
    theta = tensor(x, dtype)
    w = wrap(theta)
    if theta.isfinite():
        assert_in_range(w)
        assert torch.equal(wrap(w), w)
    else:
        assert w.isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_the_plain_remainder_leaves_the_half_open_range(dtype: torch.dtype) -> None:
    theta = edges(dtype)
    w = torch.remainder(theta + math.pi, 2 * math.pi) - math.pi
    with pytest.raises(AssertionError):
        assert_in_range(w)


@given(dtypes, st.floats(-3.125, 3.125, width=16))
@example(torch.float64, math.nextafter(math.pi, 0.0))
def test_wrap_leaves_angles_in_range_unchanged(dtype: torch.dtype, x: float) -> None:
    theta = tensor(x, dtype)
    assert torch.equal(wrap(theta), theta)


@given(angle)
def test_wrap_agrees_with_exact_arithmetic_in_float64(x: float) -> None:
    assert circular_gap(wrap(tensor(x)).item(), exactly_wrapped(x)) <= EPS * (abs(x) + 4)


@given(angle, st.sampled_from(DTYPES[:3]))
def test_wrap_in_lower_precision_only_rounds(x: float, dtype: torch.dtype) -> None:
    theta = tensor(x, dtype)
    if theta.isfinite():
        rounding = (
            2 * torch.finfo(dtype).eps
        )  # one unit in the last place at pi, where the seam may move an angle by one
        assert circular_gap(wrap(theta).item(), exactly_wrapped(theta.item())) <= rounding + EPS * (abs(x) + 4)


def test_wrap_in_float32_arithmetic_would_lose_digits() -> None:
    theta = torch.tensor(1e5)
    in_float32 = theta - 2 * math.pi * torch.round(theta / (2 * math.pi))
    assert circular_gap(in_float32.item(), exactly_wrapped(theta.item())) > 1e-3
    assert circular_gap(wrap(theta).item(), exactly_wrapped(theta.item())) < 3e-7


@given(st.floats(-10.0, 10.0), turns)
def test_whole_turns_change_nothing(x: float, k: int) -> None:
    shifted = tensor(x) + 2 * math.pi * k
    assert distance(shifted, tensor(x)).item() <= 2 * EPS * (abs(x) + 2 * math.pi * abs(k) + 4)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wrap_of_a_number_that_is_not_finite_is_nan(bad: float, dtype: torch.dtype) -> None:
    assert wrap(tensor(bad, dtype)).isnan()


def test_integer_angles_are_refused() -> None:
    with pytest.raises(TypeError, match=r"floating-point tensor in radians, got dtype torch\.int64"):
        wrap(torch.tensor([1, 2]))
    with pytest.raises(TypeError, match="floating-point"):
        order_parameter(torch.tensor([1, 2]))


def test_angles_that_are_no_tensor_say_how_to_convert_them() -> None:
    with pytest.raises(TypeError, match=r"theta must be a torch tensor of radians, got ndarray: convert it by torch"):
        require_angles(np.zeros(3), "theta")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_derivative_of_wrap_is_one_at_every_edge(dtype: torch.dtype) -> None:
    theta = edges(dtype).requires_grad_()
    assert torch.equal(torch.autograd.grad(wrap(theta).sum(), theta)[0], torch.ones_like(theta))


@given(angle, angle)
def test_difference_is_the_shortest_way_and_antisymmetric_off_the_seam(x: float, y: float) -> None:
    a, b = tensor(x), tensor(y)
    there, back = difference(a, b), difference(b, a)
    assert there == -back or there == back == -math.pi
    assert circular_gap(there.item(), mpmath.mpf(x) - mpmath.mpf(y)) <= 2 * EPS * (abs(x) + abs(y) + 4)
    assert 0 <= distance(a, b).item() <= math.pi


def test_differences_across_the_seam_lose_nothing_to_rounding() -> None:
    """Of angles that float32 holds; a difference in float32 rounds at 2 pi, a hundred times as much as here."""
    a, b = torch.tensor(3.1415), torch.tensor(-3.1414)
    exact = exactly_wrapped(mpmath.mpf(a.item()) - mpmath.mpf(b.item()))
    assert abs(float(mpmath.mpf(difference(a, b).item()) - exact)) < 2.0**-36
    assert abs(float(mpmath.mpf(wrap(a - b).item()) - exact)) > 1e-9
    half = difference(a.half(), b.half())
    assert half.dtype == torch.float16
    rounded = exactly_wrapped(mpmath.mpf(a.half().item()) - mpmath.mpf(b.half().item()))
    assert abs(float(mpmath.mpf(half.item()) / rounded - 1)) < 2.0**-11
    with pytest.raises(TypeError, match=r"got dtypes torch\.int64 and torch\.int64"):
        difference(torch.tensor(1), torch.tensor(2))


@pytest.mark.parametrize("spread", [1e-12, 1e-8, 1e-4, 1.0, 3.0])
def test_the_circular_variance_is_relatively_accurate_however_small(spread: float) -> None:
    theta = 2.5 + spread * torch.tensor([[-1.0, 0.3], [0.6, 0.9], [0.2, -0.5]], dtype=torch.float64)
    for dim, rows in ((None, [theta.flatten()]), (0, list(theta.T)), ((0, 1), [theta.flatten()])):
        found = circular_variance(theta, dim).reshape(-1).tolist()
        for value, row in zip(found, rows, strict=True):
            exact = 1 - abs(mpmath.fsum(mpmath.expjpi(mpmath.mpf(x) / mpmath.pi) for x in row.tolist())) / len(row)
            assert abs(value / exact - 1) < 1e-12
    assert circular_variance(torch.full((7,), 0.3)).item() == 0.0
    assert circular_variance(torch.tensor([0.0, math.pi])).item() == pytest.approx(1.0, abs=1e-7)


@given(samples)
def test_moments_are_those_of_the_complex_exponential(theta: Tensor) -> None:
    for order in (-1, 0, 1, 2, 5):
        expected = np.exp(1j * order * theta.numpy()).mean()
        assert abs(circular_moment(theta, order=order).item() - expected) < 1e-14 * max(1, order)


@given(samples, st.integers(0, 2**32 - 1))
def test_weighted_order_parameter_agrees_with_numpy(theta: Tensor, seed: int) -> None:
    weights = torch.rand(theta.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = np.average(np.exp(1j * theta.numpy()), weights=weights.numpy())
    length, direction = order_parameter(theta, weights=weights)
    assert 0 <= length.item() <= 1
    assert abs(torch.polar(length, direction).item() - expected) < 1e-14


def test_a_mask_selects_and_hides_what_is_missing() -> None:
    theta = torch.tensor([[0.1, math.nan, 0.5], [1.0, 2.0, 3.0]], requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    length, direction = order_parameter(theta, dim=1, weights=mask)
    expected_length, expected_direction = order_parameter(torch.tensor([0.1, 0.5]))
    torch.testing.assert_close((length[0], direction[0]), (expected_length, expected_direction))
    assert length[1].isnan()
    (gradient,) = torch.autograd.grad(direction[0], theta)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_weights_that_are_negative_or_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="weights must be finite and non-negative"):
        order_parameter(torch.zeros(2), weights=torch.tensor([1.0, bad]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1e-300, 1e-50, 1.0, 1e300])
def test_only_the_ratios_of_weights_count(dtype: torch.dtype, size: float) -> None:
    """Of each mean on its own: rows whose weights differ by a factor of 1e-50 are averaged alike."""
    theta = torch.tensor([[0.5, 1.5, 2.5], [0.5, 1.5, 2.5]], dtype=dtype)
    ratios = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    found = circular_moment(theta, 1, weights=torch.stack((ratios, size * ratios)))
    expected = (np.exp(0.5j) + 2.0 * np.exp(1.5j)) / 3.0
    assert found.dtype == (torch.complex128 if dtype == torch.float64 else torch.complex64)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_weighted_averages_work_inside_vmap() -> None:
    theta = torch.tensor([[0.1, 0.5], [2.0, -3.0]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 3.0], [2.0, 2.0]], dtype=torch.float64)
    mapped = torch.func.vmap(lambda x, w: order_parameter(x, weights=w))(theta, weights)
    torch.testing.assert_close(mapped, order_parameter(theta, 1, weights=weights))
    bad = torch.func.vmap(lambda w: circular_moment(theta[0], weights=w).abs())(torch.tensor([[1.0, 1.0], [1.0, -0.5]]))
    assert bad.isnan().tolist() == [False, True]


@given(samples)
def test_the_circular_mean_is_that_of_scipy(theta: Tensor) -> None:
    length, direction = order_parameter(theta)
    assert abs(length.item() - (1 - scipy.stats.circvar(theta.numpy()))) < 1e-14
    if length > 1e-3:  # the direction of a vanishing resultant is rounding
        expected = scipy.stats.circmean(theta.numpy(), high=math.pi, low=-math.pi)
        assert distance(direction, tensor(expected)).item() < 1e-12
    assert torch.equal(mean_direction(theta), direction)
    assert torch.equal(mean_resultant_length(theta), length)


@given(samples, st.floats(-4.0, 4.0))
def test_rotating_all_angles_rotates_the_mean_direction_alone(theta: Tensor, by: float) -> None:
    length, direction = order_parameter(theta)
    rotated_length, rotated = order_parameter(theta + by)
    assert abs(length.item() - rotated_length.item()) < 1e-13
    if length > 1e-3:
        assert distance(rotated, direction + by).item() < 1e-10


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_synchrony_is_one_and_never_more(dtype: torch.dtype) -> None:
    theta = torch.linspace(-3.0, 3.0, 100).to(dtype)[:, None].expand(100, 7)
    length, direction = order_parameter(theta, dim=1)
    assert length.dtype == direction.dtype == dtype
    assert bool((length <= 1).all())
    torch.testing.assert_close(length, torch.ones_like(length))
    torch.testing.assert_close(direction, theta[:, 0])


def test_axes_are_averaged_as_asked() -> None:
    theta = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = np.exp(1j * theta.numpy())
    for dim in (None, 0, -1, (1, 2), (-2, -1)):
        np.testing.assert_allclose(circular_moment(theta, dim).numpy(), z.mean(dim), atol=1e-15)


def test_gradients_of_the_circular_averages_are_right() -> None:
    theta = torch.tensor([0.3, -2.0, 1.1, 2.9], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, 0.5, 2.0, 0.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: order_parameter(x, weights=weights), theta)
    assert torch.autograd.gradcheck(lambda x: difference(x, weights), theta)


@pytest.mark.parametrize("function", [wrap, order_parameter, mean_direction, mean_resultant_length])
def test_arguments_are_not_mutated(function: object) -> None:
    theta = torch.linspace(-9.0, 9.0, 11, dtype=torch.float64)
    before = theta.clone()
    assert callable(function)
    function(theta)
    assert torch.equal(theta, before)


def test_weights_beyond_the_range_of_the_angles_are_only_ratios() -> None:
    theta = torch.tensor([0.1, 1.0, -2.0])
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    R, psi = order_parameter(theta, weights=weights)
    for scale in (1e-50, 1e50, 1e-300):
        assert torch.equal(torch.stack(order_parameter(theta, weights=scale * weights)), torch.stack((R, psi)))


def test_order_parameters_with_weights_go_through_vmap_and_bad_weights_come_back_as_no_number() -> None:
    theta, weights = 3.0 * torch.rand(4, 5), torch.rand(4, 5)
    found = torch.func.vmap(lambda x, w: order_parameter(x, weights=w)[0])(theta, weights)
    torch.testing.assert_close(found, order_parameter(theta, 1, weights=weights)[0])
    weights[2, 3] = -1.0
    found = torch.func.vmap(lambda x, w: order_parameter(x, weights=w)[0])(theta, weights)
    assert found.isnan().tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="weights must be finite and non-negative, got -1"):
        order_parameter(theta, 1, weights=weights)

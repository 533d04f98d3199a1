"""Grey levels and angles in any unit become phases, and come back."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from circsde.encoding import PhaseEncoding, from_radians, period, to_radians
from circsde.torus import distance, wrap

BYTES = torch.arange(256, dtype=torch.uint8)
SCALES = st.floats(0.05, 3.1)  # at pi black and white are one phase


@given(scale=SCALES)
def test_every_byte_survives_the_round_trip(scale: float) -> None:
    encoding = PhaseEncoding(scale, low=0, high=255)
    theta = encoding.encode(BYTES)
    assert theta.dtype == torch.float32
    assert torch.equal(encoding.decode(theta).round().to(torch.uint8), BYTES)


@given(scale=SCALES, turns=st.integers(-1000, 1000))
def test_decoding_does_not_see_whole_turns(scale: float, turns: int) -> None:
    encoding = PhaseEncoding(scale)
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    # a turn added in float64 costs at most one rounding of 2 pi turns, about 1e-12 rad at 1000 turns
    assert (encoding.decode(encoding.encode(x) + 2 * math.pi * turns) - x).abs().max() <= 1e-11 / scale


def test_black_and_white_sit_at_the_ends_of_the_arc() -> None:
    theta = PhaseEncoding(low=0, high=255).encode(torch.tensor([0, 255], dtype=torch.uint8))
    assert theta.tolist() == pytest.approx([-0.9 * math.pi, 0.9 * math.pi], rel=1e-7)


def test_a_phase_in_the_gap_becomes_the_nearer_of_white_and_black() -> None:
    encoding = PhaseEncoding(scale=0.5 * math.pi)
    theta = torch.tensor([0.6 * math.pi, 0.99 * math.pi, -0.99 * math.pi, -0.6 * math.pi])
    assert encoding.decode(theta).tolist() == [1.0, 1.0, -1.0, -1.0]


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 256.0)])
def test_log_abs_det_jacobian_is_that_of_autograd(low: float, high: float) -> None:
    encoding = PhaseEncoding(1.3, low, high)
    x = torch.linspace(low, high, 8, dtype=torch.float64)[1:-1].reshape(2, 3)
    jacobian = torch.func.jacrev(encoding.encode)(x).reshape(6, 6)
    assert encoding.log_abs_det_jacobian((2, 3)) == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), rel=1e-12)


def test_a_density_of_phases_becomes_a_density_of_grey_levels() -> None:
    encoding = PhaseEncoding(2.0, low=0, high=256)
    log_p_theta = -math.log(4.0)  # uniform on the arc of length 4
    assert log_p_theta + encoding.log_abs_det_jacobian(()) == pytest.approx(-math.log(256))


def test_encoding_is_differentiable_and_keeps_the_dtype() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = torch.zeros(3, dtype=dtype, requires_grad=True)
        theta = PhaseEncoding().encode(x)
        assert theta.dtype == dtype
        (gradient,) = torch.autograd.grad(theta.sum(), x)
        assert gradient.tolist() == pytest.approx([0.9 * math.pi] * 3, rel=1e-2)


@pytest.mark.parametrize("scale", [0.0, -1.0, 3.2, math.nan])
def test_an_arc_longer_than_the_circle_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"scale must be in \(0, pi\]"):
        PhaseEncoding(scale)


def test_an_empty_value_range_is_refused() -> None:
    with pytest.raises(ValueError, match="low < high"):
        PhaseEncoding(low=1.0, high=1.0)


@pytest.mark.parametrize("bad", [1.01, -2.0, math.nan, math.inf])
def test_values_outside_the_stated_range_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"values must lie in \[-1, 1\]"):
        PhaseEncoding().encode(torch.tensor([0.0, bad]))


def test_bytes_given_to_the_default_encoding_are_told_how_to_state_their_range() -> None:
    with pytest.raises(ValueError, match="low=0, high=255"):
        PhaseEncoding().encode(BYTES)


@given(unit=st.sampled_from(["rad", "deg", "hours", 7.0, "365.25"]), fraction=st.floats(-1, 1))
def test_units_round_trip_up_to_a_whole_turn(unit: str | float, fraction: float) -> None:
    values = torch.tensor([fraction], dtype=torch.float64) * period(unit)
    theta = to_radians(values, unit)
    assert -math.pi <= theta.item() < math.pi
    assert distance(to_radians(from_radians(theta, unit), unit), theta).item() < 1e-14
    assert distance(theta, torch.tensor(2 * math.pi * fraction, dtype=torch.float64)).item() < 1e-14


def test_named_units_are_turns_of_the_circle() -> None:
    for unit, quarter in {"rad": math.pi / 2, "degrees": 90.0, "hours": 6.0, "7": 1.75}.items():
        assert to_radians(torch.tensor([quarter], dtype=torch.float64), unit).item() == pytest.approx(math.pi / 2)


def test_a_float32_turn_is_accepted_under_every_named_unit() -> None:
    for unit in ("rad", "deg", "hours"):
        turn = torch.tensor([period(unit), -period(unit)], dtype=torch.float32)
        assert to_radians(turn, unit).abs().max().item() < 1e-6


def test_degrees_declared_as_radians_are_noticed() -> None:
    with pytest.raises(ValueError, match=r"declared 'rad' reach 359.*are they degrees\?"):
        to_radians(torch.tensor([10.0, 359.0]), "rad")


def test_many_turns_pass_under_a_numeric_period() -> None:
    with pytest.raises(ValueError, match="give the period as a number: 360"):
        to_radians(torch.tensor([725.0]), "deg")
    assert to_radians(torch.tensor([725.0], dtype=torch.float64), 360).item() == pytest.approx(math.radians(5.0))


INTEGERS = (torch.int16, torch.int32, torch.int64)


@given(
    value=st.integers(-(2**62), 2**62),
    turn=st.integers(1, 10**9) | st.floats(1e-3, 1e9),
    dtype=st.sampled_from([*INTEGERS, torch.float32, torch.float64]),
)
@example(value=1700000007, turn=60.0, dtype=torch.int64)
@example(value=-1700000022, turn=60.0, dtype=torch.int64)
@example(value=2**62 + 1, turn=7.0, dtype=torch.int64)
@example(value=2**24 + 1, turn=0.1, dtype=torch.int32)
def test_whole_turns_are_taken_off_exactly_whatever_the_dtype(value: int, turn: float, dtype: torch.dtype) -> None:
    """Against fractions; the result of integers and of float32 is float32."""
    if dtype in INTEGERS:
        value %= min(2**53, torch.iinfo(dtype).max)
    stored = torch.tensor([value], dtype=dtype)
    found = to_radians(stored, float(turn))
    left = Fraction(stored.item()) / Fraction(float(turn)) % 1
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    slack = 8.0 * torch.finfo(found.dtype).eps
    assert distance(found.double(), torch.tensor([2 * math.pi * float(left)], dtype=torch.float64)).item() < slack


def test_integers_that_float64_does_not_hold_need_a_whole_period() -> None:
    values = torch.tensor([2**60 + 1])
    assert to_radians(values, 2.0**59).item() == pytest.approx(2 * math.pi / 2**59)
    with pytest.raises(
        ValueError, match=r"beyond 2\^53, which float64 does not hold, and the period 365.25 is not whole"
    ):
        to_radians(values, 365.25)
    assert to_radians(torch.tensor([90, 255], dtype=torch.uint8), 360.0)[0].item() == pytest.approx(math.pi / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@given(turn=st.floats(0.1, 1000.0))
@example(turn=9.25)
@example(turn=7.0)
def test_angles_in_any_unit_stay_on_the_half_open_turn(dtype: torch.dtype, turn: float) -> None:
    last = torch.nextafter(torch.tensor(math.pi, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    ends = torch.stack((last, -last, torch.tensor(-math.pi, dtype=dtype)))
    assert all(-0.5 * turn <= x < 0.5 * turn for x in from_radians(ends, turn).tolist())


def test_integers_are_encoded_without_passing_through_float32() -> None:
    """Between limits that float32 does not tell apart."""
    low = 1_700_000_000
    theta = PhaseEncoding(1.0, low=low, high=low + 100).encode(torch.tensor([low, low + 25, low + 100]))
    assert theta.tolist() == [-1.0, -0.5, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_pictures_in_half_precision_are_rounded_once(dtype: torch.dtype) -> None:
    encoding, x = PhaseEncoding(), torch.linspace(-1, 1, 101).to(dtype)
    assert torch.equal(encoding.encode(x), encoding.encode(x.float()).to(dtype))
    theta = torch.linspace(-9, 9, 101).to(dtype)
    assert torch.equal(encoding.decode(theta), encoding.decode(wrap(theta).float()).to(dtype))


@pytest.mark.parametrize("unit", ["grad", "", "-3", 0.0, math.inf, "nan"])
def test_an_unknown_unit_is_refused_with_the_known_ones(unit: str | float) -> None:
    with pytest.raises(ValueError, match="give rad, deg, hours"):
        to_radians(torch.zeros(1), unit)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_angle_is_named_by_its_index(bad: float) -> None:
    with pytest.raises(ValueError, match=r"at index \(1, 0\)"):
        to_radians(torch.tensor([[0.0, 1.0], [bad, bad]]), "deg")

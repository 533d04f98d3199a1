"""The forward process on data, beside the predictions of theory."""

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from circsde.exact.fokker_planck import CircleLaw, fokker_planck, grid
from circsde.kuramoto import KuramotoSDE, has_closed_form
from circsde.laws.distributions import VonMises
from circsde.solvers.integrate import sdeint
from circsde.torus import order_parameter
from circsde.typing import Angles

PREDICTED = 8
"""The number of samples that get their own mean-field prediction."""

MANY = 30
"""The least number of oscillators for which a mean-field limit is shown."""

_MODES = 512
_UNLIKE = 0.05  # how far the sum of a mean's weights may be from one, as without the oscillator itself
_BLUR = 0.03  # rad, what 512 modes resolve quickly; changes R by less than 5e-4
_MILD = 100.0  # rates times horizon, up to which the limit takes about a second
_POINTS = 360


def forward(
    sde: KuramotoSDE,
    theta: Angles,
    *,
    method: str,
    n_steps: int,
    frames: int,
    generator: torch.Generator,
    progress: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Integrate ``sde`` from ``theta`` over its horizon and compare with theory.

    Args:
        sde: The equation, its event shape that of ``theta``.
        theta: Initial phases, radians.
        method: A name in ``circsde.solvers.METHODS``.
        n_steps: Steps in all.
        frames: Intervals between saved times; at most one per step.
        generator: Draws the path.
        progress: Called with the number of finished steps.

    Returns:
        ``theta`` and ``winding`` over ``(time, sample, *event)``; ``order_parameter`` and ``mean_direction`` over
        ``(time, sample)``, of all oscillators of a sample, or where there is only one, whose order parameter is always
        1, ``resultant_length`` over ``time``, of all samples if there are several; ``mean_field_order_parameter``, the
        limit of R for infinitely many oscillators that start as a sample's do, for the first few samples, no or global
        coupling, and at least 30 oscillators; over ``angle``, ``mean_field_density``, that limit's density at the last
        time, and
        ``terminal_density``, the self-consistent von Mises law of the final rates, around the reference phase or,
        where nothing attracts to it, around each sample's mean direction. Integration that fails leaves the times that
        were reached, and says so in the attributes ``status`` and ``message``.

    Raises:
        ValueError: As :func:`circsde.sdeint` says.
    """
    if frames < 1 or n_steps < 1:
        raise ValueError(f"frames and steps must be positive, got {frames} and {n_steps}")
    marks = sorted({round(i * n_steps / frames) for i in range(frames + 1)})
    ts = [mark * sde.horizon / n_steps for mark in marks]
    solution = sdeint(
        sde, theta, ts, method=method, n_steps=n_steps, generator=generator, progress=progress, on_failure="return"
    )
    order = [order_parameter(frame.double(), tuple(range(1, frame.ndim))) for frame in solution.theta]
    R, psi = (torch.stack(part) for part in zip(*order, strict=True))
    dims = ("time", "sample")
    dataset = solution.to_xarray()
    if theta[0].numel() > 1:
        dataset = dataset.assign(
            order_parameter=(dims, R.numpy(), {"long_name": "order parameter R", "units": "1"}),
            mean_direction=(dims, psi.numpy(), {"long_name": "mean direction psi", "units": "rad"}),
        )
    elif len(theta) > 1:
        length, _ = order_parameter(solution.theta.double().flatten(1), 1)
        named = {"long_name": "mean resultant length over samples", "units": "1"}
        dataset = dataset.assign(resultant_length=("time", length.numpy(), named))
    angles = grid(_POINTS)
    dataset = dataset.assign_coords(angle=("angle", angles.numpy(), {"long_name": "phase", "units": "rad"}))
    if sde.schedule.at(sde.horizon).diffusion > 0:
        dataset = _with_terminal_law(dataset, sde, psi[-1], angles)
    if solution.succeeded and _predictable(sde, theta):
        dataset = _with_mean_field_limit(dataset, sde, solution.theta[0, :PREDICTED], angles)
    return dataset


def _with_terminal_law(dataset: xr.Dataset, sde: KuramotoSDE, directions: Tensor, angles: Tensor) -> xr.Dataset:
    try:
        kappa = sde.terminal_law().concentration
    except ValueError:  # frequencies, lags, unlike oscillators
        return dataset
    centres = directions if sde.schedule.at(sde.horizon).reference == 0 else sde.reference_phase.reshape(1)
    density = VonMises(centres[:, None], kappa.expand(len(centres), 1)).log_prob(angles).exp().mean(0)
    dataset = dataset.assign(terminal_density=("angle", density.numpy(), {"units": "1/rad"}))
    return dataset.assign_attrs(terminal_concentration=float(kappa))


def _with_mean_field_limit(dataset: xr.Dataset, sde: KuramotoSDE, samples: Tensor, angles: Tensor) -> xr.Dataset:
    laws = [_mean_field_limit(sde, sample) for sample in samples]
    predicted = np.full((dataset.sizes["time"], dataset.sizes["sample"]), np.nan)
    predicted[:, : len(laws)] = [[abs(law.moment(t, 1)) for law in laws] for t in dataset["time"].values]
    density = torch.stack([law.density(sde.horizon, angles) for law in laws]).mean(0)
    return dataset.assign(
        mean_field_order_parameter=(
            ("time", "sample"),
            predicted,
            {"long_name": "mean-field limit of R", "units": "1"},
        ),
        mean_field_density=("angle", density.numpy(), {"units": "1/rad"}),
    )


def _predictable(sde: KuramotoSDE, theta: Angles) -> bool:
    """Whether the limit means something for these oscillators and is quick to compute."""
    if not has_closed_form(sde) or sde.rotates:
        return False
    rates = [sde.schedule.at(sde.horizon * i / 4) for i in range(5)]
    mild = max(max(r.coupling + r.reference, r.diffusion) for r in rates) * sde.horizon <= _MILD
    noisy = min(r.diffusion for r in rates) > 0
    n, weight = theta[0].numel(), sde.coupling.pair_weight(theta.shape[1:])
    alike = weight is not None and (weight == 0.0 or abs(weight * n - 1.0) <= _UNLIKE)
    return mild and noisy and n >= MANY and alike


def _mean_field_limit(sde: KuramotoSDE, sample: Tensor) -> CircleLaw:
    """The law of one among infinitely many oscillators that start distributed as those of ``sample`` are."""
    return fokker_planck(
        sde.schedule,
        _empirical_moments(sample),
        reference_phase=float(sde.reference_phase),
        mean_field=sde.coupled,
        modes=_MODES,
        tolerance=1e-9,
    )


def _empirical_moments(sample: Tensor) -> NDArray[np.complex128]:
    """``mean exp(i k theta)``, k = 0, 1, ..., of the phases blurred by a wrapped normal of ``_BLUR`` rad.

    By a Fourier transform of a histogram, whose bins are too narrow to matter beside the blur.
    """
    k, bins = np.arange(_MODES), 2**14
    counts, _ = np.histogram(sample.double().numpy(), bins, (-np.pi, np.pi))
    centred = np.exp(1j * k * (np.pi / bins - np.pi)) * np.fft.ifft(counts)[:_MODES] * bins
    return np.asarray(centred / sample.numel() * np.exp(-0.5 * (_BLUR * k) ** 2))

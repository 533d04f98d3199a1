r"""Measures of synchrony of observed or simulated oscillators: order by modules, locking, slips, memory.

Angles are ``(time, sample, oscillator, ...)`` as :class:`circsde.Solution` keeps them; differences of windings need its
``lifted`` angles. :func:`measured` adds all of them to the Dataset of a solution.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from circsde.coupling import Coupling
from circsde.torus import TWO_PI

Series = Float[Tensor, "time sample *event"]
"""Angles, radians, over times, samples and oscillators."""

_WINDOW = 5.0  # autocorrelation times that are summed over (Sokal)


def module_order_parameter(theta: Series, modules: Int[Tensor, "..."]) -> Float[Tensor, "time sample module"]:
    """Compute the order parameter ``R = |mean e^{i theta}|`` of each module, which is a set of oscillators.

    Args:
        theta: Angles, radians.
        modules: The module of each oscillator, 0, 1, ...; none may be empty.

    Raises:
        ValueError: If modules do not fit the oscillators, are numbered below 0, or one is empty.

    >>> theta = torch.tensor([[[0.0, 0.0, 0.0, torch.pi]]])
    >>> [round(R, 4) for R in module_order_parameter(theta, torch.tensor([0, 0, 1, 1])).flatten().tolist()]
    [1.0, 0.0]
    """
    if modules.shape != theta.shape[2:] or (modules.numel() and modules.min() < 0):
        raise ValueError(
            f"modules must be one number from 0 for each oscillator, of shape {tuple(theta.shape[2:])}, got shape"
            f" {tuple(modules.shape)} with a minimum of {modules.min().item() if modules.numel() else None}"
        )
    sizes = torch.bincount(modules.flatten())
    if bool((sizes == 0).any()):
        raise ValueError(f"modules {(sizes == 0).nonzero().flatten().tolist()} are empty: number them from 0 on")
    member = torch.nn.functional.one_hot(modules.flatten()).to(theta) / sizes.to(theta)
    flat = theta.flatten(2)
    return torch.hypot(flat.cos() @ member, flat.sin() @ member).clamp(max=1.0)


def local_order(theta: Series, coupling: Coupling) -> Series:
    """Compute ``|z_i|``, the modulus of the mean of ``e^{i theta}`` that each oscillator feels, for any coupling.

    With a :class:`~circsde.LocalCoupling` it is 1 in coherent parts of a chimera and less in incoherent ones.

    >>> from circsde.coupling import LocalCoupling
    >>> local_order(torch.zeros(1, 1, 5), LocalCoupling(1)).tolist()
    [[[1.0, 1.0, 1.0, 1.0, 1.0]]]
    """
    flat = theta.flatten(0, 1)
    return torch.hypot(coupling.mean(flat.cos()), coupling.mean(flat.sin())).expand_as(flat).reshape(theta.shape)


def metastability(order: Float[Tensor, "time sample module"]) -> Float[Tensor, " sample"]:
    """Compute the variance over time of the order parameter of each module, averaged over modules.

    It is 0 for modules that stay as they are, and large where they come and go.

    Source: Shanahan, 2010, doi:10.1063/1.3305451.

    >>> round(metastability(torch.tensor([[[0.2, 1.0]], [[0.4, 1.0]]])).item(), 6)  # (0.02 + 0) / 2
    0.01
    """
    return order.var(0).mean(-1)


def chimera_index(order: Float[Tensor, "time sample module"]) -> Float[Tensor, " sample"]:
    """Compute the variance over modules of their order parameters, averaged over time.

    Source: Shanahan, 2010, doi:10.1063/1.3305451.

    >>> round(chimera_index(torch.tensor([[[0.0, 1.0]]])).item(), 4)
    0.5
    """
    return order.var(-1).mean(0)


def phase_locking_value(theta: Series) -> Float[Tensor, "sample i j"]:
    """Compute ``|mean_t e^{i (theta_i - theta_j)}|`` for each pair of oscillators, which is 1 if they are locked.

    Of n independent times it is about ``sqrt(pi / (4 n))`` for oscillators that have nothing to do with one another.

    Source: Lachaux et al., 1999, doi:10.1002/(SICI)1097-0193(1999)8:4<194::AID-HBM4>3.0.CO;2-C.

    >>> theta = torch.tensor([0.0, 1.0, 2.5])[:, None, None] + torch.tensor([0.0, 0.3])
    >>> phase_locking_value(theta).round(decimals=4).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """
    wave = torch.polar(torch.ones_like(theta), theta).flatten(2).movedim(1, 0)
    return (wave.mT.conj() @ wave / len(theta)).abs().clamp(max=1.0)


def phase_slips(lifted: Series) -> Int[Tensor, "sample i j"]:
    """Count the whole turns by which the difference of two oscillators has moved since the last time, either way.

    A slip is counted where the difference is a turn away from where it last was counted, so that a difference that
    trembles about a threshold counts once.

    Args:
        lifted: Angles with their windings, radians, as ``lifted`` of a :class:`~circsde.Solution`.

    >>> t = torch.linspace(0.0, 10.0, 101)
    >>> lifted = torch.stack((t, 3.0 * t), -1)[:, None]  # 20 rad apart in the end
    >>> phase_slips(lifted).tolist()
    [[[0, 3], [3, 0]]]
    """
    flat = lifted.flatten(2)
    level = flat[0, :, :, None] - flat[0, :, None, :]
    counts = torch.zeros_like(level, dtype=torch.int64)
    for now in flat[1:]:
        turns = ((now[:, :, None] - now[:, None, :] - level) / TWO_PI).trunc()
        level, counts = level + TWO_PI * turns, counts + turns.abs().long()
    return counts


def autocorrelation_time(theta: Series, dt: float) -> Float[Tensor, "*event"]:
    r"""Integrate the autocorrelation of ``e^{i theta}`` about its mean, for each oscillator, in units of time.

    The sum over lags ends at five times what it has reached (Sokal's window); samples are averaged before it. A
    wrapped Brownian motion has ``1 / D``. A series shorter than about fifty of these times gives too little.

    Args:
        theta: Angles at equal distances in time, radians.
        dt: The time between two of them.

    Raises:
        ValueError: If the distance is not positive or there are fewer than two times.

    Source: Sokal, 1997, doi:10.1007/978-1-4899-0319-8_6.
    """
    if not dt > 0 or len(theta) < 2:
        raise ValueError(f"expected a positive distance in time and two times or more, got {dt} and {len(theta)}")
    n, wave = len(theta), torch.polar(torch.ones_like(theta, dtype=torch.float64), theta.double())
    wave = wave - wave.mean((0, 1))
    power = torch.fft.fft(wave, 2 * n, dim=0).abs().square()
    covariance = torch.fft.ifft(power, dim=0).real[:n].mean(1)
    times = torch.arange(n, dtype=torch.float64).reshape(-1, *(1,) * (theta.ndim - 2))
    correlation = covariance / (n - times) / (covariance[0] / n).clamp(min=torch.finfo(torch.float64).tiny)
    sums = correlation.cumsum(0) - 0.5
    enough = (times >= _WINDOW * sums) | (times == n - 1)
    first: Tensor = enough.long().argmax(0, keepdim=True)
    time: Tensor = dt * sums.gather(0, first)[0]
    return time.to(theta.dtype)


def measured(
    dataset: xr.Dataset, *, modules: Int[Tensor, "..."] | None = None, coupling: Coupling | None = None
) -> xr.Dataset:
    """Add the measures of synchrony to the Dataset of a solution, each with its name and unit.

    Args:
        dataset: As :meth:`circsde.Solution.to_xarray` makes it.
        modules: The module of each oscillator, from 0 on; one module of all where it is not given.
        coupling: Over whose means ``local_order`` is taken; none where it is not given.

    Returns:
        The Dataset with ``order_parameter`` over time, sample and module, ``metastability`` and, of several modules,
        ``chimera_index`` by sample, ``phase_locking_value`` and ``phase_slips`` by sample and pair of oscillators.

    Raises:
        ValueError: If the Dataset has no angles and windings, or the modules do not fit.
    """
    missing = {"theta", "winding"} - set(dataset.data_vars)
    if missing:
        raise ValueError(f"expected the Dataset of a solution, with theta and winding, got none of {sorted(missing)}")
    theta = torch.from_numpy(np.asarray(dataset["theta"].to_numpy(), dtype=np.float64))
    lifted = theta + TWO_PI * torch.from_numpy(dataset["winding"].to_numpy())
    modules = torch.zeros(theta.shape[2:], dtype=torch.int64) if modules is None else modules
    order = module_order_parameter(theta, modules)
    pairs = "sample", "oscillator_i", "oscillator_j"
    found: dict[str, Any] = {
        "order_parameter": (("time", "sample", "module"), order, "order parameter R"),
        "metastability": (("sample",), metastability(order), "metastability"),
        "phase_locking_value": (pairs, phase_locking_value(theta), "locking value"),
        "phase_slips": (pairs, phase_slips(lifted), "phase slips"),
    }
    if order.shape[-1] > 1:
        found["chimera_index"] = (("sample",), chimera_index(order), "chimera index")
    if coupling is not None:
        found["local_order"] = (dataset["theta"].dims, local_order(theta, coupling), "local order |z|")
    return dataset.assign(
        {name: (dims, x.numpy(), {"long_name": label, "units": "1"}) for name, (dims, x, label) in found.items()}
    )

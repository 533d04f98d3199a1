"""Pictures of results, drawn from their Datasets alone: what was saved can be drawn again."""

import math

import numpy as np
import torch
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure

from circsde.encoding import PhaseEncoding

CYCLIC = "twilight_shifted"
PHASE, DENSITY = "phase \u03b8 [rad]", "density [1/rad]"
SIMULATED, LIMIT, SETTLED, START = "#2a6f97", "#d1495b", "#222222", "#9aa5ab"
"""Colours of what was simulated, the mean-field limit, the settled law and the initial state."""


def forward_process(result: xr.Dataset) -> Figure:
    """The forward process: frames over time, the order parameter, and the terminal law, beside their theory.

    Args:
        result: As written by ``circsde simulate``; or any solution as a Dataset, of which theory is left out.

    Raises:
        ValueError: If it has no angles over time and samples.
    """
    if "theta" not in result or result["theta"].dims[:2] != ("time", "sample") or result["theta"].ndim < 3:
        has = ", ".join(f"{name}{variable.dims}" for name, variable in result.data_vars.items())
        raise ValueError(
            f"expected theta over (time, sample, ...), as Solution.to_xarray makes it, got {has or 'nothing'}"
        )
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.edgecolor": "none"}):
        is_image = "row" in result["theta"].dims
        figure = Figure(figsize=(10, 6.4 if is_image else 5.6), layout="constrained")
        ratios = (3.2, 2.8) if is_image else (2.2, 2.8)
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=ratios)[:, 0]
        figure.suptitle(result.attrs.get("title", ""), fontsize=10)
        (_frames if is_image else _density_over_time)(upper, result)
        left, right = lower.subplots(1, 2, width_ratios=(1.15, 1))
        _order_parameter(left, result)
        _terminal_law(right, result)
    return figure


def _frames(figure: SubFigure, result: xr.Dataset, shown: int = 6) -> None:
    """One sample at times from first to last: as the picture that its phases encode, and as phases."""
    theta = result["theta"].isel(sample=0)
    times = np.unique(np.linspace(0, theta.sizes["time"] - 1, shown).round().astype(int))
    encoding = PhaseEncoding(result.attrs.get("encoding_scale", math.pi))
    axes = np.asarray(figure.subplots(2, len(times), squeeze=False))
    for column, i in enumerate(times):
        frame = theta.isel(time=i)
        values = (encoding.decode(torch.from_numpy(frame.to_numpy())).numpy() + 1) / 2
        is_colour = "channel" in frame.dims
        axes[0, column].imshow(np.moveaxis(values, 0, -1) if is_colour else values, cmap="gray", vmin=0, vmax=1)
        phases = frame.isel(channel=0) if is_colour else frame
        drawn = axes[1, column].imshow(phases, cmap=CYCLIC, vmin=-math.pi, vmax=math.pi, interpolation="nearest")
        axes[0, column].set_title(f"t = {float(frame['time']):.2g}", fontsize=9)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    axes[0, 0].set_ylabel("first sample")
    axes[1, 0].set_ylabel("its phases" + (", first channel" if "channel" in theta.dims else ""))
    bar = figure.colorbar(drawn, ax=axes.ravel().tolist(), fraction=0.015, pad=0.01, shrink=0.6, label="phase [rad]")
    _phase_axis(bar.ax.yaxis)


def _density_over_time(figure: SubFigure, result: xr.Dataset, shown: int = 6) -> None:
    """How each angle is distributed over the samples at every saved time; all together where they are many."""
    theta = result["theta"].to_numpy().reshape(result.sizes["time"], result.sizes["sample"], -1)
    n_angles = theta.shape[2]
    names = result["oscillator"].values if "oscillator" in result.coords else range(1, n_angles + 1)
    panels = {f"angle {name}": theta[:, :, i] for i, name in enumerate(names)}
    if n_angles > shown:
        panels = {f"all {n_angles} angles": theta.reshape(len(theta), -1)}
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    edges = np.linspace(-math.pi, math.pi, 61)
    for ax, (title, angles) in zip(axes, panels.items(), strict=True):
        density = np.stack([np.histogram(row, edges, density=True)[0] for row in angles], axis=1)
        middles = 0.5 * (edges[1:] + edges[:-1])
        drawn = ax.pcolormesh(result["time"], middles, density, cmap="magma_r", vmin=0, vmax=1, shading="nearest")
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("time t")
        ax.set_xlim(float(result["time"][0]), float(result["time"][-1]))  # half a cell less at either end
        _phase_axis(ax.yaxis)
    axes[0].set_ylabel(PHASE)
    figure.colorbar(drawn, ax=axes.tolist(), label=DENSITY, extend="max", pad=0.01)


def _order_parameter(ax: Axes, result: xr.Dataset, shown: int = 8) -> None:
    """R over time: single samples, the spread of all if there are more, and the mean-field limit of each shown.

    Where a sample is one oscillator, whose R is always 1: the mean resultant length of all samples.
    """
    time, R = result["time"], result.get("order_parameter")
    if result["theta"][0, 0].size == 1:
        length = np.abs(np.exp(1j * result["theta"].to_numpy().astype(float)).reshape(len(time), -1).mean(1))
        ax.plot(time, length, color=SIMULATED, lw=1.8, label=f"of {result.sizes['sample']} samples")
        ax.set(xlabel="time t", ylabel="mean resultant length", ylim=(0, 1.02), xlim=(0, float(time[-1])))
        ax.legend(loc="best", fontsize=8)
        return
    if R is None:
        theta = result["theta"].to_numpy().astype(float).reshape(*result["theta"].shape[:2], -1)
        R = xr.DataArray(np.abs(np.exp(1j * theta).mean(2)), dims=("time", "sample"))
    many = R.sizes["sample"] > shown
    if many:
        low, middle, high = np.quantile(R, (0.1, 0.5, 0.9), axis=1)
        ax.fill_between(time, low, high, color=SIMULATED, alpha=0.2, lw=0, label=f"80 % of {R.sizes['sample']} samples")
        ax.plot(time, middle, color=SIMULATED, lw=1.8, label="their median")
    else:
        ax.plot(time, R, color=SIMULATED, lw=1.2, label=_once("simulated", R.sizes["sample"]))
    if "mean_field_order_parameter" in result:
        predicted = result["mean_field_order_parameter"].isel(sample=slice(shown))
        ax.plot(time, predicted, "--", color=LIMIT, lw=1.2, label=_once("mean-field limit", predicted.sizes["sample"]))
    if "mean_field_order_parameter" in result:
        kappa = torch.tensor(result.attrs["terminal_concentration"])
        settled = float(torch.special.i1e(kappa) / torch.special.i0e(kappa))
        ax.axhline(settled, color=SETTLED, lw=0.8, ls=":", label=f"stationary at the final rates: R = {settled:.2f}")
    ax.set(xlabel="time t", ylabel="order parameter R", ylim=(0, 1.02), xlim=(0, float(time[-1])))
    ax.legend(loc="best", fontsize=8)


def _terminal_law(ax: Axes, result: xr.Dataset) -> None:
    """All phases at the first and the last time, over the laws that they should have and would settle to."""
    edges, last = np.linspace(-math.pi, math.pi, 73), f"t = {float(result['time'][-1]):g}"
    start, end = (np.histogram(result["theta"].isel(time=i), edges, density=True)[0] for i in (0, -1))
    ax.stairs(end, edges, fill=True, color=SIMULATED, alpha=0.35, label=f"simulated, {last}")
    top = 1.5 * end.max()
    cut = ", peaks cut off" if start.max() > top else ""  # the start may be a spike, as of a white margin
    ax.stairs(start, edges, color=START, lw=1.2, label=f"at the start{cut}")
    if "mean_field_density" in result:
        ax.plot(result["angle"], result["mean_field_density"], "--", color=LIMIT, label=f"mean-field limit, {last}")
    if "terminal_density" in result:
        kappa = f"\u03ba = {result.attrs['terminal_concentration']:.3g}"
        label = f"stationary at the final rates\n(many oscillators): von Mises, {kappa}"
        ax.plot(result["angle"], result["terminal_density"], ":", color=SETTLED, lw=1.5, label=label)
    ax.set(xlabel=PHASE, ylabel=DENSITY, xlim=(-math.pi, math.pi))
    ax.set_ylim(0, top)
    _phase_axis(ax.xaxis)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)  # above: peaks may be anywhere


def _once(label: str, lines: int) -> list[str]:
    """``label`` for the first of several lines."""
    return [label] + ["_nolegend_"] * (lines - 1)


def _phase_axis(axis: Axis) -> None:
    axis.set_ticks(np.linspace(-math.pi, math.pi, 5), ["-\u03c0", "-\u03c0/2", "0", "\u03c0/2", "\u03c0"])


def synchronisation(result: xr.Dataset, sample: int = 0) -> Figure:
    """Phases of all oscillators over time, the order of each module over time, and which pairs are locked.

    Args:
        result: As :func:`circsde.synchrony.measured` makes it.
        sample: Which sample is drawn.

    Raises:
        ValueError: If the measures are not there.
    """
    missing = {"theta", "order_parameter", "phase_locking_value"} - set(result.data_vars)
    if missing or "module" not in result["order_parameter"].dims:
        absent = ", ".join(sorted(missing)) or "modules"
        raise ValueError(f"expected what circsde.synchrony.measured makes, got no {absent}")
    one = result.isel(sample=sample)
    times, theta = one["time"].to_numpy(), one["theta"].to_numpy().reshape(one.sizes["time"], -1)
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    raster, order, locking = figure.subplots(1, 3, width_ratios=(1.4, 1.2, 1))
    extent = (times[0], times[-1], -0.5, theta.shape[1] - 0.5)
    options = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
    drawn = raster.imshow(theta.T, cmap=CYCLIC, vmin=-math.pi, vmax=math.pi, extent=extent, **options)
    raster.set(xlabel="time t", ylabel="oscillator")
    figure.colorbar(drawn, ax=raster, label=PHASE)
    for module in range(one.sizes["module"]):
        order.plot(times, one["order_parameter"].isel(module=module), label=f"module {module}")
    order.set(xlabel="time t", ylabel="order parameter R", ylim=(0, 1.02))
    if one.sizes["module"] > 1:
        order.legend(fontsize=8)
    drawn = locking.imshow(one["phase_locking_value"], cmap="magma", vmin=0.0, vmax=1.0, origin="lower")
    locking.set(xlabel="oscillator", ylabel="oscillator")
    figure.colorbar(drawn, ax=locking, label="phase-locking value")
    return figure

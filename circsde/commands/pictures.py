"""Pictures of tables of angles: densities of pairs, as Ramachandran drew them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circsde.commands.angles import in_unit

BINS = 72
STYLE: dict[str, Any] = {"cmap": "magma_r", "norm": LogNorm(1e-3, 10.0), "rasterized": True}
Ticks = tuple[NDArray[Any], list[str]]


def pair_densities(
    tables: Mapping[str, xr.DataArray], log_density: xr.DataArray | None = None, unit: str = "rad"
) -> Figure:
    """A row of panels per table and a column per pair of neighbouring angles, on one logarithmic scale.

    Args:
        tables: By name, angles over (row, angle) in radians; a single angle is drawn as histograms.
        log_density: The log-density of one or two angles on a grid, nats: one more row, or a curve.
        unit: What axes are marked in; see :func:`circsde.encoding.period`. Densities are per radian.
    """
    names = [f"{name} [{unit}]" for name in next(iter(tables.values()))["angle"].values]
    ticks = _ticks(unit)
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        if len(names) == 1:
            return _histograms(tables, log_density, names[0], ticks)
        pairs = [(i, i + 1) for i in range(0, len(names) - 1, 2)]
        if len(names) % 2:
            pairs.append((len(names) - 2, len(names) - 1))
        rows = len(tables) + (log_density is not None)
        figure = Figure(figsize=(1.2 + 2.6 * len(pairs), 0.4 + 2.6 * rows), layout="constrained")
        axes = figure.subplots(rows, len(pairs), squeeze=False)
        edges = np.linspace(-math.pi, math.pi, BINS + 1)
        for row, (title, table) in zip(axes, tables.items(), strict=False):
            for ax, (i, j) in zip(row, pairs, strict=True):
                theta = table.to_numpy()
                density, _, _ = np.histogram2d(theta[:, i], theta[:, j], bins=(edges, edges), density=True)
                drawn = _panel(ax, edges, edges, density, title, names[i], names[j], ticks)
        if log_density is not None:
            axis = log_density[log_density.dims[0]].to_numpy()
            drawn = _panel(
                axes[-1, 0], axis, axis, np.exp(log_density.to_numpy()), "density", names[0], names[1], ticks
            )
        figure.colorbar(drawn, ax=axes.ravel().tolist(), label="density [1/rad\u00b2]", pad=0.01, fraction=0.04)
    return figure


def _ticks(unit: str) -> Ticks:
    """Places on an axis in rad, and what they are in ``unit``."""
    places = np.linspace(-math.pi, math.pi, 5)
    if unit.lower() in ("rad", "radian", "radians"):
        return places, ["-\u03c0", "-\u03c0/2", "0", "\u03c0/2", "\u03c0"]
    values = in_unit(torch.from_numpy(places), unit)
    values[-1] = abs(values[0])  # half a turn, wherever counting begins
    return places, [f"{value:g}" for value in values]


def _panel(
    ax: Axes, x: NDArray[Any], y: NDArray[Any], density: NDArray[Any], title: str, along: str, up: str, ticks: Ticks
) -> QuadMesh:
    drawn = ax.pcolormesh(x, y, np.ma.masked_less(density.T, 1e-12), **STYLE)
    ax.set(title=title, xlabel=along, ylabel=up, aspect="equal")
    ax.set_xticks(*ticks)
    ax.set_yticks(*ticks)
    return drawn


def _histograms(
    tables: Mapping[str, xr.DataArray], log_density: xr.DataArray | None, name: str, ticks: Ticks
) -> Figure:
    figure = Figure(figsize=(5, 3), layout="constrained")
    ax = figure.subplots()
    for title, table in tables.items():
        ax.hist(table.to_numpy()[:, 0], BINS, range=(-math.pi, math.pi), density=True, alpha=0.5, label=title)
    if log_density is not None:
        ax.plot(log_density[log_density.dims[0]], np.exp(log_density), "k", lw=1, label="density")
    ax.set(xlabel=name, ylabel="density [1/rad]", xlim=(-math.pi, math.pi))
    ax.set_xticks(*ticks)
    ax.legend()
    return figure

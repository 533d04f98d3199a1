"""Pictures of accuracy studies, drawn from their Datasets alone: what was saved can be drawn again."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from circsde.solvers.methods import Method
from circsde.solvers.registry import find_method
from circsde.solvers.stability import amplification
from circsde.studies.advice import best, describe
from circsde.studies.choice import Choice
from circsde.studies.statistics import Array

COLOURS = ("#2a6f97", "#d1495b", "#6a994e", "#7b4fa3", "#e08e1b", "#5c6770", "#17868b", "#a3566f", "#222222")
MARKERS = "osD^vP*X<"
BLACK, GREY = "#222222", "#9aa5ab"

_ZERO = 1e-17  # an error below this is exact


def convergence(study: xr.Dataset) -> Figure:
    """Errors against the step, log-log: intervals, hollow where not resolved, the floor shaded, order triangles.

    Args:
        study: A result of ``strong_convergence``, ``weak_convergence`` or ``exact_convergence``.
    """
    with _style():
        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        ax = figure.subplots()
        h = study["step_size"].to_numpy()
        _errors(ax, study, np.broadcast_to(h, study["error"].shape), labels=_orders(study))
        _floor(ax, study)
        _triangles(ax, study)
        _ticks(ax, h)
        ax.set(xlabel=f"step h, of a horizon of {study.attrs['horizon']:g}", ylabel=_error_label(study))
        ax.set_title(title(study))
        figure.legend(loc="outside right center", title="order: measured (claimed)", alignment="left")
    return figure


def work_precision(study: xr.Dataset) -> Figure:
    """Errors against drift evaluations and against measured time."""
    with _style():
        figure = Figure(figsize=(10.4, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        seconds = study["seconds"].to_numpy()
        spread = np.abs(np.stack([study["seconds_low"], study["seconds_high"]]) - seconds)
        names = [str(name) for name in study["solver"].values]
        _errors(left, study, study["nfe"].to_numpy(), labels=names)
        _errors(right, study, seconds, labels=[f"_{name}" for name in names], spread=spread)
        _ticks(left, study["nfe"].to_numpy())
        left.set(xlabel="drift evaluations per path", ylabel=_error_label(study))
        right.set(xlabel=f"seconds for {study.attrs['timed_paths']:,} paths: median and quartiles")
        figure.suptitle(title(study), fontsize=10)
        figure.legend(loc="outside right center")
    return figure


def selection(choice: Choice) -> Figure:
    """Errors with their intervals against drift evaluations, the tolerance, and what was chosen.

    Args:
        choice: A result of ``select``; what is neither accepted nor rejected is hollow.
    """
    study = choice.dataset
    with _style():
        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        ax = figure.subplots()
        names = [str(name) for name in study["solver"].values]
        _errors(ax, study.assign(resolved=study["accepted"] | study["rejected"]), study["nfe"].to_numpy(), labels=names)
        tolerance = float(study.attrs["tolerance"])
        ax.axhline(tolerance, color=BLACK, lw=1, ls="--", label=f"tolerance {tolerance:g}")
        if choice.method is not None:
            chosen = best(study, study["accepted"])
            label = "chosen: " + describe(chosen).replace(", ", ",\n")
            at = float(chosen["nfe"]), float(chosen["error"])
            ax.plot(*at, "o", ms=14, mfc="none", mec=BLACK, mew=1.5, label=label)
        _ticks(ax, study["nfe"].to_numpy())
        ax.set(xlabel="drift evaluations per path", ylabel=_error_label(study), title=title(study))
        figure.legend(loc="outside right center")
    return figure


def stability_regions(methods: Sequence[str | Method], extent: tuple[float, float, float] = (-2.8, 0.4, 2.7)) -> Figure:
    """Where methods are linearly stable, in the plane of ``z = lambda h``; see :mod:`circsde.solvers.stability`.

    Args:
        methods: Names or methods; those with the same region share a line.
        extent: The extent of the picture: the least and the largest real part, and the largest imaginary part.
    """
    left, right, top = extent
    x, y = np.linspace(left, right, 321), np.linspace(-top, top, 321)
    z = x + 1j * y[:, None]
    regions = list[tuple[Array, list[str]]]()
    for method in map(find_method, methods):
        size = amplification(method, z)
        same = [names for known, names in regions if np.allclose(known, size)]
        same[0].append(method.name) if same else regions.append((size, [method.name]))
    with _style():
        figure = Figure(figsize=(5.6, 4.2), layout="constrained")
        ax = figure.subplots()
        ax.axhline(0.0, color=GREY, lw=0.6, zorder=0)
        ax.axvline(0.0, color=GREY, lw=0.6, zorder=0)
        for colour, (size, names) in zip(COLOURS, regions, strict=False):
            ax.contourf(x, y, size, levels=[-1.0, 1.0], colors=[colour], alpha=0.12)
            ax.contour(x, y, size, levels=[1.0], colors=[colour], linewidths=1.4)
            ax.plot([], [], color=colour, label="\n".join(names))
        ax.set(xlabel="Re z, z = rate times step", ylabel="Im z", aspect="equal")
        figure.legend(loc="outside right center", title="stable inside", alignment="left")
    return figure


def _style() -> AbstractContextManager[None]:
    return rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.edgecolor": "none",
            "legend.fontsize": 8,
            "legend.title_fontsize": 8,
        }
    )


def _errors(ax: Axes, study: xr.Dataset, x: Array, *, labels: list[str], spread: Array | None = None) -> None:
    """One line per solver with intervals, filled where resolved; what was not measured or is exact is left out."""
    ax.set(xscale="log", yscale="log")
    visible = np.where(study["error"] > _ZERO, study["error"], np.nan)
    if len(alone := np.unique(x[np.isfinite(visible)])) == 1:
        ax.set_xlim(alone[0] / 2, alone[0] * 2)
    for row, (colour, marker) in _looks(study):
        one = study.isel(solver=row)
        error, lower, upper, resolved = (one[name].to_numpy() for name in ("error", "lower", "upper", "resolved"))
        shown = error > _ZERO
        ends = np.stack((error - np.maximum(lower, 1e-3 * error), upper - error))[:, shown]
        sideways = None if spread is None else spread[:, row][:, shown]
        ax.errorbar(x[row][shown], error[shown], ends, sideways, color=colour, lw=1.2, elinewidth=0.9, capsize=2)
        for which, face in ((shown & resolved, colour), (shown & ~resolved, "white")):
            ax.plot(x[row][which], error[which], marker, ms=5, color=colour, mfc=face, mew=1)
        ax.plot([], [], marker=marker, ms=5, color=colour, lw=1.2, label=labels[row])
    if np.isfinite(visible).any():
        ax.set_ylim(np.nanmin(visible) / 4, np.nanmax(np.where(np.isfinite(visible), study["upper"], np.nan)) * 2)


def _ticks(ax: Axes, values: Array) -> None:
    """Ticks at measured values, as far as there is room."""
    shown: list[float] = []
    for value in sorted(values[np.isfinite(values)].ravel()):
        if not shown or value >= 1.5 * shown[-1]:
            shown.append(value)
    ax.set_xticks(shown, [f"{x:.3g}" for x in shown])
    ax.xaxis.set_minor_locator(NullLocator())


def _floor(ax: Axes, study: xr.Dataset) -> None:
    """Shade errors below the lowest floor of all solvers, which cannot be distinguished from zero."""
    floor, bottom = study["floor"].min("solver").to_numpy(), ax.get_ylim()[0]
    if floor.max() > bottom:
        h = study["step_size"].to_numpy()
        label = "below this, nothing can be\ndistinguished from zero"
        ax.fill_between(h, bottom, np.maximum(floor, bottom), color=GREY, alpha=0.25, lw=0, label=label, zorder=0)


def _triangles(ax: Axes, study: xr.Dataset) -> None:
    """A triangle of each claimed order beneath the most accurate solver that claims it."""
    h, finest = study["step_size"].to_numpy(), study["error"].isel(steps=-1)
    drawn = set[float]()
    for row, (colour, _) in sorted(_looks(study), key=lambda look: float(finest[look[0]])):
        claim, points = float(study["claimed_order"][row]), np.flatnonzero(study["fitted"].isel(solver=row))
        if math.isnan(claim) or claim in drawn or len(points) < 2:
            continue
        drawn.add(claim)
        right, left = h[points[-2]], h[points[-1]]
        base = 0.5 * float(study["error"][row, points[-1]])
        top = base * (right / left) ** claim
        ax.fill([left, right, right], [base, base, top], facecolor="none", edgecolor=colour, lw=0.8)
        side, below = (right, math.sqrt(base * top)), (math.sqrt(left * right), base)
        ax.annotate(f"{claim:g}", side, (3, 0), textcoords="offset points", fontsize=8, color=colour, va="center")
        ax.annotate("1", below, (0, -2), textcoords="offset points", fontsize=8, color=colour, va="top", ha="center")
        ax.set_ylim(min(ax.get_ylim()[0], base / 4))


def _looks(study: xr.Dataset) -> Iterator[tuple[int, tuple[str, str]]]:
    for row in range(study.sizes["solver"]):
        turn = row // len(MARKERS)  # from the tenth on, other pairs of the two
        yield row, (COLOURS[(row + turn) % len(COLOURS)], MARKERS[row % len(MARKERS)])


def _orders(study: xr.Dataset) -> list[str]:
    """Solver, measured order and claim, for the legend."""
    said = []
    for row, name in enumerate(study["solver"].values):
        order, standard_error, claim = (
            float(study[x][row]) for x in ("order", "order_standard_error", "claimed_order")
        )
        said.append(f"{name}\n{describe_order(order, standard_error)} ({'-' if math.isnan(claim) else f'{claim:g}'})")
    return said


def describe_order(order: float, standard_error: float) -> str:
    """An order and its standard error, or that it is not resolved.

    >>> describe_order(1.982, 0.0313), describe_order(1.982, 0.0013), describe_order(math.nan, math.nan)
    ('1.98 \u00b1 0.03', '1.982 \u00b1 0.001', 'not resolved')
    """
    digits = 2 if standard_error >= 0.01 else 3
    return "not resolved" if math.isnan(order) else f"{order:.{digits}f} \u00b1 {standard_error:.{digits}f}"


def _error_label(study: xr.Dataset) -> str:
    unit = str(study["error"].attrs["units"])
    return str(study["error"].attrs["long_name"]) + ("" if unit == "1" else f" [{unit}]")


def title(study: xr.Dataset) -> str:
    """A title that says what was studied, how, and with how many paths."""
    said = f"{study.attrs['problem'] or 'SDE'}: {study.attrs['metric']} errors by {study.attrs['evidence']}"
    if "paths" in study.attrs:
        said += f", {study.attrs['paths']:,} paths"
    return said + (
        f", {100 * study.attrs['confidence']:g} % intervals" if study.attrs["evidence"] == "Monte Carlo" else ""
    )

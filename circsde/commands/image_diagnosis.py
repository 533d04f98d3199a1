"""``circsde diagnose`` for models of images: data, how they synchronise, samples, and distances between them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from circsde.models.training import Trained

COUNT, STEPS = 128, 25
"""Images of each kind that are compared, and the steps of Heun's method that samples take."""

SHOWN, FRAMES = 24, 6
"""Images of each kind on the picture, and times of the forward process."""


def examine(
    model: "Trained", run: Path, source: str | None, seed: int, progress: "Callable[[int], object]"
) -> "xr.Dataset":
    """Distances of samples to held-out windows with intervals and floors, and what was compared.

    Returns:
        As :func:`circsde.metrics.images.compare`, with ``data`` and ``sampled``, values in [-1, 1]; for a model
        of phases also ``forward``, the phases of a few windows over the time of the forward process, rad.
    """
    import torch
    import xarray as xr

    from circsde.commands import image_samples
    from circsde.commands.train_images import Windows
    from circsde.data import ImageSet
    from circsde.metrics.images import compare
    from circsde.sampling.reverse import Recipe
    from circsde.sampling.trained import encoding_of, event_shape
    from circsde.streams import torch_stream

    windows = Windows(**model.about["windows"], cache=None)
    if source is not None:
        windows = replace(windows, source=source)
    held_out, familiar = windows.part("test"), windows.part("train")
    encoding = encoding_of(model.about)
    known, shape = event_shape(model), windows.shape(held_out)
    if shape != known:
        raise ValueError(f"the model knows images of shape {known}, the windows of {windows.source} are {shape}")
    recipe = Recipe("multistep", STEPS)
    drawn = image_samples.draw(model, run, recipe, "auto", COUNT, seed=seed, batch_size=COUNT // 2, progress=progress)
    name = "value" if "value" in drawn else "theta"
    sampled = image_samples.pictures(drawn)
    if name == "value":
        assert isinstance(held_out, ImageSet)
        assert isinstance(familiar, ImageSet)
        data, known_ones = held_out.windows(COUNT, seed), familiar.windows(4 * COUNT, seed)
    else:  # pictures of phases, as samples are
        phases = held_out.phases(COUNT, encoding, seed)
        data, known_ones = encoding.decode(phases), encoding.decode(familiar.phases(4 * COUNT, encoding, seed))
    result = compare(data, sampled, train=known_ones, generator=torch_stream(seed, "resampling"))
    dims = ("image", *(("channel",) if data.ndim == 4 else ()), "row", "column")
    result = result.assign(data=(dims, data.numpy()), sampled=(dims, sampled.numpy()))
    if name == "theta":
        result["forward"] = xr.DataArray(_forward(model, phases[:FRAMES], seed), dims=("time", "start", *dims[1:]))
        result = result.assign_coords(time=torch.linspace(0, model.sde.horizon, FRAMES).tolist())
    return result.assign_attrs(start_law=drawn.attrs["start_law"])


def _forward(model: "Trained", start: "Tensor", seed: int) -> Any:
    from circsde.solvers.integrate import sdeint

    times = [model.sde.horizon * i / (FRAMES - 1) for i in range(FRAMES)]
    return sdeint(model.sde, start, times, n_steps=20 * (FRAMES - 1), generator=seed).theta.numpy()


def draw(result: "xr.Dataset") -> "Figure":
    """Data, the forward process from top to bottom, and samples, side by side, and what to compare."""
    import numpy as np
    import torch
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from circsde.data.sheet import sheet

    titles = {"data": "held-out windows", "forward": "how four of them synchronise", "sampled": "samples of the model"}
    panels = [name for name in titles if name in result]
    with rc_context({"font.size": 9}):
        figure = Figure(figsize=(3.4 * len(panels) + 0.4, 4.6), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(panels)))
        for ax, name in zip(axes, panels, strict=True):
            ax.set(xticks=[], yticks=[], title=titles[name])
            ax.spines[:].set_visible(False)
            if name == "forward":
                _draw_forward(ax, result["forward"])
            else:
                shown = sheet(torch.from_numpy(result[name].values[:SHOWN]), columns=4)
                ax.imshow(shown, cmap="gray", vmin=0, vmax=255)
        said = "Compare right with left: a good model draws samples that could be held-out windows."
        if "forward" in result:
            said += "\nIn the middle, nothing of the windows should be left in the last row: samples start there."
        figure.supxlabel(said, fontsize=9)
    return figure


def _draw_forward(ax: "Axes", phases: "xr.DataArray") -> None:
    """A row of a few windows for each time, in colours that fit the range of their phases."""
    import math

    import numpy as np

    from circsde.plots import CYCLIC

    shown = phases.isel(start=slice(4))
    if "channel" in shown.dims:
        shown = shown.isel(channel=0)
    tiles = [[np.pad(one, 1, constant_values=np.nan) for one in row] for row in shown.values]
    most = float(np.quantile(np.abs(shown), 0.95))
    wide = most > 0.6 * math.pi  # then phases fill the circle, on which -pi and pi are one
    limit, colours = (math.pi, CYCLIC) if wide else (most, "RdBu_r")
    drawn = ax.imshow(np.block(tiles), cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
    height = len(tiles[0][0])
    middles = [(i + 0.5) * height - 0.5 for i in range(len(tiles))]
    ax.set_yticks(middles, [f"t = {float(t):.2g}" for t in shown["time"]])
    ax.tick_params(length=0)
    assert ax.figure is not None
    bar = ax.figure.colorbar(
        drawn, ax=ax, fraction=0.04, pad=0.02, label="phase [rad]", extend="neither" if wide else "both"
    )
    if wide:
        bar.set_ticks([-math.pi, 0.0, math.pi], labels=["-\u03c0", "0", "\u03c0"])


def verdicts(result: "xr.Dataset") -> list[str]:
    """Distances in words, each with its interval and the floor."""
    lines = [f"samples start from the law: {result.attrs['start_law']}"]
    for name in result["measure"].values:
        one = result.sel(measure=name)
        value, low, high, floor = (float(one[part]) for part in ("value", "low", "high", "floor"))
        lines.append(f"{name:16} {value:8.3g}  ({low:.3g} to {high:.3g}; training windows: {floor:.3g})")
    return lines

"""Pictures are drawn from Datasets alone, with every axis labelled."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

from circsde import plots


def result_of(n_samples: int, event: tuple[int, ...], n_times: int = 3) -> xr.Dataset:
    dims = ("time", "sample", *{1: ("oscillator",), 2: ("row", "column"), 3: ("channel", "row", "column")}[len(event)])
    shape = (n_times, n_samples, *event)
    theta = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 6 - 3).numpy()
    order = np.abs(np.exp(1j * theta).reshape(n_times, n_samples, -1).mean(-1))
    time = np.linspace(0, 1, n_times)
    return xr.Dataset(
        {"theta": (dims, theta), "order_parameter": (("time", "sample"), order)}, {"time": time}, {"title": "a title"}
    )


@pytest.mark.parametrize(
    ("samples", "event", "panels"),
    [(1, (8, 8), 6), (20, (8, 8), 6), (2, (3, 8, 8), 6), (50, (2,), 2), (50, (7,), 1), (1, (3,), 3)],
)
def test_pictures_have_labelled_axes_for_any_kind_of_data(
    samples: int, event: tuple[int, ...], panels: int, tmp_path: Path
) -> None:
    figure = plots.forward_process(result_of(samples, event))
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "a.png")
    axes = figure.get_axes()
    labels = {ax.get_xlabel() for ax in axes} | {ax.get_ylabel() for ax in axes}
    assert {"time t", "order parameter R", "phase \u03b8 [rad]", "density [1/rad]"} <= labels
    assert len(axes) == panels + 1 + 2  # and a colour bar, and the two curves below
    assert figure.get_suptitle() == "a title"

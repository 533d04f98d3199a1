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


def test_any_solution_can_be_drawn_and_what_is_none_is_refused(tmp_path: Path) -> None:
    result = result_of(3, (4,))
    bare = xr.Dataset({"theta": result["theta"]})
    for drawn in (bare, result):
        (line, *_) = plots.forward_process(drawn).get_axes()[-2].get_lines()
        np.testing.assert_allclose(np.asarray(line.get_ydata()), result["order_parameter"][:, 0], atol=1e-6)  # float32
    plots.forward_process(result_of(3, (4, 4)).drop_vars("order_parameter")).savefig(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"expected theta over \(time, sample, ...\), .* got order_parameter"):
        plots.forward_process(result.drop_vars("theta"))


@pytest.mark.parametrize("n_times", [2, 3])
def test_the_axis_of_time_ends_where_time_does(n_times: int) -> None:
    for axes in plots.forward_process(result_of(50, (2,), n_times)).get_axes():
        if axes.get_xlabel() == "time t":
            assert axes.get_xlim() == (0.0, 1.0)


def test_of_single_angles_the_resultant_length_is_drawn() -> None:
    result = result_of(40, (1,)).drop_vars("order_parameter")
    axes = plots.forward_process(result).get_axes()[-2]
    assert axes.get_ylabel() == "mean resultant length"
    moment = np.exp(1j * result["theta"].values).mean((1, 2))
    np.testing.assert_allclose(np.asarray(axes.get_lines()[0].get_ydata()), np.abs(moment), atol=1e-6)  # float32


def test_the_legend_of_the_histograms_hides_none_of_them_and_a_spike_is_cut_off() -> None:
    result = result_of(2, (8, 8))
    spike = result.copy(deep=True)
    spike["theta"][0] = 0.0
    for drawn, label in ((result, "at the start"), (spike, "at the start, peaks cut off")):
        figure = plots.forward_process(drawn)
        figure.draw_without_rendering()
        axes = figure.get_axes()[-1]
        legend = axes.get_legend()
        assert legend is not None
        assert legend.get_window_extent().y0 >= axes.get_window_extent().y1
        assert label in [entry.get_text() for entry in legend.get_texts()]

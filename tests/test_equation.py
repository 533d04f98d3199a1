"""The parts of an equation on the command line: graphs, lags, frequencies and random phases."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
import xarray as xr
from command_line import ran
from matplotlib.figure import Figure

from circsde import plots
from circsde.commands import equation
from circsde.coupling import GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import DenseCoupling, GraphCoupling
from circsde.streams import torch_stream
from strategies import assert_agree, random

WEIGHTS = np.array([[0.0, 1.0, 0.0, 0.5], [1.0, 0.0, 2.0, 0.0], [0.0, 0.25, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with a matrix in every form."""
    monkeypatch.chdir(tmp_path)
    np.savetxt("square.csv", WEIGHTS, delimiter=",")
    np.save("square.npy", WEIGHTS)
    scipy.sparse.save_npz("sparse.npz", scipy.sparse.coo_array(WEIGHTS))
    rows = [f"{i},{j},{WEIGHTS[i, j]}" for i, j in zip(*WEIGHTS.nonzero(), strict=True)]
    Path("edges.csv").write_text("\n".join(["source,target,weight", *rows]) + "\n")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["square.csv", "square.npy", "sparse.npz", "edges.csv"])
def test_a_graph_is_read_from_every_kind_of_file(name: str) -> None:
    x = random(2, 4)
    graph, dense = (equation.coupling(f"{kind}:{name}", 5, "periodic", 0.3) for kind in ("graph", "matrix"))
    assert_agree(graph.mean(x), GraphCoupling(WEIGHTS).mean(x))
    assert_agree(dense.mean(x), x @ torch.from_numpy(WEIGHTS).T)
    assert (graph.lag, dense.lag) == (0.3, 0.3)
    assert isinstance(dense, DenseCoupling)


def test_couplings_are_named() -> None:
    named = [equation.coupling(name, 2, "reflecting", 0.1) for name in ("none", "global", "local")]
    assert named == [NoCoupling(), GlobalCoupling(0.1), LocalCoupling(2, "reflecting", 0.1)]


@pytest.mark.parametrize(
    ("law", "quartiles"),
    [("normal:1,2", (-0.349, 2.349)), ("uniform:-1,3", (0.0, 2.0)), ("cauchy:1,0.5", (0.5, 1.5)), ("0.7", (0.7, 0.7))],
)
def test_frequencies_are_drawn_from_the_law_that_is_named(law: str, quartiles: tuple[float, float]) -> None:
    """Quartiles of 40,000 draws, within 6 standard errors of the widest law, 0.1."""
    drawn = torch.as_tensor(equation.frequency(law, (40_000,), torch_stream(0, "frequencies"))).double().reshape(-1)
    found = torch.quantile(drawn, torch.tensor([0.25, 0.75]).double())
    assert (found - torch.tensor(quartiles)).abs().max() < 0.1


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--coupling sideways", "'sideways' is not one of none, global, local, graph:FILE, matrix:FILE"),
        ("random:4 --frequency fast", "'fast' is no frequency: give a number, or normal:MEAN,SD"),
        ("random:4 --frequency normal:1", "'normal:1' is no frequency"),
        ("random", "random phases of how many oscillators? give random:N"),
        ("random:0", "there must be one oscillator at least"),
        ("random:3 --coupling graph:square.csv", "the graph has 4 vertices, oscillators of shape (3,) need 3"),
        ("--coupling graph:words.csv", "words.csv is no matrix of numbers; a table of edges has columns named source"),
        ("--coupling graph:letters.csv", "letters.csv must number its vertices from 0"),
        ("random:4 --lag 0.3 --coupling none", "--lag: without coupling it does nothing"),
        ("random:4 --scale 0.5", "--scale: for images"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(options: str, message: str) -> None:
    Path("words.csv").write_text("a,b\nc,d\n")
    Path("letters.csv").write_text("source,target\na,b\n")
    assert message in ran(f"simulate {options}", 2)


@pytest.mark.usefixtures("folder")
def test_oscillators_on_a_graph_with_a_lag_and_frequencies_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "forward_process", lambda _: Figure(figsize=(1, 1)))
    line = (
        "--coupling graph:edges.csv --lag 0.3 --frequency normal:0,1 --coupling-rate 4 --diffusion-rate 0.1 --horizon 5"
    )
    said = ran(f"simulate {line} -n 3 --steps 50 --frames 5 --out a")
    assert "3 \u00d7 4 phases, graph:edges.csv coupling" in said
    with xr.open_dataset("a.nc") as dataset:
        assert dict(dataset["theta"].sizes) == {"time": 6, "sample": 3, "oscillator": 4}
        assert "mean_field_order_parameter" not in dataset
        assert dataset["theta"].std() > 0.1
    ran(f"simulate {line} -n 3 --steps 50 --frames 5 --out b --frequency 0")
    with xr.open_dataset("a.nc") as one, xr.open_dataset("b.nc") as other:
        assert (one["theta"][0] == other["theta"][0]).all()
        assert abs(one["theta"][-1] - other["theta"][-1]).max() > 1e-3

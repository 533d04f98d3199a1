"""Local means against matrices written entry by entry, against scipy's filters, and their misuse."""

import copy
import pickle
from typing import Literal

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circsde import graph
from circsde.box_filter import Boundary
from circsde.coupling import Coupling, GlobalCoupling, LocalCoupling, NoCoupling
from circsde.graph import GraphCoupling
from strategies import COUPLINGS, adjacency, assert_agree, couplings, dense_weights, random, seeds, symmetric_adjacency

FILTER_MODES: list[tuple[Boundary, Literal["wrap", "reflect"]]] = [("periodic", "wrap"), ("reflecting", "reflect")]


def applied(name: str, x: Tensor) -> Tensor:
    """The coupling's mean, broadcast to all oscillators."""
    return COUPLINGS[name][0].mean(x).expand_as(x)


def operator(name: str) -> Tensor:
    """The matrix of the coupling's mean, column by column."""
    event = COUPLINGS[name][1]
    basis = torch.eye(torch.Size(event).numel(), dtype=torch.float64).reshape(-1, *event)
    return applied(name, basis).flatten(1).T


@given(couplings, seeds)
def test_the_mean_is_the_product_with_the_matrix_of_weights(name: str, seed: int) -> None:
    x = random(3, *COUPLINGS[name][1], seed=seed)
    expected = (x.flatten(1) @ dense_weights(name).T).reshape(x.shape)
    assert_agree(applied(name, x), expected)


@pytest.mark.parametrize("name", COUPLINGS)
def test_self_weight_is_the_diagonal_of_the_operator(name: str) -> None:
    coupling, event = COUPLINGS[name]
    own = torch.as_tensor(coupling.self_weight(event), dtype=torch.float64).expand(event)
    assert_agree(own.flatten(), operator(name).diagonal())
    assert_agree(own.flatten(), dense_weights(name).diagonal())


@pytest.mark.parametrize("name", [name for name in COUPLINGS if name not in ("none", "graph")])
def test_a_mean_over_mutual_neighbours_is_a_symmetric_operator(name: str) -> None:
    matrix = operator(name)
    assert_agree(matrix, matrix.T)


def test_a_graph_divided_by_unequal_degrees_is_not_symmetric() -> None:
    coupling = GraphCoupling(symmetric_adjacency())
    matrix = coupling.mean(torch.eye(6, dtype=torch.float64)).T
    assert (matrix - matrix.T).abs().max() > 0.1


@pytest.mark.parametrize("name", [name for name in COUPLINGS if name not in ("none", "graph", "symmetric graph")])
def test_the_mean_of_a_constant_is_that_constant(name: str) -> None:
    constant = torch.full((1, *COUPLINGS[name][1]), 0.7, dtype=torch.float64)
    assert_agree(applied(name, constant), constant)


@given(st.integers(1, 6), st.integers(0, 7), st.integers(0, 7), st.sampled_from(FILTER_MODES), seeds)
def test_a_window_is_the_uniform_filter_of_scipy(
    radius: int, extra_rows: int, extra_columns: int, modes: tuple[Boundary, Literal["wrap", "reflect"]], seed: int
) -> None:
    size, coupling = 2 * radius + 1, LocalCoupling(radius, modes[0])
    x = random(2, 3, size + extra_rows, size + extra_columns, seed=seed)
    coupling.check(x.shape[1:])
    image = scipy.ndimage.uniform_filter(x.numpy(), size=(0, 0, size, size), mode=modes[1])
    assert_agree(coupling.mean(x), torch.as_tensor(image))
    row = scipy.ndimage.uniform_filter1d(x[:, 0, 0].numpy(), size, axis=1, mode=modes[1])
    assert_agree(coupling.mean(x[:, 0, 0]), torch.as_tensor(row))


def test_windows_do_not_mix_channels() -> None:
    x = torch.zeros(1, 2, 5, 5)
    x[0, 0] = 1.0
    assert torch.equal(LocalCoupling(1).mean(x)[0, 1], torch.zeros(5, 5))
    assert GlobalCoupling().mean(x).item() == 0.5


def test_a_wide_window_loses_nothing_to_cancellation() -> None:
    """A running sum would carry the rounding of the spike, 1e8 eps = 1e1, to all that follow it in float32."""
    x = torch.ones(1, 400)
    x[0, 3] = 1e8
    means = LocalCoupling(10).mean(x)[0, 20:380]
    torch.testing.assert_close(means, torch.ones(360), rtol=1e-6, atol=0.0)
    running = x[0].cumsum(0)
    naive = (running[21:] - running[:-21]) / 21
    assert (naive[20:360] - 1.0).abs().max() > 0.1


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_mean_keeps_the_dtype_and_its_argument(name: str, dtype: torch.dtype) -> None:
    x = random(2, *COUPLINGS[name][1]).to(dtype)
    before = x.clone()
    mean = applied(name, x)
    assert mean.dtype == dtype
    assert torch.equal(x, before)
    expected = (x.double().flatten(1) @ dense_weights(name).T).reshape(x.shape)
    torch.testing.assert_close(mean.double(), expected, rtol=0.0, atol=30 * torch.finfo(dtype).eps)


def test_sparse_and_dense_adjacencies_give_the_same_graph() -> None:
    x = random(3, 6)
    dense, sparse = GraphCoupling(adjacency()), GraphCoupling(adjacency().to_sparse())
    assert torch.equal(sparse.mean(x), dense.mean(x))


def test_a_graph_of_many_vertices_stays_sparse() -> None:
    """A ring of 2e5 vertices: its dense matrix would take 320 GB."""
    n = 200_000
    i = torch.arange(n)
    indices = torch.stack([torch.cat([i, i]), torch.cat([(i + 1) % n, (i - 1) % n])])
    ring = torch.sparse_coo_tensor(indices, torch.ones(2 * n), (n, n), check_invariants=True)
    x = random(1, n)
    expected = (x.roll(1, 1) + x.roll(-1, 1)) / 2
    assert_agree(GraphCoupling(ring).mean(x), expected)


def test_a_vertex_without_neighbours_is_free() -> None:
    assert GraphCoupling(adjacency()).mean(random(2, 6))[:, 5].tolist() == [0.0, 0.0]


def test_repeated_edges_add_up() -> None:
    indices = torch.tensor([[0, 0, 0], [1, 1, 2]])
    graph = torch.sparse_coo_tensor(indices, torch.tensor([1.0, 2.0, 1.0]), (3, 3), check_invariants=True)
    x = random(1, 3)
    assert GraphCoupling(graph).mean(x)[0, 0].item() == pytest.approx((0.75 * x[0, 1] + 0.25 * x[0, 2]).item())


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_coupling_survives_copying_and_pickling(name: str) -> None:
    coupling, event = COUPLINGS[name]
    x = random(2, *event)
    for twin in (copy.deepcopy(coupling), pickle.loads(pickle.dumps(coupling))):
        assert torch.equal(twin.mean(x), coupling.mean(x))


@pytest.mark.parametrize(("radius", "message"), [(0, "at least 1, got 0; for no coupling use"), (-2, "got -2")])
def test_a_radius_below_one_is_refused(radius: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalCoupling(radius)


def test_an_unknown_boundary_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' check of types
    with pytest.raises(ValueError, match='"periodic" or "reflecting", got \'constant\''):
        LocalCoupling(1, "constant")  # type: ignore[arg-type]


@pytest.mark.parametrize("event", [(4, 5), (3, 9, 4), (4,), ()])
def test_a_window_wider_than_the_image_is_refused(event: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a window of radius 2 is 5 wide and does not fit .*use a smaller radius"):
        LocalCoupling(2).check(event)


@pytest.mark.parametrize("event", [(5, 5), (1, 9, 5), (5,)])
def test_a_window_as_wide_as_the_image_fits(event: tuple[int, ...]) -> None:
    LocalCoupling(2).check(event)


@pytest.mark.parametrize("shape", [(2, 3), (4,), (2, 2, 2)])
def test_an_adjacency_that_is_not_square_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"adjacency must be a square matrix, got shape \(" + str(shape[0])):
        GraphCoupling(torch.ones(shape))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_negative_or_non_finite_weight_is_refused(weight: float) -> None:
    matrix = adjacency()
    matrix[0, 1] = weight
    with pytest.raises(ValueError, match="adjacency must be finite and non-negative"):
        GraphCoupling(matrix)


def test_a_graph_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the graph has 6 vertices, oscillators of shape \(2, 4\) need 8"):
        GraphCoupling(adjacency()).check((2, 4))


@pytest.mark.parametrize("coupling", [NoCoupling(), GlobalCoupling(), LocalCoupling(1), GraphCoupling(adjacency())])
def test_every_coupling_satisfies_the_protocol(coupling: object) -> None:
    assert isinstance(coupling, Coupling)


def test_couplings_compare_by_value() -> None:
    assert (NoCoupling(), GlobalCoupling(), LocalCoupling(2)) == (NoCoupling(), GlobalCoupling(), LocalCoupling(2))
    assert LocalCoupling(2) != LocalCoupling(2, "reflecting")
    assert np.unique([hash(LocalCoupling(r)) for r in (1, 2, 2)]).size == 2


@pytest.mark.parametrize("boundary", ["periodic", "reflecting"])
@pytest.mark.parametrize("radius", range(1, 7))
def test_self_weight_counts_how_often_an_oscillator_sees_itself_at_every_radius(
    radius: int, boundary: Boundary
) -> None:
    """By a double loop over places and shifts, on rows and images as short as the window lets them be, and longer."""
    width, coupling = 2 * radius + 1, LocalCoupling(radius, boundary)
    for side in (width, width + 1, width + 5):
        seen = torch.zeros(side, dtype=torch.float64)
        for place in range(side):
            for shift in range(-radius, radius + 1):
                other = (place + shift) % (2 * side if boundary == "reflecting" else side)
                if boundary == "reflecting":
                    other = min(other, 2 * side - 1 - other)
                seen[place] += (other == place) / width
        assert_agree(torch.as_tensor(coupling.self_weight((side,))), seen)
        image = torch.as_tensor(coupling.self_weight((2, side, width)))
        row = torch.as_tensor(coupling.self_weight((width,)))
        assert_agree(image, (seen[:, None] * row).expand(2, side, width))
    assert boundary == "periodic" or seen[0] > seen[-1 - radius]


def test_a_large_graph_sums_over_some_edges_at_a_time_as_its_matrix_does(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(3, 6)
    monkeypatch.setattr(graph, "_ENTRIES", 7)  # two edges at a time
    by_edges = GraphCoupling(adjacency())
    assert_agree(by_edges.mean(x), x @ dense_weights("graph").T)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: by_edges.mean(y[None])[0]))(x)
    assert_agree(jacobian[0], dense_weights("graph"))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_gradients_reach_the_weights_of_a_graph_those_of_absent_edges_too(sparse: bool, normalise: bool) -> None:
    x, weights = random(2, 3), torch.tensor([[0.0, 1.0, 0.5], [2.0, 0.0, 0.0], [0.1, 0.3, 0.7]], dtype=torch.float64)

    def mean(values: Tensor) -> Tensor:
        if sparse:
            values = torch.sparse_coo_tensor(weights.nonzero().T, values, (3, 3), check_invariants=True)
        return GraphCoupling(values, normalise=normalise).mean(x)

    values = (weights[weights > 0] if sparse else weights + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(mean, (values,))
    if not sparse:
        absent = weights.clone().requires_grad_()
        (slope,) = torch.autograd.grad(mean(absent).sum(), absent)
        step = torch.zeros(3, 3, dtype=torch.float64)
        step[1, 2] = 1e-6
        change = (mean(weights + step) - mean(weights)).sum() / 1e-6
        assert slope[1, 2].item() == pytest.approx(change.item(), rel=1e-4)


def test_a_graph_is_given_as_an_array_too() -> None:
    x = random(2, 6)
    assert torch.equal(GraphCoupling(adjacency().numpy()).mean(x), GraphCoupling(adjacency()).mean(x))


def test_what_is_no_matrix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # without the tests' check of types
    with pytest.raises(TypeError, match="adjacency must be a tensor or a numpy array, got list"):
        GraphCoupling([[0.0, 1.0], [1.0, 0.0]])

"""Which law to start sampling from: the simplest that tests cannot distinguish from simulated states at the horizon."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from circsde.contracts import Sampled
from circsde.kuramoto import KuramotoSDE
from circsde.matching.chain import Chain
from circsde.models import checkpoint
from circsde.models.transitions import DataSampler, TensorSampler
from circsde.sampling.mismatch import energy_of_points, p_value, permuted_labels
from circsde.sampling.start_laws import CANDIDATES, LAWS, components, stationary
from circsde.solvers.integrate import sdeint
from circsde.streams import torch_stream
from circsde.torus import TWO_PI, wrap
from circsde.typing import Angles

LEVEL = 0.05
"""A candidate is rejected if the least of its p-values, times their number, is below this."""

FILE = "start_law.safetensors"
"""The file of the start law, beside a checkpoint."""

_BINS = 256


def simulated(
    chain: Chain,
    theta: Tensor | DataSampler,
    count: int,
    *,
    seed: int = 0,
    first_sample: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """States at the horizon of ``count`` paths that begin at random rows of ``theta``, or at what it draws.

    By the published chain's Euler-Maruyama where the score was trained along that, else by Heun's method.
    """
    generator = torch_stream(seed, "starts", first_sample)
    data = (TensorSampler(theta) if isinstance(theta, Tensor) else theta)(count, generator)
    method = "euler_maruyama" if chain.published else "heun"
    states = []
    for i in range(0, count, batch_size):
        solution = sdeint(
            chain.sde,
            data[i : i + batch_size],
            (chain.times[0], chain.times[-1]),
            grid=chain.times,
            method=method,
            generator=seed,
            first_sample=first_sample + i,
        )
        states.append(solution.theta[-1].cpu())
    return torch.cat(states)


def compare(
    drawn: Tensor, simulated: Tensor, *, permutations: int = 199, generator: torch.Generator
) -> dict[str, tuple[float, float]]:
    """Statistics of two samples of whole samples, each with its p-value by permuting which sample is whose.

    Returns:
        ``marginal``: Kuiper's statistic of all phases, in bins of 2 pi / 256. ``order``: the energy statistic of the
        mean of ``e^{i theta}`` over a sample (per channel), which shows ``R`` and ``psi``. ``pattern``: for images
        the energy statistic of the logarithm of the power of ``e^{i theta}`` in octaves of the wave number; otherwise
        the energy statistic of all phases jointly.
    """
    labels = permuted_labels(len(drawn), len(simulated), permutations, generator)
    gap = (labels @ torch.cat([_histograms(x) for x in (drawn, simulated)])).cumsum(1)
    kuiper = gap.amax(1).clamp(min=0.0) - gap.amin(1).clamp(max=0.0)
    result = {"marginal": (float(kuiper[0]), p_value(kuiper))}
    for name, features in (("order", _order), ("pattern", _pattern)):
        a, b = features(drawn), features(simulated)
        scale = torch.cat((a, b)).std(0).clamp(min=1e-12)
        result[name] = energy_of_points(a / scale, b / scale, permutations=permutations, generator=generator)
    return result


def candidates(chain: Chain, states: Angles) -> dict[str, Sampled]:
    """Laws fitted to simulated states, those of :data:`circsde.sampling.start_laws.CANDIDATES` that apply."""
    assert isinstance(chain.sde, KuramotoSDE)
    fitted = {name: fit(chain.sde, states) for name, fit in CANDIDATES.items()}
    return {name: law for name, law in fitted.items() if law is not None}


def choose(
    chain: Chain,
    theta: Tensor | DataSampler,
    *,
    fitted: int = 2000,
    compared: int = 500,
    seed: int = 0,
    permutations: int = 199,
    progress: Callable[[int], object] | None = None,
) -> tuple[Sampled, xr.Dataset]:
    """Find the simplest start law that tests cannot distinguish from simulated states, and test every candidate.

    Args:
        chain: The chain that a score was trained along.
        theta: Its training data, or what draws them.
        fitted: States to fit to: several times as many as are compared, so that the error of the fit is not found.
        compared: Other states to compare with, and draws of each law.
        seed: The seed of everything that is random.
        permutations: The number of permutations for the p-values.
        progress: Called with the number of compared candidates.

    Returns:
        The law; and ``statistic`` and ``p_value`` over ``(candidate, test)`` of :func:`compare`, the attributes
        ``chosen``, ``fitted`` and ``compared``. If all candidates are rejected, states are resampled.
    """
    laws = candidates(chain, simulated(chain, theta, fitted, seed=seed))
    fresh = simulated(chain, theta, compared, seed=seed, first_sample=fitted)
    generator = torch_stream(seed, "resampling")
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    for i, (name, law) in enumerate(laws.items()):
        drawn = law.sample((compared,), generator=generator)
        rows[name] = compare(drawn, fresh, permutations=permutations, generator=generator)
        if progress is not None:
            progress(i + 1)
    tests = list(next(iter(rows.values())))
    values = [[list(row[test]) for test in tests] for row in rows.values()]
    alike = [name for name, row in rows.items() if len(tests) * min(p for _, p in row.values()) > LEVEL]
    chosen = alike[0] if alike else "resampled"
    table = xr.Dataset(
        {
            "statistic": (("candidate", "test"), [[v[0] for v in row] for row in values]),
            "p_value": (("candidate", "test"), [[v[1] for v in row] for row in values]),
        },
        coords={"candidate": list(rows), "test": tests},
        attrs={"chosen": chosen, "fitted": fitted, "compared": compared, "permutations": permutations},
    )
    return laws[chosen], table


def save_law(law: Sampled, table: xr.Dataset, path: str | Path) -> None:
    """Write a law, and how it was chosen, whole or not at all.

    Raises:
        OSError: If the file cannot be written; what was there is kept.
    """
    described = {"type": type(law).__name__, **vars(law)}
    checkpoint.save({"law": described, "table": table.to_dict()}, path)


def load_law(path: str | Path, known: Collection[type] = ()) -> tuple[Sampled, xr.Dataset]:
    """Load what :func:`save_law` wrote.

    Args:
        path: The file.
        known: Classes of laws of your own that it may be of. A file holds their names and arguments, and no code.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is cut off, or holds something else, or a law of a class that is not known.
    """
    state = checkpoint.load(path)
    if "law" not in state:
        raise ValueError(f"{path} holds no law to start from")
    described: dict[str, Any] = state["law"]
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in described.items()}
    laws, name = {law.__name__: law for law in (*LAWS, *known)}, str(arguments.pop("type"))
    if name not in laws:
        raise ValueError(f"{path} holds a law {name}, and circsde knows {', '.join(laws)}: give its class as known=")
    law: Sampled = laws[name](**arguments)
    return law, xr.Dataset.from_dict(state["table"])


def start_law(chain: Chain, run: str | Path, name: str = "auto", known: Collection[type] = ()) -> tuple[Sampled, str]:
    """The law to start sampling from, and where it is from.

    Args:
        chain: The chain of the model.
        run: The folder of the training, or a checkpoint in it.
        name: ``"settled"``; a file that :func:`save_law` wrote; or ``"auto"``: the file :data:`FILE` beside the
            checkpoint, or without one the settled law.
        known: The same as for :func:`load_law`.

    Raises:
        ValueError: If the law is one of other samples than the chain's.
    """
    run = Path(run)
    beside = (run if run.is_dir() else run.parent) / FILE
    if name == "settled" or (name == "auto" and not beside.exists()):
        return stationary(chain.sde), "settled"  # type: ignore[arg-type]
    path = beside if name == "auto" else Path(name)
    law, table = load_law(path, known)
    shape = getattr(law, "event_shape", chain.sde.event_shape or ())
    if tuple(shape) != tuple(chain.sde.event_shape or ()):
        raise ValueError(f"{path} is a law of samples of shape {tuple(shape)}, the model's are {chain.sde.event_shape}")
    return law, f"{table.attrs.get('chosen', type(law).__name__.lower())}, {path}"


def _histograms(theta: Angles) -> Tensor:
    """The distribution of the phases of each sample over bins, ``(n, bins)``."""
    bins = ((wrap(theta.double()).flatten(1) / TWO_PI + 0.5) * _BINS).long().clamp(0, _BINS - 1)
    counts = torch.zeros(len(bins), _BINS, dtype=torch.float64)
    return counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float64)) / bins.shape[1]


def _order(theta: Angles) -> Tensor:
    """The mean of ``e^{i theta}`` per channel, ``(n, 2 channels)``."""
    return components(theta).flatten(2).mean(2)


def _pattern(theta: Angles) -> Tensor:
    """The logarithm of the power of ``e^{i theta}`` per channel and octave; of a row, all ``(cos, sin)``."""
    points = components(theta)
    if theta.ndim == 2:
        return points.flatten(1)
    cos, sin = points.chunk(2, 1)
    power = torch.fft.fft2(torch.complex(cos, sin)).abs().square()
    rows, columns = (torch.fft.fftfreq(n, 1.0 / n, dtype=torch.float64) for n in points.shape[2:])
    octave = torch.hypot(rows[:, None], columns).clamp(min=0.5).log2().ceil().long()
    parts = [power[..., octave == k].mean(-1) for k in range(int(octave.max()) + 1)]  # without the mean
    return torch.stack(parts, -1).log().flatten(1)

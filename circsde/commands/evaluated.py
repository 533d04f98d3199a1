"""Densities for ``circsde verify``: of a run, of a function in a file, or at points that another program evaluated."""

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circsde.commands import angles

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from circsde.models.training import Trained
    from circsde.sampling.verify import Verification

VALUE, PROPOSAL = "log_prob", "log_proposal"
"""Columns of a table of evaluated points."""


def density_of(
    density: str, samples: str | None, data: str | None, unit: str | None, seed: int
) -> "tuple[Callable[[Tensor], Tensor], Tensor, Tensor | None]":
    """A log-density, samples of it, and data."""
    if ".py:" in density:
        if samples is None:
            raise ValueError("a function draws no samples: give --samples of the same model, a file of angles")
        log_prob = function(density)
        theta, data_rows = (None if name is None else table(name, unit)[0] for name in (samples, data))
        assert theta is not None
        return log_prob, theta, data_rows

    from circsde.models.training import trained

    model = trained(density)
    if model.about.get("kind") == "images":
        raise ValueError(f"verify is for densities of angles, and {density} is a model of images")
    return _of_run(model, samples, data, unit, seed)


def _of_run(
    model: "Trained", samples: str | None, data: str | None, unit: str | None, seed: int
) -> "tuple[Callable[[Tensor], Tensor], Tensor, Tensor | None]":
    import torch

    from circsde.sampling.diagnose import log_likelihood
    from circsde.sampling.reverse import Recipe
    from circsde.sampling.trained import sample
    from circsde.sampling.verify import ROWS

    reading = angles.Reading(unit, drop_missing=True)
    rows = None if data is None else angles.known(model, data, reading)
    if samples is None:
        along_the_flow = Recipe(None, len(model.chain), denoise=False, flow="dopri5")
        theta = torch.from_numpy(sample(model, ROWS, along_the_flow, seed=seed)["theta"].values)
    else:
        theta = angles.known(model, samples, reading)
    return lambda x: log_likelihood(model, x.float()).value, theta, rows


def function(name: str) -> "Callable[[Tensor], Tensor]":
    """Import the function that ``FILE.py:FUNCTION`` names.

    Raises:
        ValueError: If there is no such file or function.
    """
    path, _, called = name.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: a function is given as FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, called, None)
    if not callable(found):
        raise ValueError(f"{path} has no function {called}: it must take angles (n, d), radians, and give n numbers")
    chosen: Callable[[Tensor], Tensor] = found
    return chosen


def table(name: str, unit: str | None) -> "tuple[Tensor, dict[str, Tensor]]":
    """Angles in radians, and the log-densities that a CSV file has beside them, nats."""
    import pandas as pd
    import torch

    from circsde.encoding import to_radians
    from circsde.files.frames import EXACT

    known = dict[str, Any]()
    if name.endswith(".csv") and Path(name).is_file():
        read = pd.read_csv(name, **EXACT)
        known = {each: read.pop(each) for each in (VALUE, PROPOSAL) if each in read}
    if not known:
        return angles.read(name, angles.Reading(unit, drop_missing=True)).theta.double(), {}
    if unit is None:
        raise ValueError(f"{name} does not state its unit: give --unit rad, deg, ...")
    try:
        columns = {each: torch.tensor(values.to_numpy(dtype=float)) for each, values in known.items()}
        return to_radians(torch.tensor(read.to_numpy(dtype=float)), unit), columns
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def examine(name: str, samples: str | None, data: str | None, unit: str | None, confidence: float) -> "Verification":
    """Verify a density at points where another program evaluated it."""
    import torch

    from circsde.sampling.entropy import entropy
    from circsde.sampling.verify import examine, with_floor

    theta, known = table(name, "rad")
    if set(known) != {VALUE, PROPOSAL}:
        raise ValueError(
            f"{name} lacks the columns {VALUE} and {PROPOSAL}: evaluate the density at points that --propose wrote, and"
            f" add its logarithm as {VALUE}"
        )
    lost = known[VALUE].isnan() | (known[VALUE] == math.inf)
    if bool(lost.any()):
        raise ValueError(f"{name}: {VALUE} is no number in row {int(lost.nonzero()[0]) + 1}: evaluate it there")
    rows, at_rows = (None, {}) if samples is None else table(samples, unit)
    if rows is not None and rows.shape[1] != theta.shape[1]:
        raise ValueError(f"{name} has {theta.shape[1]} angles, and {samples} has {rows.shape[1]}")
    found = examine(theta, known[VALUE], known[PROPOSAL], rows, at_rows.get(VALUE), confidence=confidence)
    if data is None:
        return found
    held_out, at_data = table(data, unit)
    if VALUE not in at_data:
        raise ValueError(f"{data} lacks a column {VALUE}: their log-densities, which the floor is compared with")
    estimate = entropy(held_out)
    every = torch.arange(len(estimate.kept))
    return with_floor(found, estimate, at_data[VALUE][estimate.kept], every, confidence=confidence)

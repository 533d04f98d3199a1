"""Tables of angles for the commands of models: which source is one, its rows, and its parts."""

from pathlib import Path
from typing import TYPE_CHECKING

from circsde.commands import console, options
from circsde.commands.answer import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from circsde.data import Phases
    from circsde.models.training import Trained


def read(
    source: str, unit: str | None, columns: str | None, drop_missing: bool, otherwise: str | None = None
) -> "Phases":
    """The table that ``source`` names, its unit ``otherwise`` if none is given or stated; says what was left out."""
    from circsde.data import load
    from circsde.data.torsion import TABLES

    if not source.startswith("torsion:") and not Path(source).exists():
        raise ValueError(
            f"there is no file {source}: give a .csv, .tsv, .npy or .nc file of angles, or one of"
            f" {', '.join(f'torsion:{name}' for name in TABLES)}"
        )
    names = options.names(columns)
    data = load(source, unit=unit, columns=names, drop_missing=drop_missing, otherwise=otherwise)
    if data.encoding is not None or data.theta.ndim != 2:
        raise ValueError(f"{source} holds images: this learns tables of angles, a sample per row")
    if data.dropped:
        console.note(f"left out {counted(data.dropped, 'row')} without all angles")
    return data


def known(model: "Trained", source: str, unit: str | None, columns: str | None, drop_missing: bool) -> "Tensor":
    """The table as ``model`` knows it: its columns, in its order where they have its names, and its unit by default.

    A file that states its unit, and no other is given, is read in that.
    """
    from circsde.data.image_sources import holds_images

    about = model.about
    if holds_images(source):
        raise ValueError(f"{source} holds images, and the model is one of angles, {', '.join(about['names'])}")
    if not source.startswith("torsion:"):
        columns = columns or about.get("columns")
    data = read(source, unit, columns, drop_missing, about.get("unit"))
    theta = data.theta
    if sorted(data.names) == sorted(about["names"]):
        theta = theta[:, [data.names.index(name) for name in about["names"]]]
    if theta.shape[1:] != model.sde.event_shape:
        raise ValueError(
            f"the model knows {len(about['names'])} angles, {', '.join(about['names'])}, and {source} has"
            f" {theta.shape[1]}"
        )
    return theta


def in_unit(theta: "Tensor", unit: str) -> "NDArray[np.float64]":
    """Angles in rad as ``unit``: radians and degrees around zero, hours and other periods from zero on.

    >>> import torch
    >>> in_unit(torch.tensor([-1.5707963267948966], dtype=torch.float64), "hours").round(6).tolist()
    [18.0]
    """
    import numpy as np

    from circsde.encoding import PERIODS, from_radians, period

    values: NDArray[np.float64] = from_radians(theta.double(), unit).numpy()
    if unit.lower() in PERIODS and period(unit) != period("hours"):
        return values
    values = values % period(unit)
    return np.where(values == period(unit), 0.0, values)  # of an angle just below zero, to rounding


def unit_name(unit: str) -> str:
    """A unit in words.

    >>> unit_name("deg"), unit_name("365.25")
    ('deg', 'units of which 365.25 are a turn')
    """
    from circsde.encoding import PERIODS

    return unit if unit.lower() in PERIODS else f"units of which {unit} are a turn"

"""Tables of angles for the commands of models: which source is one, its rows, and its parts."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circsde.commands import console, options
from circsde.commands.answer import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray
    from torch import Tensor

    from circsde.data import Phases
    from circsde.models.training import Trained


@dataclass(frozen=True)
class Reading:
    """How a file of angles is to be read, as the options say it; see :func:`circsde.data.load`."""

    unit: str | None = None
    columns: str | None = None
    drop_missing: bool = False
    missing: str | None = None
    along: str | None = None
    phases: bool = False

    @property
    def described(self) -> dict[str, Any]:
        """The options that were given; ``Reading(**described)`` makes an equal reading."""
        return {name: value for name, value in vars(self).items() if value not in (None, False)}

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments for :func:`circsde.data.load`."""
        return {
            "unit": self.unit,
            "columns": options.names(self.columns),
            "drop_missing": self.drop_missing,
            "missing": codes(self.missing),
            "along": self.along,
            "phases": self.phases,
        }


def read(
    source: str,
    reading: Reading,
    otherwise: str | None = None,
    like: "Sequence[str] | None" = None,
    tiles: tuple[int, int] | None = None,
) -> "Phases":
    """Read the angles that ``source`` names, in the unit ``otherwise`` if none is given or stated.

    The columns ``like`` are taken if the file names its columns, has all of these, and no others are given.
    Fields of phases are cut into ``tiles``.
    """
    from circsde.data import load
    from circsde.data.torsion import TABLES
    from circsde.files.angles import KINDS

    if not source.startswith("torsion:") and not Path(source).exists():
        raise ValueError(
            f"there is no file {source}: give a file of angles, its name ending in {KINDS}; or one of"
            f" {', '.join(f'torsion:{name}' for name in TABLES)}"
        )
    return load(source, **reading.arguments, like=like, otherwise=otherwise, crop=tiles)


def codes(missing: str | None) -> tuple[float, ...] | None:
    """The numbers that ``--missing`` gives, none for "none".

    >>> codes("-99, 999"), codes("none"), codes(None)
    ((-99.0, 999.0), (), None)
    """
    if missing is None or missing.strip().lower() == "none":
        return None if missing is None else ()
    try:
        return tuple(float(number) for number in missing.split(","))
    except ValueError:
        raise ValueError(f"--missing takes numbers, such as -99,999, or none, got {missing!r}") from None


def known(model: "Trained", source: str, reading: Reading) -> "Tensor":
    """The table as ``model`` knows it, its columns by name, its unit by default; notes what was read.

    A file that states its unit is read in that unit, unless another is given. Columns that are asked for, and columns
    without names, are taken in their order.
    """
    from circsde.data.image_sources import holds_images

    about = model.about
    names = list(about["names"])
    if holds_images(source):
        raise ValueError(f"{source} holds images, and the model is one of angles, {', '.join(names)}")
    data = read(source, reading, about.get("unit"), names)
    if data.theta.ndim != 2:
        raise ValueError(f"{source} holds fields of phases, and the model is one of angles, {', '.join(names)}")
    theta = data.theta
    if sorted(data.names) == sorted(names):
        theta = theta[:, [data.names.index(name) for name in names]]
    if theta.shape[1:] != model.sde.event_shape:
        raise ValueError(
            f"the model knows {counted(len(names), 'angle')}, {', '.join(names)}, and {source} has {theta.shape[1]}:"
            f" {', '.join(data.names)}; give as many columns (--columns), in the order of the model"
        )
    taken = list(data.notes)
    if sorted(data.names) != sorted(names):
        unnamed = all(name.isdigit() for name in (*data.names,)) or all(name.isdigit() for name in names)
        pairs = ", ".join(f"{there} for {name}" for there, name in zip(data.names, names, strict=True))
        if reading.columns is None and not unnamed:
            raise ValueError(
                f"the model knows {', '.join(names)}, and {source} has {', '.join(data.names)}: to take {pairs}, give"
                f" --columns {','.join(data.names)}"
            )
        taken.append(f"took columns in their order: {pairs}")
    for note in taken:
        console.note(note)
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
    return np.where(values == period(unit), 0.0, values)  # an angle just below zero rounds to a whole turn


def written_in(angles: "xr.DataArray", unit: str) -> "xr.DataArray":
    """Convert angles in rad to the unit that they were read in."""
    import torch

    values = in_unit(torch.from_numpy(angles.values), unit)
    return angles.copy(data=values).assign_attrs(units=unit, long_name="angle")


def write_table(path: Path, names: "Sequence[str]", values: "NDArray[np.float64]", *, force: bool) -> None:
    """A CSV file with a column for each name and a row for each sample."""
    from circsde.record import replacing

    with replacing(path, force=force) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *values.tolist()])

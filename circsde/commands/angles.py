"""Tables of angles for the commands of models: which source is one, its rows, and its parts."""

from pathlib import Path
from typing import TYPE_CHECKING

from circsde.commands import console, options
from circsde.commands.answer import counted

if TYPE_CHECKING:
    from torch import Tensor

    from circsde.data import Phases
    from circsde.models.training import Trained


def holds_images(source: str) -> bool:
    """Whether ``source`` is one of images: a folder, an image file, or one by its kind."""
    from circsde.data.image_reader import KINDS
    from circsde.data.images import SUFFIXES

    path = Path(source)
    return source.partition(":")[0] in KINDS or path.is_dir() or path.suffix.lower() in SUFFIXES


def read(source: str, unit: str | None, columns: str | None, drop_missing: bool) -> "Phases":
    """The table that ``source`` names; says so where rows were left out."""
    from circsde.data import load
    from circsde.data.torsion import torsion

    if source.startswith("torsion:"):
        if unit is not None or columns is not None:
            raise ValueError("torsions have their columns and their unit: drop unit and columns")
        residue, _, part = source.removeprefix("torsion:").partition("/")
        data = torsion(residue, part or None)
    else:
        data = load(source, unit=unit, columns=options.names(columns), drop_missing=drop_missing)
    if data.encoding is not None or data.theta.ndim != 2:
        raise ValueError(f"{source} holds images: this learns tables of angles, a sample per row")
    if data.dropped:
        console.note(f"left out {counted(data.dropped, 'row')} without all angles")
    return data


def known(model: "Trained", source: str, unit: str | None, columns: str | None, drop_missing: bool) -> "Tensor":
    """The table as ``model`` knows it: its unit and columns by default, its number of angles."""
    about = model.about
    if holds_images(source):
        raise ValueError(f"{source} holds images, and the model is one of angles, {', '.join(about['names'])}")
    if not source.startswith("torsion:"):
        unit, columns = unit or about.get("unit"), columns or about.get("columns")
    theta = read(source, unit, columns, drop_missing).theta
    if theta.shape[1:] != model.sde.event_shape:
        raise ValueError(
            f"the model knows {len(about['names'])} angles, {', '.join(about['names'])}, and {source} has"
            f" {theta.shape[1]}"
        )
    return theta

"""``circsde data fetch``: public data sets into the user's cache."""

from pathlib import Path
from typing import Annotated

import typer

from circsde.commands import console
from circsde.commands.options import DATA, option

app = typer.Typer(help="Public data sets.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Public data sets."""


@app.command()
@console.reporting_errors
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="torsion-lys, or -arg-1m, -cispro, -cys, -his, -trp.")],
    local: Annotated[Path | None, option(DATA, "A copy of the file, where there is no network.", "--from")] = None,
) -> None:
    """Download a data set once, and verify it.

    Then it is known by its name: torsion-lys as torsion:lys.
    """
    from circsde.data import torsion

    known = [f"torsion-{residue}" for residue in torsion.TABLES]
    if name not in known:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(known)}")
    if local is not None and not local.is_file():
        raise FileNotFoundError(f"there is no file {local}")
    residue = name.removeprefix("torsion-")
    path = torsion.fetch(residue, local)
    table = torsion.TABLES[residue]
    console.say(
        f"{table.rows} rows of {table.dimension} angles, CC BY 4.0, Richardson Laboratory\nfile     {path}\n"
        f"use as   torsion:{residue}"
    )

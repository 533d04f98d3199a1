"""``circsde data fetch``: public data sets into the user's cache."""

from pathlib import Path
from typing import Annotated

import typer

from circsde.commands import console
from circsde.commands.answer import Answer
from circsde.commands.options import DATA, option

app = typer.Typer(help="Public data sets.", no_args_is_help=True)

EXAMPLES = """
[bold]Examples[/]

The torsions of lysine, once, from the network:

  [cyan]circsde data fetch torsion-lys[/]

Where there is no network, from a copy of the file:

  [cyan]circsde data fetch torsion-lys --from rota8000-lys.csv[/]

Then [cyan]circsde train torsion:lys --out runs/lys[/].
"""

RESIDUES = ("cispro", "cys", "his", "trp", "lys", "arg-1m")


def complete_set(incomplete: str) -> list[str]:
    """The data sets whose names begin with the given text.

    >>> complete_set("torsion-c")
    ['torsion-cispro', 'torsion-cys']
    """
    return [name for name in map("torsion-{}".format, RESIDUES) if name.startswith(incomplete)]


@app.callback()
def _data() -> None:
    """Public data sets."""


@app.command(epilog=EXAMPLES)
@console.command
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="torsion-lys, or -arg-1m, -cispro, -cys, -his, -trp.",
            autocompletion=complete_set,
        ),
    ],
    local: Annotated[Path | None, option(DATA, "A copy of the file, where there is no network.", "--from")] = None,
) -> Answer:
    """Download a data set once, and verify it.

    Then it is known by its name: torsion-lys as torsion:lys.
    """
    import pooch

    from circsde.data import torsion

    known = [f"torsion-{residue}" for residue in torsion.TABLES]
    if name not in known:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(known)}")
    if local is not None and not local.is_file():
        raise FileNotFoundError(f"there is no file {local}")
    residue = name.removeprefix("torsion-")
    if console.is_quiet():
        pooch.get_logger().setLevel("ERROR")
    path = torsion.fetch(residue, local)
    table = torsion.TABLES[residue]
    values = {"rows": table.rows, "dimension": table.dimension, "licence": "CC BY 4.0", "source": f"torsion:{residue}"}
    return Answer(
        [
            f"{table.rows} rows of {table.dimension} angles, CC BY 4.0, Richardson Laboratory",
            f"use as   torsion:{residue}",
        ],
        values,
        {"file": path},
    )

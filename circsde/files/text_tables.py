"""Tables of angles in text files, read by pandas in the dialect of the file."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd

from circsde.contracts import first_few
from circsde.files.frames import EXACT, gathered, table
from circsde.files.table import Request, Table, naming, unique
from circsde.files.text_dialect import LINES, MISSING, Dialect, dialect, opened, rows_of

CHUNK = 1 << 17
"""Rows that are read at a time; only the numbers of a long file are kept."""

_ABSENT = sorted({form for text in MISSING for form in (text, text.upper(), text.title(), text.replace("nan", "NaN"))})


def read_text(path: Path, request: Request) -> Table:
    """Angles from a text file with a row per sample.

    Raises:
        ValueError: If rows differ in their number of cells, or a column of numbers has something else.
    """
    with naming(path):
        form = dialect(path)
    _check_widths(path, form, LINES)
    try:
        with naming(path):
            columns = gathered(_frames(path, form), len(form.names), form.decimal)
    except ValueError:
        _check_widths(path, form)
        raise
    if columns[-1].gaps():  # which is also what pandas makes of a row that is too short
        _check_widths(path, form)
    names, notes = unique(form.names), list(form.notes)
    if names != list(form.names):
        notes.append(
            f"{path} has columns of one name: the later ones are {first_few(sorted(set(names) - set(form.names)))}"
        )
    return table(path, names, columns, form.units, request)._replace(notes=tuple(notes))


def _frames(path: Path, form: Dialect) -> Iterator[pd.DataFrame]:
    """The rows, some at a time; the columns by their place."""
    with opened(path, form.encoding) as file:
        yield from pd.read_csv(
            file,
            sep=r"\s+" if form.separator == " " else form.separator,
            decimal=form.decimal,
            header=None,
            names=list(range(len(form.names))),
            skiprows=form.skipped,
            comment="#",
            skipinitialspace=True,
            na_values=_ABSENT,
            keep_default_na=False,
            low_memory=False,
            chunksize=CHUNK,
            **EXACT,
        )


def _check_widths(path: Path, form: Dialect, most: int | None = None) -> None:
    """Refuse a table of which a row, among the first ``most`` or all, has not as many cells as the others."""
    with opened(path, form.encoding) as file:
        lines = (line.partition("#")[0] if '"' not in line else line for line in islice(file, form.skipped, None))
        for i, row in enumerate(islice(rows_of(lines, form.separator), most)):
            if len(row) != len(form.names):
                hint = "; what follows a # is a comment, unless in quotes"
                if form.separator == "," and len(row) == 2 * len(form.names):
                    hint = "; is its comma the decimal one? Then save it with semicolons or tabs between columns"
                raise ValueError(
                    f"{path}: row {i + 1} has {len(row)} cells, the first line has {len(form.names)}{hint}"
                )

"""Find out how a text file writes a table: its encoding, separator, decimal mark, comments and header."""

import codecs
import csv
import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path

from circsde.files.ecsv import units_of
from circsde.files.units import in_header

SEPARATORS = ("\t", ";", ",", "|", " ")  # between cells; a blank stands for any run of blanks and tabs

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--", "<na>", "#n/a", "."})
"""The texts of cells, in any case, that say that there is no angle."""

# a time of day, HH:MM or HH:MM:SS, and how pandas writes a duration
TIME = r"(?:-?\d+ days? \+?)?\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?"

LINES, HEAD = 200, 1 << 18
"""So many lines, or fewer in so many characters at the beginning, tell how a file is written."""

_POINT = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?\s*[°º]?")
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?\s*[°º]?")
_WHOLE = re.compile(r"[+-]?\d+\s*[°º]?")
_OTHER = re.compile(r"[+-]?(\d+[eE][+-]?\d+\s*[°º]?|inf(inity)?)", re.IGNORECASE)
_TIME = re.compile(TIME)
_REMARKS = ("#", "%", "@")


@dataclass(frozen=True)
class Dialect:
    """How a table is written.

    Attributes:
        encoding: The encoding of the characters.
        separator: Tab, semicolon, comma, bar or blank; a blank stands for any run of blanks and tabs.
        decimal: "." or ",".
        skipped: How many lines stand before the first row of data.
        names: A name for each cell of a row; empty where there is none.
        units: The units that the file states, by name.
        notes: What was decided that could have been otherwise.
    """

    encoding: str
    separator: str
    decimal: str
    skipped: int
    names: tuple[str, ...]
    units: dict[str, str]
    notes: tuple[str, ...] = ()


def opened(path: Path, encoding: str) -> TextIOWrapper:
    """The text of a file, unpacked if its name ends in ``.gz``."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def cells(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """The cells of every line that is neither blank nor a comment."""
    for row in rows_of(lines, separator):
        yield [cell.strip() for cell in row]


def rows_of(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """The cells of every such line with the blanks at the ends of cells."""
    lines = (line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if separator == " ":
        lines = (line.strip().replace("\t", " ") for line in lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def dialect(path: Path) -> Dialect:
    """How the table in ``path`` is written, by its first lines.

    Raises:
        ValueError: If it is empty, or no text.
    """
    encoding = _encoding(path)
    lines = _head(path, encoding)
    first = next((i for i, line in enumerate(lines) if line.strip() and not _remark(line)), len(lines))
    remarks, skipped, said = lines[:first], first, ""
    if first < len(lines) and (match := re.fullmatch(r'"?sep=(.)"?', lines[first])):
        said, skipped = match[1], first + 1
    body = [line for line in lines[skipped:] if line.strip() and not line.lstrip().startswith("#")]
    if not body:
        raise ValueError("it is empty")
    separator, decimal = _marks(body, said, "\t" if ".tsv" in path.suffixes else "")
    rows = list(cells(body, separator))
    names = _header(rows, decimal)
    notes = ["it is no UTF-8, and was read as Latin-1"] if encoding == "latin-1" else []
    if names is None:
        width = len(rows[0])
        numbered = [str(i + 1) for i in range(width)]
        names = _in_remark(remarks, separator, width, decimal) or _over_time(remarks, numbered)
        if rows[0] == ["0"]:
            notes.append("its first line, 0, was taken for an angle, not for the name of a column")
    else:
        skipped = 1 + next(i for i, line in enumerate(lines) if i >= skipped and line in body)
        if rows[1:] and all(len(names) == len(row) - 1 for row in rows[1:]):  # which end in none, or begin with a name
            at_end = all(row[-1] == "" for row in rows[1:])
            names = [*names, ""] if at_end else ["", *names]
    units = units_of(remarks) | {name: unit for name in names if (unit := in_header(name))}
    return Dialect(encoding, separator, decimal, skipped, tuple(names), units, tuple(notes))


def is_number(cell: str, decimal: str) -> bool:
    """Whether a cell holds an angle or a time."""
    return any(form.fullmatch(cell) for form in (_POINT if decimal == "." else _COMMA, _WHOLE, _OTHER, _TIME))


def _encoding(path: Path) -> str:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        codecs.getincrementaldecoder("utf-16")().decode(head)
        return "utf-16"
    if b"\0" in head:
        raise ValueError("it is no text: it has bytes of zero")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _head(path: Path, encoding: str) -> list[str]:
    """The first lines of a file, down to some rows of data."""
    lines, size, rows = list[str](), 0, 0
    with opened(path, encoding) as file:
        for line in file:
            lines.append(line.rstrip("\r\n"))
            size, rows = size + len(line), rows + bool(line.strip() and not _remark(line))
            if rows == LINES or (size > HEAD and rows > 3):
                break
    return lines


def _remark(line: str) -> bool:
    return line.lstrip().startswith(_REMARKS)


def _marks(body: Sequence[str], said: str, by_name: str) -> tuple[str, str]:
    """The separator and the decimal mark: those under which all lines have as many cells, and most are numbers."""
    if said:
        return said, _decimal(list(cells(body, said)), said)
    best: tuple[float, str, str] | None = None
    for separator in SEPARATORS:
        if separator == "," and by_name:
            continue
        try:
            rows = list(cells(body, separator))
        except csv.Error:  # a very long cell, as of a line that has none of these separators
            continue
        below = rows[1:] or rows
        width = len(below[0])
        if width < 2 or any(len(row) != width for row in below) or not width - 1 <= len(rows[0]) <= width:
            continue
        decimal = _decimal(rows, separator)
        share = _share(below, decimal)
        if separator == "," and len(rows[0]) < width and not _names_rows(body[1:], below):
            continue  # a decimal comma in one column, or in each of several with commas between
        if best is None or share > best[0] and (separator != " " or share == 1.0):
            best = share, separator, decimal
    if best is not None:
        return best[1], best[2]
    separator = by_name or next((mark for mark in "\t;" if mark in body[0]), "")
    if not separator:
        one = "," not in body[0] and all(_COMMA.fullmatch(line.strip()) for line in body[1:]) and len(body) > 1
        separator = ";" if one else "," if any("," in line for line in body) or len(body[0].split()) < 2 else " "
    return separator, _decimal(list(cells(body, separator)), separator)


def _decimal(rows: Sequence[Sequence[str]], separator: str) -> str:
    """The decimal mark: a comma if there are numbers with one, and none with a point."""
    found = [cell for row in rows for cell in row]
    commas = separator != "," and any(_COMMA.fullmatch(cell) for cell in found)
    return "," if commas and not any(_POINT.fullmatch(cell) for cell in found) else "."


def _share(rows: Sequence[Sequence[str]], decimal: str) -> float:
    """The share of cells that hold a number, or say that there is none."""
    found = [is_number(cell, decimal) or cell.lower() in MISSING for row in rows for cell in row]
    return sum(found) / max(len(found), 1)


def _names_rows(lines: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether each row begins with a name of its own, as R writes them, although the comma may be a decimal one."""
    counted = [row[0] for row in rows] in ([str(i + k) for i in range(len(rows))] for k in (0, 1))
    quoted = all(line.startswith('"') for line in lines)
    return counted or quoted or any(not _WHOLE.fullmatch(cell) for row in rows for cell in row)


def _header(rows: Sequence[Sequence[str]], decimal: str) -> list[str] | None:
    """The first row, if it names columns: it has a word where others have a number, no number at all, or counts."""
    first, below = rows[0], list(islice(rows, 1, None))
    numbers = [is_number(cell, decimal) for cell in first]
    if not any(numbers):
        return None if all(cell.lower() in MISSING for cell in first) else list(first)
    if any(
        not number and cell.lower() not in MISSING and j < len(row) and is_number(row[j], decimal)
        for row in below
        for j, (cell, number) in enumerate(zip(first, numbers, strict=True))
    ):
        return list(first)
    counts = [cell for cell, number in zip(first, numbers, strict=True) if number]
    whole = all(
        _WHOLE.fullmatch(row[j]) for row in below for j in range(len(row)) if row[j] and is_number(row[j], decimal)
    )
    names = counts == [str(i) for i in range(len(counts))] and (len(first) > 1 or not whole) and bool(below)
    return list(first) if names else None


def _in_remark(remarks: Sequence[str], separator: str, width: int, decimal: str) -> list[str] | None:
    """The names in the last comment before the data, as numpy writes them, if there is one for each column."""
    last = remarks[-1].lstrip("#% ").strip() if remarks and not remarks[-1].startswith("@") else ""
    for mark in (separator, " "):
        names = next(cells([last], mark), [])
        if len(names) == width and not any(is_number(name, decimal) for name in names):
            return names
    return None


def _over_time(remarks: Sequence[str], names: list[str]) -> list[str]:
    """``names``, but of the first column if it has the times of a plot by Grace, as GROMACS writes it, their name."""
    axis = re.search(r'^@\s+xaxis\s+label\s+"(Time[^"]*)"', "\n".join(remarks), flags=re.MULTILINE)
    return [axis[1], *names[1:]] if axis and len(names) > 1 else names

"""Text files of angles mean what their writers mean: separators, decimal commas, indices, comments, units, gaps."""

import csv
import gzip
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from circsde.files.angles import read_angles
from circsde.files.text_tables import CHUNK

DEGREES = np.random.default_rng(0).uniform(-170.0, 170.0, (40, 2)).round(2)
FRAME = pd.DataFrame(DEGREES, columns=["phi", "psi"])


def written(tmp_path: Path, text: str, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def r_table(separator: str, decimal: str, corner: bool, quote: str = '"') -> str:
    """A table as R's ``write.table`` writes it, with names of rows, and with a corner where ``col.names = NA``."""
    head = [f"{quote}{name}{quote}" for name in ([""] if corner else []) + ["phi", "psi"]]
    rows = [
        [f"{quote}{i + 1}{quote}", *(f"{number:.15g}".replace(".", decimal) for number in row)]
        for i, row in enumerate(DEGREES)
    ]
    return "".join(separator.join(row) + "\n" for row in [head, *rows])


def savetxt(**options: str) -> str:
    file = io.StringIO()
    np.savetxt(file, DEGREES, **options)
    return file.getvalue()


LONG = pd.concat([FRAME] * 20, ignore_index=True)  # more rows than degrees in a turn

SAME = {  # how the same two columns are written, and the names that they then have
    "pandas": ("a.csv", FRAME.to_csv(index=False), "phi psi"),
    "pandas, index": ("a.csv", FRAME.to_csv(), "phi psi"),
    "pandas, index of text": ("a.csv", FRAME.set_index("x" + FRAME.index.astype(str)).to_csv(), "phi psi"),
    "pandas, two indices": (
        "a.csv",
        FRAME.set_index(pd.MultiIndex.from_product([["A", "B"], range(20)])).to_csv(),
        "phi psi",
    ),
    "pandas, index that was read back": ("a.csv", pd.read_csv(io.StringIO(FRAME.to_csv())).to_csv(), "phi psi"),
    "pandas, named index": ("a.csv", FRAME.to_csv(index_label="frame"), "phi psi"),
    "pandas, no names": ("a.csv", pd.DataFrame(DEGREES).to_csv(index=False), "0 1"),
    "pandas, no names, index": ("a.csv", pd.DataFrame(DEGREES).to_csv(), "0 1"),
    "pandas, no names, named index": ("a.csv", pd.DataFrame(DEGREES).to_csv(index_label="id"), "0 1"),
    "pandas, no header": ("a.csv", FRAME.to_csv(index=False, header=False), "1 2"),
    "pandas, decimal comma": ("a.csv", FRAME.to_csv(sep=";", decimal=",", index=False), "phi psi"),
    "pandas, decimal comma, index": ("a.csv", FRAME.to_csv(sep=";", decimal=","), "phi psi"),
    "pandas, decimal comma, tabs": ("a.tsv", FRAME.to_csv(sep="\t", decimal=","), "phi psi"),
    "pandas, all quoted": ("a.csv", FRAME.to_csv(index=False, quoting=csv.QUOTE_ALL), "phi psi"),
    "pandas, bars": ("a.csv", FRAME.to_csv(index=False, sep="|"), "phi psi"),
    "Excel, sep=;": ("a.csv", "sep=;\r\n" + FRAME.to_csv(sep=";", decimal=",", index=False), "phi psi"),
    "Excel, sep=,": ("a.csv", "sep=,\n" + FRAME.to_csv(index=False), "phi psi"),
    "byte order mark": ("a.csv", "\ufeff" + FRAME.to_csv(index=False), "phi psi"),
    "trailing separators": ("a.csv", FRAME.to_csv(index=False).replace("\n", ",\n"), "phi psi"),
    "trailing separators below the header": (
        "a.csv",
        FRAME.to_csv(index=False).replace("\n", ",\n").replace("psi,", "psi", 1),
        "phi psi",
    ),
    "R write.csv": ("a.csv", r_table(",", ".", corner=True), "phi psi"),
    "R write.csv2": ("a.csv", r_table(";", ",", corner=True), "phi psi"),
    "R write.table": ("a.txt", r_table(" ", ".", corner=False), "phi psi"),
    "R write.table, dec": ("a.txt", r_table(" ", ",", corner=False), "phi psi"),
    "R write.table, sep": ("a.csv", r_table(",", ".", corner=False), "phi psi"),
    "R write.table, no quotes": ("a.csv", r_table(",", ".", corner=False, quote=""), "phi psi"),
    "numpy savetxt": ("a.txt", savetxt(), "1 2"),
    "numpy savetxt, header": ("a.dat", savetxt(header="phi psi"), "phi psi"),
    "numpy savetxt, comma and header": ("a.csv", savetxt(delimiter=",", header="phi,psi", fmt="%.2f"), "phi psi"),
    "comments": ("a.csv", "# station Kiel, 54.3 N\n#\n" + FRAME.to_csv(index=False) + "# the end\n", "phi psi"),
    "a remark in the middle": (
        "a.csv",
        "\n".join((lines := FRAME.to_csv(index=False).splitlines())[:9] + ["# moved", *lines[9:]]),
        "phi psi",
    ),
    "blank lines": ("a.csv", "\n" + FRAME.to_csv(index=False).replace("\n", "\n\n"), "phi psi"),
    "columns of blanks": ("a.txt", FRAME.to_string(index=False), "phi psi"),
    "columns of blanks and an index": ("a.txt", FRAME.to_string(), "phi psi"),
    "GROMACS": (
        "rama.xvg",
        '# gmx rama\n@    title "Ramachandran Plot"\n@    xaxis  label "Phi"\n'
        + "".join(f"{a}  {b}  ALA-{i}\n" for i, (a, b) in enumerate(DEGREES)),
        "1 2",
    ),
    "degree signs": ("a.csv", "phi,psi\n" + "".join(f"{a}°,{b} °\n" for a, b in DEGREES), "phi psi"),
    "degree signs, decimal comma": (
        "a.csv",
        "phi;psi\n" + "".join(f"{a}°;{b}°\n".replace(".", ",") for a, b in DEGREES),
        "phi psi",
    ),
    "text beside": (
        "a.csv",
        FRAME.assign(station="Kiel, North", side="N")[["station", "phi", "side", "psi"]].to_csv(index=False),
        "phi psi",
    ),
}


@pytest.mark.parametrize("how", SAME)
def test_the_same_angles_however_they_are_written(how: str, tmp_path: Path) -> None:
    name, text, names = SAME[how]
    table = read_angles(written(tmp_path, text, name))
    assert table.names == tuple(names.split())
    assert np.array_equal(table.values, DEGREES)


@pytest.mark.parametrize(
    ("how", "left_out"),
    [
        ("pandas, index", "the first column, without a name"),
        ("R write.table", "the first column, without a name"),
        ("pandas, named index", r"frame \(it counts the rows\)"),
        ("pandas, index that was read back", r"the first column, without a name, Unnamed: 0 \(it counts the rows\)"),
        ("text beside", r"station \(text, such as 'Kiel, North' in row 1\), side \(text, such as 'N' in row 1\)"),
        ("GROMACS", r"3 \(text, such as 'ALA-0' in row 1\)"),
    ],
)
def test_what_is_left_out_is_named_with_the_reason(how: str, left_out: str, tmp_path: Path) -> None:
    name, text, _ = SAME[how]
    path = written(tmp_path, text, name)
    said = read_angles(path).said(path, "deg")
    assert re.search(f"read 40 rows of columns [a-z0-9, ]+, in deg from -1.* to 1.*; left out {left_out}$", said)


def test_an_index_is_left_out_of_more_rows_than_a_turn_has_degrees(tmp_path: Path) -> None:
    assert np.array_equal(read_angles(written(tmp_path, LONG.to_csv())).values, LONG.to_numpy())


def test_a_column_that_counts_rows_is_taken_if_it_is_asked_for_or_alone(tmp_path: Path) -> None:
    path = written(tmp_path, FRAME.to_csv(index_label="day"))
    assert read_angles(path, ["day"]).values[:, 0].tolist() == list(range(40))
    assert read_angles(written(tmp_path, "day\n0\n1\n2\n3\n")).names == ("day",)


@pytest.mark.parametrize("text", ["phi\n12,5\n-3,25\n", '"phi"\n12,5\n-3,25\n', "sep=;\nphi\n12,5\n-3,25\n"])
def test_a_single_column_with_a_decimal_comma_is_one(text: str, tmp_path: Path) -> None:
    assert read_angles(written(tmp_path, text)).values.tolist() == [[12.5], [-3.25]]


def test_a_decimal_comma_without_a_header_is_known_in_a_file_of_tabs(tmp_path: Path) -> None:
    assert read_angles(written(tmp_path, "12,5\n-3,25\n", "a.tsv")).values.tolist() == [[12.5], [-3.25]]


def test_a_comma_for_both_separator_and_decimals_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 1 has 4 cells, the first line has 2; is its comma the decimal one"):
        read_angles(written(tmp_path, "phi,psi\n1,5,2,5\n3,5,4,5\n"))


def test_columns_of_one_name_are_all_kept_under_names_of_their_own(tmp_path: Path) -> None:
    table = read_angles(written(tmp_path, pd.concat([FRAME, -FRAME], axis=1).to_csv(index=False)))
    assert table.names == ("phi", "psi", "phi_2", "psi_2")
    assert np.array_equal(table.values, np.hstack([DEGREES, -DEGREES]))
    assert "columns of one name: the later ones are phi_2, psi_2" in table.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phi,psi\n1,2\n\n# x\n3,abc\n", r"a\.csv: row 2, column psi says 'abc', not a number"),
        ("phi,psi\n1,2\n3,4\n5\n", r"a\.csv: row 3 has 1 cells, the first line has 2"),
        ("phi,psi\n1,2\n3,4\n5,6,7\n", r"a\.csv: row 3 has 3 cells, the first line has 2"),
        ("phi,psi\n1,2,3\n3,4\n5,6\n", r"a\.csv: row 1 has 3 cells, the first line has 2"),
        ("phi;psi\n1,5;2.5\n3,5;4.5\n", r"a\.csv has no column|row 1, column phi says '1,5', not a number"),
        ("onset\n06:30\n7.5\n", "row 1, column onset says '06:30', not a number"),
        (
            "side,station\nN,station 5\nNE,station 7\n",
            "no column of numbers that may be angles: side .text, such as 'N'",
        ),
        ("day,phi\n2020-01-01,NA\n2020-01-02,NA\n", "no column of numbers .*2020-01-01' in row 1., phi .no number"),
        ("phi,psi\n1,2\nTrue,2\n", "row 2, column phi says 'True'"),
    ],
)
def test_an_error_names_file_row_column_and_cell(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_angles(written(tmp_path, text))


@pytest.mark.parametrize("place", [3, CHUNK - 1, CHUNK, CHUNK + 1])
def test_a_cell_far_down_is_named_by_its_row(place: int, tmp_path: Path) -> None:
    lines = ["phi,psi", *["1.5,2.5"] * (CHUNK + 5)]
    for cell, message in (("1.5,x", f"row {place}, column psi says 'x'"), ("1.5", f"row {place} has 1 cells")):
        broken = [*lines]
        broken[place] = cell
        with pytest.raises(ValueError, match=message):
            read_angles(written(tmp_path, "\n".join(broken)))


@pytest.mark.parametrize(
    ("cells", "hours"),
    [
        (["00:00", "06:30", "23:59"], [0.0, 6.5, 23 + 59 / 60]),
        (["6:30:36", "18:00:00", "NA"], [6.51, 18.0, math.nan]),
        (["0 days 06:30:00", "0 days 12:00:00.5"], [6.5, 12 + 0.5 / 3600]),
    ],
)
def test_times_of_day_are_hours(cells: list[str], hours: list[float], tmp_path: Path) -> None:
    path = written(tmp_path, "onset\n" + "".join(f"{cell}\n" for cell in cells))
    table = read_angles(path, drop_missing=True)
    assert table.unit == "hours"
    assert table.values[:, 0].tolist() == pytest.approx([hour for hour in hours if not math.isnan(hour)], abs=1e-12)


def test_columns_that_state_a_unit_are_the_angles(tmp_path: Path) -> None:
    path = written(tmp_path, "onset,day\n06:30,5\n18:00,6\n")
    with pytest.raises(
        ValueError, match="has times of day, onset, and numbers, day: say which are the angles by columns"
    ):
        read_angles(path)
    assert read_angles(path, ["onset"]).unit == "hours"
    assert read_angles(path, ["day"]).unit is None
    table = read_angles(written(tmp_path, "wind (deg),speed (m/s)\n10,3\n20,4\n"))
    assert (table.names, table.unit) == (("wind (deg)",), "deg")
    table = read_angles(written(tmp_path, "wind,speed (m/s),air [°C]\n10,3,4\n20,4,5\n"))
    assert (table.names, table.left_out) == (("wind",), ("speed (m/s) (in m/s)", "air [°C] (in °C)"))
    with pytest.raises(ValueError, match=r"different units \(onset in hours, wind \[deg\] in deg\)"):
        read_angles(written(tmp_path, "onset,wind [deg]\n06:30,5\n18:00,6\n"))


ECSV = """# %ECSV 1.0
# ---
# datatype:
# - {name: target, datatype: string}
# - name: pa
#   unit: deg
#   datatype: float64
#   description: a long description, which astropy wraps onto a line of its own, so that it is no
#     longer a mapping in braces
# - {name: speed, unit: km / s, datatype: float64}
# meta: !!omap
# - {made: !astropy.units.Quantity {value: 3.0, unit: !astropy.units.Unit {unit: s}}}
# schema: astropy-2.0
target pa speed
"M 31" 38.0 -300.0
M33 23.0 -179.0
"""


def test_the_units_of_an_ecsv_file_are_those_of_its_header(tmp_path: Path) -> None:
    table = read_angles(written(tmp_path, ECSV, "a.ecsv"))
    assert (table.names, table.unit, table.values.tolist()) == (("pa",), "deg", [[38.0], [23.0]])
    assert table.left_out == ("target (text, such as 'M 31' in row 1)", "speed (in km / s)")
    assert read_angles(written(tmp_path, ECSV.replace("unit: deg", "unit: hourangle"), "a.ecsv")).unit == "hours"
    with pytest.raises(ValueError, match="the ECSV header is broken"):
        read_angles(written(tmp_path, ECSV.replace("}", "", 1), "a.ecsv"))


def test_the_times_of_a_plot_are_no_angles(tmp_path: Path) -> None:
    head = '# gmx angle\n@    title "Dihedral"\n@    xaxis  label "Time (ps)"\n@    yaxis  label "Angle (degrees)"\n'
    rows = "".join(f"{10.0 * i:.3f}  {a:g}\n" for i, a in enumerate(DEGREES[:, 0]))
    table = read_angles(written(tmp_path, head + rows, "angdist.xvg"))
    assert np.array_equal(table.values, DEGREES[:, :1])
    assert (table.names, table.left_out) == (("2",), ("Time (ps) (in ps)",))


def test_very_wide_tables_are_read(tmp_path: Path) -> None:
    wide = np.linspace(-179.0, 179.0, 3 * 6_000).reshape(3, 6_000)
    pd.DataFrame(wide).add_prefix("a residue of a long chain of many, number ").to_csv(tmp_path / "a.csv")
    assert np.array_equal(read_angles(tmp_path / "a.csv").values, wide)


def test_a_column_that_is_asked_for_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns are asked for twice: phi, psi, phi"):
        read_angles(written(tmp_path, FRAME.to_csv()), ["phi", "psi", "phi"])


def test_a_packed_file_is_read_as_the_plain_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(FRAME.to_csv().encode()))
    assert np.array_equal(read_angles(tmp_path / "a.csv.gz").values, DEGREES)
    (tmp_path / "b.csv.gz").write_bytes(FRAME.to_csv().encode())
    with pytest.raises(ValueError, match=r"cannot read .*b\.csv\.gz"):
        read_angles(tmp_path / "b.csv.gz")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_known(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("Höhe;psi [°]\n1,5;2,5\n3,5;4,5\n".encode(encoding))
    table = read_angles(tmp_path / "a.csv", ["psi [°]"])
    assert (table.values.tolist(), table.unit) == ([[2.5], [4.5]], "deg")
    assert ("Latin-1" in " ".join(table.notes)) == (encoding == "latin-1")


@pytest.mark.parametrize("code", ["-99", "-999.0", "-9999", "999", "9999.0", "1e20"])
def test_a_code_for_missing_is_named_and_can_be_declared(code: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"a,b\n1,10\n2,{code}\n3,350\n1,170.5\n")
    with pytest.raises(ValueError, match=r"row 2, column b says .*: it may say that an angle is missing.*--missing"):
        read_angles(path)
    table = read_angles(path, missing=[float(code)], drop_missing=True)
    assert (table.values[:, 1].tolist(), table.dropped) == ([10.0, 350.0, 170.5], 1)
    with pytest.raises(ValueError, match="the angle in row 2, column b is nan"):
        read_angles(path, missing=[float(code)])
    assert read_angles(path, missing=()).values[1, 1] == float(code)


def test_euler_angles_of_points_that_were_not_indexed_are_no_angles(tmp_path: Path) -> None:
    text = "# TEM_PIXperUM 1.0\n  4.71239  0.78540  0.00000\n 12.56637 12.56637 12.56637\n  0.10000  1.00000  6.28000\n"
    with pytest.raises(ValueError, match=r"row 2, column 1 says 12\.56637"):
        read_angles(written(tmp_path, text, "map.ang"))
    table = read_angles(written(tmp_path, text, "map.ang"), missing=[12.56637], drop_missing=True)
    assert (len(table.values), table.dropped) == (2, 1)


@pytest.mark.parametrize(
    "column",
    [[-99.0, -100.0, 50.0], [-99.0, -60.0, -45.0], [998.0, 999.0, 3.0], [0.0, 300.0, 359.0], [-179.0, 179.0, 12.0]],
)
def test_angles_that_only_resemble_a_code_are_angles(column: list[float], tmp_path: Path) -> None:
    assert read_angles(written(tmp_path, "".join(f"{a}\n" for a in column))).values[:, 0].tolist() == column


@dataclass(frozen=True)
class Style:
    """A way to write a table."""

    separator: str
    decimal: str
    index: str
    header: bool
    comments: bool
    missing: str
    end: str
    sign: str = ""


STYLES = st.builds(
    Style,
    separator=st.sampled_from([",", ";", "\t", " ", "|"]),
    decimal=st.sampled_from([".", ","]),
    index=st.sampled_from(["none", "pandas", "R"]),
    header=st.booleans(),
    comments=st.booleans(),
    missing=st.sampled_from(["NA", "nan", "NaN", "null", "-", "NULL", "N/A"]),
    end=st.sampled_from(["\n", "\r\n"]),
    sign=st.sampled_from(["", "", "°", " º"]),
).filter(
    lambda style: (
        style.separator != style.decimal
        and (style.header or style.index == "none")
        and not (style.sign == " º" and style.separator == " ")
    )
)
ANGLES = st.lists(
    st.lists(st.floats(-360.0, 360.0) | st.just(math.nan), min_size=3, max_size=3), min_size=2, max_size=8
).filter(lambda rows: all(any(math.isfinite(row[j]) for row in rows) for j in range(3)))


def in_style(rows: list[list[float]], style: Style) -> str:
    """The table as text."""

    def cell(number: float) -> str:
        return style.missing if math.isnan(number) else repr(number).replace(".", style.decimal) + style.sign

    names = ["phi", "psi", "chi 1" if style.separator != " " else '"chi 1"']
    lines = [[f"{i}", *map(cell, row)] if style.index != "none" else [*map(cell, row)] for i, row in enumerate(rows)]
    if style.index == "R":
        lines = [[f'"{line[0]}"', *line[1:]] for line in lines]
    if style.header:
        corner = '""' if style.separator == " " else ""
        lines.insert(0, [corner, *names] if style.index == "pandas" else names)
    text = [style.separator.join(line) for line in lines]
    if style.comments:
        text = ["# a remark: 1, 2; 3", *text[:2], "# another", *text[2:]]
    return "".join(line + style.end for line in text)


def angles_of(values: NDArray[np.float64]) -> list[list[str]]:
    return [[repr(float(number)) for number in row] for row in values]


@given(ANGLES, STYLES)
@example([[0.5, -0.0, 1e-5], [1.0, 5e-324, 359.99999999999994]], Style(";", ",", "pandas", True, True, "NA", "\r\n"))
@example([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], Style(",", ".", "none", False, False, "NA", "\n"))
@example([[math.nan] * 3, [1.5, 2.5, 3.5]], Style(" ", ",", "none", False, True, "nan", "\n"))
@example([[math.nan, 1.5, 2.5], [1.5, 2.5, 3.5]], Style(",", ".", "R", True, False, "-", "\n"))
@example([[0.0, 0.0, 5e-324], [0.0, 0.0, 0.0]], Style(",", ".", "none", False, False, "NA", "\n", "°"))
@example([[0.0] * 3, [0.0, 1.0, 90.24516991582095]], Style(",", ".", "none", False, False, "NA", "\n", "°"))
def test_tables_in_any_style_are_read_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]], style: Style
) -> None:
    path = tmp_path_factory.mktemp("styles") / "a.txt"
    path.write_bytes(in_style(rows, style).encode())
    if any(math.isnan(number) for row in rows for number in row):
        i, j = next((i, j) for i, row in enumerate(rows) for j, number in enumerate(row) if math.isnan(number))
        with pytest.raises(
            ValueError, match=f"row {i + 1}, column {('phi', 'psi', 'chi 1')[j] if style.header else j + 1} "
        ):
            read_angles(path, missing=())
        rows = [row for row in rows if not any(map(math.isnan, row))]
        if not rows:
            with pytest.raises(ValueError, match="no row of angles in which none is missing"):
                read_angles(path, missing=(), drop_missing=True)
            return
    columns = ("phi", "psi", "chi 1") if style.header else ("1", "2", "3")
    table = read_angles(path, columns, missing=(), drop_missing=True)
    assert table.names == columns
    assert angles_of(table.values) == angles_of(np.array(rows))

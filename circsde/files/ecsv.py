"""The units in the header of an ECSV file, the enhanced CSV of astropy."""

from collections.abc import Sequence

import yaml

from circsde.files.units import stated


def units_of(remarks: Sequence[str]) -> dict[str, str]:
    """Units by column, from the comments before a table; none if they are no ECSV header.

    The header is YAML, of which only the list ``datatype`` is looked at; no object is made from it.

    >>> units_of(["# %ECSV 1.0", "# ---", "# datatype:", "# - {name: pa, unit: deg, datatype: float64}"])
    {'pa': 'deg'}

    Raises:
        ValueError: If the header is broken.
    """
    if not remarks or not remarks[0].startswith("# %ECSV"):
        return {}
    text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in remarks if not line.startswith("# %"))
    try:
        header = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"the ECSV header is broken: {error}") from error
    columns = _entries(header).get("datatype")
    fields = [_entries(column) for column in (columns.value if isinstance(columns, yaml.SequenceNode) else [])]
    found = {
        str(field["name"].value): stated(field["unit"].value) for field in fields if {"name", "unit"} <= field.keys()
    }
    return {name: unit for name, unit in found.items() if unit}


def _entries(node: yaml.Node | None) -> dict[str, yaml.Node]:
    """The entries of a mapping, by key."""
    return {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}

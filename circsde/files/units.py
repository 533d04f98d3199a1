"""The units of angles that files state, under the names that :data:`circsde.encoding.PERIODS` knows.

A table of a dozen names does it: UDUNITS, through cf-units, needs a C library, and pint (through cf-xarray) weighs more
than all of the rest of reading, for units that are no angles.
"""

import re

from circsde.encoding import PERIODS

_WRITTEN = {
    "deg": r"(arc_?|angular_?)?deg(ree)?s?(_?(true|north|south|east|west|[tnsew]))?|°|º",
    "rad": r"rad(ian)?s?",
    "hours": r"h|hrs?|hours?|hourangles?",
    "arcmin": r"(arc|angular)_?min(ute)?s?",
    "arcsec": r"(arc|angular)_?sec(ond)?s?",
    "gon": r"gons?|grad(e|es|s)?",
    "turn": r"turns?|cycles?|revolutions?|circles?",
}
_SILENT = frozenset({"", "1", "none", "dimensionless", "unitless", "-"})
_CLEARLY_OTHER = re.compile(r".*/.*|.* s-1|[°º]C|degC|K|%|hPa|mbar|mm|cm|km|kn|knots|[fpnum]s|Hz")
_IN_HEADER = re.compile(r"[(\[]\s*([^()\[\]]+?)\s*[)\]]$")


def stated(text: object) -> str | None:
    """The unit that a file states, under the name used here; unchanged if it is no unit of angles; None without one.

    That a quantity is dimensionless, as radians and turns are alike, says nothing.

    >>> stated("degree_true"), stated("radians"), stated("m s-1"), stated("1")
    ('deg', 'rad', 'm s-1', None)
    """
    said = "" if text is None else str(text).strip()
    plain = re.sub(r"\s+", "_", said.lower())
    if plain in _SILENT:
        return None
    return next((name for name, written in _WRITTEN.items() if re.fullmatch(written, plain)), said)


def is_of_angles(unit: str) -> bool:
    """Whether ``unit``, as :func:`stated` gives it, is one of angles, or the length of a turn, as circsde writes it.

    >>> is_of_angles("deg"), is_of_angles("K"), is_of_angles("365.25")
    (True, False, True)
    """
    return unit in PERIODS or re.fullmatch(r"\d+(\.\d+)?", unit) is not None


def in_header(name: str) -> str | None:
    """The unit in brackets at the end of a column's name, if it is one of angles, or clearly another.

    >>> in_header("wind [degrees]"), in_header("phi (rad)"), in_header("speed (m/s)"), in_header("phi (chain A)")
    ('deg', 'rad', 'm/s', None)
    """
    found = _IN_HEADER.search(name)
    unit = stated(found[1]) if found else None
    return unit if unit and (is_of_angles(unit) or _CLEARLY_OTHER.fullmatch(unit)) else None


def unit_name(unit: str) -> str:
    """A unit in words.

    >>> unit_name("deg"), unit_name("365.25")
    ('deg', 'units of which 365.25 are a turn')
    """
    return unit if unit.lower() in PERIODS else f"units of which {unit} are a turn"

"""What to cite: BibTeX for the methods and equations that a result used, and for this software."""

import inspect
import re
from functools import cache
from importlib.metadata import version
from importlib.resources import files

import xarray as xr

from circsde.sde import SDE, ReverseSDE, reverse
from circsde.solvers.flow import odeint
from circsde.solvers.methods import METHODS, Method
from circsde.solvers.multiplicative import FORMS
from circsde.solvers.registry import BACK_IN_TIME, ON_REQUEST
from circsde.solvers.solution import Solution
from circsde.solvers.trajectory import ADAPTIVE, FIXED
from circsde.studies.choice import Choice

_IDENTIFIER = re.compile(r"doi:(10\.[^\s,;\]]+?(?:\(\d+\)[\w-]+)?)(?=[.,;)]*(?:\s|$))|arXiv[ :](\d{4}\.\d{5})")
_ENTRY = re.compile(r"^@.*?\b(?:doi|eprint) = \{(.*?)\}.*$", re.MULTILINE)

_SOFTWARE = f"""@software{{circsde, author = {{{{The circsde authors}}}}, title = {{circsde: stochastic and ordinary \
differential equations on the torus}}, version = {{{version("circsde")}}}, year = {{2026}}}}"""


def cite(*used: object) -> str:
    """The BibTeX entries of this software and of the sources of what a result used.

    Args:
        *used: Names of methods, ``"heun"`` or ``"dopri5"``; equations; solutions; the choice of
            :func:`circsde.studies.select`; Datasets of studies, solutions and samples, for the methods that they name;
            and functions and classes of circsde, whose docstrings state their sources.

    Returns:
        One entry for each source, in the order in which they are first used. Methods of other packages, such as
        ``"torchsde:srk"``, have no entry: cite the package.

    Raises:
        ValueError: If a name is that of no method, or a solution names none.
        TypeError: If an argument is nothing that has a source.

    >>> from circsde import KuramotoSDE
    >>> for entry in cite(KuramotoSDE((16,)), "heun").splitlines():
    ...     print(entry.partition(",")[0])
    @software{circsde
    @inproceedings{song2025
    @book{kuramoto1984
    @book{kloeden1992
    """
    found = dict.fromkeys(identifier for one in used for text in _sources(one) for identifier in identifiers(text))
    return "\n".join([_SOFTWARE, *(entries()[identifier] for identifier in found if identifier in entries())])


def identifiers(text: str) -> list[str]:
    """The identifiers that a text states, in its order.

    >>> identifiers("Anderson 1982, doi:10.1016/0304-4149(82)90051-5; Song et al. 2021, arXiv 2011.13456.")
    ['10.1016/0304-4149(82)90051-5', '2011.13456']
    """
    return [doi or preprint for doi, preprint in _IDENTIFIER.findall(text)]


@cache
def entries() -> dict[str, str]:
    """The entries of ``references.bib`` by their identifiers."""
    text = files("circsde").joinpath("references.bib").read_text(encoding="utf-8")
    return {found[1]: found[0] for found in _ENTRY.finditer(text)}


def methods() -> dict[str, list[Method]]:
    """Every registered method by its name, in each of its forms."""
    found = dict[str, list[Method]]()
    for method in (*METHODS.values(), *ON_REQUEST.values(), *BACK_IN_TIME.values(), *FORMS):
        found.setdefault(method.name, []).append(method)
    return found


def _sources(used: object) -> list[str]:
    """Texts that state the sources of what was used."""
    if isinstance(used, str):
        return _sources_of_method(used)
    if isinstance(used, Method):
        return [used.source]
    if isinstance(used, Solution):
        if not used.stats.method:
            raise ValueError("this solution does not name its method: give the function that made it, or the name")
        return _sources_of_method(used.stats.method)
    if isinstance(used, Choice):
        return _sources_of_method(used.method) if used.method else []
    if isinstance(used, xr.Dataset):
        named = [*used["solver"].values.tolist()] if "solver" in used.coords else []
        named += [used.attrs["method"]] if used.attrs.get("method") else []
        return [text for name in named for text in _sources_of_method(re.split(r"[ ,(]", name)[0])]
    if isinstance(used, ReverseSDE):
        return [*_sources(used.forward_sde), *_sources(reverse)]
    if isinstance(used, SDE):
        return [inspect.getdoc(kind) or "" for kind in type(used).__mro__ if issubclass(kind, SDE)]
    if callable(used) and getattr(used, "__module__", "").startswith("circsde"):
        return [inspect.getdoc(used) or ""]
    raise TypeError(
        f"{type(used).__name__} states no source: give names of methods, equations, solutions, Datasets, or functions"
        " and classes of circsde"
    )


def _sources_of_method(name: str) -> list[str]:
    if ":" in name:
        return []
    if name in (*ADAPTIVE, *FIXED):
        return [inspect.getdoc(odeint) or ""]
    known = methods()
    if name not in known:
        raise ValueError(f"there is no method {name!r}: choose of {', '.join((*known, *ADAPTIVE, *FIXED))}")
    return [method.source for method in known[name]]

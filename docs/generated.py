"""What pages show of the package itself: pages of modules, and tables of methods, problems and committed results."""

import json
import pkgutil
import re
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import circsde
from circsde.exact import phase_problems, problems
from circsde.exact.problems import Problem
from circsde.kuramoto import KuramotoSDE
from circsde.schedule import Linear, Rate
from circsde.sde import ReverseSDE
from circsde.solvers import METHODS, Method
from circsde.solvers.registry import BACK_IN_TIME, ON_REQUEST
from circsde.studies.plots import stability_regions

INTERNAL = ("catalogue", "cli", "commands", "record", "special", "unimodal", "gpu")
"""Modules of circsde that nobody calls from outside, and that have no page."""


def pages(results: Path) -> dict[str, str]:
    """All of them, by the name of the file in the folder ``reference``."""

    def measured(name: str) -> Sequence[dict[str, Any]]:
        rows: Sequence[dict[str, Any]] = json.loads((results / f"{name}.json").read_text())["results"]
        return rows

    return {
        "methods_table.md": methods_table(),
        "orders_table.md": orders_table(measured("orders")),
        "costs_table.md": costs_table(measured("stiff")),
        "backwards_table.md": backwards_table(measured("backwards")),
        "problems_table.md": problems_table(),
        **module_pages(),
    }


def draw_figures(folder: Path) -> None:
    """Pictures that are computed from the package itself."""
    regions = stability_regions([*METHODS, *ON_REQUEST])
    regions.savefig(folder / "stability.svg", metadata={"Date": None})


def module_pages() -> dict[str, str]:
    """A page a module, with all of its members, and a page a package, with its public names and its modules."""
    found = {
        module.name: module.ispkg
        for module in pkgutil.walk_packages(circsde.__path__, "circsde.")
        if not set(module.name.split(".")) & set(INTERNAL)
    }
    texts = {name: f"{_title(name)}.. automodule:: {name}\n   :members:\n" for name in found}
    for package in ["circsde", *(name for name, is_package in found.items() if is_package)]:
        public = [] if package == "circsde" else _public(package)
        inside = {
            name.rpartition(".")[2]: name
            for name, is_package in found.items()
            if name.rpartition(".")[0] == package and not (is_package and package == "circsde")
        }
        rows = [f"   * - :py:mod:`{last} <{name}>`\n     - {_summary(name)}" for last, name in inside.items()]
        parts = [
            f".. automodule:: {package}",
            *([".. rubric:: Public names\n\n.. autosummary::\n   :nosignatures:", _indented(public)] if public else []),
            ".. rubric:: Modules\n\n.. list-table::\n   :widths: 1 3",
            "\n".join(rows),
            ".. toctree::\n   :hidden:",
            _indented(f"{last} <{name}>" for last, name in inside.items()),
        ]
        texts[package] = _title(package) + "\n\n".join(parts) + "\n"
    packages = ["circsde", *(name for name, is_package in found.items() if is_package and name.count(".") == 1)]
    table = "".join(f"- {{mod}}`{name}`: {_summary(name)}\n" for name in packages)
    tree = "".join(f"{name} <reference/{name}>\n" for name in packages)
    return {f"{name}.rst": text for name, text in texts.items()} | {
        "packages_table.md": f"{table}\n```{{toctree}}\n:hidden:\n\n{tree}```\n"  # side by side on one page
    }


def _title(name: str) -> str:
    return f"{name}\n{'=' * len(name)}\n\n"


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"   {line}" for line in lines)


def _public(package: str) -> list[str]:
    """Its public names; not a table such as ``PRESETS``, which has no docstring of its own."""
    module = import_module(package)
    names = getattr(module, "__all__", ())
    return [name for name in names if hasattr(getattr(module, name), "__qualname__")]


def _summary(module: str) -> str:
    """The first line of its docstring."""
    return (import_module(module).__doc__ or "").splitlines()[0]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def order(value: float | None) -> str:
    """An order that a method claims."""
    return "–" if value is None else f"{value:g}"


def evaluations(method: Method) -> str:
    """Per step; where oscillators are coupled or a score is added, if that takes more."""
    more = ((method.nfe_coupled, "coupled"), (method.nfe_composite, "with a score"))
    said = ", ".join(f"{count} {where}" for count, where in more if count is not None)
    return f"{method.nfe} ({said})" if said else f"{method.nfe}"


def linked(source: str) -> str:
    """A source with its digital object identifier as a link."""
    return re.sub(r"doi:(\S+)", r"[doi:\1](https://doi.org/\1)", source)


def methods_table() -> str:
    """What every method claims and costs, from the objects themselves."""
    header = ["method", "strong", "weak", "stationary", "drift evaluations", "what for, and source"]
    return table(
        header,
        (
            [
                f"`{name}`",
                *map(order, (method.strong_order, method.weak_order, method.invariant_order)),
                evaluations(method),
                f"{method.note} ({linked(method.source)})",
            ]
            for name, method in (METHODS | ON_REQUEST | BACK_IN_TIME).items()
        ),
    )


def orders_table(results: Sequence[dict[str, Any]]) -> str:
    """Claimed and measured orders."""
    kinds = ("strong", "weak", "stationary")
    cells = (
        [
            f"`{row['method']}`" if row["method"] in METHODS else row["method"],
            *(
                f"{row[kind][0]:.2f} ± {row[kind][1]:.2f} (of {row['claimed'][kind]:g})" if row[kind] else "–"
                for kind in kinds
            ),
        ]
        for row in results
    )
    return table(["method", *kinds], cells)


def costs_table(results: Sequence[dict[str, Any]]) -> str:
    """Drift evaluations that a weak tolerance costs."""
    methods = list(results[0]["drift_evaluations"])
    cells = (
        [
            f"`{row['problem']}`",
            f"{row['tolerance']:g}",
            *("–" if n is None else f"{n:g}" for n in row["drift_evaluations"].values()),
        ]
        for row in results
    )
    return table(["problem", "tolerance", *(f"`{method}`" for method in methods)], cells)


def backwards_table(results: Sequence[dict[str, Any]]) -> str:
    """Evaluations of the score that a weak tolerance costs back in time."""
    tolerances = list(results[0]["evaluations"])
    cells = (
        [
            f"`{row['problem'].replace(' without', '` without')}" + "`" * (" " not in row["problem"]),
            f"`{row['method']}`",
            row["grid"],
            *("–" if n is None else f"{n:g}" for n in row["evaluations"].values()),
        ]
        for row in results
    )
    return table(["problem", "method", "steps", *(f"to {tolerance}" for tolerance in tolerances)], cells)


def problems_table() -> str:
    """Every test problem with its equation and its start, read off the objects."""
    stated = [state(name) for name in problems.names()]
    return "\n".join(
        f"`{problem.name}`\n: {problem.description}\n\n  {equation(problem)}, from {start(problem)}.\n"
        for problem in stated
    )


def state(name: str) -> Problem:
    """The problem without its exact law, for which ``problems.get`` solves, 40 s for all of them."""
    solving = {"fokker_planck": mock.DEFAULT, "fokker_planck_torus": mock.DEFAULT}
    with (
        mock.patch.multiple(problems, finite_size=mock.DEFAULT, **solving),
        mock.patch.multiple(phase_problems, stationary=mock.DEFAULT, **solving),
    ):
        return problems._builder(name)(name)


DRIVEN = {
    "theta_neuron": r"$d\theta = [1-\cos\theta - 0.2\,(1+\cos\theta)]\,dt + 0.5\,(1+\cos\theta)\circ dW$",
    "phase_response": r"$d\theta = 3\,dt + 0.8\sin\theta\circ dW$",
    "common_noise": r"$d\theta_i = 2\,dt + 0.5\sin\theta_i\circ dW$ with one $W$ for both",
}
"""The equations whose noise depends on the phase."""


def equation(problem: Problem) -> str:
    r"""Its equation, with its rates as functions of time.

    >>> equation(problems.get("stiff_well"))
    '$d\\theta = -30\\sin\\theta\\,dt + \\sqrt{2}\\,dW$'
    >>> equation(problems.get("drifting"))
    '$d\\theta = [5 - 3\\sin\\theta]\\,dt + dW$'
    """
    if isinstance(problem.sde, ReverseSDE):
        return f"{{eq}}`eq-4-reverse` of `published_doubled`, $\\ell = {problem.sde.stochasticity:g}$"
    if problem.name in DRIVEN:
        return DRIVEN[problem.name]
    sde = problem.sde
    assert isinstance(sde, KuramotoSDE)
    n = sde.event_shape.numel()
    i = "" if n == 1 else "_i"
    turning = [f"{w:g}" for w in sde.natural_frequency.expand(n).tolist()]
    drift = ""
    if set(turning) != {"0"}:
        drift += r"\omega_i" if i else turning[0]
    if i:
        strength = _times(sde.schedule.coupling).strip("()") or "1"
        drift += " + " * bool(drift) + f"\\frac{{{strength}}}{{{n}}}\\sum_j\\sin(\\theta_j-\\theta_i)"
    pull = _times(sde.schedule.reference)
    if pull != "0":
        pull += f"\\sin\\theta{i}"
        drift = f"[{drift} - {pull}]" if drift else f"-{pull}"
    noise = _times(sde.schedule.diffusion, 2.0).strip("()")
    noise = (f"\\sqrt{{{noise}}}\\,dW" if noise else "dW") + i
    frequencies = f", $\\omega = ({', '.join(turning)})$" if r"\omega" in drift else ""
    drift = f"{drift}\\,dt + " if drift else ""
    return f"$d\\theta{i} = {drift}{noise}${frequencies}"


def _times(rate: Rate, factor: float = 1.0) -> str:
    """A rate times a number, as the first factor of a product, where 1 is left out."""
    assert isinstance(rate, Linear)
    first, last = factor * float(rate.start), factor * float(rate.end)
    slope = (last - first) / rate.horizon
    if first == last:
        return f"{first:.5g}" if first != 1 else ""
    rise = f"{slope:.5g}\\,t" if slope != 1 else "t"
    return f"({first:.5g} + {rise})"


def start(problem: Problem) -> str:
    """The law at time 0, or of a reversed problem at the horizon."""
    if isinstance(problem.sde, ReverseSDE):
        return "its exact law at the horizon"
    laws = problem.start if isinstance(problem.start, tuple) else (problem.start,)
    return " and ".join(f"$\\mathrm{{WN}}({law.means[0]:g}, {law.sds[0]:g}^2)$" for law in laws)

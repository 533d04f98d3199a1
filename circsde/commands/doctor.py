"""``circsde doctor``: what an installation has, and whether it computes."""

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated

from circsde.commands import console
from circsde.commands.answer import Answer
from circsde.commands.options import SOLVER, flag

EXAMPLES = """
[bold]Examples[/]

For a report of an error:

  [cyan]circsde doctor[/]

Also whether steps can be compiled, which takes some seconds:

  [cyan]circsde doctor --compile[/]
"""

EXTRAS = {
    "files": ("nibabel", "pyarrow", "wsq"),
    "metrics": ("torch-fidelity", "torchmetrics", "torchvision"),
    "dask": ("dask", "distributed"),
}
"""The packages that optional features need, by the name of their extra."""

TOLERANCE = 1e-4
"""The largest error that passes, four times the error of Heun's method with 200 steps at a rate of 2."""


@console.command
def doctor(
    compile: Annotated[bool, flag(SOLVER, "Also compile a step, and compare it.", "--compile")] = False,
) -> Answer:
    """Print versions, devices, threads and folders, and check that a solve gives the exact answer.

    It exits with status 1 if the answer is wrong.
    """
    packages = {name: _version(name) for name in _required()}
    extras = {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()}
    with console.progress_bar("solving", 2 if compile else 1, ["a phase that falls to its reference"]) as progress:
        error = _error(compiled=False)
        progress(1)
        compiled = _error(compiled=True) if compile else None
    devices, threads = _devices()
    loops = _loops()
    values: dict[str, object] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "extras": extras,
        "devices": devices,
        "threads": threads,
        "cache": _cache(),
        "loops": loops,
        "error": error,
        "compiled_error": compiled,
    }
    lines = [
        f"circsde {_version('circsde')}, Python {values['python']}, {values['platform']}",
        ", ".join(f"{name} {number}" for name, number in packages.items()),
        *(_extra(extra, names) for extra, names in extras.items()),
        f"devices: {', '.join(devices)}; {threads} threads of {os.cpu_count()} processors",
        f"downloaded data are kept in {values['cache']}",
        "equation (1) is solved by loops that numba compiles once"
        if loops
        else "numba cannot be imported, so that equation (1) is solved step by step",
        f"a solve of 200 steps is within {error:.1e} rad of the exact answer",
    ]
    if compiled is not None:
        lines.append(f"the same compiled is within {compiled:.1e} rad")
    worst = max(error, compiled or 0.0)
    if not worst < TOLERANCE:
        console.fail(f"a solve is {worst:.1e} rad from the exact answer, and should be within {TOLERANCE:g}")
    return Answer(lines, values)


def _required() -> list[str]:
    """The packages that circsde cannot do without."""
    names = [text.split(";")[0] for text in requires("circsde") or () if "extra ==" not in text]
    return sorted(name.split(">")[0].split("=")[0].split("[")[0].strip() for name in names)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extra(extra: str, names: dict[str, str | None]) -> str:
    missing = [name for name, number in names.items() if number is None]
    there = ", ".join(f"{name} {number}" for name, number in names.items() if number is not None)
    hint = f"pip install 'circsde[{extra}]' adds {', '.join(missing)}" if missing else ""
    return f"extra {extra}: {'; '.join(part for part in (there, hint) if part)}"


def _devices() -> tuple[list[str], int]:
    """The processor and the graphics cards, and the threads of a solve."""
    import torch

    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ["cpu", *cards], torch.get_num_threads()


def _loops() -> bool:
    """Whether there are compiled loops for the processor."""
    from circsde.solvers.normals import compiles

    return compiles()


def _cache() -> str:
    import pooch

    return str(pooch.os_cache("circsde"))


def _error(*, compiled: bool) -> float:
    """How far a solve without noise ends from ``2 atan(tan(theta_0 / 2) e^{-K_ref t})``, rad."""
    import torch

    from circsde.coupling import NoCoupling
    from circsde.kuramoto import KuramotoSDE
    from circsde.schedule import Schedule
    from circsde.solvers.integrate import sdeint

    sde = KuramotoSDE((1,), NoCoupling(), Schedule.constant(reference=2.0, diffusion=0.0))
    theta = torch.linspace(-3.0, 3.0, 64, dtype=torch.float64)[:, None]
    end = sdeint(sde, theta, (0.0, 1.0), n_steps=200, generator=0, compile=compiled).theta[-1]
    exact = 2.0 * torch.atan(torch.tan(0.5 * theta) * torch.exp(torch.tensor(-2.0)))
    return float((end - exact).abs().max())

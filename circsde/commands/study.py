"""``circsde study``, ``circsde select`` and ``circsde problems``: accuracy studies from the command line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circsde.commands import console, options
from circsde.commands.options import OUTPUT, SOLVER, option

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from circsde.studies.runner import Runner


class Kind(StrEnum):
    """What to measure."""

    WEAK = "weak"
    STRONG = "strong"
    STATIONARY = "stationary"
    WORK_PRECISION = "work-precision"


class Metric(StrEnum):
    """What the tolerance is for."""

    WEAK = "weak"
    STRONG = "strong"
    STATIONARY = "stationary"


SAMPLING, COMPUTING = "Sampling", "Computing"

STUDY_EXAMPLES = """
[bold]Examples[/]

Weak orders without sampling noise, on a problem of one phase:

  [cyan]circsde study published_doubled[/]

Strong orders of two methods, four processes; interrupt it, and run it again to go on:

  [cyan]circsde study two_coupled --kind strong --methods heun,sra1 --paths 65536 --workers 4[/]

What accuracy costs, beside torchsde:

  [cyan]circsde study stiff_well --kind work-precision --methods heun,mobius_strang,torchsde:srk[/]

The result in Python: [cyan]xarray.open_dataset("published_doubled-weak.nc")[/]
"""

SELECT_EXAMPLES = """
[bold]Examples[/]

  [cyan]circsde select published --tolerance 1e-3[/]

  [cyan]circsde select reverse --tolerance 1e-2 --stochasticity 0,0.5,1[/]

  [cyan]circsde select probability_flow --tolerance 1e-4 --metric strong[/]
"""

Name = Annotated[str, typer.Argument(metavar="PROBLEM", help="A name from circsde problems.")]
Methods = Annotated[
    str | None, option(SOLVER, "By default all of ours that apply; torchsde's as torchsde:srk.", metavar="A,B,...")
]
Steps = Annotated[str | None, option(SOLVER, "Numbers of steps, by default the problem's own.", metavar="N,M,...")]
Atol = Annotated[str | None, option(SOLVER, "Adaptive methods on a flow: absolute tolerances.", metavar="A,B,...")]
MonteCarlo = Annotated[bool, option(SAMPLING, "Sample, even where the law is known.", "--monte-carlo")]
Confidence = Annotated[float, option(SAMPLING, "Probability that an interval covers.")]
Seed = Annotated[int, option(SAMPLING, "Seed of starts and paths.")]
Workers = Annotated[int, option(COMPUTING, "Processes.")]
Dask = Annotated[str | None, option(COMPUTING, "A Dask scheduler to compute on instead.", metavar="ADDRESS")]
Out = Annotated[
    Path | None,
    option(OUTPUT, "Write PATH.nc, PATH.png and, in PATH.cells, what a later run need not repeat.", metavar="PATH"),
]


@console.reporting_errors
def study(
    problem: Name,
    kind: Annotated[Kind, option(SAMPLING, "What to measure.")] = Kind.WEAK,
    methods: Methods = None,
    steps: Steps = None,
    atol: Atol = None,
    paths: Annotated[int | None, option(SAMPLING, "Paths; for one phase 8192, or 65536 for weak errors.")] = None,
    monte_carlo: MonteCarlo = False,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    workers: Workers = 1,
    dask: Dask = None,
    out: Out = None,
    force: options.Force = False,
) -> None:
    """Measure errors and orders of methods on a problem with an exact answer.

    Errors have intervals and a floor; orders are fitted where errors are resolved.
    Interrupted, the same command goes on from the finished cells.
    """
    given = dict(locals())
    netcdf, picture = console.outputs(_stem(out, f"{problem}-{kind}"), (".nc", ".png"), problem, force=force)

    from functools import partial

    from circsde.commands import tables
    from circsde.studies import accuracy, plots
    from circsde.studies.cost import work_precision
    from circsde.studies.flows import TOLERANCES
    from circsde.studies.result import WEAK

    timed = kind is Kind.WORK_PRECISION
    measure: Callable[..., xr.Dataset] = accuracy.study
    if timed:
        measure = partial(work_precision, atol=_reals(atol) or TOLERANCES)
    with _runner(netcdf, workers, dask) as runner:
        result = measure(
            problem,
            kind=WEAK if timed else kind.value,
            methods=_split(methods),
            steps=_numbers(steps),
            monte_carlo=monte_carlo,
            paths=paths,
            seed=seed,
            confidence=confidence,
            runner=runner,
        )
    tables.show(tables.cost_table(result) if timed else tables.study_table(result))
    _write(result, (plots.work_precision if timed else plots.convergence)(result), netcdf, picture, given)


@console.reporting_errors
def select(
    problem: Name,
    tolerance: Annotated[float, option(SOLVER, "The largest error to accept; in rad for strong errors.")],
    metric: Annotated[Metric, option(SAMPLING, "The error that must be within it.")] = Metric.WEAK,
    methods: Methods = None,
    steps: Steps = None,
    atol: Atol = None,
    stochasticity: Annotated[
        str | None, option(SOLVER, "Reversed equations: values of l on offer, as 0,0.5,1.", metavar="A,B,...")
    ] = None,
    budget: Annotated[float, option(SAMPLING, "The most drift evaluations, per angle, to spend.")] = 1e9,
    monte_carlo: MonteCarlo = False,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    workers: Workers = 1,
    dask: Dask = None,
    out: Out = None,
    force: options.Force = False,
) -> None:
    """Choose the cheapest method and step count that is certain to meet a tolerance.

    Says what the choice rests on, and, where nothing qualifies, what would be needed.
    """
    given = dict(locals())
    netcdf, picture = console.outputs(_stem(out, f"{problem}-select"), (".nc", ".png"), problem, force=force)

    from circsde.commands import tables
    from circsde.studies import plots
    from circsde.studies.flows import TOLERANCES
    from circsde.studies.selection import describe_choice
    from circsde.studies.selection import select as choose

    with _runner(netcdf, workers, dask) as runner:
        choice = choose(
            problem,
            tolerance,
            metric=metric.value,
            methods=_split(methods),
            steps=_numbers(steps),
            atol=_reals(atol) or TOLERANCES,
            stochasticity=_reals(stochasticity),
            monte_carlo=monte_carlo,
            budget=budget,
            seed=seed,
            confidence=confidence,
            runner=runner,
        )
    tables.show(tables.selection_table(choice))
    console.say(describe_choice(choice), "bold" if choice.attrs["selected_method"] else "")
    _write(choice, plots.selection(choice), netcdf, picture, given)


@console.reporting_errors
def problems() -> None:
    """List the problems with exact answers."""
    from circsde.commands import tables

    tables.show(tables.problem_table())


@contextmanager
def _runner(netcdf: Path, workers: int, dask: str | None) -> Iterator["Runner"]:
    """Computes cells, keeps them beside the result, and shows how many are finished."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from circsde.studies.runner import Runner

    folder = netcdf.with_suffix(".cells")
    columns = TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    terminal = Console(stderr=True)
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("cells", total=None)
        report = lambda done, total: progress.update(task, completed=done, total=total)  # noqa: E731
        try:
            yield Runner(folder, workers, dask, report)
        except ImportError as error:
            raise ValueError(str(error)) from error
        except KeyboardInterrupt:
            console.say(f"finished cells are in {folder}: the same command goes on from there")
            raise


def _write(result: "xr.Dataset", figure: "Figure", netcdf: Path, picture: Path, given: dict[str, object]) -> None:
    from circsde.record import provenance, replacing, save_netcdf

    force = bool(given["force"])
    save_netcdf(result.assign_attrs(provenance(**given)), netcdf, force=force)
    with replacing(picture, force=force) as temporary:
        figure.savefig(temporary, dpi=150)
    console.say(f"numbers  {netcdf}\npicture  {picture}")


def _stem(out: Path | None, name: str) -> Path:
    return Path(name) if out is None else out / name if out.is_dir() else out


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str | None) -> list[int] | None:
    """``"5,10"`` as whole numbers.

    >>> _numbers("5, 10")
    [5, 10]
    """
    try:
        return None if text is None else [int(x) for x in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is not a list of whole numbers: give steps as 5,10,20") from None


def _reals(text: str | None) -> list[float] | None:
    """``"0,0.5"`` as numbers.

    >>> _reals("0, 0.5")
    [0.0, 0.5]
    """
    try:
        return None if text is None else [float(x) for x in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is not a list of numbers: give them as 0,0.5,1") from None

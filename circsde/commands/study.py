"""``circsde study``, ``circsde select`` and ``circsde problems``: accuracy studies from the command line."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from circsde.commands import completion, console, options, study_run
from circsde.commands.answer import Answer
from circsde.commands.options import OUTPUT, SOLVER, flag, option

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from circsde.studies.runner import Runner


Metric = StrEnum("Metric", ["WEAK", "STRONG", "STATIONARY"])
Cost = StrEnum("Cost", ["NFE", "SECONDS"])
Study = StrEnum(
    "Study",
    {"WEAK": "weak", "STRONG": "strong", "STATIONARY": "stationary", "WORK_PRECISION": "work-precision"},
)
"""The metric to measure: an error, or what accuracy costs."""

SAMPLING, COMPUTING = "Sampling", "Computing"

OF_PROBLEMS = ("metric", "monte_carlo", "workers", "dask")
OF_RUNS = ("start_law", "device")
"""Options that mean nothing for a trained model, and for a problem."""

Name = Annotated[
    str,
    typer.Argument(
        metavar="PROBLEM|RUN",
        help="A name from circsde problems; or the folder of a training: then its samplers.",
        autocompletion=completion.complete_problem,
    ),
]
Methods = Annotated[
    str | None,
    option(
        SOLVER,
        "By default all of ours that apply; torchsde's as torchsde:srk.",
        metavar="A,B,...",
        complete=completion.complete_methods,
    ),
]
Steps = Annotated[str | None, option(SOLVER, "Numbers of steps; by default those of the problem.", metavar="N,M,...")]
Offered = Annotated[
    str | None, option(SOLVER, "Numbers of steps to offer; by default they are searched for.", metavar="N,M,...")
]
Atol = Annotated[str | None, option(SOLVER, "Absolute tolerances of adaptive methods on a flow.", metavar="A,B,...")]
StartLaw = Annotated[
    str, option(SAMPLING, "Runs: auto: of the run's file, if it has one; settled; or a file.", metavar="LAW")
]
MonteCarlo = Annotated[bool, flag(SAMPLING, "Sample, even where the law is known.", "--monte-carlo")]
Confidence = Annotated[float, option(SAMPLING, "The probability that an interval covers the truth.")]
Seed = Annotated[int, option(SAMPLING, "The seed of starts and paths.", least=0, check=options.check_seed)]
Workers = Annotated[int, option(COMPUTING, "The number of processes.", least=1)]
Dask = Annotated[str | None, option(COMPUTING, "A Dask scheduler to compute on instead.", metavar="ADDRESS")]
Out = Annotated[
    Path | None,
    option(OUTPUT, "Write PATH.nc, PATH.png and, in PATH.cells, finished parts for a later run.", metavar="PATH"),
]


@console.command
def study(
    problem: Name,
    metric: Annotated[
        Study, option(SAMPLING, "The error to measure, or what accuracy costs.", "--metric", "--kind")
    ] = Study.WEAK,
    methods: Methods = None,
    steps: Steps = None,
    atol: Atol = None,
    paths: Annotated[
        int | None, option(SAMPLING, "Paths; for one phase 8192, or 65536 for weak errors.", least=2)
    ] = None,
    monte_carlo: MonteCarlo = False,
    start_law: StartLaw = "auto",
    device: options.Device = options.DeviceName.AUTO,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    workers: Workers = 1,
    dask: Dask = None,
    out: Out = None,
    force: options.Force = False,
) -> Answer:
    """Measure errors and orders of methods on a problem with an exact answer, or of samplers of a trained model.

    Errors have intervals and a floor; orders are fitted where errors are resolved.
    Interrupted, the same command goes on from the finished cells.
    """
    given = dict(locals())
    options.check_probability(confidence=confidence)
    if study_run.is_run(problem):
        options.refuse(study, given, OF_PROBLEMS, "for problems, and this is a run")
        return study_run.study(given)
    options.refuse(study, given, OF_RUNS, f"for a trained model, and {problem} is a problem")
    netcdf, picture = console.outputs(out, Path(f"{problem}-{metric}"), (".nc", ".png"), problem, force=force)

    from functools import partial

    from circsde.commands import tables
    from circsde.studies import accuracy, plots
    from circsde.studies.cost import work_precision
    from circsde.studies.result import WEAK

    timed = metric is Study.WORK_PRECISION
    if atol is not None and not timed:
        raise ValueError("--atol is for --metric work-precision: leave it out")
    measure: Callable[..., xr.Dataset] = accuracy.study
    if timed:
        measure = partial(work_precision, atol=_tolerances(atol, problem))
    with _runner(netcdf, workers, dask) as runner:
        result = measure(
            problem,
            metric=WEAK if timed else metric.value,
            methods=_methods(methods, problem),
            steps=options.numbers(steps),
            monte_carlo=monte_carlo,
            paths=paths,
            seed=seed,
            confidence=confidence,
            runner=runner,
        )
    files = _written(result, (plots.work_precision if timed else plots.convergence)(result), netcdf, picture, given)
    shown = tables.cost_table(result) if timed else tables.study_table(result)
    return Answer([shown], tables.study_values(result), files)


@console.command
def select(
    problem: Name,
    tolerance: Annotated[float | None, option(SOLVER, "The largest error to accept; in rad for strong errors.")] = None,
    budget_nfe: Annotated[
        int | None, option(SOLVER, "Runs, instead: the best sampler of so many evaluations of the score.", least=2)
    ] = None,
    metric: Annotated[Metric, option(SAMPLING, "The error that must be below the tolerance.")] = Metric.WEAK,
    methods: Methods = None,
    steps: Offered = None,
    atol: Atol = None,
    stochasticity: Annotated[
        str | None, option(SOLVER, "Reversed equations, runs: values of l on offer, as 0,0.5,1.", metavar="A,B,...")
    ] = None,
    power: Annotated[
        str | None,
        option(SOLVER, "Grids: 1 for equal steps, 2 for steps that shrink, 0 for equal errors.", metavar="A,B,..."),
    ] = None,
    cost: Annotated[Cost, option(SOLVER, "The cost to minimise: drift evaluations, or time.")] = Cost.NFE,
    spacing: Annotated[
        str | None, option(SOLVER, "Runs: in what steps are even; by default any.", metavar="index,time,log-noise")
    ] = None,
    paths: Annotated[
        int | None, option(SAMPLING, "Runs: samples to compare at first; by default 256.", least=16)
    ] = None,
    start_law: StartLaw = "auto",
    device: options.Device = options.DeviceName.AUTO,
    seconds: Annotated[
        float, option(COMPUTING, "Runs: when to end with what is certain by then; status 1 where nothing is.")
    ] = 600.0,
    budget: Annotated[float, option(SAMPLING, "The most drift evaluations, per angle, to spend.")] = 1e9,
    monte_carlo: MonteCarlo = False,
    confidence: Confidence = 0.95,
    seed: Seed = 0,
    workers: Workers = 1,
    dask: Dask = None,
    out: Out = None,
    force: options.Force = False,
) -> Answer:
    """Choose the cheapest method and number of steps that certainly meet a tolerance; for a run, the cheapest sampler.

    For a run, the answer is a recipe that circsde sample --recipe takes.

    Says what the choice rests on, and, where nothing qualifies, what would be needed.
    """
    given = dict(locals())
    options.check_positive(budget=budget, seconds=seconds)
    options.check_probability(confidence=confidence)
    if (tolerance is None) == (budget_nfe is None):
        raise ValueError("give --tolerance, the largest error to accept, or --budget-nfe, for a run")
    if study_run.is_run(problem):
        options.refuse(
            select, given, (*OF_PROBLEMS, "steps", "budget", "power", "cost"), "for problems, and this is a run"
        )
        return study_run.select(given)
    options.refuse(
        select,
        given,
        (*OF_RUNS, "budget_nfe", "spacing", "paths", "seconds"),
        f"for a trained model, and {problem} is a problem",
    )
    assert tolerance is not None
    netcdf, picture = console.outputs(out, Path(f"{problem}-select"), (".nc", ".png"), problem, force=force)

    from circsde.commands import tables
    from circsde.studies import plots
    from circsde.studies.selection import select as choose

    with _runner(netcdf, workers, dask) as runner:
        choice = choose(
            problem,
            tolerance,
            metric=metric.value,
            methods=_methods(methods, problem),
            steps=options.numbers(steps),
            atol=_tolerances(atol, problem),
            stochasticity=options.reals(stochasticity),
            power=options.reals(power),
            cost=cost.value,
            monte_carlo=monte_carlo,
            budget=budget,
            seed=seed,
            confidence=confidence,
            runner=runner,
        )
    files = _written(choice.dataset, plots.selection(choice), netcdf, picture, given)
    said = Text(str(choice), "bold" if choice.method else "")
    return Answer([tables.selection_table(choice), said], tables.selection_values(choice), files)


@console.command
def problems() -> Answer:
    """List the problems with exact answers."""
    from circsde.commands import tables

    return Answer([tables.problem_table()], tables.problem_values())


def _methods(text: str | None, problem: str) -> list[str] | None:
    """The methods that were named, if they are for the equation of the problem."""
    from circsde.sde import ReverseSDE
    from circsde.studies.experiment import experiment

    methods = options.names(text)
    if methods and not isinstance(experiment(problem).sde, ReverseSDE):
        options.check_forward(methods, problem)
    return methods


def _tolerances(atol: str | None, problem: str) -> Sequence[float] | None:
    """The tolerances that were given, for a problem on which methods can be adaptive, or the usual ones."""
    from circsde.studies.experiment import experiment
    from circsde.studies.flows import is_flow

    if atol is not None and not is_flow(experiment(problem)):
        raise ValueError(
            f"--atol is for adaptive methods on a probability flow, and {problem} is not one: leave it out"
        )
    return options.reals(atol)


@contextmanager
def _runner(netcdf: Path, workers: int, dask: str | None) -> Iterator["Runner"]:
    """A runner that computes cells, keeps them beside the result, and shows how many are finished."""
    from circsde.studies.runner import Runner

    folder = netcdf.with_suffix(".cells")
    console.check_folder(folder)
    with console.progress_bar("cells", notes=[f"finished cells are kept in {folder}"]) as progress:
        try:
            yield Runner(folder, workers, dask, progress)
        except ImportError as error:
            raise ValueError(str(error)) from error
        except KeyboardInterrupt:
            console.note(f"finished cells are in {folder}: the same command resumes from there")
            raise


def _written(
    result: "xr.Dataset", figure: "Figure", netcdf: Path, picture: Path, given: dict[str, object]
) -> dict[str, Path]:
    from circsde.record import provenance, replacing, save_netcdf

    force = bool(given["force"])
    save_netcdf(result.assign_attrs(provenance(**given)), netcdf, force=force)
    with replacing(picture, force=force) as temporary:
        figure.savefig(temporary, dpi=150)
    return {"numbers": netcdf, "picture": picture}

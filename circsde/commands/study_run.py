"""``circsde select RUN`` and ``circsde study RUN``: samplers of a trained model, measured on its own score."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from circsde.commands import console, options
from circsde.commands.answer import Answer, records
from circsde.exact.catalogue import PROBLEMS

if TYPE_CHECKING:
    import xarray as xr

    from circsde.contracts import Sampled
    from circsde.models.training import Trained
    from circsde.sampling.reverse import Recipe

_SHOWN = 16

_VALUES = ("label", "n_steps", "nfe", "error", "lower", "upper", "observable", "paths", "fresh")


def is_run(name: str) -> bool:
    """Whether the name is that of a file or a folder, and no problem."""
    return name not in PROBLEMS and Path(name).exists()


def select(given: Mapping[str, Any]) -> Answer:
    """The recipe for the run ``given["problem"]`` by the options given, to a file beside it."""
    end = time.monotonic() + given["seconds"]
    run = Path(given["problem"])
    tolerance, nfe = given["tolerance"], given["budget_nfe"]
    options.check_positive(tolerance=tolerance)
    written, numbers = console.outputs(
        given["out"], options.beside(run, "recipe"), (".json", ".nc"), str(run), force=given["force"]
    )

    from circsde.record import provenance, save_netcdf
    from circsde.sampling.recipe_files import save_recipe
    from circsde.studies.samplers import label
    from circsde.studies.trained import select_recipe

    with _measuring(run, given) as (model, start, law, settings):
        settings["stop"] = lambda: time.monotonic() > end
        choice = select_recipe(model, start, tolerance, nfe=nfe, pilot=given["paths"], **settings)
    save_netcdf(choice.dataset.assign_attrs(provenance(**given)), numbers, force=given["force"])
    if choice.stopped and choice.recipe is None:
        advice = "give more --seconds, a larger tolerance, or fewer --methods"
        console.fail(f"{choice} (all in {numbers}): {advice}", numbers=numbers)
    files = {"numbers": numbers}
    selected: dict[str, Any] | None = None
    if choice.recipe is not None and choice.error is not None:
        about = {"tolerance": tolerance, "budget_nfe": nfe, "error_at_most": choice.error.upper, "start_law": law}
        save_recipe(choice.recipe, written, {"run": str(run), "nfe": choice.error.nfe, **about}, force=given["force"])
        files = {"recipe": written, **files}
        selected = {"label": label(choice.recipe), "n_steps": choice.recipe.n_steps, "nfe": choice.error.nfe}
        selected |= {"error": choice.error.value, "upper": choice.error.upper, "observable": choice.error.observable}
    values = {"run": run, "tolerance": tolerance, "budget_nfe": nfe, "verdict": choice.verdict, "selected": selected}
    values |= {"candidates": records(choice.dataset, *_VALUES)}
    said = Text(str(choice), "bold" if choice.recipe else "")
    return Answer([_table(choice.dataset, "Samplers that were looked at, the best last"), said], values, files)


def study(given: Mapping[str, Any]) -> Answer:
    """Errors of the samplers of the run ``given["problem"]`` at several numbers of evaluations."""
    run = Path(given["problem"])
    (numbers,) = console.outputs(given["out"], options.beside(run, "study"), (".nc",), str(run), force=given["force"])

    from circsde.record import provenance, save_netcdf
    from circsde.studies.trained import PILOT, study_recipes

    with _measuring(run, given) as (model, start, _, settings):
        evaluations = options.numbers(given["steps"]) or (8, 16, 32, 64)
        result = study_recipes(model, start, evaluations, paths=given["paths"] or PILOT, **settings)
    save_netcdf(result.assign_attrs(provenance(**given)), numbers, force=given["force"])
    values = {"run": run, "candidates": records(result, *_VALUES)}
    return Answer([_table(result, "Errors of samplers, the best last", shown=4 * _SHOWN)], values, {"numbers": numbers})


@contextmanager
def _measuring(run: Path, given: Mapping[str, Any]) -> "Iterator[tuple[Trained, Sampled, str, dict[str, Any]]]":
    """The model, the law that it starts from with its name, and the settings of what measures; shows progress."""
    from circsde.models.training import trained
    from circsde.sampling.choose_start import start_law

    model = trained(run)
    start, law = start_law(model.chain, run, given["start_law"])
    on, candidates = options.device(given["device"]), _candidates(model, given)
    settings = {"candidates": candidates, "confidence": given["confidence"], "seed": given["seed"], "device": on}
    with console.progress_bar("evaluations", notes=[f"{len(candidates)} samplers, start law: {law}, {on}"]) as progress:
        yield model, start, law, settings | {"progress": progress}


def _candidates(model: "Trained", given: Mapping[str, Any]) -> "list[Recipe]":
    from circsde.sampling.reverse import Spacing
    from circsde.studies.samplers import ATOL, STOCHASTICITY, samplers

    spacings = options.names(given.get("spacing")) or [each.value for each in Spacing]
    unknown = [name for name in spacings if name not in [each.value for each in Spacing]]
    if unknown:
        raise ValueError(f"--spacing {', '.join(unknown)}: choose of {', '.join(each.value for each in Spacing)}")
    return samplers(
        model,
        options.names(given["methods"]),
        options.reals(given.get("stochasticity")) or STOCHASTICITY,
        [Spacing(name) for name in spacings],
        options.reals(given["atol"]) or ATOL,
    )


def _table(result: "xr.Dataset", title: str, shown: int = _SHOWN) -> Table:
    """The table of candidates, in which the rows of least error for their evaluations come last."""
    table = Table(title=title)
    for name in ("sampler", "steps", "evaluations", "error", "interval", "samples"):
        table.add_column(name, justify="left" if name == "sampler" else "right", no_wrap=True)
    rows = sorted(records(result, *_VALUES), key=lambda row: (row["fresh"], -row["error"]))
    for row in rows[-shown:]:
        table.add_row(
            row["label"],
            str(row["n_steps"] or "-"),
            f"{row['nfe']:.0f}",
            f"{row['error']:.2e}",
            f"{row['lower']:.2e} to {row['upper']:.2e}",
            f"{row['paths']:,}",
            style="bold" if row["fresh"] else "",
        )
    table.caption = "bold: on samples of its own" if any(row["fresh"] for row in rows[-shown:]) else None
    return table

"""Studies as tables for a terminal, and as values for a program."""

import math
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from circsde.commands.answer import records
from circsde.exact.catalogue import PROBLEMS

if TYPE_CHECKING:
    import xarray as xr

    from circsde.studies.choice import Choice

_SHOWN = 24  # candidates of a selection
_EVIDENCE = ("error", "lower", "upper", "nfe", "paths", "accepted", "rejected")


def study_table(study: "xr.Dataset") -> Table:
    """Errors by solver and step count, hollow ones dim, with the order that they show and the order claimed."""
    from circsde.studies.plots import describe_order

    table = Table(title=_title(study), caption="dim: not resolved, the interval is wider than a quarter of the error")
    table.add_column("method", no_wrap=True)
    for n in study["steps"].values:
        table.add_column(f"{n} steps", justify="right", no_wrap=True)
    for name in ("order", "claims", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in range(study.sizes["solver"]):
        one = study.isel(solver=row)
        errors = [
            Text(f"{error:.2e}", "" if resolved else "dim")
            for error, resolved in zip(one["error"].values, one["resolved"].values, strict=True)
        ]
        order, claim = (
            describe_order(float(one["order"]), float(one["order_standard_error"])),
            float(one["claimed_order"]),
        )
        verdict = str(one["verdict"].item())
        style = {"below its claim": "bold red", "not resolved": "dim"}.get(verdict, "green")
        name = str(one["solver"].item())
        table.add_row(name, *errors, order, "-" if math.isnan(claim) else f"{claim:g}", Text(verdict, style))
    return table


def cost_table(study: "xr.Dataset") -> Table:
    """Errors beside drift evaluations and measured time, cheapest first."""
    table = Table(title=_title(study), caption=f"time of {study.attrs['timed_paths']:,} paths, median and quartiles")
    setting = str(study["error"].dims[1])
    for name in ("method", setting, "drift evaluations", "milliseconds", "quartiles", "error"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    flat = study.stack(candidate=("solver", setting)).sortby("nfe")  # noqa: PD013
    for i in range(flat.sizes["candidate"]):
        one = flat.isel(candidate=i)
        low, middle, high = (1e3 * float(one[name]) for name in ("seconds_low", "seconds", "seconds_high"))
        table.add_row(
            str(one["solver"].item()),
            f"{one[setting].item():g}",
            f"{float(one['nfe']):g}",
            f"{middle:.3g}",
            f"{low:.3g} to {high:.3g}",
            Text(f"{float(one['error']):.2e}", "" if one["resolved"] else "dim"),
        )
    return table


def selection_table(choice: "Choice") -> Table:
    """Candidates, cheapest first, as many as there is room for around the choice, which is bold."""
    evidence = choice.dataset
    setting = str(evidence["error"].dims[1])
    table = Table(title=f"{_title(evidence)}, tolerance {evidence.attrs['tolerance']:g}")
    for name in ("method", setting, "drift evaluations", "error", "interval", "paths", "verdict"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    flat = evidence.stack(candidate=("solver", setting)).dropna("candidate", subset=["error"]).sortby("nfe")
    rows = [flat.isel(candidate=i) for i in range(flat.sizes["candidate"])]
    picked = [_is_chosen(row, choice) for row in rows]
    first = max(0, picked.index(True) + 3 - _SHOWN) if any(picked) else 0
    table.caption = f"{first} cheaper candidates are in the file" if first else None
    for one, bold in list(zip(rows, picked, strict=True))[first : first + _SHOWN]:
        if choice.nfe is not None and float(one["nfe"]) > 2 * choice.nfe:
            break
        verdict = "meets it" if one["accepted"] else "too large" if one["rejected"] else "open"
        table.add_row(
            str(one["solver"].item()),
            f"{one[setting].item():g}",
            f"{float(one['nfe']):g}",
            f"{float(one['error']):.2e}",
            f"{float(one['lower']):.2e} to {float(one['upper']):.2e}",
            f"{int(one['paths']):,}" if one["paths"] > 0 else "-",
            verdict,
            style="bold green" if bold else "",
        )
    return table


def _is_chosen(candidate: "xr.Dataset", choice: "Choice") -> bool:
    setting = choice.n_steps if choice.atol is None else choice.atol
    same = candidate["steps" if choice.atol is None else "atol"].item() == setting
    names = ("method", "stochasticity", "power")
    return same and all(getattr(choice, name) in (None, candidate[name].item()) for name in names)


def problem_table() -> Table:
    """The named problems, one in each line."""
    table = Table("name", "what it is", title="Problems with exact answers")
    for name, description in PROBLEMS.items():
        table.add_row(name, description)
    return table


def study_values(study: "xr.Dataset") -> dict[str, object]:
    """Errors, a row for each solver and setting of it, and orders, a row for each solver."""
    errors = ["error", "lower", "upper", "resolved", "nfe"]
    errors += [name for name in ("seconds", "seconds_low", "seconds_high") if name in study]
    orders = ["order", "order_standard_error", "claimed_order", "verdict"]
    return {
        **{name: study.attrs.get(name) for name in ("problem", "metric", "evidence", "confidence", "paths")},
        "errors": records(study, *errors),
        "orders": records(study, *orders) if "order" in study else [],
    }


def selection_values(choice: "Choice") -> dict[str, object]:
    """The choice, empty where nothing qualifies, and all candidates that were looked at, cheapest first."""
    names = ("problem", "metric", "tolerance", "evidence", "confidence", "verdict", "advice")
    evidence, chosen = choice.dataset, ("method", "n_steps", "power", "atol", "stochasticity", "nfe", "seconds")
    selected = {name: value for name in chosen if (value := getattr(choice, name)) is not None}
    rows = records(
        evidence, "method", "stochasticity", "power", "error", "lower", "upper", "nfe", "paths", "accepted", "rejected"
    )
    looked_at = [row for row in rows if not math.isnan(row["error"])]
    return {
        **{name: evidence.attrs.get(name) for name in names},
        "selected": selected or None,
        "candidates": sorted(looked_at, key=lambda row: row["nfe"]),
    }


def problem_values() -> dict[str, object]:
    """The named problems with their descriptions."""
    return {"problems": [{"name": name, "description": line} for name, line in PROBLEMS.items()]}


def _title(study: "xr.Dataset") -> str:
    from circsde.studies.plots import title

    return title(study)

"""``circsde verify``: is a density what it says, of a trained model or of any other program?"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circsde.commands import console, options
from circsde.commands.answer import Answer, counted
from circsde.commands.options import DATA, OUTPUT, SOLVER, option

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from circsde.sampling.verify import Verification

AT_ONCE = 500
"""Angles at which a density is evaluated between two moves of the bar."""

SHOWN = 5
"""The most near-duplicates that are named."""

EXAMPLES = """
[bold]Examples[/]

A trained model: its integral, its samples against its density, and rows that it was not trained on:

  [cyan]circsde verify runs/lys --data torsion:lys/test[/]

A function of yours, log_prob(theta) of a tensor (n, d) in radians, and samples of the same model:

  [cyan]circsde verify mine.py:log_prob --samples mine.csv --unit rad[/]

A density that another program evaluates: points to evaluate it at, to which that adds a column log_prob:

  [cyan]circsde verify --samples mine.csv --unit rad --propose points.csv[/]
  [cyan]circsde verify points.csv --samples mine.csv --unit rad[/]
"""

Density = Annotated[
    str | None,
    typer.Argument(
        metavar="[DENSITY]",
        help="The folder of a training of angles; or FILE.py:FUNCTION; or points that --propose wrote, with their"
        " log-densities in a column log_prob (.csv).",
    ),
]


@console.command
def verify(
    density: Density = None,
    samples: Annotated[
        str | None, option(DATA, "A file of samples; by default a run is sampled along its flow.", metavar="FILE")
    ] = None,
    source: Annotated[
        str | None,
        option(DATA, "Rows that the model was not trained on, for their entropy.", "--data", metavar="DATA"),
    ] = None,
    unit: options.Unit = None,
    points: Annotated[
        int, option(SOLVER, "The number of points at which the density is integrated.", least=100)
    ] = 4000,
    confidence: Annotated[float, option(SOLVER, "The probability that no true claim is rejected.")] = 0.999,
    seed: options.Seed = 0,
    propose: Annotated[
        Path | None, option(OUTPUT, "Only write points at which to evaluate a density, as PATH.csv.", metavar="PATH")
    ] = None,
    out: options.ModelOut = None,
    force: options.Force = False,
) -> Answer:
    """Examine whether a density is correct.

    Does it integrate to one? Do samples follow it? Are data no likelier than their entropy allows? The command fails
    with status 1 if one of these claims cannot hold. Log-densities are in nats, for angles in radians.

    The density of a run is the density of its probability flow, along which samples are drawn. The reverse equation,
    which circsde sample uses, has the same law only if the score is exact: give such samples to see the difference.
    """
    given = dict(locals())
    options.check_probability(confidence=confidence)
    if propose is not None:
        return _propose(given)
    if density is None:
        raise ValueError("give a density: the folder of a training, FILE.py:FUNCTION, or points with log_prob (.csv)")
    place = Path(density)
    default = options.beside(place, "verification") if place.is_dir() else Path("verification")
    (netcdf,) = console.outputs(out, default, (".nc",), density, force=force)

    from circsde.record import provenance, save_netcdf

    found = _examined(density, given)
    save_netcdf(_dataset(found).assign_attrs(**provenance(**given)), netcdf, force=force)
    lines = _said(found)
    if found.failures:
        for line in lines:
            console.note(line)
        console.fail("; ".join(found.failures), numbers=netcdf)
    return Answer(lines, _values(found), {"numbers": netcdf})


def _propose(given: dict[str, Any]) -> Answer:
    """Write points and their log-density under the law that they were drawn from."""
    if given["samples"] is None or given["density"] is not None:
        raise ValueError("--propose takes --samples of the model, near which points are drawn, and no density")
    path: Path = given["propose"]
    (written,) = console.outputs(path, path, (".csv",), given["samples"], force=given["force"])

    import torch

    from circsde.commands import angles
    from circsde.solvers.importance import proposals
    from circsde.streams import torch_stream

    read = angles.read(given["samples"], angles.Reading(given["unit"]))
    generator = torch_stream(given["seed"], "verification")
    law = proposals(read.theta.double(), generator)
    theta = law.sample((given["points"],), generator)
    table = torch.cat((theta, law.log_prob(theta)[:, None]), 1).numpy()
    angles.write_table(written, [*read.names, "log_proposal"], table, force=given["force"])
    said = f"{counted(len(theta), 'point')} in radians: add their log-densities, nats, as a column log_prob"
    return Answer([said], {"points": len(theta)}, {"points": written})


def _examined(density: str, given: dict[str, Any]) -> "Verification":
    """Verify a density of any of the three kinds."""
    from circsde.commands import evaluated

    if density.endswith(".csv"):
        return evaluated.examine(density, given["samples"], given["source"], given["unit"], given["confidence"])
    from circsde.threads import one_thread

    with one_thread():  # batches are too small for several, which wait for one another on a busy machine
        return _evaluated(density, given)


def _evaluated(density: str, given: dict[str, Any]) -> "Verification":
    """Verify a density that can be evaluated here."""
    from circsde.commands import evaluated
    from circsde.sampling.verify import evaluations, verify
    from circsde.streams import torch_stream

    names = (given[name] for name in ("samples", "source", "unit", "seed"))
    log_prob, samples, data = evaluated.density_of(density, *names)
    total = evaluations(len(samples), 0 if data is None else len(data), given["points"])
    notes = [f"{counted(samples.shape[1], 'angle')}, {counted(len(samples), 'sample')}, {total} evaluations"]
    with console.progress_bar("evaluating", total, notes) as progress:
        return verify(
            _in_parts(log_prob, progress),
            samples,
            data,
            points=given["points"],
            confidence=given["confidence"],
            generator=torch_stream(given["seed"], "verification"),
        )


def _in_parts(
    log_prob: "Callable[[Tensor], Tensor]", progress: Callable[[int], object]
) -> "Callable[[Tensor], Tensor]":
    """The same density, evaluated at a few angles at a time, each of which moves the bar."""
    import torch

    done = 0

    def values(theta: "Tensor") -> "Tensor":
        nonlocal done
        parts = list["Tensor"]()
        for some in torch.split(theta, AT_ONCE):
            progress(done)
            parts.append(torch.as_tensor(log_prob(some)))
            done += len(some)
        return torch.cat(parts)

    return values


def _dataset(found: "Verification") -> "xr.Dataset":
    """All numbers of a verification as a Dataset, for a file."""
    import xarray as xr

    units = {"units": "nats"}
    total = found.integral
    dataset = xr.Dataset(
        {
            "log_integral": ((), total.log_value, units),
            "low": ((), total.low, units),
            "high": ((), total.high, units),
            "effective_points": ((), total.effective),
            "tail_shape": ((), total.tail),
            "agreement_p": ((), found.agreement_p, {"furthest": found.furthest}),
            "negative_log_likelihood": ((), found.negative_log_likelihood, units),
        },
        attrs={"failures": "; ".join(found.failures), "doubts": "; ".join(found.doubts)},
    )
    if (known := found.entropy) is not None:
        dataset["entropy"] = ("neighbour", known.value.numpy(), units)
        dataset["entropy_stderr"] = ("neighbour", known.stderr.numpy(), units)
        dataset["entropy_bias"] = ("neighbour", known.bias.numpy(), units)
        dataset["duplicates"] = (("pair", "row"), known.duplicates.numpy())
        dataset = dataset.assign_coords(neighbour=range(1, 1 + len(known.value)))
    return dataset


def _values(found: "Verification") -> dict[str, Any]:
    known, total = found.entropy, found.integral
    return {
        "log_integral": total.log_value,
        "low": total.low,
        "high": total.high,
        "agreement_p": found.agreement_p,
        "negative_log_likelihood": found.negative_log_likelihood,
        "entropy": None if known is None else known.value,
        "near_duplicates": None if known is None else len(known.duplicates),
        "doubts": list(found.doubts),
    }


def _said(found: "Verification") -> list[str]:
    """The findings of a verification, in words."""
    total, known = found.integral, found.entropy
    lines = list(found.doubts)
    if total.known:
        interval = f"{total.log_value:.4f} nats ({total.low:.4f} to {total.high:.4f})"
        lines.append(f"log of the integral {interval}, zero for a density")
    if found.furthest:
        lines.append(f"samples and density: p = {found.agreement_p:.2g}; furthest apart, {found.furthest}")
    if known is not None:
        shown = ", ".join(f"{known.value[k - 1]:.3f} ({k})" for k in (1, 2, 3, 5, 10))
        lines.append(f"negative log-likelihood of the data {found.negative_log_likelihood:.3f} nats")
        lines.append(f"their entropy by neighbours (number) {shown} nats, least bias {float(known.bias.min()):.3f}")
        pairs = known.duplicates[:SHOWN].tolist()
        if pairs:
            named = ", ".join(f"{i + 1} and {j + 1}" for i, j in pairs)
            lines.append(f"{counted(len(known.duplicates), 'near-duplicate')} left out: rows {named}")
    return lines

"""``circsde simulate``: the forward process on images or angles, to NetCDF and a picture."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from circsde.commands import console, equation, options
from circsde.commands.answer import Answer, counted
from circsde.commands.options import OUTPUT, SOLVER, option, rate

if TYPE_CHECKING:
    import xarray as xr

    from circsde.data import Phases
    from circsde.schedule import Schedule


Boundary = StrEnum("Boundary", ["PERIODIC", "REFLECTING"])
"""The boundary of an image for local coupling, which says what lies beyond its edge."""

EQUATION = "Equation"

EXAMPLES = """
[bold]Examples[/]

Four windows of a texture, global coupling, the published schedule:

  [cyan]circsde simulate texture:brick -n 4 --crop 256 --size 64[/]

Black and white ridges at opposite phases, which fall into step; rates of your own:

  [cyan]circsde simulate fingerprint --scale 0.5 --coupling-rate 6 --diffusion-rate 1[/]

A folder of photographs, local coupling, 300 steps:

  [cyan]circsde simulate photos/ --size 96 --coupling local --steps 300[/]

Angles in degrees from two columns of a table, each on its own:

  [cyan]circsde simulate angles.csv --unit deg --columns phi,psi --coupling none[/]

Oscillators at random phases on a graph, with a phase lag and frequencies of their own:

  [cyan]circsde simulate --coupling graph:edges.csv --lag 0.3 --frequency normal:0,1 --coupling-rate 4 --horizon 20[/]

The result in Python: [cyan]xarray.open_dataset("texture-brick-forward.nc")[/]
"""


@console.command
def simulate(
    source: options.Source = "random",
    count: options.Count = None,
    size: options.Size = None,
    crop: options.Crop = None,
    centre: options.Centre = False,
    colour: options.Colours = options.Colour.GREY,
    scale: options.Scale = 0.9,
    unit: options.Unit = None,
    columns: options.Columns = None,
    drop_missing: options.DropMissing = False,
    missing: options.Missing = None,
    along: options.Along = None,
    phases: options.OfComplex = False,
    coupling: Annotated[
        str,
        option(
            EQUATION,
            "The phases that attract one another: none, global, local, neighbours in graph:FILE, or a sum with the"
            " weights of matrix:FILE. FILE is a square table, or one with columns source, target, weight.",
            metavar="NAME",
            complete=equation.complete_coupling,
        ),
    ] = "global",
    lag: Annotated[
        float, option(EQUATION, "The phase lag alpha, rad: sin(theta_j - theta_i - alpha).", metavar="A")
    ] = 0.0,
    frequency: Annotated[
        str | None,
        option(
            EQUATION,
            "Natural frequencies, rad/time: a number, normal:MEAN,SD, uniform:LOW,HIGH or cauchy:CENTRE,WIDTH.",
            metavar="W|LAW",
        ),
    ] = None,
    radius: Annotated[int, option(EQUATION, "Local coupling: the window has (2 radius + 1)^2 pixels.", least=1)] = 5,
    boundary: Annotated[Boundary, option(EQUATION, "Local coupling: what is beyond the edges.")] = Boundary.PERIODIC,
    schedule: Annotated[
        str | None, option(EQUATION, "Take the rates of the published chain of N steps.", metavar="published:N")
    ] = None,
    coupling_rate: Annotated[
        str | None, option(EQUATION, "The rate of coupling K(t), linear from A to B.", metavar="A[,B]")
    ] = None,
    reference_rate: Annotated[
        str | None, option(EQUATION, "The rate of attraction to phase 0.", metavar="A[,B]")
    ] = None,
    diffusion_rate: Annotated[
        str | None, option(EQUATION, "The rate D(t) of the noise sqrt(2 D) dW.", metavar="A[,B]")
    ] = None,
    horizon: Annotated[float | None, option(EQUATION, "The last time; by default 1.")] = None,
    method: options.Method = "heun",
    steps: Annotated[int, option(SOLVER, "The number of steps in all.", least=1)] = 100,
    dtype: options.Dtype = options.Precision.FLOAT32,
    seed: options.Seed = 0,
    frames: Annotated[int, option(OUTPUT, "The number of times to save, besides the start.", least=1)] = 20,
    out: options.Out = None,
    force: options.Force = False,
) -> Answer:
    """Let phases synchronise: run the forward diffusion on images or angles, or oscillators at random phases.

    Writes the phases and their order parameter over time to NetCDF, and draws both beside theory: the mean-field
    limit, and the von Mises law to settle to. Angles are written in the unit that they were read in, with the names of
    their columns; to PATH.csv only those at the end.
    """
    given = dict(locals())
    options.check_forward([method], "the forward process")
    if coupling != "local":
        options.refuse(simulate, given, ("radius", "boundary"), "of local coupling: add --coupling local")
    if coupling == "none":
        useless = "without coupling it does nothing: take --coupling global"
        options.refuse(simulate, given, ("coupling_rate", "lag"), useless)
    if crop is None:
        options.refuse(simulate, given, ("centre",), "of a window, and none is cut out: give --crop")
    table = ".csv" if out is not None and out.suffix == ".csv" else ".nc"
    written, picture = console.outputs(out, _default(source), (table, ".png"), source, force=force)

    import math

    import torch

    from circsde.commands.angles import Reading, write_table, written_in
    from circsde.contracts import first_few
    from circsde.data import load
    from circsde.data.image_sources import holds_images
    from circsde.encoding import PhaseEncoding
    from circsde.kuramoto import KuramotoSDE
    from circsde.plots import forward_process
    from circsde.record import provenance, replacing, save_netcdf
    from circsde.streams import torch_stream
    from circsde.studies.forward import forward

    listens = equation.coupling(coupling, radius, boundary.value, lag)
    random = equation.is_random(source)
    if random or not holds_images(source, unit):
        options.refuse(simulate, given, ("colour", "scale"), f"for images, and {source} is a table of angles")
    rates = _schedule(schedule, coupling, horizon, coupling_rate, reference_rate, diffusion_rate)
    generator = torch_stream(seed, "data")
    drawn = equation.random_phases(source, listens, count, getattr(torch, dtype), generator) if random else None
    data = drawn or load(
        source,
        count=count,
        size=options.size(size),
        crop=options.size(crop),
        centre=centre,
        colour=colour.value,
        encoding=PhaseEncoding(scale * math.pi),
        **Reading(unit, columns, drop_missing, missing, along, phases).arguments,
        strict=False,
        dtype=getattr(torch, dtype),
        generator=generator,
    )
    is_table = data.encoding is None and data.theta.ndim == 2
    if table == ".csv" and not is_table:
        raise ValueError(f"{written} would be a table of angles, and {source} holds images or fields: name it PATH.nc")
    name = "no" if coupling == "none" else coupling
    shape = "\u00d7".join(map(str, data.theta.shape[1:]))
    title = f"{Path(source).name}: {len(data.theta)} \u00d7 {shape} phases, {name} coupling, {method}, {steps} steps"
    if coupling == "local":
        options.check_radius(radius, data.theta.shape[1:])
    w = equation.frequency(frequency, data.theta.shape[1:], torch_stream(seed, "frequencies"))
    sde = KuramotoSDE(data.theta.shape[1:], listens, rates, natural_frequency=w)
    each = 2.0 * (data.theta.element_size() + 8)  # phases and windings, once more while stacked
    console.check_memory(
        (min(frames, steps) + 1) * data.theta.numel() * each,
        f"{min(frames, steps) + 1} frames of {data.theta.numel():,} phases",
        "save fewer frames, or take fewer samples or smaller images",
    )
    taken = list(data.notes)
    if data.skipped:
        taken += [f"left out {counted(len(data.skipped), 'image')}: {first_few(data.skipped, '; ')}"]
    with console.progress_bar("integrating", steps, [title, *taken]) as progress:
        result = forward(
            sde, data.theta, method=method, n_steps=steps, frames=frames, generator=generator, progress=progress
        )
    result = _described(result, data).assign_attrs(title=title, seed=seed, **provenance(**given))
    angles = result["theta"] if data.unit is None else written_in(result["theta"], data.unit)
    if table == ".csv":
        write_table(written, data.names, angles.values[-1], force=force)
    else:
        save_netcdf(result.assign(theta=angles), written, force=force)
    if result.attrs["status"] != "success":
        console.fail(f"{result.attrs['message']}; what was computed until then is in {written}", phases=written)
    with replacing(picture, force=force) as temporary:
        forward_process(result).savefig(temporary, dpi=150, metadata={"Comment": result.attrs["command"]})
    return Answer([_summary(result)], _values(result), {"phases": written, "picture": picture})


def _default(source: str) -> Path:
    """``texture-brick-forward`` for ``texture:brick``, ``a-forward`` for ``data/a.csv``."""
    name = Path(source).stem if Path(source).is_file() else Path(source).resolve().name
    return Path(re.sub(r"[^\w.-]+", "-", name) + "-forward")


def _schedule(published: str | None, coupling: str, horizon: float | None, *rates: str | None) -> "Schedule":
    """The published schedule, by default of 100 steps, or linear rates where any is given."""
    from circsde.schedule import Schedule

    if any(text is not None for text in rates):
        if published is not None:
            raise ValueError("give either a schedule or rates (coupling, reference, diffusion), not both")
        K, K_ref, D = map(rate, rates)
        return Schedule.linear((K[0], K_ref[0], D[0]), (K[1], K_ref[1], D[1]), 1.0 if horizon is None else horizon)
    if horizon is not None:
        raise ValueError("the published schedule has the horizon 1: to choose one, give rates of your own")
    kind, _, n_steps = (published or "published:100").partition(":")
    if kind != "published" or not n_steps.isdigit():
        raise ValueError(f"unknown schedule {published!r}: give published:N, as published:100, or rates of your own")
    return Schedule.published(int(n_steps), reference_weight=1.0 if coupling == "local" else 1.5)


def _described(result: "xr.Dataset", data: "Phases") -> "xr.Dataset":
    """``result`` with the names of its samples or columns and the encoding of its images."""
    if data.encoding is None:
        return result.assign_coords(oscillator=list(data.names)) if data.names else result
    return result.assign_coords(image=("sample", list(data.names))).assign_attrs(encoding_scale=data.encoding.scale)


def _summary(result: "xr.Dataset") -> str:
    last = f"t = {float(result['time'][-1]):g}"
    if "order_parameter" not in result:
        samples = counted(result.sizes["sample"], "sample")
        if "resultant_length" not in result:
            return f"{samples} of one angle until {last}: there is no order parameter"
        R = result["resultant_length"].values
        return f"mean resultant length over {samples} of one angle: {R[0]:.3f} at the start, {R[-1]:.3f} at {last}"
    R = result["order_parameter"].mean("sample").values
    said = f"order parameter R: {R[0]:.3f} at the start, {R[-1]:.3f} at {last}"
    if "mean_field_order_parameter" in result:
        said += f" (mean-field limit {float(result['mean_field_order_parameter'][-1].mean()):.3f})"
    return said


def _values(result: "xr.Dataset") -> dict[str, object]:
    def over_time(name: str) -> object:
        values = result.get(name)
        return None if values is None else values.mean(set(values.dims) - {"time"}).values

    return {
        "title": result.attrs["title"],
        "samples": result.sizes["sample"],
        "time": result["time"].values,
        **{name: over_time(name) for name in ("order_parameter", "mean_field_order_parameter", "resultant_length")},
        "terminal_concentration": result.attrs.get("terminal_concentration"),
    }

"""The documents: their numbers agree with the committed results, and their links lead somewhere."""

import json
import re
import shlex
import statistics
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import attribution
import minutiae
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from scipy.stats import t as student
from typer.testing import CliRunner

from circsde.cli import app
from circsde.coupling import LocalCoupling
from circsde.kuramoto import KuramotoSDE
from circsde.sde import SDE
from circsde.solvers import METHODS, Solution, SolveError, log_prob, sdeint
from circsde.typing import Field

ROOT = Path(__file__).resolve().parents[1]
Result = Mapping[str, Any]


def result(name: str) -> Result:
    read: Result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return read


def text(document: str) -> str:
    """A document with all white space as single blanks: a sentence may run over lines."""
    return " ".join((ROOT / document).read_text().split())


def joined(values: list[float], form: str = ".2f") -> str:
    return ", ".join(f"{value:{form}}" for value in values)


def orders(record: Result) -> list[str]:
    """Measured and claimed orders of the methods that follow a path."""
    rows = [row for row in record["results"] if row["method"] in METHODS and row["strong"]]
    measured = {kind: joined([row[kind][0] for row in rows]) for kind in ("strong", "weak")}
    claimed = {kind: joined([row["claimed"][kind] for row in rows], "g") for kind in ("strong", "weak")}
    names = ", ".join(f"`{row['method']}`" for row in rows)
    return [
        f"strong orders are {measured['strong']} (claimed: {claimed['strong']}) and the weak orders {measured['weak']}"
        f" (claimed: {claimed['weak']}), for {names}."
    ]


def stiff(record: Result) -> list[str]:
    """Drift evaluations on the stiff well at a tolerance of 1e-2."""
    (cost,) = [
        row["drift_evaluations"]
        for row in record["results"]
        if (row["problem"], row["tolerance"]) == ("stiff_well", 0.01)
    ]
    return [
        f"{cost['mobius_strang']:g} drift evaluations with Möbius–Strang, {cost['heun']:g} with Heun,"
        f" {cost['torchsde:srk']:g} with torchsde's srk, {cost['leimkuhler_matthews']:g} with Leimkuhler–Matthews"
    ]


SMALL, IMAGES = "forward (64, 1024)", "forward (128, 3, 32, 32)"


def times(record: Result) -> dict[tuple[str, str], float]:
    """Milliseconds per step, by question and contender."""
    rows = (row for row in record["results"] if "contender" in row)
    return {(row["question"], row["contender"]): row["ms_per_step"] for row in rows}


def speed(record: Result) -> list[str]:
    """Statements on how many times as fast as torchsde circsde is."""
    ms = times(record)
    small, images = (ms[question, "torchsde euler"] / ms[question, "circsde"] for question in (SMALL, IMAGES))
    heun = ms["order 1 (64, 1024)", "torchsde heun"] / ms["order 1 (64, 1024)", "heun"]
    sra1 = ms["order 1.5 (64, 1024)", "torchsde srk, additive noise"] / ms["order 1.5 (64, 1024)", "sra1"]
    return [
        f"Euler–Maruyama {small:.1f} × as fast, Heun {heun:.1f} ×, SRA1 {sra1:.0f} × its srk; for 128 colour images"
        f" {images:.0f} ×"
    ]


def speed_table(record: Result) -> list[str]:
    """The table of the benchmarks' own page."""
    ms = times(record)

    def cell(question: str, contender: str, compared: bool) -> str:
        shown = f"{ms[question, contender]:.3g}"
        shown = shown if len(shown.replace(".", "").lstrip("0")) >= 3 else f"{ms[question, contender]:.3f}"
        ratio = f"{ms[question, 'torchsde euler'] / ms[question, contender]:.1f}"
        return f"{shown}, {ratio} ×" if compared else shown

    contenders = {
        "circsde": "circsde",
        "torchsde euler, float64 times, additive noise": "torchsde euler",
        "diffrax Euler, jitted, compile time excluded": "diffrax Euler, jitted",
        "the published update, written out": "published update",
        "drawing the normals alone, one generator": "normals",
    }
    alone = ("torchsde euler", "normals")
    first, second = "order 1 (64, 1024)", "order 1.5 (64, 1024)"
    heun, its = ms[first, "heun"], ms[first, "torchsde heun"]
    sra1, additive, diagonal = (
        ms[second, name] for name in ("sra1", "torchsde srk, additive noise", "torchsde srk, diagonal noise")
    )
    windows = {row["contender"]: row["ratio_to_global"] for row in record["results"] if "ratio_to_global" in row}
    (dense,) = [row["ratio_to_two products"] for row in record["results"] if row.get("contender") == "dense matrix"]
    share = [ms[question, "circsde"] / ms[question, "normals"] for question in (SMALL, IMAGES)]
    return [
        f"| {title} | {cell(SMALL, name, name not in alone)} | {cell(IMAGES, name, name not in alone)} |"
        for title, name in contenders.items()
    ] + [
        f"`heun` takes {heun:.3f} ms per step at (64, 1024), torchsde's {its:.2f} ({its / heun:.1f} ×); `sra1`"
        f" {sra1:.3f} ms, torchsde's `srk` {additive:.2f} with additive noise ({additive / sra1:.0f} ×) and"
        f" {diagonal:.1f} with diagonal noise.",
        f"At (64, 1024) a solve is {share[0]:.2f} of the normals alone",
        f"on larger images {share[1]:.2f}.",
        "radius 1, 5, 8 and 12 takes {:.1f}, {:.1f}, {:.1f} and {:.1f} times as long as one mean field".format(
            *(windows[f"radius {r}"] for r in (1, 5, 8, 12))
        ),
        f"a step {dense:.1f} times as long as its two matrix products alone.",
    ]


def against_diffrax(record: Result) -> list[str]:
    """The one number of the comparison with other packages."""
    ms = times(record)
    ratio = ms[SMALL, "diffrax Euler, jitted"] / ms[SMALL, "circsde"]
    return [f"its Euler takes {ratio:.1f} times as long per step on 64 × 1024 phases"]


def likelihood(record: Result) -> list[str]:
    """CPU time of the lean loop over ours, where no error is above 1e-3."""
    (ratio,) = [v[0] for k, v in record["ratios"].items() if k.startswith("direct, lean, no error above 0.001 ")]
    assert record["ratios"]["direct, lean, both at tolerance 1e-6"][2] < 1.0, "slower at equal nominal tolerance"
    return [f"{ratio:.1f} × a lean torchdiffeq loop at equal largest error; slower at equal nominal tolerance"]


def mean_field(record: Result) -> list[str]:
    """Distances from the limit."""
    found = [float(f"{row['difference']:.3g}") for row in record["results"]]
    sizes = [row["oscillators"] for row in record["results"]]
    assert (found, sizes) == ([0.125, 0.0166, 0.00177], [10, 100, 1000])
    return ["0.125, 0.0166, 0.0018 in `E cos 2 theta` at N = 10, 100, 1000"]


def backwards(record: Result) -> list[str]:
    """Errors at the end of reverse time."""
    error = {(row["method"], row["stochasticity"], row["power"]): row["errors"] for row in record["results"]}
    flow = {(row["method"], row["atol"]): row for row in record["flow"]}

    def shown(method: str, stochasticity: float, power: float, steps: int) -> str:
        return re.sub(r"e-0", "e-", f"{error[method, stochasticity, power][str(steps)]:.1e}")

    heun, euler = "heun", "euler_maruyama"
    return [
        f"error at 40 steps falls from {shown(heun, 1.0, 1.0, 40)} to {shown(heun, 1.0, 2.0, 40)}",
        f"takes Euler–Maruyama from {shown(euler, 1.0, 1.0, 20)} to {shown(euler, 0.5, 1.0, 20)} and Heun from"
        f" {shown(heun, 1.0, 1.0, 20)} to {shown(heun, 0.5, 1.0, 20)}",
        f"`dopri5` at `atol=1e-4` takes {flow['dopri5', 1e-4]['nfe']:.0f} evaluations",
        f"`bosh3` takes {flow['bosh3', 1e-2]['nfe']:.0f} and has an error of {flow['bosh3', 1e-2]['upper']:.3f}",
        f"`dopri5` takes {flow['dopri5', 1e-2]['nfe']:.0f} and has {flow['dopri5', 1e-2]['upper']:.4f}",
    ]


def order_table(record: Result) -> list[str]:
    """Measured orders, of what is claimed."""
    kinds = ("strong", "weak", "stationary")
    said = []
    for row in record["results"]:
        cells = (f"{row[kind][0]:.2f} of {row['claimed'][kind]:g}" if row[kind] else "" for kind in kinds)
        said.append(" ".join(f"| {row['method']} | {' | '.join(cells)} |".split()))
    return said


def cost_table(record: Result) -> list[str]:
    """Drift evaluations that a weak error of 0.01 costs."""
    rows = [row for row in record["results"] if row["tolerance"] == 0.01]
    return [f"| {row['problem']} | {' | '.join(f'{n:g}' for n in row['drift_evaluations'].values())} |" for row in rows]


def backwards_table(record: Result) -> list[str]:
    """Evaluations of the exact score that a weak error costs."""
    said = []
    for row in record["results"]:
        cells = ("–" if n is None else f"{n:g}" for n in row["evaluations"].values())
        said.append(f"| {row['problem']} | {row['method']} | {row['grid']} | {' | '.join(cells)} |")
    return said


def mean_field_table(record: Result) -> list[str]:
    """Distances from the limit, beside what theory says."""
    return [
        f"| {row['oscillators']} | {row['difference']:.3g} ({row['lower']:.3g} to {row['upper']:.3g})"
        f" | {row['theory']:.3g} |"
        for row in record["results"]
    ]


SAMPLERS = {
    "standard model, DPM-Solver++ 2M": ("vp", "dpmpp_2m"),
    "standard model, DPM-Solver++ 2M flow": ("vp", "dpmpp_2m flow"),
    "standard model, DDIM": ("vp", "ddim"),
    "standard model, ancestral": ("vp", "ancestral"),
    "local, pathwise, DPM-Solver++ 2M": ("local-pathwise", "dpmpp_2m"),
    "local, pathwise, SRA1": ("local-pathwise", "sra1"),
    "local, pathwise, published sampler": ("local-pathwise", "published"),
    "global, pathwise, DPM-Solver++ 2M": ("global-pathwise", "dpmpp_2m"),
    "diffusion, DPM-Solver++ 2M": ("diffusion", "dpmpp_2m"),
    "diffusion, SRA1": ("diffusion", "sra1"),
    "local, Wiener, DPM-Solver++ 2M": ("local-Wiener", "dpmpp_2m"),
    "global, Wiener, DPM-Solver++ 2M": ("global-Wiener", "dpmpp_2m"),
    "local, settling, DPM-Solver++ 2M": ("local-settling", "dpmpp_2m"),
    "local, settling, SRA1": ("local-settling", "sra1"),
    "local, one-step, DPM-Solver++ 2M": ("local-one-step", "dpmpp_2m"),
    "local, one-step, published sampler": ("local-one-step", "published"),
    "global, one-step, DPM-Solver++ 2M": ("global-one-step", "dpmpp_2m"),
    "global, one-step, published sampler": ("global-one-step", "published"),
}


def distance(data: str, model: str, sampler: str, evaluations: int, measure: str = "gabor_frechet") -> list[float]:
    """A distance of samples to held-out windows: mean over seeds, and what their intervals cover."""
    seeds = [path.stem for path in (ROOT / "benchmarks" / "results" / "images").glob(f"{data}-{model}-[0-9].json")]
    found = [result(f"images/{seed}")["measures"].get(f"{sampler}/{evaluations}", {}).get(measure) for seed in seeds]
    if None in found:
        return []
    value, low, high, _ = zip(*found, strict=True)
    return [sum(value) / len(value), min(low), max(high)]


CELLS = {
    "local coupling": [("local-Wiener", "dpmpp_2m")],
    "global coupling": [("global-Wiener", "dpmpp_2m")],
    "standard, best sampler": [("vp", "dpmpp_2m"), ("vp", "dpmpp_2m flow")],
    "standard, ancestral": [("vp", "ancestral")],
    "no drift": [("diffusion", "dpmpp_2m")],
    "all as published": [("local-one-step", "published")],
}


def images(record: Result) -> list[str]:
    """The table of the start page: coupled phases, the standard model, phases without drift, and all as published."""
    assert record["cell"] == "socofing/vp"
    rows = [f"| data, evaluations | {' | '.join(CELLS)} |"]
    for data, name in zip(DATA, ("fingerprints (SOCOFing)", "textures (Brodatz)"), strict=True):
        for n in (10, 25):
            least = [min(distance(data, *one, n)[0] for one in cell) for cell in CELLS.values()]
            rows.append(f"| {name}, {n} | {' | '.join(f'{value:.1f}' for value in least)} |")
    return rows


def coupling_off(record: Result) -> list[str]:
    """The distances of local coupling and of attraction alone, all else equal."""
    cells = record["sets"]["socofing"]["cells"]
    on, off = (cells[f"{model}, Wiener, dpmpp_2m"] for model in ("local", "attraction"))
    return [f"{off[n][0]:.1f} instead of {on[n][0]:.1f} with {n} evaluations" for n in ("10", "25")]


def switches(record: Result) -> list[str]:
    """Differences of models that differ in one thing, and the distances themselves."""
    return [" ".join(row.split()) for row in attribution.table(record)]


def image_table(record: Result) -> list[str]:
    """The rows of the benchmarks' own page."""
    assert record["cell"] == "socofing/vp"

    def shown(values: list[float]) -> str:
        return f"{values[0]:.3g} ({values[1]:.3g} to {values[2]:.3g})" if values else ""

    columns = [(data, n) for data in DATA for n in (10, 25, 100)]
    rows = {title: [shown(distance(data, *cell, n)) for data, n in columns] for title, cell in SAMPLERS.items()}
    return [" ".join(f"| {title} | {' | '.join(row)} |".split()) for title, row in rows.items()]


ORIENTATIONS = ("wrapped diffusion", "attraction", "local", "global", "standard")


def orientation_cells(name: str) -> list[Result]:
    """The results of a contender, one a seed."""
    folder = ROOT / "benchmarks" / "results" / "orientation_fields"
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name.replace(' ', '-')}-[0-9].json"))]


def orientation_table(record: Result) -> list[str]:
    """Distances of every contender: mean over seeds, least and largest; the floor; mean numbers of singularities."""
    floors = [found[3] for found in record["measures"]["multistep/10"].values()]
    rows = [f"| training windows: the floor | | {' | '.join(f'{floor:.3f}' for floor in floors)} |"]
    cells = [(name, "multistep") for name in ORIENTATIONS] + [("standard", "ancestral")]
    for (name, sampler), n in product(cells, (10, 25, 100)):
        found = [cell["measures"][f"{sampler}/{n}"] for cell in orientation_cells(name)]
        values = {measure: [one[measure][0] for one in found] for measure in found[0]}
        shown = " | ".join(f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in values.values())
        rows.append(f"| {name}, {sampler} | {n} | {shown} |")
        assert len(found) == 3
    means = record["means"]["real"]
    rows.append(f"{means['positive']:.2f} and {means['negative']:.2f} in held-out windows")
    return rows


def orientation_long(record: Result) -> list[str]:
    """Distances after the long training, with their intervals."""
    rows = []
    for path in sorted((ROOT / "benchmarks" / "results" / "orientation_fields_long").glob("*.json")):
        cell = json.loads(path.read_text())
        assert (cell["updates"], cell["batch"], cell["set"]) == (record["updates"], record["batch"], "socofing")
        for key, found in cell["measures"].items():
            sampler, n = key.split("/")
            shown = " | ".join(
                "{:.3f} ({:.3f} to {:.3f})".format(*found[measure][:3])
                for measure in ("positive", "negative", "correlation", "order")
            )
            rows.append(f"| {cell['cell']}, {sampler} | {n} | {shown} |")
    return rows


def forward_processes(record: Result) -> list[str]:
    """What was predicted of every forward process and what was measured, and how well the ranks agree."""
    rows = []
    for name, before in record["predicted"].items():
        cells = [name]
        for n in (10, 25):
            after = [found[str(n)][0] for found in record["measured"][name].values()]
            cells += [
                f"{before[f'spectral/{n}']:.3f}",
                f"{before[f'uneven/{n}']:.1f}",
                ", ".join(f"{value:.1f}" for value in after),
            ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def forward_ranks(record: Result) -> list[str]:
    """Rank correlations of the predictions with the distances, at 10 and at 25 evaluations."""

    def rho(prediction: str, n: int) -> float:
        after = [np.mean([found[str(n)][0] for found in cell.values()]) for cell in record["measured"].values()]
        before = [record["predicted"][name][f"{prediction}/{n}"] for name in record["measured"]]
        return float(spearmanr(before, after).statistic)

    return [
        f"rank correlation is {rho('spectral', 10):.2f} with 10 evaluations and {rho('spectral', 25):.2f} with 25",
        f"{rho('uneven', 10):.2f} and {rho('uneven', 25):.2f}",
    ]


def fingerprint_judges(record: Result) -> list[str]:
    """Distances with intervals and floors beside the Gabor-Frechet distance, and which rank the models as that does."""
    return [*minutiae.table(record), *(f"{name} {rho:.2f}" for name, rho in minutiae.agreement(record).items())]


def image_bits(record: Result) -> list[str]:
    """Bits per pixel with 95 % intervals over windows, their differences from the standard model, ratios of spreads."""

    def shown(values: list[float], form: str) -> str:
        x = np.array(values)
        half = student.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5 if len(x) > 1 else None
        return f"{x.mean():{form}}" + ("" if half is None else f" ± {half:.2f}")

    statements = []
    for key, values in record["bits"].items():
        standard = record["bits"][f"{key.split('/')[0]}/standard"]
        statements.append(shown(values, ".2f"))
        if len(values) > 1 and values != standard:
            statements.append(shown([a - b for a, b in zip(values, standard, strict=True)], "+.2f"))
    ratios = [one for found in record["traces"].values() for one in found.values()]
    return statements + [f"{one['ratio']:.1f} ({one['low']:.1f} to {one['high']:.1f})" for one in ratios]


def rna(record: Result) -> list[str]:
    """Mean and standard deviation over random splits, all splits, the largest error, and peers on the first split."""
    cells, entries = (
        [cell for key, cell in record["cells"].items() if key.startswith(f"{name}/diffusion/")]
        for name in ("rna", "rna-entry")
    )
    nll, by_entry = (np.array([cell["nll"] for cell in found]) for found in (cells, entries))
    splits = [f"{cell['nll']:.2f} ± {cell['stderr']:.2f}" for cell in record["cells"].values()]
    peers = [
        f"| {cell['nll']:.2f} ± {cell['stderr']:.2f} | {cell['log_integral']:.2f} ({cell['log_integral_low']:.2f} to"
        f" {cell['log_integral_high']:.2f}) |"
        for key, cell in record["cells"].items()
        if key.startswith("rna/") and key.split("/")[2] == "0"
    ]
    error = f"{max(cell['largest_error'] for cell in cells):.4f}"
    means = [f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in (nll, by_entry)]
    return [*means, *splits, error, *peers]


def training(record: Result) -> list[str]:
    """Statements on the cost of pairs, against the published loop, and on the correlation of pairs of one path."""
    costs = {name: row["part"][1] for name, row in record["cost"].items()}
    worst = [max(part for name, part in costs.items() if name.endswith(f"stride {stride}")) for stride in STRIDES]
    ratio = [record["ratio"][f"{name}, T = {steps}"] for steps in (100, 1000) for name in ("global", "local")]
    alike = [record["correlation"][f"local, pathwise, pool 32, stride {stride}"] for stride in STRIDES]
    return [
        "at most {:.1f}, {:.1f} and {:.1f} % of an update".format(*(100 * part for part in worst)),
        "at {:.2f} and {:.2f} times the cost".format(*ratio[:2]),
        "at {:.2f} and {:.2f} times with 1000".format(*ratio[2:]),
        "has {:.1f}, {:.1f} and {:.1f} times the variance".format(*alike),
    ]


def sampling(record: Result) -> list[str]:
    """Statements on the time of the loop of reverse sampling."""
    found = [100 * row["median"] for row in record["results"]]
    return [f"takes {min(found):.1f} to {max(found):.1f} % of their time"]


def others(record: Result) -> list[str]:
    """Statements on other packages."""
    return [f"{row['package']} | {row['claim']} | {row['measured']}" for row in record["claims"]]


def adaptive(record: Result) -> list[str]:
    """Four ways to place steps: the table, and the orders of their biases."""
    rows = [(way, row) for way, found in record["results"].items() for row in found]
    said = [
        "Orders of the bias in the number of steps: " + ", ".join(f"{w} {o:.2f}" for w, o in record["orders"].items())
    ]
    for way, row in rows:
        bias, low, high = row["bias"]
        interval = f" ({low:.1e} to {high:.1e})" if low < high else ""
        said.append(f"| {way} | {row['steps']:.0f} | {bias:.1e}{interval} | {row['path_error']:.1e} |")
    return said


def regret(record: Result) -> list[str]:
    """Statements on the cost of every choice beside the cheapest, and the largest regret."""
    known = [row for row in record["results"] if "regret" in row]
    assert all(row["error"] <= row["tolerance"] for row in known)
    largest, middle = (
        max(row["regret"] for row in known),
        statistics.median(row["seconds"] for row in record["results"]),
    )
    return [
        f"at most {largest:.3f} times as much. The median time of a selection is {middle:.1f} s",
        *(f"| {row['evaluations']:.0f} | {row['cheapest']:.0f} | {row['seconds']:.1f} |" for row in known),
    ]


def expectation(record: Result) -> list[str]:
    """Romberg weights against one number of steps, and multilevel against plain Monte Carlo."""
    said = [
        f"| {row['method']} | {row['evaluations']} | {row['error']:.1e} | {row['single_to_1e-4']} |"
        for row in record["discretisation"]
    ]
    for row in record["cost"]:
        plain = row["plain"]
        said.append(
            f"| {row['question']} | {row['tolerance']:g} | {row['evaluations']:.1e} | {plain['evaluations']:.1e},"
            f" {plain['steps']} steps | {plain['evaluations'] / row['evaluations']:.2f} |"
        )
    return said


def oscillators(record: Result) -> list[str]:
    """Times per step and path beside packages for oscillators, weak errors, and solves without noise."""
    rows = {(row["case"], row["contender"], row["paths"]): row for row in record["results"]}
    said = []
    for (case, name, paths), row in rows.items():
        if case in ("global", "matrix") and paths == 1:
            batch = rows.get((case, name, 64), {}).get("us")
            times = f"{row['us']:.0f} | {f'{batch:.1f}' if batch else ''}"
            error = f"{row['error'][0]:.4f} ± {row['error'][1]:.4f}" if "error" in row else ""
            said.append(" ".join(f"| {case} | {name} | {row['steps']} | {times} | {error} |".split()))
        elif case == "without noise, solve":
            said.append(f"| {name} | {row['us'] / 1e3:.0f} | {row['error']:.1e} |")
    own = {(case, n): rows[case, "circsde, euler_maruyama", n]["us"] for case in ("global", "matrix") for n in (1, 64)}

    def solve(method: str, paths: int = 1) -> float:
        row = rows["global", f"circsde, {method}", paths]
        return float(row["us"] * row["steps"] / 1e3)

    heun = solve("heun", 64) / solve("euler_maruyama", 64)
    step, field = (
        rows["global", f"oscillatools, its {name}", 1]["us"] for name in ("step and a numpy force", "mean field")
    )
    matrices = [rows["matrix", f"oscillatools, matrix in {name}", 1]["us"] for name in ("JAX", "numpy")]
    for case, n, form in (
        ("global", 64, "{:.0f} (JAX) and {:.0f} (numpy) times"),
        ("matrix", 64, "{:.0f} and {:.0f} times in a batch"),
        ("matrix", 1, "{:.0f} and {:.0f} times alone"),
    ):
        said.append(form.format(*(us / own[case, n] for us in matrices)))
    return [
        *said,
        f"takes {step / own['global', 64]:.1f} times as long as a path of a batch here",
        f"and {step / own['global', 1]:.1f} times as long as one path alone",
        f"its own mean field {field / own['global', 64]:.0f} times",
        f"in {heun:.2f} of the time",
        f"5 steps of Heun's method take {solve('heun'):.1f} ms",
        f"50 of Euler–Maruyama {solve('euler_maruyama'):.1f} ms",
        f"250 oscillators, {rows['without noise, step of Euler', 'XGI, 250 oscillators', 1]['us'] / 1e3:.0f} ms a step",
    ]


def two_grids(record: Result) -> list[str]:
    """The path errors of as many steps, placed by a pilot and equal."""
    pilot, equal = (record["results"][way][-1] for way in ("pilot", "equal"))
    return [
        f"({pilot['path_error']:.1e} against {equal['path_error']:.1e} rad with {pilot['steps']})".replace("e-0", "e-")
    ]


STRIDES = (1, 5, 10)
DATA = ("socofing", "brodatz")

CHECKED: list[tuple[str, str, Callable[[Result], list[str]]]] = [
    ("README.md", "orders", orders),
    ("README.md", "stiff", stiff),
    ("README.md", "forward", speed),
    ("README.md", "likelihood_speed", likelihood),
    ("README.md", "images/socofing-vp-0", images),
    ("README.md", "attribution", coupling_off),
    ("benchmarks/README.md", "forward", speed_table),
    ("benchmarks/README.md", "orders", order_table),
    ("benchmarks/README.md", "stiff", cost_table),
    ("benchmarks/README.md", "backwards", backwards_table),
    ("benchmarks/README.md", "mean_field", mean_field_table),
    ("benchmarks/README.md", "images/socofing-vp-0", image_table),
    ("benchmarks/README.md", "orientation_fields/wrapped-diffusion-0", orientation_table),
    ("benchmarks/README.md", "orientation_fields_long/wrapped-diffusion-0", orientation_long),
    ("benchmarks/README.md", "schedules", forward_processes),
    ("benchmarks/README.md", "minutiae", fingerprint_judges),
    ("benchmarks/README.md", "attribution", switches),
    ("benchmarks/README.md", "schedules", forward_ranks),
    ("docs/waves.md", "schedules", forward_ranks),
    ("benchmarks/README.md", "image_likelihood", image_bits),
    ("benchmarks/README.md", "rna_likelihood", rna),
    ("benchmarks/README.md", "training", training),
    ("benchmarks/README.md", "sampling", sampling),
    ("benchmarks/README.md", "adaptive", adaptive),
    ("benchmarks/README.md", "expectation", expectation),
    ("benchmarks/README.md", "regret", regret),
    ("benchmarks/README.md", "oscillators", oscillators),
    ("docs/choosing.md", "adaptive", two_grids),
    ("docs/comparison.md", "forward", against_diffrax),
    ("docs/others.md", "others", others),
    ("docs/choosing.md", "mean_field", mean_field),
    ("docs/choosing.md", "reverse", backwards),
]


@pytest.mark.parametrize(("document", "name", "statements"), CHECKED)
def test_a_document_says_what_the_committed_results_say(
    document: str, name: str, statements: Callable[[Result], list[str]]
) -> None:
    said = text(document)
    for statement in statements(result(name)):
        assert statement in said, f"{document} should say, by {name}.json: {statement}"


def test_a_changed_result_is_noticed() -> None:
    record = json.loads(json.dumps(result("stiff")))
    for row in record["results"]:
        row["drift_evaluations"]["heun"] = 227.0
    assert not any(statement in text("README.md") for statement in stiff(record))


def test_every_decimal_number_in_the_readmes_results_is_checked() -> None:
    section = text("README.md").partition("## Results")[2].partition("## ")[0]
    for document, name, statements in CHECKED:
        if document == "README.md":
            for statement in statements(result(name)):
                section = section.replace(statement, "")
    assert re.findall(r"\d+\.\d+", section) == []


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "tests/README.md"]
PAGES = [str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]
PAGES = [page for page in PAGES if not page.startswith("docs/reference/")]


def targets(document: str) -> list[str]:
    """The targets of a document's links outside of code."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / document).read_text(), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


@pytest.mark.parametrize("document", DOCUMENTS + PAGES)
def test_a_link_to_a_file_leads_to_a_file(document: str) -> None:
    for target in targets(document):
        if not re.match(r"https?://|#|mailto:", target):
            assert (ROOT / document).parent.joinpath(target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS + PAGES)
def test_a_link_to_the_web_is_whole_and_secure(document: str) -> None:
    for target in targets(document):
        if ":" in target:
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[\w./()%~+-]*)?(#[\w-]+)?", target), target


def test_every_script_and_result_is_in_the_list_of_benchmarks() -> None:
    said = text("benchmarks/README.md")
    folder = ROOT / "benchmarks"
    scripts = {path.name for path in folder.glob("*.py")} - {"__main__.py", "report.py"}
    results = {path.name for path in (folder / "results").glob("*.json")}
    assert [name for name in sorted(scripts | results) if name not in said] == []


def command_of_the_figure() -> str:
    """The command that drew the first picture, which the picture states."""
    with Image.open(ROOT / "docs" / "figures" / "forward.png") as picture:
        return str(picture.info["Comment"])


@pytest.mark.parametrize("document", ["README.md", "docs/index.md"])
def test_the_command_beside_the_first_picture_is_the_one_that_drew_it(document: str) -> None:
    said = (ROOT / document).read_text()
    assert "figures/forward.png" in said
    assert f"\n{command_of_the_figure()}\n" in said


@pytest.mark.slow
def test_the_order_parameter_rises_as_the_documents_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, [*shlex.split(command_of_the_figure())[1:], "--json"])
    assert answer.exit_code == 0, answer.output
    result = json.loads(answer.stdout)["result"]
    R, limit = (result[name] for name in ("order_parameter", "mean_field_order_parameter"))
    for document in ("README.md", "docs/index.md"):
        assert f"the order parameter R rises from {R[0]:.2f} to {R[-1]:.2f}" in text(document)
    assert max(abs(a - b) for a, b in zip(R, limit, strict=True)) < 0.02
    kappa = torch.tensor(result["terminal_concentration"])
    assert R[-1] == pytest.approx(float(torch.special.i1(kappa) / torch.special.i0(kappa)), abs=0.005)


def test_the_demo_without_make_is_that_of_make() -> None:
    makefile, readme = (text(name) for name in ("Makefile", "README.md"))
    (made,) = re.findall(r"circsde (train \S+ .*?) --out out/demo", makefile)
    assert f".venv/bin/circsde {made} --out demo" in readme
    (seconds,) = re.findall(r"--seconds (\d+)", made)
    assert f"trains a texture for {seconds} seconds" in readme
    assert f"for {seconds} seconds" in makefile


MESSAGES: dict[str, Callable[[], object]] = {
    "SolveError: non_finite": lambda: solve(lambda t, theta: theta.sin() / 0.0),
    "the drift must be 2 pi-periodic in every angle": lambda: solve(lambda t, theta: -theta),
    "the law that ... settles to is not known ...; give prior=": lambda: log_prob(
        KuramotoSDE((6,), LocalCoupling(1)), lambda t, theta: 0.0 * theta, torch.zeros(2, 6)
    ),
}


def solve(drift: Field) -> Solution:
    return sdeint(SDE(drift, 0.5, 1.0), torch.ones(2, 1), (0.0, 1.0), n_steps=4)


@pytest.mark.parametrize("heading", list(MESSAGES))
def test_the_page_on_what_looks_wrong_quotes_messages_as_they_are(heading: str) -> None:
    assert f"## `{heading}`" in (ROOT / "docs" / "faq.md").read_text()
    with pytest.raises((ValueError, SolveError)) as raised:
        MESSAGES[heading]()
    said = f"{type(raised.value).__name__}: {raised.value}"
    assert re.search(".*".join(map(re.escape, heading.split("..."))), said)

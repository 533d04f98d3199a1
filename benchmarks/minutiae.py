"""What do networks trained on fingerprints say of generated ones, and do they agree with the Gabor-Frechet distance?

    python benchmarks/minutiae.py --quick                                   # seconds; stand-ins look at them
    python benchmarks/minutiae.py --data FOLDER [--runs FOLDER] --out benchmarks/results/minutiae.json

FOLDER of the data holds ``socofing/``. Judged are pictures of ``benchmarks/images.py`` by DPM-Solver++ 2M: 144 of seed
0 with 10, 25 and 100 evaluations where ``--runs``, the folder of its runs and results, holds them, else those beside
its results here, 48 of each training with 25 evaluations, all seeds of a model together. Real are windows of held-out
persons, and the floor is the distance of as many training windows. LEADER finds minutiae (``circsde.metrics.minutiae``)
in windows that are enlarged 2.7 times, and its encoder describes them; SNFOE and SNFFE find the distance of ridges
(``circsde.metrics.ridges``). Beside them is the Gabor-Frechet distance of all 500 samples that ``benchmarks/images.py``
measured.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from images import MODELS, SIZE, across_seeds, distances, kept_pictures, read
from numpy.typing import NDArray
from PIL import Image
from report import Record, Row, keep, options
from scipy.stats import spearmanr
from torch import Tensor

from circsde.metrics import minutiae, ridges
from circsde.metrics.minutiae import Detector, leader
from circsde.metrics.ridges import leader_features, ridge_periods
from circsde.streams import torch_stream

PICTURES = Path(__file__).parent / "results" / "images"
GAP, SAMPLER, EVALUATIONS = 2, "dpmpp_2m", (10, 25, 100)
KEY, MOST = f"{SAMPLER}/25", 144
Describe = Callable[[Tensor], Tensor]


def pictures(sheet: Path) -> Tensor:
    """The pictures of a sheet, in [-1, 1]."""
    pixels = torch.from_numpy(np.array(Image.open(sheet).convert("L"))).float() / 127.5 - 1.0
    rows, columns = ((side + GAP) // (SIZE + GAP) for side in pixels.shape)
    parts = [
        pixels[top : top + SIZE, left : left + SIZE]
        for top in range(0, rows * (SIZE + GAP), SIZE + GAP)
        for left in range(0, columns * (SIZE + GAP), SIZE + GAP)
    ]
    return torch.stack(parts)


@dataclass(frozen=True)
class Judges:
    """What looks at pictures; every picture is seen once, as real ones are compared with each model."""

    detector: Detector
    features: Describe
    periods: Describe

    def distances(self, samples: Tensor, real: Tensor, train: Tensor) -> dict[str, Any]:
        """The distances of a set of pictures, with intervals and floors, and its means."""
        generator = torch_stream(0, "resampling")
        found = xr.concat(
            [
                minutiae.compare(real, samples, train=train, detector=self.detector, generator=generator),
                ridges.compare(
                    real,
                    samples,
                    train=train,
                    features=self.features,
                    periods=self.periods,
                    generator=generator,
                ),
            ],
            dim="measure",
            combine_attrs="override",
        )
        measures = {name: [finite(x) for x in row] for name, row in distances(found).items()}
        means = {
            str(one): dict(zip(measures, map(finite, found["mean"].sel(set=one).values.tolist()), strict=True))
            for one in found["set"].values
        }
        return {"n": len(samples), "measures": measures, "means": means}


def finite(x: float) -> float | None:
    """The number, or None where it is infinite or NaN: pictures without minutiae have no spacing of them."""
    return x if math.isfinite(x) else None


def detected_once(detector: Detector) -> Detector:
    """The same detector, which remembers what it has seen."""
    known: dict[bytes, Sequence[tuple[float, float, bool, float]]] = {}

    def detect(picture: NDArray[np.uint8]) -> Sequence[tuple[float, float, bool, float]]:
        key = picture.tobytes()
        if key not in known:
            known[key] = detector(picture)
        return known[key]

    return detect


def described_once(describe: Describe) -> Describe:
    """The same description, which remembers what it has seen."""
    known: dict[bytes, Tensor] = {}

    def remember(pictures: Tensor) -> Tensor:
        keys = [picture.numpy().tobytes() for picture in pictures]
        new = [i for i, key in enumerate(keys) if key not in known]
        if new:
            known.update(zip((keys[i] for i in new), describe(pictures[new]), strict=True))
        return torch.stack([known[key] for key in keys])

    return remember


def dark_corners(picture: NDArray[np.uint8]) -> list[tuple[float, float, bool, float]]:
    """A stand-in for the quick form: pixels darker than all around them."""
    inner = picture[1:-1, 1:-1]
    around = [picture[1 + i : SIZE - 1 + i, 1 + j : SIZE - 1 + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    darkest = np.argwhere((inner < np.min(around, 0)) & (inner < 60)).tolist()
    return [(float(x + 1), float(y + 1), bool((x + y) % 2), 1.0 - picture[y + 1, x + 1] / 60.0) for y, x in darkest]


def striped(pictures: Tensor) -> Tensor:
    """Stand-ins for the features of a network: the mean squares of pictures, and of their differences both ways."""
    along, across = pictures.diff(dim=1), pictures.diff(dim=2)
    return torch.stack([x.square().mean((1, 2)).double() for x in (pictures, along, across)], 1)


def half_waves(pictures: Tensor) -> Tensor:
    """A stand-in for ridge periods: rows over half the changes of sign along them."""
    return 2.0 * pictures.shape[1] / (1.0 + (pictures.sign().diff(dim=1) != 0).double().sum(1).mean(1))


def table(record: Record) -> list[str]:
    """A row per model and number of evaluations: distances with intervals, floors, and the Gabor-Frechet distance."""

    def cell(row: list[float | None]) -> str:
        value, low, high, floor = row
        return "none found" if value is None else f"{value:.2f} ({low:.2f} to {high:.2f}); {floor:.2f}"

    return [
        f"| {' | '.join([*key.rsplit('/', 1), str(found['n'])])} | {' | '.join(map(cell, found['measures'].values()))}"
        f" | {found['gabor_frechet']:.1f} |"
        for key, found in record["models"].items()
    ]


def agreement(record: Record) -> dict[str, float]:
    """Spearman's rank correlation of each measure with the Gabor-Frechet distance, over models and evaluations."""
    models = list(record["models"].values())
    values = {
        measure: [math.inf if (x := found["measures"][measure][0]) is None else x for found in models]
        for measure in models[0]["measures"]
    }
    gabor = [found["gabor_frechet"] for found in models]
    return {measure: float(spearmanr(rows, gabor).statistic) for measure, rows in values.items()}


def summary(record: Record) -> Iterator[Row]:
    """The rank correlations with the Gabor-Frechet distance."""
    for measure, rho in agreement(record).items():
        yield Row(f"networks on fingerprints, {measure}: rank correlation over models", "Gabor-Frechet", rho, rho, rho)


def kept(model: str, runs: Path | None) -> Iterator[tuple[int, Tensor, float]]:
    """The pictures of a model that are kept, by number of evaluations, with their Gabor-Frechet distance."""
    name = f"socofing-{model.replace(', ', '-')}"
    drawn = [] if runs is None else sorted(runs.glob(f"{name}-0/{SAMPLER}-*.npz"))
    if runs is not None and drawn:
        distance = json.loads((runs / f"{name}-0.json").read_text())["measures"]
        for n in EVALUATIONS:
            path = next(path for path in drawn if path.name.startswith(f"{SAMPLER}-{n}-"))
            yield n, kept_pictures(path)[:MOST], distance[f"{SAMPLER}/{n}"]["gabor_frechet"][0]
        return
    sheets = sorted(PICTURES.glob(f"{name}-[0-9].png"))
    results = [json.loads(sheet.with_suffix(".json").read_text()) for sheet in sheets]
    if any(KEY in result["measures"] for result in results):
        yield 25, torch.cat([pictures(sheet) for sheet in sheets]), across_seeds(results, KEY, "gabor_frechet")[0]


def main() -> None:
    """Judge all models whose pictures are kept."""
    parser = options(__doc__, "two models, stand-ins for the networks, generated fingerprints")
    parser.add_argument("--data", type=Path, help="the folder of socofing/")
    parser.add_argument("--runs", type=Path, help="the folder of runs and results of benchmarks/images.py")
    given = parser.parse_args()
    if not given.quick and given.data is None:
        parser.error("give --data, the folder of socofing/, or --quick")
    torch.set_num_threads(1)
    source = "fingerprint" if given.quick else f"socofing:{given.data}/socofing"
    counts = ("test", MOST if given.quick else 500, 1), ("train", MOST, 2)
    real, train = (read(source, part).windows(count, seed=seed) for part, count, seed in counts)
    looks = (dark_corners, striped, half_waves) if given.quick else (leader(), leader_features(), ridge_periods())
    judges = Judges(detected_once(looks[0]), described_once(looks[1]), described_once(looks[2]))
    models: dict[str, Any] = {}
    for model in MODELS if not given.quick else ("vp", "local, Wiener"):
        for n, samples, distance in kept(model, given.runs):
            models[f"{model}/{n}"] = judges.distances(samples, real, train) | {"gabor_frechet": distance}
            print(f"{model}, {n} evaluations: judged", flush=True)
    record = {"models": models}
    keep(given.out, **record)
    print("\n".join(table(record)))
    print(agreement(record))


if __name__ == "__main__":
    main()

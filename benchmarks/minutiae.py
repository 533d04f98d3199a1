"""Do generated fingerprints have the minutiae of real ones, and does that judge agree with the Gabor-Frechet distance?

    python benchmarks/minutiae.py --quick                                   # seconds; a stand-in finds the minutiae
    python benchmarks/minutiae.py --data FOLDER --out benchmarks/results/minutiae.json

FOLDER holds ``socofing/``. Judged are the pictures of ``benchmarks/images.py`` that are kept beside its results, 48 of
each training, drawn with 25 evaluations by multistep steps, all seeds of a model together; real are windows of
held-out persons, and the floor is the distance of as many training windows. Minutiae are found by LEADER, a trained
network (``circsde.metrics.minutiae``), in windows that are enlarged 2.7 times. Beside them is the Gabor-Frechet
distance of all 500 samples that ``benchmarks/images.py`` measured.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from images import MODELS, SIZE, across_seeds, distances, read
from numpy.typing import NDArray
from PIL import Image
from report import Record, Row, keep, options
from scipy.stats import spearmanr
from torch import Tensor

from circsde.metrics.minutiae import MEASURES, Detector, compare, leader
from circsde.streams import torch_stream

PICTURES = Path(__file__).parent / "results" / "images"
GAP, KEY = 2, "multistep/25"


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


def judged(samples: Tensor, real: Tensor, train: Tensor, detector: Detector) -> dict[str, Any]:
    """The distances of a set of pictures, with intervals and floors, and its means."""
    found = compare(real, samples, train=train, detector=detector, generator=torch_stream(0, "resampling"))
    means = {str(one): found["mean"].sel(set=one).values.tolist() for one in found["set"].values}
    return {"n": len(samples), "measures": distances(found), "means": means}


def remembering(detector: Detector) -> Detector:
    """The same detector, which sees every picture once: real ones are compared with each model."""
    known: dict[bytes, Sequence[tuple[float, float, bool, float]]] = {}

    def detect(picture: NDArray[np.uint8]) -> Sequence[tuple[float, float, bool, float]]:
        key = picture.tobytes()
        if key not in known:
            known[key] = detector(picture)
        return known[key]

    return detect


def dark_corners(picture: NDArray[np.uint8]) -> list[tuple[float, float, bool, float]]:
    """A stand-in for the quick form: pixels darker than all around them."""
    inner = picture[1:-1, 1:-1]
    around = [picture[1 + i : SIZE - 1 + i, 1 + j : SIZE - 1 + j] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    darkest = np.argwhere((inner < np.min(around, 0)) & (inner < 60)).tolist()
    return [(float(x + 1), float(y + 1), bool((x + y) % 2), 1.0 - picture[y + 1, x + 1] / 60.0) for y, x in darkest]


def table(record: Record) -> list[str]:
    """A row per model: distances with intervals, floors, and the Gabor-Frechet distance."""
    rows = []
    for model, found in record["models"].items():
        cells = [
            f"{v:.2f} ({low:.2f} to {high:.2f}); {floor:.2f}" for v, low, high, floor in found["measures"].values()
        ]
        rows.append(f"| {model} | {found['n']} | {' | '.join(cells)} | {found['gabor_frechet']:.1f} |")
    return rows


def agreement(record: Record) -> dict[str, float]:
    """Spearman's rank correlation of each measure with the Gabor-Frechet distance, over models."""
    models = list(record["models"].values())
    gabor = [found["gabor_frechet"] for found in models]
    return {
        measure: float(spearmanr([found["measures"][measure][0] for found in models], gabor).statistic)
        for measure in MEASURES
    }


def summary(record: Record) -> Iterator[Row]:
    """The rank correlations with the Gabor-Frechet distance."""
    for measure, rho in agreement(record).items():
        yield Row(f"{measure} of minutiae: rank correlation over models", "Gabor-Frechet", rho, rho, rho)


def main() -> None:
    """Judge all models whose pictures are kept."""
    parser = options(__doc__, "two models, a stand-in for the detector, generated fingerprints")
    parser.add_argument("--data", type=Path, help="the folder of socofing/")
    given = parser.parse_args()
    if not given.quick and given.data is None:
        parser.error("give --data, the folder of socofing/, or --quick")
    torch.set_num_threads(1)
    source = "fingerprint" if given.quick else f"socofing:{given.data}/socofing"
    count = 24 if given.quick else 500
    real, train = (
        read(source, part).windows(n, seed=seed) for part, n, seed in (("test", count, 1), ("train", 144, 2))
    )
    detector = remembering(dark_corners if given.quick else leader())
    models: dict[str, Any] = {}
    for model in MODELS if not given.quick else ("vp", "local, Wiener"):
        sheets = sorted(PICTURES.glob(f"socofing-{model.replace(', ', '-')}-[0-9].png"))
        results = [json.loads(sheet.with_suffix(".json").read_text()) for sheet in sheets]
        if not any(KEY in result["measures"] for result in results):
            continue
        models[model] = judged(torch.cat([pictures(sheet) for sheet in sheets]), real, train, detector)
        models[model]["gabor_frechet"] = across_seeds(results, KEY, "gabor_frechet")[0]
        print(f"{model}: judged", flush=True)
    record = {"models": models}
    keep(given.out, **record)
    print("\n".join(table(record)))
    print(agreement(record))


if __name__ == "__main__":
    main()

"""Annotations and results files with all that evaluations differ about, for the tests of ``score --predictions``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vrft_bench.tasks.base import MetricReport


def random_files(
    folder: Path,
    seed: int,
    *,
    images: int = 10,
    grid: float | None = 8.0,
    scores: int = 5,
    crowds: bool = False,
    many: int = 0,
    lvis: bool = False,
    text_ids: bool = False,
) -> tuple[Path, Path]:
    """Annotations and results with ties; the last of 4 categories has no truth, the last two images no objects."""
    rng = np.random.default_rng(seed)

    def box(largest: float = 200.0) -> list[float]:
        values = np.concatenate([rng.uniform(0, 300, 2), rng.uniform(0, largest, 2) * rng.choice([0.2, 1.0])])
        return (np.round(values / grid) * grid if grid else values).tolist()

    def near(source: list[float]) -> list[float]:
        noise = rng.normal(0, 10, 4) * rng.choice([0.0, 0.5, 1.0])
        values = np.array(source) + (np.round(noise / grid) * grid if grid else noise)
        return [*values[:2].tolist(), *np.maximum(values[2:], 0).tolist()]

    numbers = rng.permutation(1000)[:images].tolist()
    ids = [f"image {number}" for number in numbers] if text_ids else numbers
    rows, annotations, results = [], [], []
    for place, image in enumerate(ids):
        row: dict[str, Any] = {"id": image, "width": 640, "height": 480, "file_name": f"{place}.jpg"}
        negative, incomplete = [], []
        for category in (1, 2, 3, 4):
            own = [box() for _ in range(rng.integers(0, 6))] if category < 4 and place < images - 2 else []
            for number, bbox in enumerate(own):
                crowd = int(crowds and number % 3 == 1)
                area = bbox[2] * bbox[3] * float(rng.choice([1.0, 0.6, 0.25]))
                annotations.append({"image_id": image, "category_id": category, "bbox": bbox, "area": area})
                annotations[-1]["iscrowd"] = crowd
            if not own and rng.random() < 0.5:
                negative.append(category)
            if own and rng.random() < 0.3:
                incomplete.append(category)
            for _ in range(many if many and rng.random() < 0.3 else rng.integers(0, 8)):
                bbox = near(own[rng.integers(len(own))]) if own and rng.random() < 0.7 else box()
                score = float(rng.integers(1, scores + 1)) / scores
                results.append({"image_id": image, "category_id": category, "bbox": bbox, "score": score})
        if lvis:
            row |= {"neg_category_ids": negative, "not_exhaustive_category_ids": incomplete}
        rows.append(row)
    for number, item in enumerate(annotations, 1):
        item["id"] = number
    rng.shuffle(results)
    categories = [{"id": number, "name": f"c{number}", "frequency": "rcfr"[number - 1]} for number in (1, 2, 3, 4)]
    document = {"info": {}, "images": rows, "annotations": annotations, "categories": categories}
    return write(folder / "truth.json", document), write(folder / "results.json", results)


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


PRF = ("precision", "recall", "f1")


def points(report: MetricReport, prefix: str = "") -> dict[str, list[float | None]]:
    """Precision, recall and F1 of every category, and their means."""
    rows = {"mean": report.figures, **report.by_category}
    return {name: [row[prefix + key].value for key in PRF] for name, row in rows.items()}

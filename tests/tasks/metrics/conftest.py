"""Random detection worlds, and the official evaluators as oracles over them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrft_bench.tasks.base import BoxTarget, Dataset, Detection, ImageRef, Prediction, Sample, Status
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.detection import DetectionMetric


@dataclass
class World:
    """Questions, and the answers to them. Keys are (image id, category name)."""

    categories: tuple[str, ...]
    targets: dict[tuple[int, str], BoxTarget]
    answers: dict[tuple[int, str], tuple[Detection, ...]]
    frequency: dict[str, str] = field(default_factory=dict)

    @property
    def images(self) -> list[int]:
        return sorted({image for image, _ in self.targets})

    def dataset(self) -> Dataset:
        rules = "lvis" if self.frequency else "coco"
        return Dataset("val", self.categories, lambda: iter(()), rules=rules, frequency=self.frequency)

    def pairs(self) -> Iterator[tuple[Sample, Prediction]]:
        for (image, category), target in self.targets.items():
            fields = {"image_id": str(image), "category": category}
            sample = Sample(f"{image}/{category}", ImageRef(640, 480), fields, target)
            yield sample, Prediction(Status.OK, detections=self.answers.get((image, category), ()))

    def metric(self, **options: Any) -> DetectionMetric:
        metric = DetectionMetric(self.dataset(), **options)
        for sample, prediction in self.pairs():
            metric.update(sample, prediction)
        return metric


def random_world(
    seed: int,
    *,
    images: int = 12,
    categories: int = 4,
    grid: float | None = 8.0,
    confidences: int = 6,
    crowds: bool = False,
    many: int = 0,
    lvis: bool = False,
) -> World:
    """A world of boxes on a coarse ``grid`` (None: real coordinates), so that overlaps tie and land on thresholds.

    ``confidences`` is the number of distinct ones (0: none is stated), ``many`` adds an answer of so many boxes. The
    last category never has truth.
    """
    rng = np.random.default_rng(seed)
    names = tuple(f"category {index}" for index in range(categories))

    def box(largest: float = 200.0) -> Box:
        x, y = rng.uniform(0, 300, 2)
        w, h = rng.uniform(0, largest, 2) * rng.choice([0.2, 1.0])
        values = np.array([x, y, x + w, y + h])
        if grid:
            values = np.round(values / grid) * grid
        return tuple(values.tolist())

    def near(source: Box) -> Box:
        noise = rng.normal(0, 12, 4) * rng.choice([0.0, 0.5, 1.0])
        values = np.array(source) + (np.round(noise / grid) * grid if grid else noise)
        return (values[0], values[1], max(values[0], values[2]), max(values[1], values[3]))

    def confidence() -> float | None:
        return float(rng.integers(1, confidences + 1)) / confidences if confidences else None

    targets, answers = {}, {}
    for image in rng.choice(500, images, replace=False).tolist():
        for name in names:
            has_truth = name != names[-1] and rng.random() < 0.7
            boxes = tuple(box() for _ in range(rng.integers(1, 5))) if has_truth else ()
            crowd = tuple(box(400.0) for _ in range(rng.integers(0, 3))) if crowds and has_truth else ()
            areas = tuple(rng.choice([1.0, 0.6, 0.25]) * (x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes)
            count = many if many and rng.random() < 0.2 else int(rng.integers(0, 6))
            sources = boxes + crowd
            found = [
                near(sources[rng.integers(len(sources))]) if sources and rng.random() < 0.7 else box()
                for _ in range(count)
            ]
            targets[image, name] = BoxTarget(
                boxes,
                areas,
                crowd,
                tuple(100.0 for _ in crowd),
                exhaustive=not (lvis and boxes and rng.random() < 0.3),
                verified=not (lvis and not boxes and rng.random() < 0.5),
            )
            answers[image, name] = tuple(Detection(item, confidence()) for item in found)
    frequency = {name: "rcf"[index % 3] for index, name in enumerate(names)} if lvis else {}
    return World(names, targets, answers, frequency)


def coco_eval(world: World, image_number: Callable[[int], int] = lambda image: image) -> Any:
    """pycocotools' evaluation of ``world``, accumulated, with images renumbered by ``image_number``."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    truth.dataset = _annotations(world, image_number)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(_results(world, image_number)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def lvis_eval(world: World, folder: Path) -> Any:
    """lvis-api's evaluation of ``world``, with its results summarised."""
    import json

    from lvis import LVIS, LVISEval, LVISResults

    path = folder / "lvis.json"
    path.write_text(json.dumps(_annotations(world, lambda image: image)))
    truth = LVIS(str(path))
    evaluation = LVISEval(truth, LVISResults(truth, _results(world, lambda image: image)), "bbox")
    evaluation.evaluate()
    # lvis 0.5.3 still says np.float, which numpy 1.24 removed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "float", float, raising=False)
        evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def _annotations(world: World, image_number: Callable[[int], int]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    images = {
        image: {
            "id": image_number(image),
            "width": 640,
            "height": 480,
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
        }
        for image in world.images
    }
    for (image, category), target in world.targets.items():
        number = world.categories.index(category) + 1
        own = target.areas or [None] * len(target.boxes)
        objects = [(box, area, 0) for box, area in zip(target.boxes, own, strict=True)]
        regions = [(box, area, 1) for box, area in zip(target.crowd, target.crowd_areas, strict=True)]
        for (x1, y1, x2, y2), area, crowd in objects + regions:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_number(image),
                    "category_id": number,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1) if area is None else area,
                    "iscrowd": crowd,
                    "segmentation": [],
                }
            )
        if not target.boxes and target.verified:
            images[image]["neg_category_ids"].append(number)
        if not target.exhaustive:
            images[image]["not_exhaustive_category_ids"].append(number)
    categories = [
        {"id": index + 1, "name": name, "frequency": world.frequency.get(name, "f")}
        for index, name in enumerate(world.categories)
    ]
    return {"info": {}, "images": list(images.values()), "annotations": annotations, "categories": categories}


def _results(world: World, image_number: Callable[[int], int]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_number(image),
            "category_id": number + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": 1.0 if confidence is None else confidence,
        }
        for image in world.images
        for number, category in enumerate(world.categories)
        for (x1, y1, x2, y2), confidence in world.answers.get((image, category), ())
    ]


@pytest.fixture(name="random_world")
def _random_world() -> Callable[..., World]:
    return random_world


@pytest.fixture(name="coco_eval")
def _coco_eval() -> Callable[..., Any]:
    return coco_eval


@pytest.fixture(name="lvis_eval")
def _lvis_eval(tmp_path: Path) -> Callable[[World], Any]:
    return lambda world: lvis_eval(world, tmp_path)

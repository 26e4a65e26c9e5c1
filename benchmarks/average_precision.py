"""Our AP against pycocotools': CPU time and largest difference on one random set at the size of COCO val2017.

    python benchmarks/average_precision.py [--scale 1.0]

At scale 1: 5,000 images, 80 categories, 36,000 objects and 100,000 detections, one question for each image and
category that has either. Ours is timed twice: AP alone, which is what pycocotools computes, and the whole report with
bootstrap intervals, tie interval, precision and recall.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections import defaultdict

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vrft_bench.tasks.base import BoxTarget, Dataset, Detection, ImageRef, Prediction, Sample, Status
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.average_precision import PrecisionRecall
from vrft_bench.tasks.metrics.detection import DetectionMetric
from vrft_bench.tasks.metrics.outcome_table import image_order
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES

IMAGES, CATEGORIES, OBJECTS, DETECTIONS = 5_000, 80, 36_000, 100_000
Pair = tuple[int, int]
Boxes = dict[Pair, list[Box]]
Found = dict[Pair, list[Detection]]


def random_set(scale: float, rng: np.random.Generator) -> tuple[int, Boxes, Found]:
    """Number of images, objects and detections; 60 % of the detections are jittered objects."""
    images, objects, detections = (max(2, int(size * scale)) for size in (IMAGES, OBJECTS, DETECTIONS))

    def boxes(count: int) -> np.ndarray:
        corner = rng.uniform(0, 500, (count, 2))
        return np.hstack([corner, corner + rng.lognormal(4, 0.8, (count, 2))]).round(2)

    truth: Boxes = defaultdict(list)
    pairs = [(int(i), int(k)) for i, k in zip(*rng.integers(0, (images, CATEGORIES), (objects, 2)).T, strict=True)]
    rows = boxes(objects)
    for pair, row in zip(pairs, rows.tolist(), strict=True):
        truth[pair].append(tuple(row))
    found: Found = defaultdict(list)
    jittered = int(0.6 * detections)
    sources = rng.integers(0, objects, jittered)
    moved = rows[sources] + rng.normal(0, 5, (jittered, 4)).round(2)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    confidences = rng.random(detections).round(3).tolist()
    for source, row, confidence in zip(sources.tolist(), moved.tolist(), confidences, strict=False):
        found[pairs[source]].append(Detection(tuple(row), confidence))
    for row, confidence in zip(boxes(detections - jittered).tolist(), confidences[jittered:], strict=True):
        found[int(rng.integers(images)), int(rng.integers(CATEGORIES))].append(Detection(tuple(row), confidence))
    return images, truth, found


def ours(truth: Boxes, found: Found) -> tuple[list[float], float, float]:
    """AP per area range; CPU seconds for AP alone and for the whole report."""
    names = tuple(f"category {index}" for index in range(CATEGORIES))
    questions = []
    for image, k in sorted({*truth, *found}):
        fields = {"image_id": str(image), "category": names[k]}
        sample = Sample("", ImageRef(640, 480), fields, BoxTarget(tuple(truth.get((image, k), ()))))
        questions.append((sample, Prediction(Status.OK, detections=tuple(found.get((image, k), ())))))
    metric = DetectionMetric(Dataset("val", names, lambda: iter(()), rules="coco"))
    begin = time.process_time()
    for sample, prediction in questions:
        metric.update(sample, prediction)
    updated = time.process_time()
    table = metric._tables[0]
    order = image_order(metric._images, [table])
    outcomes = table.ranked(order)
    curves = [PrecisionRecall(outcomes, CATEGORIES, len(order), area) for area in range(len(AREA_RANGES))]
    ap = [float(np.nanmean(item.average_precision())) for item in curves]
    plain = time.process_time()
    metric.compute()
    full = updated - begin + time.process_time() - plain
    print(f"ours: {len(questions):,} questions, {(updated - begin) / len(questions) * 1e6:.1f} us per update")
    return ap, plain - begin, full


def theirs(images: int, truth: Boxes, found: Found) -> tuple[list[float], float]:
    """pycocotools' AP per area range and its CPU seconds."""

    def record(pair: Pair, box: Box) -> dict[str, object]:
        x1, y1, x2, y2 = box
        size = (x2 - x1) * (y2 - y1)
        return {"image_id": pair[0], "category_id": pair[1], "bbox": [x1, y1, x2 - x1, y2 - y1], "area": size}

    objects = [record(pair, box) | {"iscrowd": 0} for pair in truth for box in truth[pair]]
    results = [record(pair, item.box) | {"score": item.confidence} for pair in found for item in found[pair]]
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": index, "width": 640, "height": 480} for index in range(images)],
        "annotations": [{"id": index + 1, **item} for index, item in enumerate(objects)],
        "categories": [{"id": index, "name": str(index)} for index in range(CATEGORIES)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        detections = coco.loadRes(results)
        begin = time.process_time()
        evaluation = COCOeval(coco, detections, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    seconds = time.process_time() - begin
    precision = evaluation.eval["precision"][..., -1]
    return [float(precision[..., area][precision[..., area] > -1].mean()) for area in range(len(AREA_RANGES))], seconds


def main() -> None:
    """Run both and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the set relative to COCO val2017")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images, truth, found = random_set(options.scale, np.random.default_rng(options.seed))
    our_ap, plain, full = ours(truth, found)
    their_ap, reference = theirs(images, truth, found)
    for name, a, b in zip(AREA_RANGES, our_ap, their_ap, strict=True):
        print(f"AP {name:7s} ours {a:.6f}  pycocotools {b:.6f}")
    print(f"CPU seconds: AP alone {plain:.2f}, whole report {full:.2f}, pycocotools {reference:.2f}")
    print(f"pycocotools / ours: {reference / plain:.1f}x for AP alone, {reference / full:.1f}x for the whole report")
    print(f"largest difference of an AP: {max(abs(a - b) for a, b in zip(our_ap, their_ap, strict=True)):.2e}")


if __name__ == "__main__":
    main()

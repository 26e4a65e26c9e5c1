"""The bootstrap of AP against evaluating every resample with pycocotools.

    OMP_NUM_THREADS=1 python benchmarks/bootstrap.py [--replicates 1000] [--evaluations 3]

A random set of 5,000 images, 8 categories, 12,000 objects and 20,000 detections with tied scores. Ours is timed in
whole: judging all answers once, ranking them, and AP of 1,000 resamples; once for AP alone and once for every figure of
a detection report (AP at .5 and .75 and by size, AR, precision, recall, F1). pycocotools is timed on a few resamples,
``evaluate`` and ``accumulate`` without building its index, and extrapolated: as it comes (four area ranges, three
limits on detections), and cut down to the one area range and the one limit that AP needs. Each of these resamples is
also computed by both, and the largest difference is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vrft_bench.tasks.base import BoxTarget, Dataset, Detection, ImageRef, Prediction, Sample, Status
from vrft_bench.tasks.metrics.average_precision import PrecisionRecall
from vrft_bench.tasks.metrics.detection import CountedDetections, DetectionMetric
from vrft_bench.tasks.metrics.outcome_table import image_order
from vrft_bench.tasks.metrics.paired import FigureKey
from vrft_bench.tasks.metrics.paired_figures import PairedDetection
from vrft_bench.tasks.metrics.statistics import basic_interval, resampled_weights

IMAGES, CATEGORIES, OBJECTS, DETECTIONS = 5_000, 8, 12_000, 20_000
WANTED_RATIO = 500
NAMES = tuple(f"category {number}" for number in range(CATEGORIES))
Rows = NDArray[np.float64]


def random_boxes(count: int, rng: np.random.Generator) -> Rows:
    corner = rng.uniform(0, 500, (count, 2))
    return np.hstack([corner, corner + rng.lognormal(4, 0.8, (count, 2))]).round(2)


def random_set(rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows of (image, category, box) and (image, category, box, score); 60 % of the detections are jittered objects.

    The boxes of one answer have different scores, in hundredths, so that scores tie between images alone.
    """
    objects = np.hstack([rng.integers(0, (IMAGES, CATEGORIES), (OBJECTS, 2)), random_boxes(OBJECTS, rng)])
    near = int(0.6 * DETECTIONS)
    moved = objects[rng.integers(0, OBJECTS, near)]
    moved[:, 2:] += rng.normal(0, 5, (near, 4)).round(2)
    moved[:, 4:] = np.maximum(moved[:, 4:], moved[:, 2:4] + 1)
    elsewhere = rng.integers(0, (IMAGES, CATEGORIES), (DETECTIONS - near, 2))
    found = np.vstack([moved, np.hstack([elsewhere, random_boxes(len(elsewhere), rng)])])
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    question = found[:, 0] * CATEGORIES + found[:, 1]
    place = np.arange(len(found)) - np.searchsorted(question, question)
    scores = rng.integers(50, 100, len(found))[np.searchsorted(question, question)] - place
    return objects, np.hstack([found, scores[:, None] / 100])


def judged(objects: Rows, found: Rows) -> CountedDetections:
    """All answers, judged once, question by question as a run is."""
    truth: dict[tuple[int, int], list[Any]] = {}
    answers: dict[tuple[int, int], list[Detection]] = {}
    for image, category, *box in objects.tolist():
        truth.setdefault((int(image), int(category)), []).append(tuple(box))
    for image, category, *box, score in found.tolist():
        answers.setdefault((int(image), int(category)), []).append(Detection((box[0], box[1], box[2], box[3]), score))
    metric = DetectionMetric(Dataset("val", NAMES, lambda: iter(()), rules="coco"))
    for image in range(IMAGES):
        for category, name in enumerate(NAMES):
            fields = {"image_id": str(image), "category": name}
            sample = Sample("", ImageRef(640, 480), fields, BoxTarget(tuple(truth.get((image, category), ()))))
            metric.update(sample, Prediction(Status.OK, detections=tuple(answers.get((image, category), ()))))
    return metric.counted()


def pycocotools_evaluation(objects: Rows, found: Rows, weights: Rows, *, plain: bool) -> tuple[float, float]:
    """AP of one resample and the CPU seconds of ``evaluate`` and ``accumulate``.

    ``plain`` as it comes; else with the one area range and the one limit that AP needs. Image k drawn n times is there
    under n ids.
    """
    times = weights.astype(np.int64)
    first = np.cumsum(times) - times + 1

    def records(rows: Rows) -> list[dict[str, Any]]:
        made = []
        for image, category, x1, y1, x2, y2, *score in rows.tolist():
            width, height = x2 - x1, y2 - y1
            for copy in range(times[int(image)]):
                record = {"image_id": int(first[int(image)]) + copy, "category_id": int(category) + 1}
                made.append(record | {"bbox": [x1, y1, width, height], "area": width * height, "iscrowd": 0})
                if score:
                    made[-1]["score"] = score[0]
        return [{"id": number, **record} for number, record in enumerate(made, 1)]

    shared = {
        "images": [{"id": number} for number in range(1, int(times.sum()) + 1)],
        "categories": [{"id": number} for number in range(1, CATEGORIES + 1)],
    }
    truth, answers = COCO(), COCO()
    truth.dataset, answers.dataset = ({**shared, "annotations": records(rows)} for rows in (objects, found))
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        answers.createIndex()
        evaluation = COCOeval(truth, answers, "bbox")
        if not plain:
            evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
            evaluation.params.maxDets = [100]
        begin = time.process_time()
        evaluation.evaluate()
        evaluation.accumulate()
    seconds = time.process_time() - begin
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return float(precision[precision > -1].mean()), seconds


def timed(replicates: int, figure: Callable[[Rows], Any]) -> tuple[list[Any], float]:
    begin = time.process_time()
    values = [figure(weights) for weights in resampled_weights(IMAGES, replicates, 0)]
    return values, time.process_time() - begin


def main() -> None:
    """Time both and print the ratios; exit with 1 where the wanted one is missed or a figure differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--evaluations", type=int, default=3, help="how many resamples pycocotools evaluates")
    options = parser.parse_args()
    objects, found = random_set(np.random.default_rng(0))

    begin = time.process_time()
    counted = judged(objects, found)
    order = image_order(counted.images, [counted.tables[0]])
    curves = PrecisionRecall(counted.tables[0].ranked(order), CATEGORIES, IMAGES)
    once = time.process_time() - begin
    values, drawing = timed(options.replicates, lambda weights: float(np.nanmean(curves.average_precision(weights))))
    pair = PairedDetection(counted, 1)
    nothing = np.zeros(IMAGES)
    everything, drawing_all = timed(options.replicates, lambda weights: pair.at(weights, nothing))
    ap = float(np.nanmean(curves.average_precision()))
    print(f"{IMAGES:,} images, {CATEGORIES} categories, {OBJECTS:,} objects, {DETECTIONS:,} detections; AP {ap:.4f}")
    print(f"basic 95% interval of {options.replicates} resamples, seed 0: {basic_interval(ap, np.array(values))}")
    print(f"ours: judging once {once:.2f} s, {options.replicates} resamples of AP {drawing:.2f} s, ", end="")
    print(f"of all {len(everything[0])} figures {drawing_all:.2f} s")

    column = list(pair.keys).index(FigureKey("ap"))
    worst, seconds = 0.0, {True: 0.0, False: 0.0}
    drawn = resampled_weights(IMAGES, options.evaluations, 0)
    for number, weights in enumerate(drawn):
        for plain in seconds:
            theirs, own = pycocotools_evaluation(objects, found, weights, plain=plain)
            seconds[plain] += own / options.evaluations
            worst = max(worst, abs(theirs - values[number]), abs(theirs - everything[number][column]))
    print(f"pycocotools: {seconds[True]:.2f} s per resample as it comes, {seconds[False]:.2f} s cut down to AP alone")
    print(f"largest difference of AP on {options.evaluations} resamples: {worst:.1e}")
    per_replicate = (once + drawing) / options.replicates
    ratio = seconds[True] / per_replicate
    print(f"AP: {ratio:,.0f} times as fast as pycocotools ({WANTED_RATIO} wanted), ", end="")
    print(f"{seconds[False] / per_replicate:,.0f} times as fast as it cut down; ", end="")
    print(f"all figures: {seconds[True] / ((once + drawing_all) / options.replicates):,.0f} times")
    sys.exit(0 if ratio >= WANTED_RATIO and worst < 1e-9 else 1)


if __name__ == "__main__":
    main()

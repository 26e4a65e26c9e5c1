"""Our AP against pycocotools', and a results file of LVIS's size: CPU time, memory, and the largest difference.

    OMP_NUM_THREADS=1 python benchmarks/average_precision.py [--scale 1.0] [--no-lvis]

COCO: at scale 1, a random set of the size of val2017, 5,000 images, 80 categories, 36,000 objects and 100,000
detections. Timed are pycocotools' ``evaluate`` and ``accumulate``, and on our side AP in all four area ranges,

* of a results file (``vrft-bench score --predictions``), all questions at once;
* of a run, question by question as a run streams them, one for each image and category that has objects or detections;
* of a run with its whole report: bootstrap intervals, tie interval, precision and recall.

Reading files is left out of these. LVIS: the whole command on files of the size of LVIS v1 val, 19,809 images, 1,203
categories, 244,000 objects with polygons and 1,000,000 detections, in a process of its own; reading is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vrft_bench.tasks.base import BoxTarget, Dataset, Detection, ImageRef, Prediction, Sample, Status
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.data.coco_results import ResultColumns, TruthColumns
from vrft_bench.tasks.metrics.average_precision import PrecisionRecall
from vrft_bench.tasks.metrics.bulk_outcomes import bulk_outcomes
from vrft_bench.tasks.metrics.detection import DetectionMetric
from vrft_bench.tasks.metrics.outcome_table import RankedOutcomes, image_order
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES, COCO_RULES

IMAGES, CATEGORIES, OBJECTS, DETECTIONS = 5_000, 80, 36_000, 100_000
LVIS_IMAGES, LVIS_CATEGORIES, LVIS_OBJECTS, LVIS_DETECTIONS = 19_809, 1_203, 244_000, 1_000_000
WANTED_RATIO, WANTED_SECONDS, WANTED_MEGABYTES = 40, 10, 1024
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


def streamed(truth: Boxes, found: Found) -> tuple[list[float], float, float]:
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
    ap = average_precisions(outcomes, len(order))
    plain = time.process_time()
    metric.compute()
    full = updated - begin + time.process_time() - plain
    print(f"a run: {len(questions):,} questions, {(updated - begin) / len(questions) * 1e6:.1f} us per update")
    return ap, plain - begin, full


def average_precisions(outcomes: RankedOutcomes, images: int) -> list[float]:
    """Mean AP in each area range."""
    curves = [PrecisionRecall(outcomes, CATEGORIES, images, area) for area in range(len(AREA_RANGES))]
    return [float(np.nanmean(item.average_precision())) for item in curves]


def in_bulk(images: int, truth: Boxes, found: Found) -> tuple[list[float], float]:
    """AP per area range of a results file; CPU seconds, best of three since it is over so soon."""
    objects = [(k * images + image, *box) for (image, k), boxes in truth.items() for box in boxes]
    results = [(*pair, item.confidence, *item.box) for pair, items in found.items() for item in items]
    own, other = np.array(objects), np.array(results)
    own[:, 3:5] -= own[:, 1:3]
    other[:, 5:7] -= other[:, 3:5]
    none = np.empty(0, np.int64)
    crowd = np.zeros(len(own), np.bool_)
    area = own[:, 3] * own[:, 4]
    target = TruthColumns(images, CATEGORIES, own[:, 0].astype(np.int64), own[:, 1:5], area, crowd, None, none)
    answers = ResultColumns(*other[:, :2].astype(np.int64).T, other[:, 3:7], other[:, 2])
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        ap = average_precisions(bulk_outcomes(target, answers, COCO_RULES).ranked, images)
        seconds.append(time.process_time() - begin)
    return ap, min(seconds)


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


def write_lvis(folder: Path, rng: np.random.Generator) -> None:
    """Random files of LVIS v1 val's size, frequent categories and rare ones; 60 % of the detections are jittered."""
    share = 1.0 / np.arange(1, LVIS_CATEGORIES + 1)
    categories = rng.choice(LVIS_CATEGORIES, LVIS_OBJECTS, p=share / share.sum()) + 1
    images = rng.integers(0, LVIS_IMAGES, LVIS_OBJECTS)
    boxes = np.hstack([rng.uniform(0, 500, (LVIS_OBJECTS, 2)), rng.lognormal(4, 0.8, (LVIS_OBJECTS, 2))]).round(2)
    present: dict[int, set[int]] = defaultdict(set)
    for image, category in zip(images.tolist(), categories.tolist(), strict=True):
        present[image].add(category)
    rows = []
    for image in range(LVIS_IMAGES):
        absent = {*rng.integers(1, LVIS_CATEGORIES + 1, 12).tolist()} - present[image]
        row = {"id": image, "width": 640, "height": 480, "coco_url": f"http://host/val2017/{image:012d}.jpg"}
        rows.append(row | {"neg_category_ids": [*absent], "not_exhaustive_category_ids": [*present[image]][:1]})
    columns = zip(images.tolist(), categories.tolist(), boxes.tolist(), strict=True)
    objects = [
        {"id": n, "image_id": i, "category_id": k, "bbox": box, "area": box[2] * box[3], "segmentation": [[1.25] * 120]}
        for n, (i, k, box) in enumerate(columns, 1)
    ]
    names = [{"id": k, "name": f"category {k}", "frequency": "rcf"[k % 3]} for k in range(1, LVIS_CATEGORIES + 1)]
    document = {"images": rows, "annotations": objects, "categories": names}
    (folder / "truth.json").write_text(json.dumps(document))
    near = rng.random(LVIS_DETECTIONS) < 0.6
    source = rng.integers(0, LVIS_OBJECTS, LVIS_DETECTIONS)
    image = np.where(near, images[source], rng.integers(0, LVIS_IMAGES, LVIS_DETECTIONS)).tolist()
    moved = (boxes[source] + rng.normal(0, 5, (LVIS_DETECTIONS, 4))).clip(1).round(2).tolist()
    columns = zip(image, categories[source].tolist(), moved, rng.random(LVIS_DETECTIONS).tolist(), strict=True)
    results = [{"image_id": i, "category_id": k, "bbox": box, "score": score} for i, k, box, score in columns]
    (folder / "results.json").write_text(json.dumps(results))


def lvis_command(folder: Path) -> None:
    """What ``vrft-bench score --predictions`` does; prints CPU seconds and peak memory as JSON."""
    from vrft_bench.harness.score_predictions import score_predictions

    report = score_predictions(folder / "results.json", folder / "truth.json").report
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(json.dumps([time.process_time(), int(peak) / 1024, report.figures["ap"].value]))


def main() -> None:
    """Run all of it and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the set relative to COCO val2017")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-lvis", action="store_true", help="leave out the set of LVIS's size")
    parser.add_argument("--lvis-command", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lvis_command:
        lvis_command(options.lvis_command)
        return
    images, truth, found = random_set(options.scale, np.random.default_rng(options.seed))
    bulk_ap, bulk = in_bulk(images, truth, found)
    our_ap, plain, full = streamed(truth, found)
    their_ap, reference = theirs(images, truth, found)
    for name, a, b, c in zip(AREA_RANGES, bulk_ap, our_ap, their_ap, strict=True):
        print(f"AP {name:7s} results file {a:.6f}  run {b:.6f}  pycocotools {c:.6f}")
    differences = [abs(a - b) for ap in (bulk_ap, our_ap) for a, b in zip(ap, their_ap, strict=True)]
    print(f"largest difference of an AP: {max(differences):.2e}")
    print(f"pycocotools: {reference:.2f} s of CPU")
    for name, seconds in (("results file", bulk), ("run, AP alone", plain), ("run, whole report", full)):
        print(f"{name:18} {seconds:6.3f} s: pycocotools takes {reference / seconds:6.1f} times as long")
    print(f"wanted of the results file: {WANTED_RATIO} times")
    if not options.no_lvis:
        with tempfile.TemporaryDirectory() as folder:
            write_lvis(Path(folder), np.random.default_rng(options.seed))
            command = [sys.executable, __file__, "--lvis-command", folder]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        seconds, megabytes, ap = json.loads(answer)
        print(f"LVIS val size, files and all: {seconds:.1f} s of CPU, {megabytes:.0f} MiB at most (AP {ap:.4f})")
        print(f"wanted: {WANTED_SECONDS} s and {WANTED_MEGABYTES} MiB")


if __name__ == "__main__":
    main()

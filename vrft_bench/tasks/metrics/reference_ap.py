"""AP of a results file as pycocotools computes it: a second opinion on our own, forty and more times slower."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from vrft_bench.tasks.data.coco_results import Integers, ResultColumns, TruthColumns
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES
from vrft_bench.tasks.metrics.results_report import RECALL_LIMITS, ResultsFigures, figures_by_name
from vrft_bench.tasks.metrics.working_point import RightAndWrong


def reference_figures(truth: TruthColumns, results: ResultColumns) -> ResultsFigures:
    """What pycocotools' ``COCOeval`` says of ``results``, by COCO's rules and without intervals.

    Objects are numbered from 1: pycocotools takes the id 0 for "not matched".
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    chosen = np.flatnonzero(results.category >= 0)
    objects = _entries(truth.pair % truth.images, truth.pair // truth.images, truth.box, area=truth.area)
    for entry, is_crowd in zip(objects, truth.crowd.tolist(), strict=True):
        entry["iscrowd"] = int(is_crowd)
    found = _entries(results.image[chosen], results.category[chosen], results.box[chosen])
    for entry, score in zip(found, results.score[chosen].tolist(), strict=True):
        entry["score"] = score
        entry["area"] = entry["bbox"][2] * entry["bbox"][3]
        entry["iscrowd"] = 0
    index, answers = COCO(), COCO()
    shared = {
        "images": [{"id": number} for number in range(truth.images)],
        "categories": [{"id": number} for number in range(truth.categories)],
    }
    index.dataset, answers.dataset = {**shared, "annotations": objects}, {**shared, "annotations": found}
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
        answers.createIndex()
        evaluation = COCOeval(index, answers, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"]
    precision, recall = np.where(precision > -1, precision, np.nan), np.where(recall > -1, recall, np.nan)
    nothing = np.empty((0, truth.categories))
    areas = range(len(AREA_RANGES))
    truths = np.bincount((truth.pair // truth.images)[~truth.crowd], minlength=truth.categories)
    return ResultsFigures(
        values=figures_by_name(
            [precision[..., area].mean(axis=1) for area in areas],
            [recall[..., area, -1] for area in areas],
            {limit: recall[..., 0, evaluation.params.maxDets.index(limit)] for limit in RECALL_LIMITS},
        ),
        truths=truths,
        detections=np.bincount(results.category[chosen], minlength=truth.categories),
        replicates={"ap": nothing},
        orders=nothing,
        judged=_judged(evaluation, truths),
    )


def _judged(evaluation: Any, truths: Integers) -> RightAndWrong:
    """What pycocotools matched at IoU .5, over all areas."""
    area = evaluation.params.areaRng[0]
    found = [item for item in evaluation.evalImgs if item is not None and item["aRng"] == area]
    nothing = np.empty(0)
    ignored = np.concatenate([nothing, *(item["dtIgnore"][0] for item in found)]) > 0
    category = np.concatenate([nothing, *(np.full(len(item["dtScores"]), item["category_id"]) for item in found)])
    score = np.concatenate([nothing, *(np.asarray(item["dtScores"], dtype=np.float64) for item in found)])
    right = np.concatenate([nothing, *(item["dtMatches"][0] for item in found)]) > 0
    order = np.lexsort((-score, category))
    rows = order[~ignored[order]]
    return RightAndWrong(truths.astype(np.float64), category[rows].astype(np.int64), score[rows], right[rows])


def _entries(image: Integers, category: Integers, box: Any, **columns: Any) -> list[dict[str, Any]]:
    """Annotations in COCO's form, numbered from 1."""
    rows = zip(
        image.tolist(), category.tolist(), box.tolist(), *(item.tolist() for item in columns.values()), strict=True
    )
    return [
        {"id": number, "image_id": i, "category_id": k, "bbox": bbox, **dict(zip(columns, rest, strict=True))}
        for number, (i, k, bbox, *rest) in enumerate(rows, 1)
    ]

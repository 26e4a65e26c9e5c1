"""AP of answers that were changed: ranked otherwise, mended in one respect, or left out.

A scenario takes the questions about one image (one completion index) and returns them as they might have been; AP
over all images then comes from the same outcomes as the metric's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vrft_bench.tasks.base import Detection
from vrft_bench.tasks.metrics.answer_columns import Answered, Question
from vrft_bench.tasks.metrics.average_precision import Floats, PrecisionRecall
from vrft_bench.tasks.metrics.error_breakdown import WRONG, ImageErrors, counted_truths
from vrft_bench.tasks.metrics.outcome_table import ImageIds, OutcomeTable, category_batches, image_order
from vrft_bench.tasks.metrics.outcomes import IOU_THRESHOLDS, Outcome, Rules

_ALWAYS = (1 << len(IOU_THRESHOLDS)) - 1
"""The mask of a box that is right, or counts, at every threshold in the area range ``all``."""


def average_precision(table: OutcomeTable, images: ImageIds, categories: int, limit: int | None) -> Floats:
    """AP as (thresholds, categories); NaN for a category without truth. ``limit`` is the boxes per image that count."""
    order = image_order(images, [table])
    batches = category_batches([table], categories)
    without = table.beyond_limit(order, batches, limit)
    parts = [
        PrecisionRecall(table.ranked(order, batch, places), len(batch), len(order)).average_precision()
        for batch, places in zip(batches, without, strict=True)
    ]
    return np.concatenate(parts, axis=1)


def readable(questions: Sequence[Question]) -> list[Question]:
    """Without the questions whose answers could not be read: neither their truth nor anything else counts."""
    return [item for item in questions if item.answered is not Answered.UNPARSABLE]


def answered(questions: Sequence[Question]) -> list[Question]:
    """Without the questions that were never answered: nobody asked, or the request failed."""
    return [item for item in questions if item.answered is not Answered.NEVER]


def boxes_right(questions: Sequence[Question]) -> list[Question]:
    """The m most confident boxes of every answer stand exactly on the m true ones; the others stay where they are.

    What is left to lose is what, how many and how sure.
    """
    moved = []
    for item in questions:
        found = list(item.detections)
        ranked = sorted(range(len(found)), key=lambda place: -_score(found[place]))
        for place, truth in zip(ranked, item.target.boxes, strict=False):
            found[place] = Detection(truth, found[place].confidence)
        moved.append(item._replace(detections=tuple(found)))
    return moved


def labels_right(questions: Sequence[Question], errors: ImageErrors) -> list[Question]:
    """Every box that stands on an object of another category is an answer to the question about that one.

    What is left to lose is where, how many and how sure.
    """
    found = [list(enumerate(item.detections)) for item in questions]
    for mistake in errors.mistakes:
        if mistake.kind == "classification" and mistake.wanted is not None:
            box = errors.judged[mistake.judged]
            mover = (box.detection, questions[box.question].detections[box.detection])
            found[box.question].remove(mover)
            found[mistake.wanted[0]].append((-1, mover[1]))
    return [
        item._replace(detections=tuple(detection for _, detection in own))
        for item, own in zip(questions, found, strict=True)
    ]


def mended_outcomes(
    questions: Sequence[Question], errors: ImageErrors, kind: str, rules: Rules
) -> Iterable[tuple[int, Outcome]]:
    """Per question: its category, and its outcome at IoU .5 with all mistakes of ``kind`` mended.

    The masks hold the outcome at .5 for every threshold. A kind that no mistake is of leaves all as it is.
    """
    by_question: list[list[tuple[float, bool]]] = [[] for _ in questions]
    mended = {mistake.judged: mistake for mistake in errors.mistakes if mistake.kind == kind}
    for number, box in enumerate(errors.judged):
        if number in mended:
            mistake = mended[number]
            if mistake.mends and mistake.wanted is not None:
                by_question[mistake.wanted[0]].append((box.score, True))
        elif box.truth >= WRONG:
            by_question[box.question].append((box.score, box.truth >= 0))
    truths = [len(counted_truths(item.target, rules)) for item in questions]
    if kind == "missed":
        for number, _ in errors.missed:
            truths[number] -= 1
    for item, boxes, count in zip(questions, by_question, truths, strict=True):
        boxes.sort(key=lambda box: -box[0])
        true = [_ALWAYS if right else 0 for _, right in boxes]
        scores, counted = [score for score, _ in boxes], [_ALWAYS] * len(boxes)
        yield item.category, Outcome(scores, true, counted, (count, 0, 0, 0), 0, 0, 0)


def _score(detection: Detection) -> float:
    return 1.0 if detection.confidence is None else detection.confidence

"""Answers and truth of a whole detection run in compact columns, handed back image by image.

What looks across the categories of an image (a right box under a wrong name) has to wait until all questions about it
are there, and they come in any order. So boxes are kept, as plain doubles: 48 bytes per predicted and 40 per true box,
28 per question. A question that has neither is not kept: it can change nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from enum import IntEnum
from itertools import groupby
from math import isnan, nan
from typing import NamedTuple

import numpy as np

from vrft_bench.tasks.base import NO_PREDICTION, UNASKED, UNPARSABLE, BoxTarget, Detection, Prediction
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.outcome_table import ImageIds


class Answered(IntEnum):
    """Whether an answer could be read, could not, or never came (failed, or nobody asked)."""

    READ = 0
    UNPARSABLE = 1
    NEVER = 2


class Question(NamedTuple):
    """One category in one image (completion index ``n``): its truth, and what was answered.

    ``likelihoods`` are those of the predicted boxes, NaN where it is not known; empty where none is.
    """

    n: int
    category: int
    target: BoxTarget
    detections: tuple[Detection, ...]
    answered: Answered = Answered.READ
    likelihoods: tuple[float, ...] = ()


class AnswerColumns:
    """Streaming columns of questions."""

    def __init__(self) -> None:
        self._image_ids = ImageIds()
        self._image = array("q")
        self._n, self._category = array("i"), array("i")
        self._flags = array("B")
        self._counts = (array("i"), array("i"), array("i"))
        self._boxes = (array("d"), array("d"), array("d"))
        self._likelihoods = array("d")

    def add(self, image_id: str, question: Question) -> None:
        """Keep one question. Without boxes of any kind, it is left out."""
        target = question.target
        boxes = (target.boxes, target.crowd, [item.box for item in question.detections])
        if not any(boxes):
            return
        sizes = (target.areas, target.crowd_areas, [item.confidence for item in question.detections])
        self._image.append(self._image_ids.handle(image_id))
        self._n.append(question.n)
        self._category.append(question.category)
        self._flags.append(question.answered | target.exhaustive << 2 | target.verified << 3)
        for column, counts, own, numbers in zip(self._boxes, self._counts, boxes, sizes, strict=True):
            counts.append(len(own))
            known = numbers or [None] * len(own)
            for box, number in zip(own, known, strict=True):
                column.extend((*box, nan if number is None else number))
        self._likelihoods.extend(question.likelihoods or [nan] * len(question.detections))

    def images(self) -> Iterator[list[Question]]:
        """The questions about every image that has a box, by completion index and category.

        Images come in the order in which AP ranks equal scores: by id.
        """
        handles = np.asarray(self._image)
        order = self._image_ids.ordered(np.unique(handles))
        by_handle = np.argsort(order)
        ranks = by_handle[np.searchsorted(order, handles, sorter=by_handle)]
        starts = [np.concatenate(([0], np.cumsum(np.asarray(counts)))) for counts in self._counts]
        rows = np.lexsort((np.asarray(self._category), np.asarray(self._n), ranks))
        for _, own in groupby(rows.tolist(), key=lambda row: int(ranks[row])):
            yield [self._question(row, [int(item[row]) for item in starts]) for row in own]

    def _question(self, row: int, starts: list[int]) -> Question:
        parts = [
            _split(column[5 * start : 5 * (start + counts[row])])
            for column, counts, start in zip(self._boxes, self._counts, starts, strict=True)
        ]
        (boxes, areas), (crowd, crowd_areas), (found, confidences) = parts
        flags = self._flags[row]
        target = BoxTarget(
            boxes,
            () if any(map(isnan, areas)) else areas,
            crowd,
            () if any(map(isnan, crowd_areas)) else crowd_areas,
            exhaustive=bool(flags & 4),
            verified=bool(flags & 8),
        )
        detections = tuple(
            Detection(box, None if isnan(stated) else stated) for box, stated in zip(found, confidences, strict=True)
        )
        likely = tuple(self._likelihoods[starts[2] : starts[2] + len(detections)])
        return Question(self._n[row], self._category[row], target, detections, Answered(flags & 3), likely)


def answered(prediction: Prediction) -> Answered:
    """Whether ``prediction`` was read. What never came is counted as one of two constants."""
    if prediction is NO_PREDICTION or prediction is UNASKED:
        return Answered.NEVER
    return Answered.UNPARSABLE if prediction.status in UNPARSABLE else Answered.READ


def _split(values: array[float]) -> tuple[tuple[Box, ...], tuple[float, ...]]:
    rows = [values[start : start + 5].tolist() for start in range(0, len(values), 5)]
    return tuple((x1, y1, x2, y2) for x1, y1, x2, y2, _ in rows), tuple(row[4] for row in rows)

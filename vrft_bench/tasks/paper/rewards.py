"""The rewards that Visual-RFT trains with, faults included.

``Reward.function`` gives the reference's raw value, which may be NaN or infinite; calling the :class:`Reward` gives
what training uses, where such a value is 0. They compare texts: a completion with a *solution*, the text of the
training set, which is rendered from the target here. What is no :class:`PaperPrediction` (a completion that never came)
earns 0.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from vrft_bench.tasks.base import BoxTarget, ClassTarget, MaskTarget, Prediction, Reward
from vrft_bench.tasks.boxes import iou_column
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.paper.box_list import BoxList, number_table
from vrft_bench.tasks.paper.parsing import (
    CORNERS,
    FAILURES,
    first_answer,
    keeps_format,
)
from vrft_bench.tasks.paper.prediction import PaperPrediction, thousandths
from vrft_bench.tasks.paper.symbolic import verified

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MATCH_IOU = 0.5
"""A match has to lie above this; exactly .5 is none."""

BOXES_AT_ONCE = 1000
"""Many boxes are compared in portions, since truths are soon taken."""

_LONGEST_HARMLESS = 300
"""Up to so many characters, a box holds no number beyond the range of floats."""


class Compared(NamedTuple):
    """The boxes of an answer beside the truths.

    ``overlap`` is the sum of matched IoUs; ``confidence`` the mean of c where matched and of 1 - c where not.
    """

    overlap: float
    confidence: float
    boxes: int
    truths: int


def box_solution(target: BoxTarget, frame: Frame) -> str:
    """The solution of a detection question: ``<answer>[{'Position': [1, 364, 98, 649], 'Confidence': 1}]</answer>``."""
    if not target.boxes:
        return "<answer>No Objects</answer>"
    boxes = (f"{{'Position': {position}, 'Confidence': 1}}" for position in _positions(target, frame))
    return f"<answer>[{', '.join(boxes)}]</answer>"


def class_solution(target: ClassTarget) -> str:
    """The solution of a classification question: ``<answer>737-400</answer>``."""
    return f"<answer>{target.label}</answer>"


def region_solution(target: MaskTarget, frame: Frame) -> str:
    """The solution of a grounding question: ``<answer> (x1,y1),(x2,y2) </answer>``, with spaces as in training."""
    x1, y1, x2, y2 = thousandths(frame).to_model(target.box)
    return f"<answer> ({x1},{y1}),({x2},{y2}) </answer>"


def format_reward(prediction: Prediction, target: object) -> float:  # noqa: ARG001 - rewards share one signature
    """1 if the whole text is a thought and an answer in their tags. Empty ones count, and so does text between several.

    A line break after the last tag costs the reward.
    """
    return float(isinstance(prediction, PaperPrediction) and keeps_format(prediction.text))


def iou_reward(prediction: Prediction, target: BoxTarget) -> float:
    """Version 2, the one that runs: the sum of matched IoUs over max(number of truths, number of boxes)."""
    return _detection_reward(prediction, target, lambda found: min(found.overlap / max(found.truths, found.boxes), 1.0))


def iou_reward_v1(prediction: Prediction, target: BoxTarget) -> float:
    """Version 1, the paper's equation 6: the sum of matched IoUs over the number of boxes, so that misses are free."""
    return _detection_reward(prediction, target, lambda found: min(found.overlap / found.boxes, 1.0))


def confidence_reward(prediction: Prediction, target: BoxTarget) -> float:
    """The mean over the boxes of c where matched and 1 - c where not, brought into [0, 1] only after averaging.

    NaN where a stated confidence is NaN.
    """
    return _detection_reward(prediction, target, lambda found: _within_unit(found.confidence))


def accuracy_reward(prediction: Prediction, target: ClassTarget) -> float:
    """1 if one of answer and label is part of the other; without answer tags the whole completion is the answer."""
    if not isinstance(prediction, PaperPrediction):
        return 0.0
    if verified(prediction.text, class_solution(target)):
        return 1.0
    answer = prediction.text if prediction.label is None else prediction.label
    return float(is_part_of_the_other(answer, target.label))


def is_part_of_the_other(answer: str, label: str) -> bool:
    """The paper's comparison, of its evaluation too: without spaces and underscores, in lower case."""
    given, true = (text.strip().replace(" ", "").replace("_", "").lower() for text in (answer, label))
    return true in given or given in true


def evaluated_accuracy(prediction: Prediction, target: ClassTarget) -> float:
    """What the evaluation counts: :func:`is_part_of_the_other` of the answer, and nothing without answer tags."""
    return float(prediction.label is not None and is_part_of_the_other(prediction.label, target.label))


def giou_reward(prediction: Prediction, target: MaskTarget) -> float:
    """1 + generalised IoU (Rezatofighi et al. 2019) in the unit square, 2 where answer and solution are equal texts.

    Neither clipped nor kept to boxes whose corners are in order, so it has no bounds but those of floats. 0 where no
    box was read.
    """
    if not isinstance(prediction, PaperPrediction):
        return 0.0
    solution = region_solution(target, prediction.frame)
    if verified(prediction.text, solution):
        return 1.0
    truth = first_answer(solution) or ""
    answer = first_answer(prediction.text, over_lines=True)
    answer = prediction.text.strip() if answer is None else answer
    if answer == truth:
        return 2.0
    try:
        return 1.0 + _generalised_iou(_corners(truth), _corners(answer))
    except FAILURES:
        return 0.0


def _detection_reward(prediction: Prediction, target: BoxTarget, worth: Callable[[Compared], float]) -> float:
    """1 where symbolic verification succeeds, else what ``worth`` makes of the comparison; 0 for whatever fails."""
    if not isinstance(prediction, PaperPrediction):
        return 0.0
    if verified(prediction.text, box_solution(target, prediction.frame)):
        return 1.0
    found = _compared(prediction, target)
    return 0.0 if found is None else worth(found)


_last: tuple[PaperPrediction | None, BoxTarget | None, Compared | None] = (None, None, None)
"""The last comparison, since all rewards of a completion ask for the same. It is replaced as a whole, so threads that
interleave compute again and never mix."""


def _compared(prediction: PaperPrediction, target: BoxTarget) -> Compared | None:
    """The comparison of an answer with its truth; ``None`` where there is nothing to compare, or it fails."""
    global _last
    of_prediction, of_target, result = _last
    if of_prediction is not prediction or of_target is not target:
        truths = _positions(target, prediction.frame)
        try:
            result = _compare(prediction.rewarded, truths) if prediction.rewarded and truths else None
        except FAILURES:
            result = None
        _last = prediction, target, result
    return result


def _compare(boxes: BoxList, truths: list[list[float]]) -> Compared:
    """By descending confidence, each box takes the free truth that it overlaps most, if by more than the threshold."""
    positions, confidences = boxes.positions, boxes.confidences
    ranked = sorted(range(len(positions)), key=confidences.__getitem__, reverse=True)
    free = dict(enumerate(truths))
    total, confidence = 0.0, 0.0  # added up one by one: sum() rounds otherwise from Python 3.12 on
    for place, rivals in zip(ranked, _rivals(boxes, ranked, free), strict=True):
        best, overlap = -1, 0.0
        for number in rivals:
            if number in free and (value := _iou(free[number], positions[place])) > overlap:
                best, overlap = number, value
        if overlap > MATCH_IOU:
            del free[best]
            total += overlap
            confidence += confidences[place]
        else:
            confidence += 1 - confidences[place]
    return Compared(total, confidence / len(positions), len(positions), len(truths))


def _rivals(boxes: BoxList, ranked: list[int], free: Mapping[int, list[float]]) -> Iterator[Collection[int]]:
    """For each of ``ranked``, the numbers of the truths that it has to be compared with, of those that are ``free``
    when its turn comes. Of a portion with a table of numbers, that tells which truths a box comes near."""
    for first in range(0, len(ranked), BOXES_AT_ONCE):
        portion = ranked[first : first + BOXES_AT_ONCE]
        if not free:
            yield from [()] * len(portion)
            continue
        if boxes.table is None:
            table = number_table([boxes.positions[place] for place in portion])
        else:
            table = boxes.table[portion]
        yield from [free.keys()] * len(portion) if table is None else _near(table, free)


def _near(table: NDArray[np.float64], free: Mapping[int, list[float]]) -> list[Collection[int]]:
    """For each box of a table, the numbers of the truths whose IoU with it may be above the threshold."""
    import numpy as np

    rivals: list[Collection[int]] = [()] * len(table)
    with np.errstate(all="ignore"):
        for number, (x1, y1, x2, y2) in free.items():
            for row in (iou_column(table, (x1, y1, x2, y2)) > MATCH_IOU - 0.01).nonzero()[0].tolist():
                rivals[row] = (*rivals[row], number)
    return rivals


def _positions(target: BoxTarget, frame: Frame) -> list[list[float]]:
    return [list(thousandths(frame).to_model(box)) for box in target.boxes]


def _iou(truth: list[float], box: Any) -> float:
    """IoU in the reference's order of operations, which decides what NaN and infinite numbers amount to."""
    ax1, ay1, ax2, ay2 = truth
    bx1, by1, bx2, by2 = box
    x1, y1, x2, y2 = max(ax1, bx1), max(ay1, by1), min(ax2, bx2), min(ay2, by2)
    if x2 <= x1 or y2 <= y1:
        return 0.0
    shared = (x2 - x1) * (y2 - y1)
    return float(shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared))


def _within_unit(value: float) -> float:
    return value if math.isnan(value) else float(min(max(value, 0.0), 1.0))


def _corners(answer: str) -> list[tuple[float, float]]:
    """Two corners of a box; of several boxes the top left corners of the first two, which then count as a box.

    Raises one of :data:`FAILURES` where there is no box, and for a number that is too large anywhere.
    """
    found: list[list[float]] = []
    for match in CORNERS.finditer(answer):
        if len(found) < 2 or match.end() - match.start() > _LONGEST_HARMLESS:
            found.append([int(digits) / 1000 for digits in match.groups()])
    x1, y1, x2, y2 = found[0]
    return [(x1, y1), (x2, y2) if len(found) == 1 else (found[1][0], found[1][1])]


def _generalised_iou(truth: list[tuple[float, float]], given: list[tuple[float, float]]) -> float:
    (ax1, ay1), (ax2, ay2) = truth
    (bx1, by1), (bx2, by2) = given
    shared = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    overlap = shared / union if union > 0 else 0.0
    hull = (max(ax2, bx2) - min(ax1, bx1)) * (max(ay2, by2) - min(ay1, by1))
    return overlap - (hull - union) / hull if hull > 0 else overlap


FORMAT = Reward("format", format_reward)
IOU = Reward("iou", iou_reward)
IOU_V1 = Reward("iou_v1", iou_reward_v1)
CONFIDENCE = Reward("confidence", confidence_reward)
ACCURACY = Reward("accuracy", accuracy_reward)
GIOU = Reward("giou", giou_reward, low=-sys.float_info.max, high=sys.float_info.max)
BY_NAME = {
    "detection": {reward.name: reward for reward in (IOU, IOU_V1, CONFIDENCE, FORMAT)},
    "classification": {reward.name: reward for reward in (ACCURACY, FORMAT)},
    "grounding": {reward.name: reward for reward in (GIOU, FORMAT)},
}
"""Family -> name -> reward; ``iou_v1`` is there to be compared with, and belongs to no task."""

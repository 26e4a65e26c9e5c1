"""What kind of mistake each wrong and each missing box is, in the manner of TIDE (Bolya et al. 2020, arXiv 2008.08115).

Truth and boxes of all categories of one image are looked at together, at IoU .5 (``MATCH``) and .1 (``NEAR``). A wrong
box is, in this order:

* ``localisation``: its best overlap with truth of its own category is in [.1, .5];
* ``classification``: it overlaps truth of another category by .5 or more;
* ``duplicate``: it overlaps truth of its own category that a better box has claimed;
* ``background``: it overlaps no truth by more than .1;
* ``both``: anything else, at a wrong place and under a wrong name.

Truth that no box has claimed is ``missed``, unless mending a localisation or classification error would find it. An
error is mended by making the box right (the most confident of those that want the same truth; the others go, and so
does a box whose truth is claimed), by dropping the box (duplicate, background, both), or by not counting the truth
(missed). What AP at IoU .5 gains by mending one kind alone is what is lost to it.

Without crowd regions that is what tidecv, the authors' code, gives. Unlike it, a box that AP ignores is no mistake, so
that none is mended by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vrft_bench.tasks.base import BoxTarget, Detection
from vrft_bench.tasks.boxes import area, covered_column, iou_column
from vrft_bench.tasks.metrics.answer_columns import Question
from vrft_bench.tasks.metrics.outcomes import Rules

MATCH, NEAR = 0.5, 0.1
ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
WRONG, IGNORED = -1, -2
_LARGEST = 1e10
"""Square pixels; beyond, COCO counts neither truth nor boxes."""


class Judged(NamedTuple):
    """A box that AP counts: its question (by place), its place in the answer, its score, and the truth that it claims
    by place in the question's target, or :data:`WRONG` or :data:`IGNORED`. ``iou`` is that with the claimed truth."""

    question: int
    detection: int
    score: float
    truth: int
    iou: float


class Mistake(NamedTuple):
    """A wrong box, by its place among the judged ones. ``wanted`` is the truth (question, place) that it nearly found
    or found under a wrong name; ``mends`` says that making it right would find that truth."""

    judged: int
    kind: str
    wanted: tuple[int, int] | None = None
    mends: bool = False


class ImageErrors(NamedTuple):
    """All of one image: boxes by descending score, mistakes, and the missed truth as (question, place)."""

    judged: list[Judged]
    mistakes: list[Mistake]
    missed: list[tuple[int, int]]


def counted_truths(target: BoxTarget, rules: Rules) -> list[int]:
    """Which boxes of a target count, by place: LVIS's evaluation reads none of area 0, and none that is unverified."""
    if not target.verified:
        return []
    areas = target.areas or [area(box) for box in target.boxes]
    least = 0.0 if rules.ignores_empty else -1.0
    return [place for place, size in enumerate(areas) if least < size <= _LARGEST]


def image_errors(questions: Sequence[Question], rules: Rules) -> ImageErrors:
    """Judge the answers about one image (one completion index)."""
    judged = _judge(questions, rules)
    truths = [(number, place) for number, item in enumerate(questions) for place in counted_truths(item.target, rules)]
    claimed = {(item.question, item.truth) for item in judged if item.truth >= 0}
    free = [truth not in claimed for truth in truths]
    wrong = [number for number, item in enumerate(judged) if item.truth == WRONG]
    overlaps = _overlaps([_box(questions, judged[number]) for number in wrong], questions, truths)
    owner = np.array([number for number, _ in truths], dtype=np.int64)
    mistakes = []
    mended: set[tuple[int, int]] = set()
    for number, row in zip(wrong, overlaps, strict=True):
        kind, column = _kind(row, owner == judged[number].question, np.array(free, dtype=np.bool_))
        wanted = None if column is None else truths[column]
        mends = column is not None and free[column] and wanted not in mended
        if mends and wanted is not None:
            mended.add(wanted)
        mistakes.append(Mistake(number, kind, wanted, mends))
    missed = [truth for truth, is_free in zip(truths, free, strict=True) if is_free and truth not in mended]
    return ImageErrors(judged, mistakes, missed)


def _kind(row: NDArray[np.float64], own: NDArray[np.bool_], free: NDArray[np.bool_]) -> tuple[str, int | None]:
    """The kind of mistake of a box with overlaps ``row`` with all truths, and the truth that it concerns."""
    if not len(row):
        return "background", None
    same, other = np.where(own, row, 0.0), np.where(own, 0.0, row)
    if NEAR <= same.max() <= MATCH:
        return "localisation", int(same.argmax())
    if other.max() >= MATCH:
        return "classification", int(other.argmax())
    if np.where(free, 0.0, same).max() >= MATCH:
        return "duplicate", None
    return ("background" if row.max() <= NEAR else "both"), None


def _judge(questions: Sequence[Question], rules: Rules) -> list[Judged]:
    """The boxes that are within the limits, by descending score; ties by category and place in the answer."""
    kept: list[Judged] = []
    for number, question in enumerate(questions):
        scores = [1.0 if item.confidence is None else item.confidence for item in question.detections]
        places = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[: rules.limit]
        claims = claim(question.target, [question.detections[place] for place in places], rules)
        kept += [
            Judged(number, place, scores[place], truth, iou) for place, (truth, iou) in zip(places, claims, strict=True)
        ]
    kept.sort(key=lambda item: -item.score)
    return kept[: rules.limit_per_image]


def claim(target: BoxTarget, ranked: Sequence[Detection], rules: Rules) -> list[tuple[int, float]]:
    """Which truth each of ``ranked`` (by descending score) claims at IoU .5, and their IoU; else WRONG or IGNORED.

    As COCO's and LVIS's own evaluation has it: the free truth that it overlaps most, the later one of two that it
    overlaps equally; see :mod:`vrft_bench.tasks.metrics.outcomes`.
    """
    places = counted_truths(target, rules)
    if not target.verified or (rules.ignores_empty and target.boxes and not places):
        return [(IGNORED, 0.0)] * len(ranked)
    if not ranked:
        return []
    boxes = np.array([item.box for item in ranked], dtype=np.float64)
    on_truth = [iou_column(boxes, target.boxes[place]).tolist() for place in places]
    on_crowd = [covered_column(boxes, region).tolist() for region in target.crowd]
    free = set(range(len(places)))
    claims = []
    for row, item in enumerate(ranked):
        best = max(((on_truth[column][row], column) for column in free), default=(0.0, -1))
        size = area(item.box)
        if best[0] >= MATCH:
            free.remove(best[1])
            claims.append((places[best[1]], best[0]))
        elif any(column[row] >= MATCH for column in on_crowd) or not target.exhaustive:
            claims.append((IGNORED, 0.0))
        else:
            claims.append((IGNORED if size > _LARGEST or (rules.ignores_empty and size == 0.0) else WRONG, 0.0))
    return claims


def _overlaps(
    boxes: list[tuple[float, float, float, float]], questions: Sequence[Question], truths: list[tuple[int, int]]
) -> NDArray[np.float64]:
    """IoU of ``boxes`` with ``truths``, as (boxes, truths)."""
    result = np.zeros((len(boxes), len(truths)))
    if len(boxes):
        found = np.array(boxes, dtype=np.float64)
        for column, (number, place) in enumerate(truths):
            result[:, column] = iou_column(found, questions[number].target.boxes[place])
    return result


def _box(questions: Sequence[Question], judged: Judged) -> tuple[float, float, float, float]:
    return questions[judged.question].detections[judged.detection].box

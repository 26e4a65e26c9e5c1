"""What a completion means to the paper's code: tags, the repair of answers, and the first box of a text.

The reference's regular expressions take quadratic time on some texts; the functions here accept the same texts in
linear time. Where the reference fails with an error, the caller gets one too, of :data:`FAILURES`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from vrft_bench.tasks.base import Detection, Status
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.paper.box_list import NOT_STATED, BoxList, Position, boxes_in, leading_table
from vrft_bench.tasks.paper.prediction import PaperPrediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FAILURES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What the reference's ``except Exception`` meets while it reads and scores an answer."""

LARGEST = 1e300
"""Confidences are ranked within this, so that differences between them are finite."""

_OPEN, _CLOSE = "<answer>", "</answer>"
_THOUGHT = re.compile(r"</think>\s*<answer>")
_REPAIRS = (("[[", "["), ("]]", "]"), ("\n", ""))
_EVALUATION_REPAIRS = (*_REPAIRS, (", ...", ""))
_POINT = r"\(\s*+(\d++)\s*+,\s*+(\d++)\s*+\)"
CORNERS = re.compile(rf"{_POINT}\s*+,\s*+{_POINT}")
"""A box as the grounding scripts find it: integers only, in any text."""


class Evaluated(NamedTuple):
    """What the evaluation makes of a list: the boxes that it writes into its results file, how many it ``read``, how
    many of those lie ``outside`` the image or were ``dropped``, and the ``error`` that ended the list."""

    detections: list[Detection]
    read: int
    outside: int
    dropped: int
    error: str = ""


def keeps_format(text: str) -> bool:
    r"""Whether ``<think>.*?</think>\s*<answer>.*?</answer>`` matches the whole text, line breaks included."""
    if not (text.startswith("<think>") and text.endswith(_CLOSE)):
        return False
    match = _THOUGHT.search(text, len("<think>"))
    return match is not None and match.end() <= len(text) - len(_CLOSE)


def first_answer(text: str, *, over_lines: bool = False) -> str | None:
    """What the first ``<answer>(.*?)</answer>`` holds, stripped; ``over_lines`` is the flag DOTALL. ``None``: no match.

    Without ``over_lines``, both tags have to be on one line.
    """
    start = text.find(_OPEN)
    while start >= 0 and (end := text.find(_CLOSE, start + len(_OPEN))) >= 0:
        line_of_end = 0 if over_lines else text.rfind("\n", start, end) + 1
        if not line_of_end:
            return text[start + len(_OPEN) : end].strip()
        start = text.find(_OPEN, line_of_end)  # no line before holds a closing tag
    return None


def evaluated_content(text: str) -> str:
    """The list of an answer as the evaluation reads it, repaired: JSON, if anything."""
    for old, new in _EVALUATION_REPAIRS:
        text = text.replace(old, new)
    answer = first_answer(text)
    return _cut(text.strip() if answer is None else answer)


def rewarded_content(text: str, answer: str | None) -> str:
    """The same as the rewards read it: ``answer`` is the text's first before any repair, and ``, ...`` stays."""
    content = text.strip() if answer is None else answer
    for old, new in _REPAIRS:
        content = content.replace(old, new)
    return _cut(content)


def _cut(content: str) -> str:
    content = content.partition(_CLOSE)[0]
    if not content.endswith("]"):
        content = content.rsplit("},", 1)[0] + "}]"
    return content.replace("'", '"')


def parse_detections(text: str, frame: Frame, *, truncated: bool = False) -> PaperPrediction:
    """The boxes that the evaluation writes into its results file, and those that the rewards compare.

    An element that cannot be read ends the list, and what came before it is kept. A box whose numbers are not finite,
    and one whose confidence is no number (at which the reference's evaluation stops with an error), is dropped.
    """
    answer = first_answer(text)
    content = evaluated_content(text)
    is_repaired = any(old in text for old, _ in _EVALUATION_REPAIRS)
    rewarded = rewarded_content(text, answer) if is_repaired else content
    boxes, error = _boxes_or_error(content)
    if rewarded == content:
        compared = boxes
    else:
        compared, _ = _boxes_or_error(rewarded, boxes if rewarded.replace(", ...", "") == content else None)
    found = _evaluated(boxes, frame) if boxes else Evaluated([], 0, 0, 0, error)
    notes = []
    if boxes and boxes.duplicates:
        notes.append(f"{boxes.duplicates} box(es) dropped: an equal box came before")
    if found.error:
        notes.append(f"the list ends at what cannot be read ({found.error})")
    if found.dropped:
        notes.append(f"{found.dropped} box(es) dropped: not finite, or without a number as confidence")
    return PaperPrediction(
        _status(text, answer, bool(found.detections), truncated, repaired=bool(notes)),
        detections=tuple(found.detections),
        well_formed=keeps_format(text),
        boxes_read=found.read,
        boxes_out_of_range=found.outside,
        notes=tuple(notes),
        text=text,
        frame=frame,
        rewarded=compared,
    )


def _boxes_or_error(content: str, known: BoxList | None = None) -> tuple[BoxList | None, str]:
    try:
        return boxes_in(content, known), ""
    except FAILURES as error:
        return None, type(error).__name__


def _evaluated(boxes: BoxList, frame: Frame) -> Evaluated:
    """Many boxes at once, up to the one that ends the list."""
    positions, confidences = boxes.positions, boxes.confidences
    table = leading_table(positions) if boxes.table is None else boxes.table
    if table is None:
        return _evaluated_one_by_one(positions, confidences, frame)
    count = confidences.index(NOT_STATED) if NOT_STATED in confidences else len(confidences)
    count = min(count, len(table))
    found = _evaluated_at_once(table[:count], confidences[:count], frame)
    return found._replace(error=_evaluated_one_by_one(positions[count:], confidences[count:], frame).error)


def _evaluated_one_by_one(positions: Sequence[Position], confidences: Sequence[Any], frame: Frame) -> Evaluated:
    detections: list[Detection] = []
    read = outside = dropped = 0
    width, height = frame.width, frame.height
    try:
        for (x1, y1, x2, y2), stated in zip(positions, confidences, strict=True):
            box = (x1 / 1000.0 * width, y1 / 1000.0 * height, x2 / 1000.0 * width, y2 / 1000.0 * height)
            confidence = stated if type(stated) is float and 0.0 <= stated <= 1.0 else _rank(stated)
            read += 1
            inside = 0 <= x1 <= 1000 and 0 <= y1 <= 1000 and 0 <= x2 <= 1000 and 0 <= y2 <= 1000
            outside += not inside
            if confidence is None or not (inside or all(map(math.isfinite, box))):
                dropped += 1
            else:
                detections.append(Detection(box, confidence))
    except FAILURES as error:
        return Evaluated(detections, read, outside, dropped, type(error).__name__)
    return Evaluated(detections, read, outside, dropped)


def _evaluated_at_once(rows: NDArray[np.float64], confidences: Sequence[Any], frame: Frame) -> Evaluated:
    """:func:`_evaluated_one_by_one` of a table of positions that all state a confidence."""
    import numpy as np

    ranked = _ranks(confidences)
    with np.errstate(all="ignore"):
        corners = rows / 1000.0 * (frame.width, frame.height, frame.width, frame.height)
        inside = ((rows >= 0) & (rows <= 1000)).all(axis=1)
        kept = np.isfinite(corners).all(axis=1) & ~np.isnan(ranked)
    columns = (column.tolist() for column in corners[kept].T)
    found = zip(zip(*columns, strict=True), ranked[kept].tolist(), strict=True)
    detections = list(map(tuple.__new__, repeat(Detection), found))  # half the time of Detection(box, confidence)
    return Evaluated(detections, len(rows), len(rows) - int(inside.sum()), len(rows) - len(detections))


def _ranks(confidences: Sequence[Any]) -> NDArray[np.float64]:
    """:func:`_rank` of each; NaN in place of ``None``."""
    import numpy as np

    if set(map(type, confidences)) <= {int, float}:
        try:
            stated = np.array(confidences, dtype=np.float64)
            return np.where(np.isnan(stated), -2.0 * LARGEST, np.clip(stated, -LARGEST, LARGEST))
        except OverflowError:  # an integer of hundreds of digits
            pass
    return np.array([_rank(value) for value in confidences], dtype=np.float64)


def _rank(stated: Any) -> float | None:
    """A stated confidence as a number to rank by: NaN comes last, as in NumPy's sort of negated scores."""
    if stated is NOT_STATED:
        raise KeyError("Confidence")
    if type(stated) not in (int, float):
        return None
    if stated != stated:
        return -2.0 * LARGEST
    return float(min(max(stated, -LARGEST), LARGEST))


def parse_label(text: str, frame: Frame, *, truncated: bool = False) -> PaperPrediction:
    """The class name that the evaluation compares. An empty answer is an answer; one over several lines is none."""
    label = first_answer(text)
    return PaperPrediction(
        _status(text, label, label is not None, truncated, repaired=not keeps_format(text)),
        label=label,
        well_formed=keeps_format(text),
        text=text,
        frame=frame,
    )


def parse_region(text: str, frame: Frame, *, truncated: bool = False) -> PaperPrediction:
    """The first box of integers anywhere in the completion, what is thought included.

    The reference looks in the question too, so that an instruction which holds a box answers itself: not rebuilt.
    """
    match = CORNERS.search(text)
    detections: tuple[Detection, ...] = ()
    outside = 0
    try:
        if match is not None:
            x1, y1, x2, y2 = (int(digits) / 1000 for digits in match.groups())
            box = (x1 * frame.width, y1 * frame.height, x2 * frame.width, y2 * frame.height)
            outside = int(max(x1, y1, x2, y2) > 1)
            detections = (Detection(box, None),) if all(map(math.isfinite, box)) else ()
    except FAILURES:  # numbers of hundreds of digits
        pass
    return PaperPrediction(
        _status(text, first_answer(text), bool(detections), truncated, repaired=not keeps_format(text)),
        detections=detections,
        well_formed=keeps_format(text),
        boxes_read=len(detections),
        boxes_out_of_range=outside,
        text=text,
        frame=frame,
    )


def _status(text: str, answer: str | None, was_read: bool, truncated: bool, *, repaired: bool) -> Status:
    if was_read:
        return Status.REPAIRED if repaired else Status.OK
    if answer is not None and answer.strip("'\"").casefold() == "no objects":
        return Status.REFUSED
    if truncated:
        return Status.TRUNCATED
    return Status.MALFORMED if text.strip() else Status.NO_ANSWER

"""What a completion means to the paper's code: tags, the repair of answers, and the first box of a text.

The reference's regular expressions take quadratic time on some texts; the functions here accept the same texts in
linear time. Where the reference fails with an error, the caller gets one too, of :data:`FAILURES`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from vrft_bench.tasks.base import Detection, Status
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.paper.prediction import Boxes, PaperPrediction

FAILURES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What the reference's ``except Exception`` meets while it reads and scores an answer."""

LARGEST = 1e300
"""Confidences are ranked within this, so that differences between them are finite."""

_OPEN, _CLOSE = "<answer>", "</answer>"
_THOUGHT = re.compile(r"</think>\s*<answer>")
_REPAIRS = (("[[", "["), ("]]", "]"), ("\n", ""))
_EVALUATION_REPAIRS = (*_REPAIRS, (", ...", ""))
_SPACE = " \t\r\n"
_LIST_OPENS = re.compile(rf"\[[{_SPACE}]*")
_COMMA = re.compile(rf"[{_SPACE}]*,[{_SPACE}]*")
_DECODER = json.JSONDecoder()
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_POINT = r"\(\s*+(\d++)\s*+,\s*+(\d++)\s*+\)"
CORNERS = re.compile(rf"{_POINT}\s*+,\s*+{_POINT}")
"""A box as the grounding scripts find it: integers only, in any text."""

SHORT = 50_000
"""Answers of up to so many characters hold too few boxes for equal hashes to matter."""

NOT_STATED = object()
"""The confidence of an element that has none."""


class Listed(NamedTuple):
    """The boxes of a list, without ``duplicates`` elements that had the position of an earlier one."""

    boxes: Boxes
    duplicates: int


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


def boxes_in(content: str) -> Listed | None:
    """The boxes of a list; ``None`` where it is no JSON, and where it begins with a text.

    Raises one of :data:`FAILURES` where the list is empty, and at the first element without a ``Position`` that could
    be compared. That costs all boxes, so what comes after such an element is not read.
    """
    told_apart_by = _salted if len(content) > SHORT and _hashes_may_collide(content) else tuple
    seen: set[tuple[Any, ...]] = set()
    boxes: list[tuple[tuple[Any, ...], Any]] = []
    count = 0
    try:
        for count, element in enumerate(_elements(content), 1):
            if count == 1 and isinstance(element, str):
                return None
            position = tuple(element["Position"])
            key = told_apart_by(position)
            if key not in seen:
                seen.add(key)
                boxes.append((position, element.get("Confidence", NOT_STATED)))
    except json.JSONDecodeError:
        return None
    if not count:
        raise IndexError("an empty list")
    return Listed(boxes, count - len(boxes))


def _hashes_may_collide(content: str) -> bool:
    """Whether there are numbers of so many digits that thousands of them can be chosen to have the same hash.

    Python's hashes of numbers can be foreseen; with equal ones, telling boxes apart would take quadratic time.
    """
    shape = content.encode("utf-8", "surrogatepass").translate(_DIGITS)
    return b"0" * 16 in shape or b"0e" in shape


def _salted(position: tuple[Any, ...]) -> tuple[Any, ...]:
    """What equal positions have in common, with numbers as bytes, whose hashes nobody can foresee."""
    return tuple(
        [
            str(int(value) if value % 1 == 0 else value).encode() if type(value) in (int, float, bool) else value
            for value in position
        ]
    )


def _elements(content: str) -> Iterator[Any]:
    """The elements of a JSON list, one by one. Raises :class:`json.JSONDecodeError` where ``content`` is none."""
    opening = _LIST_OPENS.match(content)
    if opening is None:
        raise json.JSONDecodeError("no list", content, 0)
    position = opening.end()
    if content[position:] == "]":
        return
    while True:
        element, position = _DECODER.raw_decode(content, position)
        yield element
        comma = _COMMA.match(content, position)
        if comma is None:
            break
        position = comma.end()
    if content[position:].lstrip(_SPACE) != "]":
        raise json.JSONDecodeError("more than a list", content, position)


def parse_detections(text: str, frame: Frame, *, truncated: bool = False) -> PaperPrediction:
    """The boxes that the evaluation writes into its results file, and those that the rewards compare.

    An element that cannot be read ends the list, and what came before it is kept. A box whose numbers are not finite,
    and one whose confidence is no number (at which the reference's evaluation stops with an error), is dropped.
    """
    detections: list[Detection] = []
    notes: list[str] = []
    boxes: Boxes | None = None
    read = outside = dropped = 0
    answer = first_answer(text)
    evaluated, rewarded = evaluated_content(text), rewarded_content(text, answer)
    try:
        if (listed := boxes_in(evaluated)) is not None:
            boxes = listed.boxes
            if listed.duplicates:
                notes.append(f"{listed.duplicates} box(es) dropped: an equal box came before")
            width, height = frame.width, frame.height
            for (x1, y1, x2, y2), stated in boxes:
                box = (x1 / 1000.0 * width, y1 / 1000.0 * height, x2 / 1000.0 * width, y2 / 1000.0 * height)
                confidence = _rank(stated)
                read += 1
                inside = 0 <= x1 <= 1000 and 0 <= y1 <= 1000 and 0 <= x2 <= 1000 and 0 <= y2 <= 1000
                outside += not inside
                if confidence is None or not (inside or all(map(math.isfinite, box))):
                    dropped += 1
                else:
                    detections.append(Detection(box, confidence))
    except FAILURES as error:
        notes.append(f"the list ends at what cannot be read ({type(error).__name__})")
    if dropped:
        notes.append(f"{dropped} box(es) dropped: not finite, or without a number as confidence")
    return PaperPrediction(
        _status(text, answer, bool(detections), truncated, repaired=bool(notes)),
        detections=tuple(detections),
        well_formed=keeps_format(text),
        boxes_read=read,
        boxes_out_of_range=outside,
        notes=tuple(notes),
        text=text,
        frame=frame,
        rewarded=boxes if rewarded == evaluated else _boxes_or_none(rewarded),
    )


def _boxes_or_none(content: str) -> Boxes | None:
    try:
        listed = boxes_in(content)
    except FAILURES:
        return None
    return listed and listed.boxes


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


def parse_region(text: str, frame: Frame, *, truncated: bool = False, prompt: str = "") -> PaperPrediction:
    """The first box of integers anywhere in ``prompt`` and completion, what is thought included.

    The reference decodes prompt and completion together, so an instruction that holds a box answers itself.
    """
    match = CORNERS.search(prompt + text)
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

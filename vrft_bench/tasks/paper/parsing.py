"""What a completion means to the paper's code: tags, the repair of answers, and the first box of a text.

The reference's regular expressions take quadratic time on some texts; the functions here accept the same texts in
linear time. Where the reference fails with an error, the caller gets one too, of :data:`FAILURES`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from vrft_bench.tasks.base import Detection, Status
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.paper.prediction import PaperPrediction

FAILURES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What the reference's ``except Exception`` meets while it reads and scores an answer."""

LARGEST = 1e300
"""Confidences are ranked within this, so that differences between them are finite."""

_OPEN, _CLOSE = "<answer>", "</answer>"
_THOUGHT = re.compile(r"</think>\s*<answer>")
_REPAIRS = (("[[", "["), ("]]", "]"), ("\n", ""))
_EVALUATION_REPAIRS = (*_REPAIRS, (", ...", ""))
CORNERS = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)")
"""A box as the grounding scripts find it: integers only, in any text."""


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
    for part in (text,) if over_lines else text.split("\n"):
        start = part.find(_OPEN)
        end = part.find(_CLOSE, start + len(_OPEN)) if start >= 0 else -1
        if end >= 0:
            return part[start + len(_OPEN) : end].strip()
    return None


def evaluated_list(text: str) -> list[Any] | None:
    """The list of an answer as the evaluation reads it; ``None`` where it is no JSON. Raises :data:`FAILURES`."""
    for old, new in _EVALUATION_REPAIRS:
        text = text.replace(old, new)
    return _list(_answer_or_all(text))


def rewarded_list(text: str) -> list[Any] | None:
    """The same as the rewards read it: the answer is looked for before the repair, and ``, ...`` stays."""
    content = _answer_or_all(text)
    for old, new in _REPAIRS:
        content = content.replace(old, new)
    return _list(content)


def _answer_or_all(text: str) -> str:
    answer = first_answer(text)
    return text.strip() if answer is None else answer


def _list(content: str) -> list[Any] | None:
    content = content.partition(_CLOSE)[0]
    if not content.endswith("]"):
        content = content.rsplit("},", 1)[0] + "}]"
    try:
        value: list[Any] = json.loads(content.replace("'", '"'))
    except json.JSONDecodeError:
        return None
    return value


def without_duplicates(elements: list[Any]) -> list[Any]:
    """The first of the elements with equal ``Position``, whatever their confidences. Raises :data:`FAILURES`."""
    seen: dict[tuple[Any, ...], Any] = {}
    for element in elements:
        seen.setdefault(tuple(element["Position"]), element)
    return list(seen.values())


def parse_detections(text: str, frame: Frame, *, truncated: bool = False) -> PaperPrediction:
    """The boxes that the evaluation writes into its results file.

    An element that cannot be read ends the list, and what came before it is kept. A box whose numbers are not finite,
    and one whose confidence is no number (at which the reference's evaluation stops with an error), is dropped.
    """
    detections: list[Detection] = []
    notes: list[str] = []
    read = outside = dropped = 0
    try:
        elements = evaluated_list(text)
        if elements is not None and not isinstance(elements[0], str):
            kept = without_duplicates(elements)
            if len(kept) < len(elements):
                notes.append(f"{len(elements) - len(kept)} box(es) dropped: an equal box came before")
            for element in kept:
                x1, y1, x2, y2 = element["Position"]
                box = (
                    x1 / 1000.0 * frame.width,
                    y1 / 1000.0 * frame.height,
                    x2 / 1000.0 * frame.width,
                    y2 / 1000.0 * frame.height,
                )
                confidence = _rank(element["Confidence"])
                read += 1
                outside += not all(0 <= value <= 1000 for value in (x1, y1, x2, y2))
                if confidence is None or not all(math.isfinite(value) for value in box):
                    dropped += 1
                else:
                    detections.append(Detection(box, confidence))
    except FAILURES as error:
        notes.append(f"the list ends at what cannot be read ({type(error).__name__})")
    if dropped:
        notes.append(f"{dropped} box(es) dropped: not finite, or without a number as confidence")
    return PaperPrediction(
        _status(text, bool(detections), truncated, repaired=bool(notes)),
        detections=tuple(detections),
        well_formed=keeps_format(text),
        boxes_read=read,
        boxes_out_of_range=outside,
        notes=tuple(notes),
        text=text,
        frame=frame,
    )


def _rank(confidence: Any) -> float | None:
    """A stated confidence as a number to rank by: NaN comes last, as in NumPy's sort of negated scores."""
    if type(confidence) not in (int, float):
        return None
    if confidence != confidence:
        return -2.0 * LARGEST
    return float(min(max(confidence, -LARGEST), LARGEST))


def parse_label(text: str, frame: Frame, *, truncated: bool = False) -> PaperPrediction:
    """The class name that the evaluation compares. An empty answer is an answer; one over several lines is none."""
    label = first_answer(text)
    return PaperPrediction(
        _status(text, label is not None, truncated, repaired=not keeps_format(text)),
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
        _status(text, bool(detections), truncated, repaired=not keeps_format(text)),
        detections=detections,
        well_formed=keeps_format(text),
        boxes_read=len(detections),
        boxes_out_of_range=outside,
        text=text,
        frame=frame,
    )


def _status(text: str, has_answer: bool, truncated: bool, *, repaired: bool) -> Status:
    if has_answer:
        return Status.REPAIRED if repaired else Status.OK
    if (answer := first_answer(text)) is not None and answer.strip("'\"").casefold() == "no objects":
        return Status.REFUSED
    if truncated:
        return Status.TRUNCATED
    return Status.MALFORMED if text.strip() else Status.NO_ANSWER

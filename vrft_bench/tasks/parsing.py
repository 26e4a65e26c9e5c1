"""What an answer means, by the ``strict`` rules: from raw text to a :class:`Prediction`. Never raises, linear in time.

Which part of a completion is the answer is decided by :mod:`~vrft_bench.tasks.reply`. Where there are no ``<answer>``
tags at all, a text that is nothing but an answer is read and marked ``repaired``. Regular expressions here have no
nested or adjacent unbounded repeats over the same characters, so that no input makes them backtrack.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal

from vrft_bench.tasks.base import Detection, Prediction, Status
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.reply import Reply, read_reply

REFUSALS = frozenset({"no objects", "no object"})
"""Answers that say that the category is absent, after case, quotes and final punctuation are taken off."""

MAX_BOXES = 1000
"""An answer with more boxes than this is malformed. No image has so many objects of a kind, and reading on would only
cost time: 1 MB holds tens of thousands of boxes."""

_REFUSAL_IN_OTHER_WORDS = re.compile(
    r"(?:there (?:is|are) )?(?:no|not any) (?:such )?objects?"
    r"(?: (?:is|are|was|were))?(?: (?:found|detected|present|visible))?(?: in (?:the|this) image)?"
)
_BOX_KEYS = ("Position", "bbox_2d", "position", "bbox")
_CONFIDENCE_KEYS = ("Confidence", "confidence", "score")
_ELEMENT = re.compile(r"\{([^{}]*)\}")
_KEYED_BOX = re.compile(
    # (?<!\w.) says what \b would, and behind the first letter, so that other letters are skipped at full speed
    r"""(?:P(?<!\w.)osition|p(?<!\w.)osition|b(?<!\w.)box(?:_2d)?)["']?\s?:\s?[\[(]([^\[\]()]*)[\])]"""
)
_KEYED_CONFIDENCE = re.compile(r"""\b(?:Confidence|confidence|score)["']?\s?:\s?([^,\s]++)(?!,\d)""")
_SEPARATORS = re.compile(r"[\[\](),.;\s]*")
_ASKED_KEYS = ({"Position", "Confidence"}, {"Position"})
_NUMBER = r"([+-]?[0-9]{1,9}(?:\.[0-9]{0,9})?)"
_CORNERS = re.compile(rf"\( ?{_NUMBER} ?, ?{_NUMBER} ?\) ?,? ?\( ?{_NUMBER} ?, ?{_NUMBER} ?\)")
_LIST_OF_FOUR = re.compile(rf"[\[(] ?{_NUMBER} ?, ?{_NUMBER} ?, ?{_NUMBER} ?, ?{_NUMBER} ?[\])]")
_MAX_LABEL, _MAX_DIGITS = 512, 100

_WRITTEN = r"(?:0|[1-9][0-9]{0,5})(?:\.[0-9]{1,6})?"
_ASKED_ELEMENT = (
    rf"\{{'Position': \[{_WRITTEN}, {_WRITTEN}, {_WRITTEN}, {_WRITTEN}\], "
    r"'Confidence': (?:0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?)\}"
)
_ASKED_LIST = re.compile(rf"\[({_ASKED_ELEMENT}(?:, {_ASKED_ELEMENT})*+)\]")
"""A list to the letter of the prompt, with no number that would have to be looked at twice."""
_scan = json.JSONDecoder().raw_decode


def parse_label(text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
    """A classification completion. The label is the answer's text without a fence, quotes or surplus white space."""
    reply = read_reply(text, frame.profile.think_tags)
    if reply.answer is None or not reply.answer.strip():
        return _nothing_read(truncated)
    content, fenced = _unfence(reply.answer)
    label = " ".join(content[: 8 * _MAX_LABEL].split()).strip("'\"` ")
    if not label:
        return _nothing_read(truncated)
    if len(label) > _MAX_LABEL:
        return Prediction(Status.MALFORMED, notes=(f"answer longer than {_MAX_LABEL} characters",))
    if reply.tagged and not reply.closed:
        return Prediction(Status.TRUNCATED if truncated else Status.MALFORMED, notes=("stopped inside the label",))
    tidy = reply.tagged and reply.closed and not fenced
    return Prediction(Status.OK if tidy else Status.REPAIRED, label=label, well_formed=reply.well_formed and tidy)


def parse_detections(text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
    """A detection completion: ``[{'Position': [x1, y1, x2, y2], 'Confidence': c}, ...]`` or ``No Objects``."""
    reply = read_reply(text, frame.profile.think_tags)
    if reply.answer is None:
        return _nothing_read(truncated)
    if reply.well_formed and (asked := _as_asked(reply.answer, frame)) is not None:
        return asked
    content, fenced = _unfence(reply.answer)
    repairs = _how_found(reply, fenced)
    if content and (refusal := _refusal(content)):
        if refusal == "other words":
            repairs.append("refused in other words")
        return Prediction(Status.REFUSED, well_formed=reply.well_formed and not repairs, notes=tuple(repairs))
    if not content or not (reply.tagged or fenced or content[0] in "[{"):
        return _nothing_read(truncated)
    elements, exact = _read_elements(content)
    if elements is None:
        return _unreadable(content, truncated)
    if not exact:
        repairs.append("list repaired")
    return _to_prediction(elements, frame, repairs, reply.well_formed)


def _as_asked(answer: str, frame: Frame) -> Prediction | None:
    """A list to the letter of the prompt with nothing to repair or clip; ``None`` for any other answer.

    This is the common case, several times faster than the general reading, which gives the same for it.
    """
    if answer.count("{") > MAX_BOXES or frame.profile.axes != "xyxy":
        return None
    match = _ASKED_LIST.fullmatch(answer.strip())
    if match is None:
        return None
    numbers = match.group(1).replace("{'Position': [", "").replace("], 'Confidence': ", ", ").replace("}", "")
    max_x, max_y = frame.limits()
    to_x, to_y = frame.width / max_x, frame.height / max_y
    detections = []
    each = iter(_scan(f"[{numbers}]")[0])
    for x1, y1, x2, y2, confidence in zip(each, each, each, each, each, strict=True):
        if not (x1 < x2 <= max_x and y1 < y2 <= max_y):
            return None
        # 0.0 +: a float where 1 was written, at less than float() costs
        detections.append(Detection((x1 * to_x, y1 * to_y, x2 * to_x, y2 * to_y), 0.0 + confidence))
    return Prediction(Status.OK, None, tuple(detections), True, len(detections))


def parse_region(text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
    """A grounding completion: one box as ``(x1,y1),(x2,y2)``; ``[x1, y1, x2, y2]`` and a one-box list are read too."""
    reply = read_reply(text, frame.profile.think_tags)
    if reply.answer is None or not reply.answer.strip():
        return _nothing_read(truncated)
    content, fenced = _unfence(reply.answer)
    content = " ".join(content.split())
    repairs = _how_found(reply, fenced)
    corners = _CORNERS.fullmatch(content)
    match = corners or _LIST_OF_FOUR.fullmatch(content)
    if match is None and content[:2] == "[[" and content[-2:] == "]]":
        match = _LIST_OF_FOUR.fullmatch(content[1:-1].strip())
    if match is not None:
        if corners is None:
            repairs.append("box written as a list")
        values: list[Any] = [float(number) for number in match.groups()]
        return _to_prediction([(values, None)], frame, repairs, reply.well_formed, wants_confidence=False)
    elements, _ = _read_elements(content, content) if content[:1] in ("[", "{") else (None, False)
    if not elements:
        return _unreadable(content, truncated)
    repairs.append("box written as a detection list")
    if len(elements) > 1:
        repairs.append(f"{len(elements)} boxes given where one was asked; the first counts")
    return _to_prediction(elements[:1], frame, repairs, False, wants_confidence=False)


def _nothing_read(truncated: bool) -> Prediction:
    return Prediction(Status.TRUNCATED if truncated else Status.NO_ANSWER)


def _unreadable(content: str, truncated: bool) -> Prediction:
    if not content.strip():
        return _nothing_read(truncated)
    notes = (f"more than {MAX_BOXES:,} boxes",) if content.count("{") > MAX_BOXES else ()
    return Prediction(Status.TRUNCATED if truncated else Status.MALFORMED, notes=notes)


def _how_found(reply: Reply, fenced: bool) -> list[str]:
    notes = []
    if not reply.tagged:
        notes.append("no <answer> tags")
    elif not reply.closed:
        notes.append("no </answer>")
    if fenced:
        notes.append("fenced code block")
    return notes


def _unfence(content: str) -> tuple[str, bool]:
    """The content of the last fenced code block, if there is one; else the stripped text."""
    content = content.strip()
    if "```" not in content:
        return content, False
    parts = content.split("```")
    # an odd number of parts means that every fence is closed: the last closed block is the last but one part
    inside = parts[-2] if len(parts) % 2 == 1 else parts[-1]
    first_line, line_break, rest = inside.partition("\n")
    if line_break and first_line.strip().isalnum():
        inside = rest
    return inside.strip(), True


def _refusal(content: str) -> Literal["", "as asked", "other words"]:
    """Whether an answer says that there is nothing, and whether in the words that were asked for."""
    if len(content) > 80:
        return ""
    if "".join(content.split()) == "[]":
        return "as asked"
    listed = content[0] == "[" and content[-1] == "]"
    said = " ".join((content[1:-1] if listed else content).casefold().split()).strip(" '\"`.!")
    if said in REFUSALS:
        return "other words" if listed else "as asked"
    return "other words" if _REFUSAL_IN_OTHER_WORDS.fullmatch(said) else ""


Element = tuple[Any, Any]
"""(the four coordinates as written, the confidence as written or ``None``), not yet checked."""


def _read_elements(content: str, single_spaced: str | None = None) -> tuple[list[Element] | None, bool]:
    """The boxes as written, and whether the text was exactly a list of them; ``(None, False)`` if it holds none.

    ``single_spaced`` is ``content`` with single spaces for white space, where the caller has it.
    """
    if not 0 < content.count("{") <= MAX_BOXES:
        return None, False
    value = _loads(content)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        elements = [(_first(item, _BOX_KEYS), _first(item, _CONFIDENCE_KEYS)) for item in value]
        if any(box is not None for box, _ in elements):
            exact = content[0] == "[" and all(item.keys() in _ASKED_KEYS for item in value)
            return [_unquoted(*element) for element in elements], exact and not _holds_text(elements)
        return None, False
    found = _scan_elements(" ".join(content.split()) if single_spaced is None else single_spaced)
    return (found, False) if found else (None, False)


def _loads(content: str) -> Any:
    """``content`` as JSON or as the same with single quotes; ``None`` if it is neither."""
    for candidate in (content.replace("'", '"'),) if '"' not in content else (content, content.replace("'", '"')):
        try:
            return json.loads(candidate, object_pairs_hook=_object)
        except (ValueError, RecursionError):
            continue
    return None


_DUPLICATE = "\0duplicate key"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict (the last of equal keys wins), with a mark where keys are equal."""
    value = dict(pairs)
    if len(value) < len(pairs):
        value[_DUPLICATE] = True
    return value


def _holds_text(elements: list[Element]) -> bool:
    return any(isinstance(c, str) or (_is_list_of_four(box) and str in map(type, box)) for box, c in elements)


def _is_list_of_four(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4


def _unquoted(box: Any, confidence: Any) -> Element:
    """Numbers that were written as text, such as ``['1', '2', '30', '40']``, as numbers."""
    if _is_list_of_four(box):
        box = [_number(value) if isinstance(value, str) else value for value in box]
    return box, _number(confidence) if isinstance(confidence, str) else confidence


def _first(item: dict[str, Any], keys: tuple[str, ...]) -> Any:
    for key in keys:
        if key in item:
            return item[key]
    return None


def _scan_elements(content: str) -> list[Element]:
    """Complete ``{...}`` elements of a broken list, of which unreadable ones and a cut-off tail are passed over.

    Nothing but separators may stand around them: boxes that are mentioned in a sentence are no answer.
    """
    elements: list[Element] = []
    position = 0
    for match in _ELEMENT.finditer(content):
        if not _SEPARATORS.fullmatch(content, position, match.start()):
            return []
        position = match.end()
        body = match.group(1)
        box = _KEYED_BOX.search(body)
        if box is None:
            continue
        confidence = _KEYED_CONFIDENCE.search(body)
        # no more than is needed to see that these are not four
        numbers = [_number(part.strip(" '\"")) for part in box.group(1).split(",", 4)]
        elements.append((numbers, _number(confidence.group(1).strip("'\"")) if confidence else None))
    tail = content.find("{", position)
    return elements if _SEPARATORS.fullmatch(content, position, len(content) if tail < 0 else tail) else []


def _number(text: str) -> float | str:
    """``text`` as a number; as it is where it is none, or one that takes long to read."""
    try:
        return float(text) if len(text) <= _MAX_DIGITS else text
    except ValueError:
        return text


def _to_prediction(
    elements: list[Element], frame: Frame, repairs: list[str], well_formed: bool, *, wants_confidence: bool = True
) -> Prediction:
    """Check, clip and convert what was written; count what had to be dropped."""
    max_x, max_y = frame.limits()
    limits = (max_y, max_x) * 2 if frame.profile.axes == "yxyx" else (max_x, max_y) * 2
    detections: list[Detection] = []
    read = out_of_range = 0
    dropped: dict[str, int] = {}
    without_confidence = clipped = 0
    for values, stated in elements:
        if not _are_four_numbers(values):
            dropped["not four finite numbers"] = dropped.get("not four finite numbers", 0) + 1
            continue
        read += 1
        a, b, c, d = values
        if c < a or d < b:
            dropped["reversed"] = dropped.get("reversed", 0) + 1
            continue
        inside = a >= 0 and b >= 0 and c <= limits[2] and d <= limits[3]
        if not inside:
            out_of_range += 1
            a, b = max(0.0, a), max(0.0, b)
            c, d = min(c, limits[2]), min(d, limits[3])
        if c <= a or d <= b:
            dropped["without area"] = dropped.get("without area", 0) + 1
            continue
        confidence = _confidence(stated) if wants_confidence else None
        without_confidence += wants_confidence and confidence is None
        clipped += confidence is not None and confidence != stated
        detections.append(Detection(frame.to_original((a, b, c, d)), confidence))
    repairs.extend(f"{count} box(es) dropped: {reason}" for reason, count in dropped.items())
    if without_confidence:
        repairs.append(f"{without_confidence} box(es) without a confidence")
    if clipped:
        repairs.append(f"{clipped} confidence(s) out of [0, 1] clipped")
    if out_of_range:
        well_formed = False
    status = Status.MALFORMED if not detections else Status.REPAIRED if repairs else Status.OK
    return Prediction(
        status,
        detections=tuple(detections),
        well_formed=well_formed and status is Status.OK,
        boxes_read=read,
        boxes_out_of_range=out_of_range,
        notes=tuple(repairs),
    )


def _are_four_numbers(values: Any) -> bool:
    return _is_list_of_four(values) and all(type(value) in (int, float) and -1e12 < value < 1e12 for value in values)


def _confidence(stated: Any) -> float | None:
    if type(stated) not in (int, float) or not math.isfinite(stated if type(stated) is float else 0.0):
        return None
    return float(min(max(stated, 0), 1))

"""The boxes of an answer's list as the paper's code takes them: read from JSON and told apart by position.

1 MB holds 24,000 boxes, so many boxes are kept as a table of numbers too, and what Python does with each of them are a
few steps. Nothing here takes more than linear time: plain positions are told apart by bytes, whose hashes nobody can
foresee.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEW_BOXES = 200
"""Up to so many boxes, going through them one by one takes no time that matters."""

NOT_STATED = object()
"""The confidence of an element that has none."""

Position = tuple[Any, ...]

_SPACE = " \t\r\n"
_LIST_OPENS = re.compile(rf"\[[{_SPACE}]*")
_COMMA = re.compile(rf"[{_SPACE}]*,[{_SPACE}]*")
_ELEMENT_ENDS = re.compile(rf"\}}[{_SPACE}]*,[{_SPACE}]*(?=\{{)")
_PORTION = 8_000
"""Characters."""
_DECODER = json.JSONDecoder()
_NUMBERS = {int, float, bool}
_EXACT = 2**53
"""Below this, different integers are different floats."""
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_AS_BYTES = struct.Struct("=d").pack
_BOX_AS_BYTES = struct.Struct("=4d").pack


@dataclass(frozen=True, slots=True)
class BoxList:
    """Positions and confidences as an answer states them, of any types, the first of equal positions alone.

    ``duplicates`` is how many elements had the position of an earlier one. ``table`` holds the positions of more than
    :data:`FEW_BOXES` boxes, where :func:`number_table` has one.
    """

    positions: Sequence[Position]
    confidences: Sequence[Any]
    duplicates: int = 0
    table: NDArray[np.float64] | None = None


def boxes_in(content: str, known: BoxList | None = None) -> BoxList | None:
    """The boxes of a list; ``None`` where it is no JSON, and where it begins with a text.

    ``known`` are those of a list that differs within texts at most: where they are the same, it is they.

    Raises an error (see :data:`~vrft_bench.tasks.paper.parsing.FAILURES`) where the list is empty, and at the first
    element without a ``Position`` that could be compared. That costs all boxes, so what comes after is not read.
    """
    positions: list[Position] = []
    confidences: list[Any] = []
    opening = _LIST_OPENS.match(content)
    if opening is None:
        return None
    if content[opening.end() :] == "]":
        raise IndexError("an empty list")
    try:
        for elements in _portions(content, opening.end()):
            if not positions and isinstance(elements[0], str):
                return None
            positions += [tuple(element["Position"]) for element in elements]
            confidences += [element.get("Confidence", NOT_STATED) for element in elements]
    except json.JSONDecodeError:
        return None
    if known and not known.duplicates and (positions, confidences) == (known.positions, known.confidences):
        return known
    return _without_duplicates(positions, confidences, content)


def _portions(content: str, start: int) -> Iterator[list[Any]]:
    """The elements of a list, of which the first begins at ``start``; some at a time, so that they do not pile up.

    What lies between two places where an element seems to end is read as a list of its own. If it is one, then an
    element did end there. If not (such a place may be within a text), its elements are read one by one.
    """
    while end := _ELEMENT_ENDS.search(content, start + _PORTION):
        try:
            yield _DECODER.decode(f"[{content[start : end.start() + 1]}]")
            start = end.end()
        except json.JSONDecodeError:
            elements, start = _one_by_one(content, start, end.end())
            yield elements
            if start == len(content):
                return
    yield _DECODER.decode(f"[{content[start:]}")


def _one_by_one(content: str, start: int, end: int) -> tuple[list[Any], int]:
    """The elements of a list that begin before ``end``, and where the next one begins, or the text ends."""
    elements = []
    while start < end:
        element, start = _DECODER.raw_decode(content, start)
        elements.append(element)
        if (comma := _COMMA.match(content, start)) and not content.startswith("]", comma.end()):
            start = comma.end()
        elif content[start:].strip(_SPACE) == "]":
            return elements, len(content)
        else:
            raise json.JSONDecodeError("no list", content, start)
    return elements, start


def _without_duplicates(positions: list[Position], confidences: list[Any], content: str) -> BoxList:
    count = len(positions)
    table = number_table(positions)
    if table is not None:
        keys = _keys(positions, table)
    elif count > FEW_BOXES and _hashes_may_collide(content):
        leading = leading_table(positions)
        keys = [] if leading is None else _keys(positions[: len(leading)], leading)
        keys += map(_salted, positions[len(keys) :])
    else:
        keys = list(positions)
    first = dict(zip(reversed(keys), reversed(range(count)), strict=True))
    if len(first) == count:
        return BoxList(positions, confidences, 0, table)
    kept = sorted(first.values())
    positions, confidences = [positions[place] for place in kept], [confidences[place] for place in kept]
    return BoxList(positions, confidences, count - len(kept), None if table is None else table[kept])


def number_table(positions: Sequence[Position]) -> NDArray[np.float64] | None:
    """Positions as floats (N, 4); ``None`` for up to :data:`FEW_BOXES` of them, and where one is not four numbers."""
    return _as_floats(positions) if len(positions) > FEW_BOXES else None


def leading_table(positions: Sequence[Position]) -> NDArray[np.float64] | None:
    """The table of those before the first that is not four numbers; ``None`` for up to :data:`FEW_BOXES`.

    It is looked for by halves, since a step for each position would take longer.
    """
    if len(positions) <= FEW_BOXES:
        return None
    import numpy as np

    parts: list[NDArray[np.float64]] = []
    first, last = 0, len(positions)
    while first < last:
        middle = (first + last + 1) // 2
        part = _as_floats(positions[first:middle])
        if part is None:
            last = middle - 1
        else:
            parts.append(part)
            first = middle
    return np.concatenate(parts) if first > FEW_BOXES else None


def _as_floats(positions: Sequence[Position]) -> NDArray[np.float64] | None:
    if set(map(len, positions)) != {4}:
        return None
    flat = list(chain.from_iterable(positions))
    if not set(map(type, flat)) <= _NUMBERS:
        return None
    import numpy as np

    try:
        return np.array(flat, dtype=np.float64).reshape(-1, 4)
    except OverflowError:  # an integer of hundreds of digits
        return None


def _keys(positions: Sequence[Position], table: NDArray[np.float64]) -> list[Hashable]:
    """:func:`_salted` of each position."""
    import numpy as np

    rows = table + 0.0  # -0.0 equals 0.0
    keys: list[Hashable] = rows.view("V32").ravel().tolist()
    large = np.abs(rows) >= _EXACT
    if large.any() and int in set(map(type, chain.from_iterable(positions))):
        for index in np.flatnonzero(large).tolist():
            place, column = divmod(index, 4)
            value = positions[place][column]
            if type(value) is int and value != float(value):
                key = keys[place]
                keys[place] = (*(key if isinstance(key, tuple) else (key,)), (column, str(value)))
    return keys


def _salted(position: Position) -> Hashable:
    """What equal positions have in common, with numbers as bytes: of four numbers those of their floats, and the
    digits of integers that are no floats."""
    if len(position) == 4 and set(map(type, position)) <= _NUMBERS:
        with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
            row = [float(value) for value in position]
            digits = [
                (column, str(value))
                for column, value in enumerate(position)
                if type(value) is int and value != row[column]
            ]
            key = _BOX_AS_BYTES(*[value + 0.0 for value in row])
            return (key, *digits) if digits else key
    return tuple([_number_key(value) if type(value) in _NUMBERS else value for value in position])


def _number_key(value: float) -> bytes:
    """The bytes of a number's float, or the digits of an integer that no float equals."""
    try:
        as_float = float(value)
    except OverflowError:
        return str(value).encode()
    return _AS_BYTES(as_float + 0.0) if as_float == value or as_float != as_float else str(value).encode()


def _hashes_may_collide(content: str) -> bool:
    """Whether there are numbers of so many digits that thousands of them can be chosen to have the same hash.

    Python's hashes of numbers can be foreseen; with equal ones, telling positions apart would take quadratic time.
    """
    shape = content.encode("utf-8", "surrogatepass").translate(_DIGITS)
    return b"0" * 16 in shape or b"0e" in shape

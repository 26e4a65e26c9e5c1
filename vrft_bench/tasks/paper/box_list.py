"""The boxes of an answer's list as the paper's code takes them: read from JSON and told apart by position.

1 MB holds 24,000 boxes, so many boxes are kept as a table of numbers too, and what Python does with each of them are a
few steps. Nothing here takes more than linear time: plain positions are told apart by bytes, whose hashes nobody can
foresee.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Hashable, Sequence
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
_DECODER = json.JSONDecoder()
_NUMBERS = {int, float, bool}
_EXACT = 2**53
"""Below this, different integers are different floats."""
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_AS_BYTES = struct.Struct("=d").pack


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


def boxes_in(content: str) -> BoxList | None:
    """The boxes of a list; ``None`` where it is no JSON, and where it begins with a text.

    Raises an error (see :data:`~vrft_bench.tasks.paper.parsing.FAILURES`) where the list is empty, and at the first
    element without a ``Position`` that could be compared. That costs all boxes, so what comes after is not read.
    """
    positions: list[Position] = []
    confidences: list[Any] = []
    opening = _LIST_OPENS.match(content)
    if opening is None:
        return None
    end = opening.end()
    if content[end:] == "]":
        raise IndexError("an empty list")
    try:
        while True:
            element, end = _DECODER.raw_decode(content, end)
            if not positions and isinstance(element, str):
                return None
            positions.append(tuple(element["Position"]))
            confidences.append(element.get("Confidence", NOT_STATED))
            following = content[end : end + 3]
            if following == ", {":
                end += 2
            elif following[:2] == ",{":
                end += 1
            elif comma := _COMMA.match(content, end):
                end = comma.end()
            else:
                break
    except json.JSONDecodeError:
        return None
    if content[end:].lstrip(_SPACE) != "]":
        return None
    return _without_duplicates(positions, confidences, content)


def _without_duplicates(positions: list[Position], confidences: list[Any], content: str) -> BoxList:
    count = len(positions)
    table = number_table(positions)
    if table is not None:
        keys = _keys(positions, table)
    elif count > FEW_BOXES and _hashes_may_collide(content):
        keys = [_salted(position) for position in positions]
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
    if len(positions) <= FEW_BOXES or set(map(len, positions)) != {4}:
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
    """A key for each position, equal where they are: the bytes of its floats, and the integers that are no floats."""
    import numpy as np

    rows = table + 0.0  # -0.0 equals 0.0
    keys: list[Hashable] = rows.view("V32").ravel().tolist()
    for index in np.flatnonzero(np.abs(rows) >= _EXACT).tolist():
        place, column = divmod(index, 4)
        value = positions[place][column]
        if type(value) is int and value != float(value):
            keys[place] = keys[place], column, str(value)
    return keys


def _salted(position: Position) -> Position:
    """What equal positions have in common, with numbers as bytes."""
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

"""How likely a model found each box that it wrote: the probability of the tokens that spell its four numbers."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from vrft_bench.tasks.base import Detection
from vrft_bench.tasks.coordinates import Box, Frame

Cell = tuple[int, ...]
TokenLogprobs = Sequence[Sequence[float]]
"""(end, natural logarithm of the probability) of each token of a text; ``end`` counts characters up to and with it."""

_NUMBER = r"""["']?([+-]?\d{1,15}(?:\.\d{0,25})?(?:[eE][+-]?\d{1,3})?)["']?"""
_FOUR = re.compile(rf"[\[(]\s*({_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER})\s*[\])]")
_OFFSET = 0.3183098861837907
"""Of a thousandth of a pixel. Decimal fractions do not land on the edges of a grid that lies so, where one that was
converted in another order of operations would fall to the other side."""


def box_likelihoods(
    text: str, tokens: TokenLogprobs, detections: Sequence[Detection], frame: Frame
) -> tuple[float | None, ...]:
    """The geometric mean of the probabilities of each box's tokens, in [0, 1]; ``None`` where the text lacks the box.

    Tokens that overlap the characters from the first to the last of the four numbers count, separators included.
    ``frame`` is the one that the text was read in.
    """
    ends = [int(end) for end, _ in tokens]
    found: list[float | None] = []
    for span in box_spans(text, detections, frame):
        own = [] if span is None else _overlapping(span, ends, tokens)
        found.append(min(math.exp(math.fsum(own) / len(own)), 1.0) if own else None)
    return tuple(found)


def box_spans(text: str, detections: Sequence[Detection], frame: Frame) -> list[tuple[int, int] | None]:
    """Where in ``text`` each of ``detections``, which were read from it in this order, has its four numbers.

    The last place that fits counts, since an answer follows the thought that may name the same box.
    """
    written = list(_FOUR.finditer(text))
    places: dict[Cell, list[int]] = {}
    for index, match in enumerate(written):
        for reading in _readings(match, frame):
            places.setdefault(reading, []).append(index)
    spans: list[tuple[int, int] | None] = []
    end = len(written)
    for item in reversed(detections):
        own = places.get(_cell(item.box), [])
        fits = bisect_left(own, end)
        spans.append(written[own[fits - 1]].span(1) if fits else None)
        end = own[fits - 1] if fits else end
    return spans[::-1]


def _readings(match: re.Match[str], frame: Frame) -> set[Cell]:
    """The box as it is written, and as it is cut off at the limits of what the model may write."""
    a, b, c, d = (float(match[number]) for number in range(2, 6))
    max_x, max_y = frame.limits()
    last = (max_y, max_x) if frame.profile.axes == "yxyx" else (max_x, max_y)
    clipped = max(a, 0.0), max(b, 0.0), min(c, last[0]), min(d, last[1])
    return {_cell(frame.to_original((a, b, c, d))), _cell(frame.to_original(clipped))}


def _cell(box: Box) -> Cell:
    """Where ``box`` lies on a grid of thousandths of a pixel; far out, where numbers are coarser, where it can."""
    return tuple([math.floor(value * 1000.0 + _OFFSET) if math.isfinite(value * 1000.0) else 0 for value in box])


def _overlapping(span: tuple[int, int], ends: Sequence[int], tokens: TokenLogprobs) -> list[float]:
    start, stop = span
    first = bisect_right(ends, start)
    own = []
    for index in range(first, len(ends)):
        begins = ends[index - 1] if index else 0
        if begins >= stop:
            break
        if ends[index] > begins:
            own.append(float(tokens[index][1]))
    return own

"""The strict answer format of a task as a regular expression, for engines that can write nothing else.

Every text that matches is laid out as the prompt asks: a thought, then one answer, with coordinates inside the model's
own range. So no completion is unreadable for its form. What a box encloses stays the model's doing: an answer in which
every box has its corners the wrong way round still says nothing.

Only what all engines understand is used: groups, character classes and counted repeats, no look-around, no anchors.
"""

from __future__ import annotations

import re
from typing import Literal

from vrft_bench.errors import UserError
from vrft_bench.tasks.base import ClassTarget, Sample, Task
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.grounding import GroundingTask

MAX_BOXES = 300
"""A list ends after so many boxes: no metric here looks at more of an image (LVIS counts 300, COCO 100)."""

_CONFIDENCE = r"(?:0(?:\.[0-9]{1,2})?|1(?:\.0{1,2})?)"
_META = re.compile(r"[\\.^$*+?{}\[\]|()]")


def answer_regex(task: Task, sample: Sample, frame: Frame, *, max_tokens: int, begun: bool = False) -> str:
    """What a whole completion to ``sample`` must match. It is the same for all questions about images of one size.

    A thought is at most ``max_tokens // 2`` characters long, so that the answer fits behind it even where a character
    is a token; a list of boxes that is cut off later still has its first box. ``begun``: the chat template has written
    the opening thinking tag. Raises :class:`UserError` for a task whose answers have no such format, and where
    ``max_tokens`` leave no room for an answer.
    """
    opening, closing = map(_literal, frame.profile.think_tags)
    answer, shortest = _answer(task, sample, frame)
    room = len(f"{opening}{closing}\n<answer></answer>") + shortest
    if max_tokens <= room:
        raise UserError(
            f"--max-tokens {max_tokens} leaves no room for an answer of {task.name!r} in its whole format",
            fix=f"give --max-tokens {room + 1} or more with --structured on",
        )
    thought = rf"[^<]{{0,{min(max_tokens // 2, max_tokens - room)}}}"
    return rf"{'' if begun else opening}{thought}{closing}[ \n]?<answer>{answer}</answer>"


def _answer(task: Task, sample: Sample, frame: Frame) -> tuple[str, int]:
    """The pattern between the answer tags, and the most characters that the shortest whole answer needs.

    A family is known by its parser: a task that reads its answers in another way has another format.
    """
    parse = type(task).parse
    if parse is DetectionTask.parse:
        element = rf"\{{'Position': \[{', '.join(_numbers(frame))}\], 'Confidence': {_CONFIDENCE}\}}"
        pattern = rf"(?:\[{element}(?:, {element}){{0,{MAX_BOXES - 1}}}\]|No Objects)"
        return pattern, len("[{'Position': [, , , ], 'Confidence': 0.00}]") + _digits(frame)
    if parse is GroundingTask.parse:
        a, b, c, d = _numbers(frame)
        return rf"\({a},{b}\),\({c},{d}\)", len("(,),(,)") + _digits(frame)
    if parse is ClassificationTask.parse:
        options = _options(sample)
        return f"(?:{'|'.join(map(_literal, options))})", max(map(len, options))
    rules = f"under --protocol {task.protocol}" if task.protocol != "strict" else "with a parser of its own"
    raise UserError(
        f"task {task.name!r} {rules} has no answer format that could be enforced",
        fix="leave out --structured on" + ("" if task.protocol == "strict" else ", or use --protocol strict"),
    )


def _options(sample: Sample) -> list[str]:
    """The class names that the question lists."""
    options = sample.fields["options"].split(", ")
    if isinstance(sample.target, ClassTarget) and sample.target.label not in options:
        raise UserError(
            f"the class names of sample {sample.id!r} cannot be told apart in its question: one of them holds a comma",
            fix="leave out --structured on, or rename the class",
        )
    return options


def _numbers(frame: Frame) -> tuple[str, str, str, str]:
    """Patterns of a box's four numbers, in the order in which the model writes them.

    The first corner lies inside the range and the second beyond its beginning, as they do in every box with an area.
    That the second lies beyond the first no regular expression of a sane size can say.
    """
    decimals = frame.profile.decimals
    x, y = map(int, frame.limits())
    if frame.profile.axes == "yxyx":
        x, y = y, x
    return _below(x, decimals), _below(y, decimals), _above_zero(x, decimals), _above_zero(y, decimals)


def _digits(frame: Frame) -> int:
    """The most characters that a box's four numbers take."""
    decimals = frame.profile.decimals
    return 2 * sum(len(str(int(limit))) + decimals + bool(decimals) for limit in frame.limits())


def _below(limit: int, decimals: int) -> str:
    """A number from 0 on and below ``limit``, with up to so many decimals."""
    return f"(?:{'|'.join(_whole(0, limit - 1))})" + (rf"(?:\.[0-9]{{1,{decimals}}})?" if decimals else "")


def _above_zero(limit: int, decimals: int) -> str:
    """A number above 0 and up to ``limit``, with up to so many decimals."""
    if not decimals:
        return f"(?:{'|'.join(_whole(1, limit))})"
    patterns = [rf"{limit}(?:\.0{{1,{decimals}}})?"]
    if limit > 1:
        patterns.append(rf"(?:{'|'.join(_whole(1, limit - 1))})(?:\.[0-9]{{1,{decimals}}})?")
    for zeros in range(decimals):
        left = decimals - zeros - 1
        patterns.append(rf"0\.{'0' * zeros}[1-9]" + (f"[0-9]{{0,{left}}}" if left else ""))
    return f"(?:{'|'.join(patterns)})"


def _whole(first: Literal[0, 1], last: int) -> list[str]:
    """Alternatives for the whole numbers from ``first`` to ``last``, without leading zeros."""
    text = str(last)
    patterns = ["0"] if first == 0 else []
    if len(text) > 1:  # those with fewer digits
        patterns.append("[1-9]" + (f"[0-9]{{0,{len(text) - 2}}}" if len(text) > 2 else ""))
    for place, digit in enumerate(text):  # those that are smaller from this digit on
        lowest = "1" if place == 0 else "0"
        if digit > lowest:
            rest = len(text) - place - 1
            smaller = f"[{lowest}-{chr(ord(digit) - 1)}]"
            patterns.append(text[:place] + smaller + (f"[0-9]{{{rest}}}" if rest else ""))
    return [*patterns, text] if last else patterns


def _literal(text: str) -> str:
    """``text`` as a pattern. Unlike ``re.escape`` it leaves alone what only Python lets a backslash precede."""
    return _META.sub(lambda found: f"\\{found[0]}", text)

"""Which part of a completion is its answer, and whether the requested layout was kept, by the ``strict`` rules.

The layout that prompts ask for is ``<think> ... </think> <answer> ... </answer>``. Only the last complete ``<answer>``
block is read; what is thought is never read. No input takes more than linear time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

MAX_TAGS = 1000
"""A completion with more tags than this is a loop: no answer is looked for in it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The parts of a completion: the answer's text, how it was found, and whether the layout was kept to the letter."""

    answer: str | None
    tagged: bool
    closed: bool
    well_formed: bool


def read_reply(text: str, think_tags: tuple[str, str] = ("<think>", "</think>")) -> Reply:
    """Find the answer of a completion.

    A ``</think>`` without its opening tag ends a thought that the chat template began, so all before it is thought; a
    ``<think>`` that is never closed makes all after it thought.
    """
    asked = _layout_pattern(think_tags).fullmatch(text)
    if asked is not None:
        return Reply(asked.group(1), tagged=True, closed=True, well_formed=True)
    matches = islice(_tag_pattern(think_tags).finditer(text), MAX_TAGS + 1)
    tags = [(match.group().lower(), match.start(), match.end()) for match in matches]
    if len(tags) > MAX_TAGS:
        return Reply(None, tagged=True, closed=False, well_formed=False)
    if not tags:
        return Reply(text, tagged=False, closed=False, well_formed=False)
    opening, closing = think_tags[0].lower(), think_tags[1].lower()
    spoken: list[str] = []
    thinking, position = False, 0
    for tag, start, end in tags:
        if tag == opening and not thinking:
            spoken.append(text[position:start])
            thinking = True
        elif tag == closing:
            if not thinking:
                spoken.clear()
            thinking, position = False, end
    if not thinking:
        spoken.append(text[position:])
    visible = "\n".join(spoken)  # a line break, so that removal cannot glue a new tag together
    return _read_answer(visible, _keeps_layout(text, tags, (opening, closing, "<answer>", "</answer>")))


def _read_answer(visible: str, well_formed: bool) -> Reply:
    block: str | None = None
    start: int | None = None
    seen = False
    for match in _ANSWER_TAG.finditer(visible):
        seen = True
        if match.group(1):
            if start is not None:
                block, start = visible[start : match.start()], None
        else:
            start = match.end()
    if block is not None:
        return Reply(block, tagged=True, closed=True, well_formed=well_formed)
    if start is not None:
        return Reply(visible[start:], tagged=True, closed=False, well_formed=False)
    return Reply(None if seen else visible, tagged=seen, closed=False, well_formed=False)


_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE | re.ASCII)


@lru_cache(maxsize=64)
def _tag_pattern(think_tags: tuple[str, str]) -> re.Pattern[str]:
    names = "|".join(re.escape(tag) for tag in (*think_tags, "<answer>", "</answer>"))
    return re.compile(names, re.IGNORECASE | re.ASCII)


_PLAIN_TAG = re.compile(r"</?(?!answer>)\w+>", re.IGNORECASE | re.ASCII)
_NEVER = re.compile(r"(?!)")


@lru_cache(maxsize=64)
def _layout_pattern(think_tags: tuple[str, str]) -> re.Pattern[str]:
    """The layout to the letter and without any other ``<``: the common case of :func:`read_reply`, at a look."""
    opening, closing = map(re.escape, think_tags)
    if not all(_PLAIN_TAG.fullmatch(tag) for tag in think_tags):
        return _NEVER
    layout = rf"\s*{opening}[^<]*{closing}\s*<answer>([^<]*)</answer>\s*"
    return re.compile(layout, re.IGNORECASE | re.ASCII)


def _keeps_layout(text: str, tags: list[tuple[str, int, int]], layout: tuple[str, ...]) -> bool:
    if tuple(tag for tag, _, _ in tags) != layout:
        return False
    between = (text[: tags[0][1]], text[tags[1][2] : tags[2][1]], text[tags[3][2] :])
    return not any(part and not part.isspace() for part in between)

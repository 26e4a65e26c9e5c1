"""The portable truth of a sample, read back: what :meth:`Task.score` judges a completion against.

A trainer scores a group of completions against one truth, so the last few are kept as they were read.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.targets import Target, target_from_json

_KEPT = 64
_KEYS = {"task", "version", "protocol", "profile", "image_size", "target"}


def read_ground_truth(text: str, task: str, version: str, protocol: str) -> tuple[Frame, Target]:
    """The frame and the target that :meth:`Task.ground_truth` wrote.

    Raises :class:`UserError` for a text that it did not write, and for one of another task, version or protocol.
    """
    # Only a str is kept: JSON is read from bytes too, which may change, and what is no JSON may not be hashable.
    return (_kept if type(text) is str else _read)(text, task, version, protocol)


def _read(text: str, task: str, version: str, protocol: str) -> tuple[Frame, Target]:
    try:
        value: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise no_ground_truth(text, "is not JSON") from error
    if not isinstance(value, dict):
        raise no_ground_truth(text, "is not a JSON object")
    if missing := _KEYS - value.keys():
        raise no_ground_truth(text, f"lacks {', '.join(sorted(missing))}")
    fixes = {
        "task": f"score it with get_task({value['task']!r})",
        "version": "make the ground truth anew with this version of the task, or install the version it names",
        "protocol": f"score it with get_task({task!r}, {value['protocol']!r})",
    }
    for key, mine in (("task", task), ("version", version), ("protocol", protocol)):
        if value[key] != mine:
            raise UserError(
                f"this ground truth was made for {key} {value[key]!r}, and is scored by {key} {mine!r}", fix=fixes[key]
            )
    try:
        return Frame.from_json(value), target_from_json(value["target"])
    except (UserError, AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise no_ground_truth(text, f"holds what cannot be read ({error})") from error


_kept = lru_cache(maxsize=_KEPT)(_read)


def no_ground_truth(text: object, why: str) -> UserError:
    """The error for a text that is no portable truth."""
    return UserError(
        f"this is no ground truth: {str(text)[:80]!r} {why}",
        fix="pass the JSON string that task.ground_truth(sample, frame) made",
    )

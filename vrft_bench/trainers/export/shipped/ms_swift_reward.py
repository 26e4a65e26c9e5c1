"""The reward of this export as a plugin of ms-swift, which loads it with --external_plugins.

``vrft_total`` is what is trained on. The components are there to be logged, with a weight of 0, so that nothing is
added up twice and the total is the task's own to the last bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from swift.rewards import ORM, orms  # type: ignore[import-not-found]

from vrft_bench.trainers.export.scoring import exported_task

TASK = exported_task(Path(__file__).parent)


class VrftScore(ORM):  # type: ignore[misc]
    """One of the keys of the task's score; a subclass for each, since ms-swift names rewards by their class."""

    key: ClassVar[str]

    def __call__(self, completions: list[str], ground_truth: list[str], **columns: Any) -> list[float]:  # noqa: ARG002
        """The value for each completion."""
        return [TASK.score(text, truth)[self.key] for text, truth in zip(completions, ground_truth, strict=True)]


for _key in ("total", *(reward.name for reward in TASK.rewards)):
    _name = f"vrft_{_key}"
    orms[_name] = globals()[_name] = type(_name, (VrftScore,), {"key": _key, "__module__": __name__})

"""Which data a task is to load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vrft_bench.errors import UserError


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Which data a run is about. ``root`` is ``None`` for the embedded sample data.

    ``ask`` is ``present``, ``all`` or ``file:PATH`` (``None``: the task's default); ``annotations`` and ``images`` name
    the user's own files for the generic tasks.
    """

    root: Path | None = None
    split: str | None = None
    categories: tuple[str, ...] = ()
    ask: str | None = None
    annotations: Path | None = None
    images: Path | None = None

    def refuse_two_sources(self) -> None:
        """Raise :class:`UserError` where a data root and the user's own files are given at once."""
        if self.root is not None and (self.annotations is not None or self.images is not None):
            raise UserError(
                f"data come from a root ({self.root}) or from --annotations and --images, and both are given",
                fix="leave out --data, or leave out --annotations and --images",
            )

    def refuse_ask(self, task: str) -> None:
        """Raise :class:`UserError` where a rule of asking is given to a task that has no categories to choose from."""
        if self.ask is not None:
            raise UserError(
                f"task {task!r} asks one question of an image, and takes no --ask",
                fix=f"leave it out; of several tasks, give it to those of detection: --ask coco_fewshot={self.ask}",
            )

"""What the choices of one command mean for each of its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.harness.config import RunConfig, merge
from vrft_bench.tasks import select_tasks
from vrft_bench.tasks.base import Task


def config_of_task(config: RunConfig, task: Task) -> RunConfig:
    """``config`` for ``task`` alone, with its own rule of ``ask``."""
    own: dict[str, Any] = {"task": [task.name]}
    if isinstance(config.ask, dict):
        own["ask"] = next((rule for key, rule in _by_narrowness(config.ask) if task.name in select_tasks([key])), None)
    return merge(config, own)


def check_ask(config: RunConfig, names: Sequence[str]) -> None:
    """Raise :class:`UserError` where a rule of ``ask`` is given to a task that is not among ``names``."""
    for key in config.ask if isinstance(config.ask, dict) else ():
        if not {*select_tasks([key])} & {*names}:
            raise UserError(
                f"--ask {key}=...: {key!r} is none of the tasks of this command",
                fix=f"give the rule to one of {', '.join(names)}, or add the task with --task",
            )


def _by_narrowness(rules: dict[str, str]) -> list[tuple[str, str]]:
    """Rules that fewer tasks share come first: a task's own before a group's."""
    return sorted(rules.items(), key=lambda item: len(select_tasks([item[0]])))

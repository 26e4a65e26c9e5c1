"""What is measured: tasks, their prompts, parsers, rewards and metrics. Needs numpy and the standard library only."""

from __future__ import annotations

from collections.abc import Iterable

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.registry import TASK_GROUPS, TASKS
from vrft_bench.tasks.base import ProtocolName, Task

__all__ = ["TASK_GROUPS", "get_task", "select_tasks"]


def get_task(name: str, protocol: ProtocolName = "strict") -> Task:
    """The task registered as ``name``, under the rules of ``protocol``.

    Raises :class:`~vrft_bench.errors.UserError` for an unknown name or a protocol that the task does not have.
    """
    task: Task = TASKS.get(name)().under(protocol)
    return task


def select_tasks(wanted: Iterable[str]) -> list[str]:
    """Task names for names, groups (``fewshot_detection``) and globs (``*_ovd``), each once, in the order given.

    Raises :class:`~vrft_bench.errors.UserError` for one that selects nothing.
    """
    chosen: dict[str, None] = {}
    for item in wanted:
        if item in TASK_GROUPS:
            names = list(TASK_GROUPS[item])
        elif any(sign in item for sign in "*?["):
            names = TASKS.match(item)
        else:
            names = [item] if item in TASKS else []
        if not names:
            near = did_you_mean(item, [*TASKS.names(), *TASK_GROUPS])
            raise UserError(
                f"unknown task {item!r}{near}",
                fix=f"choose from {', '.join([*TASKS.names(), *TASK_GROUPS])} (see `vrft-bench ls tasks`)",
            )
        chosen.update(dict.fromkeys(names))
    return list(chosen)

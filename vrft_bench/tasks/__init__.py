"""What is measured: tasks, their prompts, parsers, rewards and metrics. Needs numpy and the standard library only."""

from __future__ import annotations

from vrft_bench.registry import TASK_GROUPS, TASKS
from vrft_bench.tasks.base import ProtocolName, Task

__all__ = ["TASK_GROUPS", "get_task"]


def get_task(name: str, protocol: ProtocolName = "strict") -> Task:
    """The task registered as ``name``, under the rules of ``protocol``.

    Raises :class:`~vrft_bench.errors.UserError` for an unknown name or a protocol that the task does not have.
    """
    task: Task = TASKS.get(name)().under(protocol)
    return task

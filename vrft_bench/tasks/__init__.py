"""What is measured: tasks, their prompts, parsers, rewards and metrics. Needs numpy and the standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.registry import PLUGIN_FAILURES, TASK_GROUPS, TASKS, failure_reason
from vrft_bench.tasks.base import ProtocolName, Task

__all__ = ["TASK_GROUPS", "get_task", "select_tasks"]


def get_task(name: str, protocol: ProtocolName = "strict") -> Task:
    """The task registered as ``name``, under the rules of ``protocol``.

    Raises :class:`~vrft_bench.errors.UserError` for an unknown name, for a protocol that the task does not have, and
    for a plugin that does not give a task.
    """
    factory: Any = TASKS.get(name)
    owner = f"task {name!r} from {TASKS.source(name)}"
    fix = "repair the plugin: it registers a function without arguments that returns a Task"
    if not callable(factory):
        raise UserError(f"{owner} is an object of type {type(factory).__name__}, and no function", fix=fix)
    try:
        task = factory()
    except UserError:
        raise
    except PLUGIN_FAILURES as error:
        raise UserError(f"{owner} cannot be made: {failure_reason(error)}", fix=fix) from error
    if not isinstance(task, Task):
        raise UserError(f"{owner} returns an object of type {type(task).__name__}, and no Task", fix=fix)
    return task.under(protocol)


def select_tasks(wanted: Iterable[str]) -> list[str]:
    """Task names for names, groups (``fewshot_detection``) and globs (``*_ovd``), each once, in the order given.

    With a hyphen before it (``-lisa_grounding``) it is taken out of those that stand before it. Raises
    :class:`~vrft_bench.errors.UserError` for one that selects nothing, and where nothing is left.
    """
    chosen: dict[str, None] = {}
    for given in wanted:
        item = given.removeprefix("-")
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
        if item == given:
            chosen.update(dict.fromkeys(names))
        else:
            chosen = {name: None for name in chosen if name not in names}
    if not chosen:
        raise UserError("no task is left", fix="name one before those that are left out: visual_rft,-lisa_grounding")
    return list(chosen)

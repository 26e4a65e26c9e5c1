"""A verb over every task that its argument names: a task, a group, a glob, or several with commas."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer

from vrft_bench.errors import ExitCode, UserError

HELP_TASKS = "A task, a group or a glob (see `ls tasks`); commas for more."


def tasks_named(wanted: str) -> list[str]:
    """The names of the tasks that ``wanted`` means. Raises :class:`UserError` for a part that means none."""
    from vrft_bench.tasks import select_tasks

    return select_tasks(part.strip() for part in wanted.split(","))


def check_each(names: Sequence[str], check: Callable[[str], bool]) -> None:
    """Call ``check`` with every name, and end with the worst exit code: that of a failed gate where one answers false.

    Of several tasks, one that cannot be checked does not stop the others: what was wrong is told at the end, in one
    :class:`UserError`.
    """
    failed: dict[str, UserError] = {}
    passed = True
    for name in names:
        try:
            passed = check(name) and passed
        except UserError as error:
            if len(names) == 1:
                raise
            failed[name] = error
    if failed:
        lines = "".join(f"\n  {name}: {' '.join(str(error).split())}" for name, error in failed.items())
        summary = UserError(f"{len(failed)} of {len(names)} tasks could not be checked:{lines}")
        summary.exit_code = max(error.exit_code for error in failed.values())
        raise summary
    if not passed:
        raise typer.Exit(ExitCode.GATE_FAILED)

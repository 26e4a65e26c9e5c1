"""The protocols that ``--protocol`` of ``validate`` and ``audit`` means: one, or both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.printing import stderr

if TYPE_CHECKING:
    from vrft_bench.tasks.base import Task


def under_protocols(name: str, protocol: str) -> Iterator[Task]:
    """Task ``name`` under ``protocol``, or under each that it has for ``both``.

    Of ``both``, a protocol whose libraries are not installed is left out with a note; asked for by name, it is an error
    when its data are loaded.
    """
    from vrft_bench.harness.config import make_config
    from vrft_bench.tasks import get_task

    task = get_task(name)
    if protocol != "both":
        yield get_task(name, make_config({"protocol": protocol}).protocol)
        return
    for each in task.protocols:
        chosen = task.under(each)
        try:
            chosen.require_libraries()
        except UserError as error:
            stderr().print(f"protocol {each} is left out: {error.message}", highlight=False, soft_wrap=True)
            continue
        yield chosen

"""The data root that the environment names: the one place that reads VRFT_BENCH_DATA, for every verb."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vrft_bench.harness.config import RunConfig
    from vrft_bench.tasks.base import Task

DATA_VARIABLE = "VRFT_BENCH_DATA"
HELP_DATA = f"Root of the real data (or ${DATA_VARIABLE}); default: embedded sample data."


def environment_root() -> str | None:
    """The data root that the environment names, if any."""
    return os.environ.get(DATA_VARIABLE) or None


def with_data_root(config: RunConfig, task: Task) -> RunConfig:
    """``config`` for ``task``, with the data root of the environment where none is chosen.

    The variable is a default. It does not count where ``data`` is set (a config file may set it to nothing), where the
    user's own files are named, and for a task that reads no data root.
    """
    from vrft_bench.harness.config import merge

    root = environment_root()
    chosen = "data" in config.model_fields_set or config.annotations is not None or config.images is not None
    if not root or chosen or not task.reads_data_root:
        return config
    return merge(config, {"data": root}, source=f"the environment (${DATA_VARIABLE})")

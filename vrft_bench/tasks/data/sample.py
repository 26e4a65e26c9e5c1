"""The embedded sample data: where it is kept, and the names of what it shows.

It is drawn on first use, one split at a time, into a cache folder (``$VRFT_BENCH_CACHE``, else
``$XDG_CACHE_HOME/vrft-bench``, else ``~/.cache/vrft-bench``). A split appears whole or not at all: it is drawn beside
its place and renamed, so a killed process leaves nothing half-made and two processes may draw at once.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.tasks.data.sample_scenes import CATEGORIES, CLASSES_8, COUNTS, LVIS_RARE_13

__all__ = [
    "CATEGORIES",
    "CLASSES_8",
    "FEWSHOT_8",
    "LVIS_FEWSHOT_6",
    "LVIS_RARE_13",
    "NOVEL_5",
    "sample_folder",
]

FEWSHOT_8 = (
    "red circle", "red square", "green square", "green triangle", "blue triangle", "blue cross", "yellow cross",
    "purple circle",
)  # fmt: skip
"""What ``coco_fewshot`` asks of the sample data."""

NOVEL_5 = ("red triangle", "green cross", "blue circle", "yellow square", "purple triangle")
"""The categories that open-vocabulary tasks keep out of training: one of each colour."""

LVIS_FEWSHOT_6 = ("red_circle", "blue_square", "green_triangle", "yellow_cross", "purple_circle", "blue_triangle")
"""What ``lvis_fewshot`` asks of the sample data: six of :data:`LVIS_RARE_13`."""

_VERSION = "sample-v2"
"""Changes with any change of the pixels or the annotations: an old cache is then not read."""


def sample_folder(kind: str, split: str) -> Path:
    """A data root that holds ``split`` of the sample data in the real format of ``kind``, drawn if it is not there yet.

    ``kind`` is ``coco`` (``annotations/instances_val2017.json``, ``images/val2017/``), ``lvis``
    (``annotations/lvis_v1_val.json``, ``images/val2017/``), ``reasonseg`` (``val/*.json``) or ``classes``
    (``val/<class>/``). Raises :class:`UserError` for a split that the sample data does not have and for a cache folder
    that cannot be written.
    """
    splits = COUNTS[kind]
    if split not in splits:
        raise UserError(
            f"the {kind} sample data has no split {split!r}{did_you_mean(split, splits)}",
            fix=f"use --split {' or '.join(splits)}, or name real data with --data DIR",
        )
    root = cache_folder() / _VERSION / kind / split
    if not root.is_dir():
        try:
            _draw_beside(root, kind, split)
        except OSError as error:
            raise UserError(
                f"the sample data cannot be written to {root}: {error.strerror or error}",
                fix="set VRFT_BENCH_CACHE to a folder that can be written and has 50 MB free",
            ) from error
    return root


def cache_folder() -> Path:
    """Where vrft-bench keeps what it can make again. An absolute path; it need not exist."""
    if named := os.environ.get("VRFT_BENCH_CACHE"):
        return Path(named).expanduser().absolute()
    # The XDG specification has a relative path here ignored.
    xdg = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (xdg if xdg.is_absolute() else Path("~/.cache").expanduser()) / "vrft-bench"


def _draw_beside(root: Path, kind: str, split: str) -> None:
    from vrft_bench.tasks.data.sample_formats import WRITERS

    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{split}-", dir=root.parent) as beside:
        drawn = Path(beside) / split
        WRITERS[kind](drawn, split)
        try:
            drawn.rename(root)
        except OSError:
            # Another process was first; its folder is as good as ours.
            if not root.is_dir():
                raise

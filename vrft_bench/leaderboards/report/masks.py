"""The masks that a segmenter made of a run's boxes (``diagnose --segmenter sam/PATH``), as a page shows them.

A page holds a mask as ``[width, height, runs]``: the lengths of its runs, off and on in turn, column by column. Of a
large mask only every second, third, ... pixel is kept, so that its longer side is no longer than a thumbnail's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vrft_bench.errors import DataError
from vrft_bench.harness.segmentation import content_hash, stored_masks
from vrft_bench.leaderboards.report.thumbnails import EDGE
from vrft_bench.tasks.base import ImageRef
from vrft_bench.tasks.coordinates import Box

MaskKey = tuple[str, float, float, float, float]
ShownMask = tuple[int, int, list[int]]


def read_masks(folder: Path) -> dict[MaskKey, str]:
    """The masks of the newest segmenter that was asked about the run in ``folder``; none where none can be read."""
    files = sorted(folder.glob("masks-*.jsonl"), key=lambda path: path.stat().st_mtime)
    try:
        stored = stored_masks(files[-1]) if files else []
    except DataError:
        return {}
    return {_key(image, (x1, y1, x2, y2)): counts for (image, x1, y1, x2, y2), counts in stored}


def shown_mask(masks: Mapping[MaskKey, str], image: ImageRef, box: Box) -> ShownMask | None:
    """The mask of ``box`` in ``image``, where there is one; none where the image is not there any more."""
    if not masks:
        return None
    try:
        counts = masks.get(_key(content_hash(image), box))
    except DataError:
        return None
    if counts is None:
        return None
    from pycocotools import mask as rle

    decoded = rle.decode({"size": [image.height, image.width], "counts": counts})
    stride = -(-max(decoded.shape) // EDGE)
    small = decoded[::stride, ::stride]
    flat = small.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate(([0], edges, [len(flat)]))).tolist()
    return small.shape[1], small.shape[0], [0, *runs] if flat[0] else runs


def _key(image: str, box: Box) -> MaskKey:
    """Boxes of records are kept to a thousandth of a pixel."""
    x1, y1, x2, y2 = (round(number, 3) for number in box)
    return image, x1, y1, x2, y2

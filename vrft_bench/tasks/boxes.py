"""Box geometry: area, intersection, IoU and clipping of boxes given as (x1, y1, x2, y2) in pixels.

This is the one IoU of the project. The scalar functions are plain Python, because rewards call them once per pair in
a hot loop, where an array would cost more than it saves; :func:`iou_column` and :func:`covered_column` are their
vectorised counterparts for answers with thousands of boxes, and give the same numbers bit for bit.

A box whose second corner is not right of and below its first one has no area and overlaps nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vrft_bench.tasks.coordinates import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def area(box: Box) -> float:
    """Area in square pixels; 0 for an empty or reversed box."""
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1) if x2 > x1 and y2 > y1 else 0.0


def intersection(a: Box, b: Box) -> float:
    """Area shared by two boxes; boxes that only touch share none."""
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    width = (ax2 if ax2 < bx2 else bx2) - (ax1 if ax1 > bx1 else bx1)
    if width <= 0.0:
        return 0.0
    height = (ay2 if ay2 < by2 else by2) - (ay1 if ay1 > by1 else by1)
    return width * height if height > 0.0 else 0.0


def iou(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1]."""
    # The intersection is written out: a second call would double the cost of the hottest line of the project.
    ax1, ay1, ax2, ay2 = a
    bx1, by1, bx2, by2 = b
    width = (ax2 if ax2 < bx2 else bx2) - (ax1 if ax1 > bx1 else bx1)
    if width <= 0.0:
        return 0.0
    height = (ay2 if ay2 < by2 else by2) - (ay1 if ay1 > by1 else by1)
    if height <= 0.0:
        return 0.0
    shared = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared
    return shared / union if union > 0.0 else 0.0


def covered(box: Box, region: Box) -> float:
    """The share of ``box`` that lies inside ``region``, in [0, 1]: COCO's overlap with a crowd region."""
    own = area(box)
    return intersection(box, region) / own if own > 0.0 else 0.0


def clip(box: Box, width: float, height: float) -> Box:
    """``box`` cut to an image of ``width`` x ``height`` pixels; one that lies outside collapses onto the edge."""
    x1, y1, x2, y2 = box
    return (
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    )


def iou_column(boxes: NDArray[np.float64], truth: Box) -> NDArray[np.float64]:
    """:func:`iou` of each of ``boxes`` (N, 4) with ``truth``, in memory linear in N."""
    shared, own = _shared_and_own(boxes, truth)
    return _ratio(shared, own + area(truth) - shared)


def covered_column(boxes: NDArray[np.float64], region: Box) -> NDArray[np.float64]:
    """:func:`covered` of each of ``boxes`` (N, 4) by ``region``."""
    shared, own = _shared_and_own(boxes, region)
    return _ratio(shared, own)


def _shared_and_own(boxes: NDArray[np.float64], other: Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import numpy as np

    x1, y1, x2, y2 = boxes.T
    own = np.maximum(x2 - x1, 0.0) * np.maximum(y2 - y1, 0.0)
    width = np.maximum(np.minimum(x2, other[2]) - np.maximum(x1, other[0]), 0.0)
    height = np.maximum(np.minimum(y2, other[3]) - np.maximum(y1, other[1]), 0.0)
    return width * height, own


def _ratio(shared: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    ratio: NDArray[Any] = np.divide(shared, whole, out=np.zeros_like(shared), where=(shared > 0.0) & (whole > 0.0))
    return ratio

"""Outcomes: which boxes of one answer are right, wrong or neither, by the rules of COCO's and LVIS's own evaluation.

One call of :func:`outcome_of` judges one question (one category in one image) at all ten IoU thresholds and in all four
area ranges at once. The result is small, so that a metric can keep it and forget the boxes: two bit masks per
detection, with bit ``10 * area_range + threshold``.

Rules, as in pycocotools' ``COCOeval.evaluateImg`` and lvis-api's ``LVISEval.evaluate_img``:

* detections claim truth in order of descending score, in the order of the answer where scores tie;
* each takes the free truth that it overlaps most, truth that counts before truth that is ignored, and the later one of
  two that it overlaps equally;
* truth outside the area range (by annotated area) and crowd regions are ignored: a detection on them is neither right
  nor wrong. A crowd's overlap is intersection / area of the detection, and it may be claimed any number of times;
* an unmatched detection is wrong, unless its own area is outside the range, or the category is not exhaustively
  annotated in this image (LVIS);
* lvis-api reads neither truth nor detections of area 0 (its area filter is strict), while COCO counts both.

Crowd regions come after the other truth here, whatever their place in the annotation file; this could only matter for a
detection that overlaps a crowd and an ignored object by exactly the same fraction.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vrft_bench.tasks.base import BoxTarget, Detection
from vrft_bench.tasks.boxes import area, covered, covered_column, iou, iou_column
from vrft_bench.tasks.matching import match_boxes

IOU_THRESHOLDS: list[float] = np.linspace(0.5, 0.95, 10).tolist()
AREA_RANGES: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Square pixels; both ends belong to the range, so an area of 1,024 is small and medium."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Where COCO and LVIS differ.

    ``limit`` is how many detections of a question may count, ``limit_per_image`` how many of an image over all
    categories; ``ignores_empty`` drops objects and detections of area 0.
    """

    limit: int
    limit_per_image: int | None
    ignores_empty: bool


COCO_RULES = Rules(limit=100, limit_per_image=None, ignores_empty=False)
LVIS_RULES = Rules(limit=300, limit_per_image=300, ignores_empty=True)

_LOWEST = IOU_THRESHOLDS[0]
_BITS = len(IOU_THRESHOLDS)
_EVERY_THRESHOLD = (1 << _BITS) - 1
_SHIFTS = tuple(_BITS * index for index in range(len(AREA_RANGES)))
_IN_EVERY_RANGE = sum(1 << shift for shift in _SHIFTS)
_BITS_OF_RANGES = [
    sum(_EVERY_THRESHOLD << shift for index, shift in enumerate(_SHIFTS) if ranges >> index & 1)
    for ranges in range(1 << len(AREA_RANGES))
]
"""Set of area ranges (as bits) -> all mask bits of these ranges."""
_SCALAR_PAIRS = 64
"""Up to so many pairs of boxes, plain Python is faster than numpy."""

Overlaps = list[list[tuple[float, int]]]
"""Per detection, the (overlap, truth index) pairs of at least the lowest threshold."""


class Outcome(NamedTuple):
    """What one answer amounts to.

    ``scores``, ``true`` and ``counted`` run over the detections kept, by descending score: a mask bit of ``true`` is a
    true positive, one that is only in ``counted`` a false positive, one in neither an ignored detection. ``truths`` is
    the number of objects per area range. ``hits`` and ``extras`` need no scores: true and false positives at IoU .5 of
    all boxes of the answer, paired one to one as the rewards pair them. ``cut`` is the number of detections left out
    above the limit.
    """

    scores: list[float]
    true: list[int]
    counted: list[int]
    truths: tuple[int, ...]
    hits: int
    extras: int
    cut: int


def outcome_of(target: BoxTarget, detections: Sequence[Detection], rules: Rules) -> Outcome:
    """Judge ``detections``, keeping the most confident; one that states no confidence scores 1."""
    areas = target.areas or [area(box) for box in target.boxes]
    if rules.ignores_empty and min(areas, default=1.0) <= 0.0:
        target, areas = _without_empty(target, areas)
    ranges = [_ranges_of(size) for size in areas]
    truths = tuple([sum(item >> index & 1 for item in ranges) for index in range(len(AREA_RANGES))])
    if not detections:
        return Outcome([], [], [], truths, 0, 0, 0)
    scores = [1.0 if item.confidence is None else item.confidence for item in detections]
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[: rules.limit]
    cut = len(scores) - len(order)
    ranked_scores = [scores[index] for index in order]
    if not target.verified:
        nothing = [0] * len(order)
        return Outcome(ranked_scores, nothing, nothing, truths, 0, 0, cut)

    overlaps = _overlaps(target, detections)
    ranges += [0] * len(target.crowd)
    may_err = [0] * len(order)
    if target.exhaustive:
        own = [area(detections[index].box) for index in order]
        may_err = [0 if rules.ignores_empty and size == 0.0 else _BITS_OF_RANGES[_ranges_of(size)] for size in own]
    if _contested(overlaps, len(target.boxes)):
        pairs = match_boxes([item.box for item in detections], target.boxes, _LOWEST)
        hits = len(pairs)
        swallowed = _on_crowd(overlaps, len(target.boxes), {hit for hit, _, _ in pairs}) if target.crowd else 0
        true, matched = _claim([overlaps[index] for index in order], ranges, len(target.boxes))
    else:
        hits = sum(1 for near in overlaps if near and near[0][1] < len(target.boxes))
        swallowed = sum(1 for near in overlaps if near) - hits
        true, matched = [], []
        for index in order:
            near = overlaps[index]
            mask = _IN_EVERY_RANGE * ((1 << bisect_right(IOU_THRESHOLDS, near[0][0])) - 1) if near else 0
            matched.append(mask)
            true.append(mask & _BITS_OF_RANGES[ranges[near[0][1]]] if near else 0)
    counted = [right | (error & ~claimed) for right, claimed, error in zip(true, matched, may_err, strict=True)]
    extras = len(scores) - hits - swallowed if target.exhaustive else 0
    return Outcome(ranked_scores, true, counted, truths, hits, extras, cut)


def _without_empty(target: BoxTarget, areas: Sequence[float]) -> tuple[BoxTarget, list[float]]:
    """``target`` without objects of area 0; where nothing is left, lvis-api takes the category for unverified."""
    kept = [index for index, size in enumerate(areas) if size > 0.0]
    sizes = [areas[index] for index in kept]
    boxes = tuple([target.boxes[index] for index in kept])
    return replace(target, boxes=boxes, areas=tuple(sizes), verified=bool(kept)), sizes


def _ranges_of(size: float) -> int:
    """The area ranges that ``size`` belongs to, as bits in the order of :data:`AREA_RANGES`."""
    if size < 1024.0:
        return 0b0011
    if size < 9216.0:
        return 0b0111 if size == 1024.0 else 0b0101
    if size <= 1e10:
        return 0b1101 if size == 9216.0 else 0b1001
    return 0


def _overlaps(target: BoxTarget, detections: Sequence[Detection]) -> Overlaps:
    if len(detections) * (len(target.boxes) + len(target.crowd)) <= _SCALAR_PAIRS:
        found: Overlaps = []
        for box, _ in detections:
            near = [(value, index) for index, truth in enumerate(target.boxes) if (value := iou(box, truth)) >= _LOWEST]
            if target.crowd:
                regions = enumerate(target.crowd, len(target.boxes))
                near += [(value, index) for index, region in regions if (value := covered(box, region)) >= _LOWEST]
            found.append(near)
        return found
    boxes = np.array([item.box for item in detections], dtype=np.float64)
    found = [[] for _ in detections]
    # A column per truth, so that memory stays linear in the number of detections.
    for index, truth in enumerate((*target.boxes, *target.crowd)):
        column = (iou_column if index < len(target.boxes) else covered_column)(boxes, truth)
        rows = np.flatnonzero(column >= _LOWEST)
        for row, value in zip(rows.tolist(), column[rows].tolist(), strict=True):
            found[row].append((value, index))
    return found


def _contested(overlaps: Overlaps, objects: int) -> bool:
    """Whether any detection has a choice, or any object (not crowd) more than one claimant."""
    claimed = set()
    for near in overlaps:
        if len(near) > 1:
            return True
        if near and (index := near[0][1]) < objects:
            if index in claimed:
                return True
            claimed.add(index)
    return False


def _on_crowd(overlaps: Overlaps, objects: int, paired: set[int]) -> int:
    """How many detections that are not ``paired`` lie on a crowd region."""
    spare = (near for row, near in enumerate(overlaps) if row not in paired)
    return sum(1 for near in spare if any(index >= objects for _, index in near))


def _claim(overlaps: Overlaps, ranges: list[int], objects: int) -> tuple[list[int], list[int]]:
    """Greedy claiming for every threshold and area range: the masks of true positives and of all matched detections.

    ``overlaps`` are in the order in which detections claim.
    """
    true, matched = [0] * len(overlaps), [0] * len(overlaps)
    runs: dict[tuple[bool, ...], tuple[list[int], list[int]]] = {}
    for number, shift in enumerate(_SHIFTS):
        ignored = tuple([not item >> number & 1 for item in ranges])
        if ignored not in runs:
            runs[ignored] = _claim_once(overlaps, ignored, objects)
        for row, (right, claimed) in enumerate(zip(*runs[ignored], strict=True)):
            true[row] |= right << shift
            matched[row] |= claimed << shift
    return true, matched


def _claim_once(overlaps: Overlaps, ignored: tuple[bool, ...], objects: int) -> tuple[list[int], list[int]]:
    true, matched = [0] * len(overlaps), [0] * len(overlaps)
    wishes = [sorted([(ignored[index], -value, -index) for value, index in near]) for near in overlaps]
    highest = max((value for near in overlaps for value, _ in near), default=0.0)
    for number, threshold in enumerate(IOU_THRESHOLDS):
        if highest < threshold:
            break
        taken: set[int] = set()
        for row, near in enumerate(wishes):
            for is_ignored, negative_value, negative_index in near:
                if -negative_value < threshold or -negative_index in taken:
                    continue
                if -negative_index < objects:
                    taken.add(-negative_index)
                matched[row] |= 1 << number
                if not is_ignored:
                    true[row] |= 1 << number
                break
    return true, matched

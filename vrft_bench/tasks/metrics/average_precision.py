"""Average precision (AP) of ranked detections, as COCO and LVIS define it, for one weighting of the images.

AP of a category at one IoU threshold is the mean, over the 101 recall levels 0, .01, ..., 1, of the highest precision
at that recall or beyond (0 where the recall is never reached): pycocotools' ``COCOeval.accumulate``, which lvis-api
repeats.

The same function gives the plain figure (every image weighs 1) and that of a bootstrap replicate, where an image drawn
k times weighs k. A detection of weight k is k copies ranked in a row; the highest precision that counts is then the one
after the last copy, so cumulated weights give exactly the AP of the resampled data.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vrft_bench.tasks.metrics.outcome_table import RankedOutcomes
from vrft_bench.tasks.metrics.outcomes import IOU_THRESHOLDS

RECALL_LEVELS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
_THRESHOLDS = len(IOU_THRESHOLDS)
_EPSILON = float(np.spacing(1))
_SMALL = 5_000
"""Up to so many detections, all thresholds are computed in one go."""
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Indices = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Curves:
    """True positives of some IoU thresholds, in one array: threshold by threshold, category by category.

    ``position`` are their places among the detections; ``first`` and ``length`` the parts of ``position`` that are one
    curve, ``row`` and ``category`` its distinct threshold and its category. Detections ignored at a threshold were
    counted too much: ``ignored`` are their places, and those from ``ignored_start`` to ``ignored_stop`` lie between the
    start of a true positive's category and itself.
    """

    position: Indices
    row: Integers
    category: Integers
    first: Integers
    length: Integers
    ignored: Indices
    ignored_start: Indices
    ignored_stop: Indices


class PrecisionRecall:
    """Precision-recall curves of all categories and thresholds in one area range, ready to be weighted.

    ``area`` is the index of the range in :data:`AREA_RANGES`. ``order`` permutes the detections of ``outcomes`` within
    their categories (default: ranking order). Memory beside ``outcomes`` is 4 bytes per true positive and threshold.
    """

    def __init__(
        self, outcomes: RankedOutcomes, categories: int, images: int, area: int = 0, order: Integers | None = None
    ) -> None:
        true, counted = outcomes.masks(area)
        rows = np.flatnonzero(counted) if order is None else order[counted[order] > 0]
        true, counted = true[rows], counted[rows]
        self._image = outcomes.image[rows]
        self._categories, self._images = categories, images
        has_truth = np.flatnonzero(outcomes.truths[area])
        self._truth_image = outcomes.question_image[has_truth]
        self._truth_category = outcomes.question_category[has_truth]
        self._truth_count = outcomes.truths[area][has_truth]
        # Detections are sorted by category, so category k owns the positions from starts[k] to starts[k + 1].
        starts = np.searchsorted(outcomes.category[rows], np.arange(categories + 1))
        self._starts, self._sizes = starts[:-1], np.diff(starts)
        masks = [((true & 1 << bit) > 0, (counted & 1 << bit) > 0) for bit in range(_THRESHOLDS)]
        # Thresholds between which nothing changes (all ten for perfect boxes) share a row.
        is_new = [True] + [not all(map(np.array_equal, *pair)) for pair in pairwise(masks)]
        self._row = np.cumsum(is_new) - 1
        distinct = [mask for mask, new in zip(masks, is_new, strict=True) if new]
        # In one array they cost the fewest calls, one by one the least memory.
        step = len(distinct) if len(rows) <= _SMALL else 1
        self._curves = [
            _curves(distinct[start : start + step], start, outcomes.category[rows], starts)
            for start in range(0, len(distinct), step)
        ]

    def truths(self, weights: Floats) -> Floats:
        """Weighted number of objects per category."""
        mass = weights[self._truth_image] * self._truth_count
        return np.bincount(self._truth_category, mass, self._categories).astype(np.float64)

    def average_precision(self, weights: Floats | None = None) -> Floats:
        """AP as (thresholds, categories); NaN for a category without truth. ``weights`` has an item per image."""
        weights = np.ones(self._images) if weights is None else weights
        truths = self.truths(weights)
        own = weights[self._image]
        counted = _sums_within(own, self._starts, self._sizes)
        distinct = np.zeros((self._row[-1] + 1, self._categories))
        for curves in self._curves:
            if len(curves.position):
                distinct[curves.row, curves.category] = self._areas_under(curves, own, counted, truths)
        result: Floats = distinct[self._row]
        result[:, truths == 0.0] = np.nan
        return result

    def _areas_under(self, curves: _Curves, own: Floats, counted: Floats, truths: Floats) -> Floats:
        """AP of each of ``curves``."""
        hits = _sums_within(own[curves.position], curves.first, curves.length)
        ranks = counted[curves.position]
        if len(curves.ignored):
            ignored = np.concatenate(([0.0], np.cumsum(own[curves.ignored])))
            ranks -= ignored[curves.ignored_stop] - ignored[curves.ignored_start]

        precision = hits / (ranks + _EPSILON)
        # Precision is at most 1, so steps of 2 keep the curves apart in one running maximum over all of them.
        apart = np.repeat(2.0 * np.arange(len(curves.first), 0, -1), curves.length)
        precision += apart
        np.maximum.accumulate(precision[::-1], out=precision[::-1])
        precision -= apart

        reached = _levels_reached(hits / np.repeat(np.maximum(truths[curves.category], 1.0), curves.length))
        newly = np.diff(reached, prepend=0)
        newly[curves.first] = reached[curves.first]
        total: Floats = np.add.reduceat(precision * newly, curves.first) / len(RECALL_LEVELS)
        return total

    def recall(self, weights: Floats | None = None) -> Floats:
        """The recall of all detections kept, as (thresholds, categories); NaN for a category without truth."""
        weights = np.ones(self._images) if weights is None else weights
        truths = self.truths(weights)
        own = weights[self._image]
        distinct = np.zeros((self._row[-1] + 1, self._categories))
        for curves in self._curves:
            if len(curves.position):
                found = np.add.reduceat(own[curves.position], curves.first)
                distinct[curves.row, curves.category] = found / np.maximum(truths[curves.category], 1.0)
        result: Floats = distinct[self._row]
        result[:, truths == 0.0] = np.nan
        return result


def _curves(
    masks: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]], row: int, category: Indices, starts: Integers
) -> _Curves:
    """The curves of the thresholds whose (true, counted) ``masks`` are given; the first of them has number ``row``."""
    offset = np.arange(len(masks)) * (len(category) + 1)
    positions = [np.flatnonzero(true) for true, _ in masks]
    position, threshold = np.concatenate(positions), np.repeat(np.arange(len(masks)), [len(item) for item in positions])
    ignored_at = [np.flatnonzero(~counted) for _, counted in masks]
    ignored = np.concatenate([item + shift for item, shift in zip(ignored_at, offset, strict=True)])
    own = category[position]
    changed = (np.diff(own, prepend=-1) != 0) | (np.diff(threshold, prepend=-1) != 0)
    first = np.flatnonzero(changed)
    bounds = (offset[threshold] + starts[own], offset[threshold] + position) if len(ignored) else (first[:0], first[:0])
    start, stop = (np.searchsorted(ignored, bound).astype(np.int32) for bound in bounds)
    return _Curves(
        position=position.astype(np.int32),
        row=threshold[first] + row,
        category=own[first].astype(np.int64),
        first=first,
        length=np.diff(first, append=len(position)),
        ignored=np.concatenate(ignored_at).astype(np.int32),
        ignored_start=start,
        ignored_stop=stop,
    )


def _sums_within(values: Floats, first: Integers, length: Integers) -> Floats:
    """Running sums of ``values`` that begin anew at each of ``first``."""
    sums = np.cumsum(values)
    before = np.where(first > 0, sums[first - 1], 0.0) if len(sums) else np.zeros(len(first))
    sums -= np.repeat(before, length)
    return sums


_NEXT_LEVEL = np.append(RECALL_LEVELS[1:], np.inf)


def _levels_reached(recall: Floats) -> Integers:
    """``searchsorted(RECALL_LEVELS, recall, "right")``, several times faster: how many levels a recall attains."""
    level = np.floor(recall * 100.0).astype(np.int64)
    level += _NEXT_LEVEL[level] <= recall
    level -= RECALL_LEVELS[level] > recall
    return level + 1


def mean_defined(values: Floats) -> float | None:
    """The mean of what is not NaN; ``None`` where all of it is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None

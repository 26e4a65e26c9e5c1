"""Outcomes of a whole results file at once: what :mod:`~vrft_bench.tasks.metrics.outcomes` says question by question.

The rules are those of that module, to the bit of pycocotools' ``COCOeval`` and of lvis-api: overlaps are computed from
(x, y, width, height) as they do, and crowd regions keep their place among the annotations. A box of negative width or
height overlaps nothing; with a negative area it is in no area range, and so neither right nor wrong.

Claiming in order of score is a stable matching in which every object prefers the detection of higher score. So it can
be found for all questions together (Gale and Shapley 1962): every detection asks for the object that it likes best,
objects turn down all but the best of those who ask, and who is turned down asks for the next. A few rounds suffice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrft_bench.tasks.data.coco_results import Floats, Integers, ResultColumns, TruthColumns
from vrft_bench.tasks.metrics.outcome_table import RankedOutcomes
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES, IOU_THRESHOLDS, Rules

Masks = NDArray[np.uint64]
"""Bit ``10 * area_range + threshold``, as in :class:`~vrft_bench.tasks.metrics.outcomes.Outcome`."""
Flags = NDArray[np.bool_]

_PAIRS = 1 << 20
"""About how many overlaps are computed at once."""
_BITS = len(IOU_THRESHOLDS)
_NOBODY = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class BulkOutcomes:
    """Outcomes in ranking order (see :class:`RankedOutcomes`), and how many detections do not count for AP.

    ``cut`` of them are beyond the rules' limits, ``unverified`` are about pairs that LVIS never checked.
    """

    ranked: RankedOutcomes
    cut: int
    unverified: int

    def of(self, categories: range) -> RankedOutcomes:
        """The outcomes of ``categories``, which are numbered from 0 again."""
        whole = self.ranked
        asked = slice(*np.searchsorted(whole.question_category, [categories.start, categories.stop]).tolist())
        own = slice(*np.searchsorted(whole.category, [categories.start, categories.stop]).tolist())
        return RankedOutcomes(
            question_image=whole.question_image[asked],
            question_category=whole.question_category[asked] - np.int32(categories.start),
            truths=whole.truths[:, asked],
            hits=whole.hits[asked],
            extras=whole.extras[asked],
            image=whole.image[own],
            category=whole.category[own] - np.int32(categories.start),
            score=whole.score[own],
            mask=np.arange(own.stop - own.start, dtype=np.uint32),
            true=whole.true[own],
            counted=whole.counted[own],
        )


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Detections and the objects that they overlap enough, by place; a detection's objects as it prefers them."""

    detection: Integers
    truth: Integers
    overlap: Floats
    shared: Flags

    def chosen(self, rows: Integers | Flags) -> _Candidates:
        return _Candidates(self.detection[rows], self.truth[rows], self.overlap[rows], self.shared[rows])


def bulk_outcomes(truth: TruthColumns, results: ResultColumns, rules: Rules) -> BulkOutcomes:
    """Judge all ``results``. What counts per answer without scores (``hits``, ``extras``) is not counted: it is 0."""
    if rules.ignores_empty:
        truth = _chosen_truth(truth, np.flatnonzero(truth.area > 0.0))
    truth = _chosen_truth(truth, np.argsort(truth.pair, kind="stable"))
    rows, cut, unverified = _kept(truth, results, rules)
    pair = (results.category * truth.images + results.image)[rows]
    box, score = results.box[rows], results.score[rows]
    area_bits = _area_bits(truth.area)
    area_bits[truth.crowd] = 0

    own_bits = _area_bits(box[:, 2] * box[:, 3])
    if len(truth.incomplete):
        own_bits[np.isin(pair, truth.incomplete)] = 0
    candidates = _candidates(truth, pair, box)
    true, matched = _claim(candidates, area_bits, len(rows))
    every_threshold = np.uint64((1 << _BITS) - 1)
    counted = true | (own_bits * every_threshold & ~matched)

    # By category and score; the sort is stable, so equal scores stay in order of image and file.
    category = pair // truth.images
    ranking = np.lexsort((-score, category))
    asked, first = np.unique(truth.pair, return_index=True)
    in_range = (area_bits >> np.array([[_BITS * area] for area in range(len(AREA_RANGES))], np.uint64)) & np.uint64(1)
    counts = np.add.reduceat(in_range, first, axis=1) if len(first) else np.empty((len(AREA_RANGES), 0))
    nothing = np.zeros(len(asked), dtype=np.int32)
    ranked = RankedOutcomes(
        question_image=(asked % truth.images).astype(np.int32),
        question_category=(asked // truth.images).astype(np.int32),
        truths=counts.astype(np.int32),
        hits=nothing,
        extras=nothing,
        image=(pair % truth.images).astype(np.int32)[ranking],
        category=category.astype(np.int32)[ranking],
        score=score[ranking],
        mask=np.arange(len(rows), dtype=np.uint32),
        true=true[ranking],
        counted=counted[ranking],
    )
    return BulkOutcomes(ranked, cut, unverified)


def _chosen_truth(truth: TruthColumns, rows: Integers) -> TruthColumns:
    return TruthColumns(
        truth.images,
        truth.categories,
        truth.pair[rows],
        truth.box[rows],
        truth.area[rows],
        truth.crowd[rows],
        truth.absent,
        truth.incomplete,
    )


def _kept(truth: TruthColumns, results: ResultColumns, rules: Rules) -> tuple[Integers, int, int]:
    """The detections that count, by pair and descending score; how many were cut, and how many are unverified."""
    chosen = results.category >= 0
    rows = np.arange(len(results.score))
    if rules.limit_per_image is not None and len(rows):
        rows = _best(results.image, results.score, rules.limit_per_image)
    rows = rows[chosen[rows]]
    cut = int(np.count_nonzero(chosen)) - len(rows)
    pair = results.category * truth.images + results.image
    unverified = 0
    if truth.absent is not None:
        judged = np.isin(pair[rows], np.concatenate([truth.pair, truth.absent]))
        unverified = len(rows) - int(np.count_nonzero(judged))
        rows = rows[judged]
    if rules.ignores_empty:
        rows = rows[results.box[rows, 2] * results.box[rows, 3] > 0.0]
    best = rows[_best(pair[rows], results.score[rows], rules.limit)]
    return best, cut + len(rows) - len(best), unverified


def _best(group: Integers, score: Floats, limit: int) -> Integers:
    """The places of the ``limit`` highest scores of each group, by group and descending score, else as they stand."""
    rows = np.lexsort((-score, group))
    ordered = group[rows]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    sizes = np.diff(starts, append=len(rows))
    if len(sizes) and sizes.max() > limit:
        rows = rows[np.arange(len(rows)) - np.repeat(starts, sizes) < limit]
    return rows


def _area_bits(area: Floats) -> Masks:
    """The lowest bit of every area range that ``area`` belongs to, as a mask."""
    bits = np.zeros(len(area), dtype=np.uint64)
    for number, (low, high) in enumerate(AREA_RANGES.values()):
        bits |= ((area >= low) & (area <= high)).astype(np.uint64) << np.uint64(_BITS * number)
    return bits


def _candidates(truth: TruthColumns, pair: Integers, box: Floats) -> _Candidates:
    """All overlaps of at least the lowest threshold."""
    start, stop = (np.searchsorted(truth.pair, pair, side=side) for side in ("left", "right"))
    nothing = np.empty(0, np.int64)
    parts = [_near(truth, box, detections, start, stop) for detections in _chunks(stop - start)]
    parts.append(_Candidates(nothing, nothing, np.empty(0), np.empty(0, np.bool_)))
    return _Candidates(
        np.concatenate([part.detection for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.overlap for part in parts]),
        np.concatenate([part.shared for part in parts]),
    )


def _chunks(sizes: Integers) -> Iterator[Integers]:
    """The detections with any object to look at, in runs of about :data:`_PAIRS` overlaps."""
    looking = np.flatnonzero(sizes)
    if len(looking):
        yield from np.split(looking, np.flatnonzero(np.diff(np.cumsum(sizes[looking]) // _PAIRS)) + 1)


def _near(truth: TruthColumns, box: Floats, detections: Integers, start: Integers, stop: Integers) -> _Candidates:
    size = (stop - start)[detections]
    ends = np.cumsum(size)
    detection = np.repeat(detections, size)
    other = np.arange(ends[-1]) + np.repeat(start[detections] - ends + size, size)
    overlap = _overlap(box[detection], truth.box[other], truth.crowd[other])
    near = np.flatnonzero(overlap >= IOU_THRESHOLDS[0])
    return _Candidates(detection[near], other[near], overlap[near], truth.crowd[other[near]])


def _overlap(detection: Floats, truth: Floats, crowd: Flags) -> Floats:
    """Row by row: IoU, or the share of the detection that lies in a crowd region; boxes are (x, y, width, height)."""
    (x, y, w, h), (tx, ty, tw, th) = detection.T, truth.T
    width = np.minimum(x + w, tx + tw) - np.maximum(x, tx)
    height = np.minimum(y + h, ty + th) - np.maximum(y, ty)
    shared = np.where((width > 0.0) & (height > 0.0), width * height, 0.0)
    own = w * h
    whole = np.where(crowd, own, own + tw * th - shared)
    found: Floats = np.divide(shared, whole, out=np.zeros_like(shared), where=(shared > 0.0) & (whole > 0.0))
    return found


def _claim(candidates: _Candidates, area_bits: Masks, detections: int) -> tuple[Masks, Masks]:
    """The masks of true positives and of all matched detections."""
    true, matched = np.zeros(detections, np.uint64), np.zeros(detections, np.uint64)
    if not len(candidates.detection):
        return true, matched
    ranges = [np.uint64(1 << _BITS * number) for number in range(len(AREA_RANGES))]
    orders = [_preferred(candidates, area_bits[candidates.truth] & bit == 0) for bit in ranges]
    differs = np.any([order != orders[0] for order in orders[1:]], axis=0)
    # Where preferences are the same in all ranges, so are the claims. One object links all that follows from it.
    apart = _linked(candidates, differs) if differs.any() else differs
    runs = [(~apart, orders[0], ranges), *((apart, order, [bit]) for order, bit in zip(orders, ranges, strict=True))]
    for rows, order, own in runs if differs.any() else runs[:1]:
        bits = np.bitwise_or.reduce(own)
        for number, winners in _claims(candidates.chosen(order[rows[order]]), len(area_bits)):
            detection, shift = winners.detection, np.uint64(number)
            matched[detection] |= bits << shift
            true[detection] |= (area_bits[winners.truth] & bits) << shift
    return true, matched


def _preferred(candidates: _Candidates, ignored: Flags) -> Integers:
    """The candidates by detection, and each detection's by preference: counting, then near, then late objects first."""
    order = np.arange(len(candidates.detection))
    again = np.diff(candidates.detection) == 0
    several = np.flatnonzero(np.append(again, False) | np.insert(again, 0, False))
    keys = (-candidates.truth, -candidates.overlap, ignored, candidates.detection)
    order[several] = several[np.lexsort([key[several] for key in keys])]
    return order


def _linked(candidates: _Candidates, marked: Flags) -> Flags:
    """The candidates that ``marked`` ones may influence: those linked to them by common detections and objects."""
    while True:
        size = np.count_nonzero(marked)
        for side in (candidates.truth, candidates.detection):
            touched = np.zeros(side.max() + 1, np.bool_)
            touched[side[marked]] = True
            marked = touched[side]
        if np.count_nonzero(marked) == size:
            return marked


def _claims(candidates: _Candidates, truths: int) -> Iterator[tuple[int, _Candidates]]:
    """Per threshold: its number and the pairs of detection and object that claiming by score ends with."""
    holder = np.empty(truths, np.int64)
    for number, threshold in enumerate(IOU_THRESHOLDS):
        candidates = candidates.chosen(candidates.overlap >= threshold)
        if not len(candidates.detection):
            return
        asking = candidates
        holder.fill(_NOBODY)
        while True:
            first = asking.chosen(np.flatnonzero(np.diff(asking.detection, prepend=-1)))
            # Detections ascend by score, and of equal places the last assignment stays: from behind, the best one.
            holder[first.truth[::-1]] = first.detection[::-1]
            stays = asking.shared | (holder[asking.truth] >= asking.detection)
            if stays.all():
                break
            asking = asking.chosen(stays)
        yield number, first

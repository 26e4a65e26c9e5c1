"""Ties: how far AP depends on the order of images, which decides between equal scores.

COCO's evaluation ranks detections of equal score by image. Where a model states no confidence, or only a few round
ones, this arbitrary order moves AP. Here the images are shuffled many times, which is what pycocotools would see if the
images had other ids.
"""

from __future__ import annotations

import numpy as np

from vrft_bench.tasks.metrics.average_precision import Floats, Integers, PrecisionRecall
from vrft_bench.tasks.metrics.outcome_table import RankedOutcomes


def tied_categories(outcomes: RankedOutcomes) -> Integers:
    """Categories in which detections of equal score, from different images, differ in being right, wrong or ignored.

    Only there can the order of images change AP.
    """
    true, counted = outcomes.masks(0)
    rows = np.flatnonzero(counted)
    if not len(rows):
        return rows
    verdict = (true[rows].astype(np.int64) << 16) | counted[rows]
    starts = np.flatnonzero(np.diff(_groups(outcomes)[rows], prepend=-1))
    mixed = np.minimum.reduceat(verdict, starts) != np.maximum.reduceat(verdict, starts)
    image = outcomes.image[rows]
    mixed &= np.minimum.reduceat(image, starts) != np.maximum.reduceat(image, starts)
    return np.unique(outcomes.category[rows][starts[mixed]])


def shuffled_ap(
    outcomes: RankedOutcomes, ap: Floats, images: int, affected: Integers, orders: int, seed: int
) -> Floats:
    """AP per category for ``orders`` random orders of the images, as (orders, categories).

    ``ap`` is that of the documented order, and stays as it is outside the ``affected`` categories.
    """
    result = np.tile(ap, (orders, 1))
    rows = np.flatnonzero(np.isin(outcomes.category, affected))
    group, image = _groups(outcomes)[rows] * images, outcomes.image[rows]
    rng = np.random.default_rng(seed)
    for row in result:
        order = rows[np.argsort(group + rng.permutation(images)[image], kind="stable")]
        curves = PrecisionRecall(outcomes, len(ap), images, order=order)
        row[affected] = curves.average_precision().mean(axis=0)[affected]
    return result


def _groups(outcomes: RankedOutcomes) -> Integers:
    """The number of each detection's group of equal category and score, ascending in ranking order."""
    new = (np.diff(outcomes.category) != 0) | (np.diff(outcomes.score) != 0)
    groups = np.zeros(len(outcomes.category), dtype=np.int64)
    np.cumsum(new, out=groups[1:])
    return groups

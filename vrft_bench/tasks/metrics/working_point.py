"""Precision, recall and F1 of a results file at one score: what remains of it where only surer detections are used.

A detection is right or wrong as for AP at IoU .5: objects are claimed in order of score, and what lies on a crowd
region, or matches nothing in a category that is not exhaustively annotated, is neither. Claiming in order of score
means that leaving out all detections below a score changes nothing for those above it, so every score is a point of the
precision-recall curve that AP is computed from. (A run pairs the boxes of an answer in the best way, which may find one
pair more where boxes compete for objects.)

The *best* score is one for all categories, that of the highest mean F1 over the categories with truth: a number that an
application could be set to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrft_bench.tasks.metrics.average_precision import Floats, Integers
from vrft_bench.tasks.metrics.category_figures import precision_recall_f1
from vrft_bench.tasks.metrics.outcome_table import RankedOutcomes
from vrft_bench.tasks.metrics.outcomes import IOU_THRESHOLDS

_IOU_50 = 1 << IOU_THRESHOLDS.index(0.5)


@dataclass(frozen=True, slots=True)
class RightAndWrong:
    """The detections that are right or wrong at IoU .5, by category, and within one by descending score.

    ``truths`` is the number of objects per category; the other columns have an item per detection.
    """

    truths: Floats
    category: Integers
    score: Floats
    right: NDArray[np.bool_]

    def figures(self, score: float) -> dict[str, Floats]:
        """Precision, recall and F1 per category of the detections of at least ``score``; NaN where not defined."""
        kept = self.score >= score
        hits, extras = (
            np.bincount(self.category[kept & side], minlength=len(self.truths)).astype(np.float64)
            for side in (self.right, ~self.right)
        )
        return precision_recall_f1(self.truths, hits, extras)

    def best_score(self) -> float | None:
        """The score of the highest mean F1 over the categories with truth; ``None`` where none of them has a detection.

        Detections of one score are kept or left out together. Of several scores the highest is taken.
        """
        known = self.truths[self.category] > 0
        category, score, right = self.category[known], self.score[known], self.right[known]
        if not len(score):
            return None
        first = np.searchsorted(category, category)
        hits_before = np.concatenate(([0], np.cumsum(right)))
        hits = hits_before[1:] - hits_before[first]
        f1 = 2 * hits / (np.arange(1, len(category) + 1) - first + self.truths[category])
        # What a detection adds to the F1 of its category; the sum over all of some score and more is the sum of F1s.
        gain = np.diff(f1, prepend=0.0)
        begins = first == np.arange(len(first))
        gain[begins] = f1[begins]
        order = np.argsort(-score, kind="stable")
        last = np.flatnonzero(np.diff(score[order], append=-np.inf))
        return float(score[order][last][np.argmax(np.cumsum(gain[order])[last])])


def right_and_wrong(outcomes: RankedOutcomes, truths: Integers) -> RightAndWrong:
    """Of ``outcomes`` in ranking order; ``truths`` is the number of objects per category."""
    true, counted = outcomes.masks(0)
    rows = np.flatnonzero(counted & _IOU_50)
    return RightAndWrong(
        truths=truths.astype(np.float64),
        category=outcomes.category[rows].astype(np.int64),
        score=outcomes.score[rows],
        right=(true[rows] & _IOU_50) > 0,
    )

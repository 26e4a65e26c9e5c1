"""Localisation-recall-precision error (LRP), and its optimum over confidence thresholds (Oksuz et al. 2018, 2021).

At IoU >= .5, with N_TP, N_FP, N_FN boxes right, wrong and missed::

    LRP = (sum over right boxes of (1 - IoU) / (1 - .5)  +  N_FP  +  N_FN) / (N_TP + N_FP + N_FN)

It lies in [0, 1], 0 is best. Optimal LRP (oLRP) is the least LRP over all confidence thresholds, that which keeps
nothing included; its parts there are the mean 1 - IoU of right boxes (``loc``), 1 - precision (``fp``) and 1 - recall
(``fn``).
Unlike AP it asks for one working point, so it needs no smooth ranking; LRP over all boxes needs no confidence at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

LRP_IOU = 0.5
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OptimalLRP:
    """The optimum of one category, and ``lrp``, the error with all boxes kept.

    ``threshold`` is the least confidence that is kept. NaN where not defined: ``loc`` without a right box, ``fp`` and
    ``threshold`` without any box, everything without truth.
    """

    olrp: float
    loc: float
    fp: float
    fn: float
    threshold: float
    lrp: float


def optimal_lrp(scores: Floats, ious: Floats, truths: int) -> OptimalLRP:
    """The optimum for boxes with ``scores`` and ``ious`` (with their truth; NaN for a wrong one), in any order.

    Boxes of one score are kept or dropped together. Of several optima the one that keeps most is taken.
    """
    if not truths:
        return OptimalLRP(nan, nan, nan, nan, nan, nan)
    rank = np.argsort(-scores, kind="stable")
    scores, ious = scores[rank], ious[rank]
    right = ~np.isnan(ious)
    # One item per threshold, first the one that keeps nothing.
    ends = np.flatnonzero(np.diff(scores, append=-np.inf) != 0)
    kept = np.concatenate(([0], ends + 1))
    hits = np.concatenate(([0], np.cumsum(right)))[kept]
    errors = np.concatenate(([0.0], np.cumsum(np.where(right, 1.0 - ious, 0.0))))[kept]
    values = (errors / (1.0 - LRP_IOU) + (kept - hits) + (truths - hits)) / (kept + truths - hits)
    best = len(values) - 1 - int(np.argmin(values[::-1]))
    count, found = int(kept[best]), int(hits[best])
    return OptimalLRP(
        olrp=float(values[best]),
        loc=float(errors[best]) / found if found else nan,
        fp=1.0 - found / count if count else nan,
        fn=1.0 - found / truths,
        threshold=float(scores[count - 1]) if count else nan,
        lrp=float(values[-1]),
    )

"""Tests of a difference between two runs on the same questions, and how small a difference the data could show.

* :func:`permutation_p_value` is the two-sided p-value of a test in which the two runs' answers about whole images are
  exchanged at random. Where both runs are equally good at every image, all exchanges are equally likely, so the test
  keeps its level whatever the figure is (Fisher 1935; for AP too, which is no mean).
* :func:`mcnemar` is the exact form of that test for right and wrong answers (McNemar 1947).
* :func:`holm` keeps the chance of any false alarm in a whole table at the level of one test (Holm 1979).
* :func:`detectable_difference` and :func:`clusters_needed` turn a standard error into what could have been found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXACT_PAIRS = 1000
"""Up to so many pairs that differ, McNemar's test is computed exactly."""
POWER = 0.8
"""The chance to find a difference of the size that is called detectable."""
_SAME = 1e-12
"""Exchanges whose figure differs by less than this from the one observed are as extreme: only rounding differs."""


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of ``gained`` pairs that went from wrong to right against ``lost`` ones that went back.

    Exact (binomial) up to :data:`EXACT_PAIRS`, beyond that by the chi-square approximation with continuity correction.
    """
    pairs = gained + lost
    if pairs == 0:
        return 1.0
    if pairs > EXACT_PAIRS:
        return math.erfc(max(abs(gained - lost) - 1, 0) / math.sqrt(2 * pairs))
    tail = sum(math.comb(pairs, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / int(2**pairs))


def exchanges(clusters: int, count: int, seed: int) -> Iterator[Floats]:
    """Random exchanges: 1 for a cluster whose answers stay with their run, 0 for one whose answers are exchanged."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.integers(0, 2, clusters).astype(np.float64)


def permutation_p_value(difference: float, exchanged: Floats) -> float | None:
    """Two-sided p-value of ``difference`` among those of random exchanges; ``None`` where it is not defined.

    The order observed counts as one of the exchanges, so the value is never 0 and the test keeps its level exactly.
    """
    defined = exchanged[~np.isnan(exchanged)]
    if math.isnan(difference) or not len(defined):
        return None
    extreme = int(np.sum(np.abs(defined) >= abs(difference) - _SAME))
    return (1 + extreme) / (1 + len(defined))


def bootstrap_p_value(difference: float, replicates: Floats) -> float | None:
    """Two-sided p-value from bootstrap ``replicates`` of a difference, shifted to a mean of no difference.

    For runs whose answers cannot be exchanged, as one has more completions per question than the other.
    """
    defined = replicates[~np.isnan(replicates)]
    return permutation_p_value(difference, defined - difference) if len(defined) else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values corrected for there being several; ``None`` (no test) stays and counts for nothing."""
    tested = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (value, place) in enumerate(tested):
        highest = max(highest, min(1.0, value * (len(tested) - rank)))
        corrected[place] = highest
    return corrected


def detectable_difference(standard_error: float, level: float = 0.95, power: float = POWER) -> float:
    """The true difference that a two-sided test at ``1 - level`` finds with a chance of ``power``."""
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(power)) * standard_error


def clusters_needed(
    clusters: int, standard_error: float, difference: float, level: float = 0.95, power: float = POWER
) -> int | None:
    """How many clusters it takes to find a true ``difference`` with a chance of ``power``; ``None`` for one of 0.

    ``standard_error`` is that of ``clusters`` clusters; it falls with the root of their number.
    """
    if difference == 0:
        return None
    return math.ceil(clusters * (detectable_difference(standard_error, level, power) / difference) ** 2)

"""Confidence intervals: Wilson's for shares, the basic bootstrap for everything else.

The basic interval (Davison and Hinkley 1997, section 5.2), [2v - q_high, 2v - q_low] for the value v and the quantiles
q of its replicates, is chosen over the percentile interval [q_low, q_high] because AP is biased upwards on few images,
and its replicates are biased upwards once more: percentile intervals add the two, basic intervals cancel them. In
simulations at a nominal 95 % with 30 images and more, AP's percentile interval held the population's AP in 35 to 93 %
of the cases (least where all scores tie), the basic one in 83 to 95 %; with 10 images and tied scores in 65 %.

Resampling is by cluster: what belongs to one image is drawn together, because the answers about one image are not
independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def wilson_interval(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a share observed on ``count`` independent trials (Wilson 1927, without continuity correction).

    Unlike the normal approximation it stays inside [0, 1] and does not collapse at shares of 0 and 1. ``count`` must be
    positive.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = share + z * z / (2 * count)
    spread = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def resampled_weights(clusters: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Bootstrap replicates: how often each of ``clusters`` is drawn in ``clusters`` draws with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        yield np.bincount(rng.integers(0, clusters, clusters), minlength=clusters).astype(np.float64)


def basic_interval(value: float, replicates: Floats, level: float = 0.95) -> tuple[float, float] | None:
    """The basic bootstrap interval of a figure in [0, 1]; ``None`` where no replicate is defined.

    Replicates in which the figure is not defined (NaN: no truth was drawn) are left out. The interval is cut to [0, 1],
    and stretched to hold ``value`` where the bias of the replicates would leave it outside.
    """
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return max(0.0, min(value, 2 * value - float(high))), min(1.0, max(value, 2 * value - float(low)))


def bootstrap_mean_interval(
    sums: Floats, counts: Floats, *, level: float = 0.95, replicates: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Interval of a mean in [0, 1], from the sum and number of values in each cluster; ``None`` below two clusters."""
    if len(sums) < 2:
        return None
    means = [float(weights @ sums / (weights @ counts)) for weights in resampled_weights(len(sums), replicates, seed)]
    return basic_interval(float(sums.sum() / counts.sum()), np.array(means), level)

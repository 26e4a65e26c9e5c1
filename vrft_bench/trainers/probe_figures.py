"""What groups of rollouts can teach: figures over the rewards of n completions to each prompt.

GRPO learns from differences inside a group, so these figures are about them:

* **varies**: the share of groups whose rewards are not all the same. A group that is flat has no gradient.
* **deviation**: the mean standard deviation (over n - 1) inside a group. Where it is small, a prompt's expected
  gradient vanishes, however far its reward is from the best (Razin et al. 2024, arXiv 2310.20703).
* **advantage**: the mean of |r - group mean| / (group deviation + 1e-4) over all rollouts, 0 in flat groups. By this
  much TRL weighs the log-likelihood of a completion (``scale_rewards: group``), so it is the gradient signal to expect.
* **flat at size g**: the expected share of flat groups if g rollouts were drawn for a prompt, estimated without bias
  from its n: the share of the subsets of g whose rewards are all the same.
* **pass@k**: the expected share of prompts with a right answer among k, 1 - C(n - c, k) / C(n, k) for c right of n
  (Chen et al. 2021, arXiv 2107.03374). An answer is right where the reward that says so (accuracy, IoU) reaches
  the middle of its range.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import fmean
from typing import Any

import numpy as np

from vrft_bench.tasks.base import Figure, Reward
from vrft_bench.tasks.metrics.statistics import wilson_interval

TOTAL = "total"
BINS = 10
"""Bars of the histogram of group means."""
_DIGITS = 6
"""Trainers hold rewards in 32 bits: what differs less is the same to them."""
_EPSILON = 1e-4
"""TRL adds it to the deviation that advantages are divided by."""


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one prompt: each reward component, and ``total``, by name."""

    sample_id: str
    rewards: Mapping[str, tuple[float, ...]]

    @property
    def size(self) -> int:
        return len(self.rewards[TOTAL])

    def is_flat(self, name: str = TOTAL) -> bool:
        """Whether all rollouts earned the same."""
        return len({round(value, _DIGITS) for value in self.rewards[name]}) == 1

    def deviation(self, name: str = TOTAL) -> float:
        return float(np.std(self.rewards[name], ddof=1))


@dataclass(frozen=True, slots=True)
class RewardFigures:
    """One reward component over all groups, or their total."""

    mean: float
    deviation: float
    varies: Figure


@dataclass(frozen=True, slots=True)
class ProbeFigures:
    """Figures over ``groups`` groups (``too_small`` more had fewer than two rollouts and count nowhere).

    ``rewards`` are by component, with ``total`` last; ``flat`` by group size; ``passes`` by k; ``histogram`` counts the
    groups by the mean of the reward ``judged_by``, in equal bins from ``low`` to ``high``, its declared range.
    """

    groups: int
    too_small: int
    rewards: Mapping[str, RewardFigures]
    advantage: float
    flat: Mapping[int, float]
    passes: Mapping[int, float]
    judged_by: str
    histogram: tuple[int, ...]
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def probe_figures(groups: Sequence[Group], right: Reward) -> ProbeFigures:
    """The figures of ``groups``, of which at least one has two rollouts. ``right`` is the reward of being right."""
    judged = [group for group in groups if group.size > 1]
    middle = (right.low + right.high) / 2
    counts = [(group.size, sum(value >= middle for value in group.rewards[right.name])) for group in judged]
    sizes = doublings(min(group.size for group in judged))
    means = [fmean(group.rewards[right.name]) for group in judged]
    histogram, _ = np.histogram(means, bins=BINS, range=(right.low, right.high))
    return ProbeFigures(
        groups=len(judged),
        too_small=len(groups) - len(judged),
        rewards={name: _reward_figures(judged, name) for name in judged[0].rewards},
        advantage=fmean(_advantage(group) for group in judged),
        flat={size: fmean(_flat_chance(group, size) for group in judged) for size in sizes if size > 1},
        passes={k: fmean(_pass_chance(n, correct, k) for n, correct in counts) for k in sizes},
        judged_by=right.name,
        histogram=tuple(int(count) for count in histogram),
        low=right.low,
        high=right.high,
    )


def doublings(most: int) -> list[int]:
    """1, 2, 4, ... and ``most`` itself."""
    return sorted({most, *(1 << power for power in range(most.bit_length()))})


def _reward_figures(groups: Sequence[Group], name: str) -> RewardFigures:
    varying = sum(not group.is_flat(name) for group in groups) / len(groups)
    return RewardFigures(
        mean=fmean(fmean(group.rewards[name]) for group in groups),
        deviation=fmean(group.deviation(name) for group in groups),
        varies=Figure(varying, *wilson_interval(varying, len(groups))),
    )


def _advantage(group: Group) -> float:
    if group.is_flat():
        return 0.0
    totals = np.array(group.rewards[TOTAL])
    return float(np.mean(np.abs(totals - totals.mean())) / (group.deviation() + _EPSILON))


def _flat_chance(group: Group, size: int) -> float:
    counts = Counter(round(value, _DIGITS) for value in group.rewards[TOTAL])
    return sum(comb(count, size) for count in counts.values()) / comb(group.size, size)


def _pass_chance(n: int, correct: int, k: int) -> float:
    return 1.0 - comb(n - correct, k) / comb(n, k)

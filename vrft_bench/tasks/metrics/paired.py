"""The difference between two runs on the same questions: its interval and its p-value.

Whatever is compared is a :class:`PairedFigures`: figures of a set of answers in which the first run's answers about
image i count ``before[i]`` times and the second's ``after[i]`` times. That one function is all that is needed:

* each run's own figures are those of (1, 0) and (0, 1);
* the paired cluster bootstrap (Efron and Tibshirani 1993, chapter 8) draws images for both runs together, (w, 0) and
  (0, w): what makes an image hard makes it hard for both, so the interval of the difference is much narrower than two
  intervals side by side suggest. The interval is the basic one, [2d - q_high, 2d - q_low] for the difference d and the
  quantiles q of its replicates, expanded for few images;
* the permutation test exchanges the runs' answers about whole images at random, (s, 1 - s) and (1 - s, s).

What can only be computed and not be weighted, a plugin's metric, has an interval by :func:`jackknife_intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from vrft_bench.errors import UserError
from vrft_bench.tasks.base import BoxTarget, Figure, Prediction, Sample
from vrft_bench.tasks.metrics.average_precision import Floats, PrecisionRecall, mean_defined
from vrft_bench.tasks.metrics.outcome_table import ImageIds, OutcomeTable, image_order
from vrft_bench.tasks.metrics.outcomes import IOU_THRESHOLDS, Rules, outcome_of
from vrft_bench.tasks.metrics.significance import bootstrap_p_value, exchanges, permutation_p_value
from vrft_bench.tasks.metrics.statistics import basic_interval, expanded_level, resampled_weights, student_quantile

Answers = Iterable[tuple[Sample, int, Prediction]]
"""(sample, completion index, prediction)."""
JACKKNIFE_GROUPS = 20


class FigureKey(NamedTuple):
    """Which figure: of everything, or of one ``category`` or one ``size`` of objects."""

    figure: str
    category: str = ""
    size: str = ""


class PairedFigures(Protocol):
    """Figures of two runs over the same clusters (images).

    ``exchangeable``: both runs have equally many answers to every question. ``exact`` holds p-values that need no
    random exchanges.
    """

    @property
    def keys(self) -> Sequence[FigureKey]: ...

    @property
    def clusters(self) -> int: ...

    @property
    def exchangeable(self) -> bool: ...

    @property
    def exact(self) -> Mapping[FigureKey, float]: ...

    def at(self, before: Floats, after: Floats) -> Floats:
        """An item per key, NaN where not defined, with each run's answers about cluster i so many times."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two runs, and the interval of ``after - before``; NaN where there is none.

    ``standard_error`` is the bootstrap's; ``clusters`` are the images behind the figures. A p-value that is ``exact``
    is computed and not drawn.
    """

    before: float
    after: float
    low: float
    high: float
    p_value: float | None = None
    standard_error: float = math.nan
    clusters: int = 0
    exact: bool = False

    @property
    def value(self) -> float:
        return self.after - self.before

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out no difference at all."""
        return self.low > 0 or self.high < 0


def paired_differences(
    figures: PairedFigures, *, level: float = 0.95, replicates: int = 1000, seed: int = 0
) -> dict[FigureKey, Difference]:
    """Every figure's difference, with as many bootstrap replicates as random exchanges.

    Where the answers cannot be exchanged, p-values are the bootstrap's. Below two clusters there are neither intervals
    nor p-values.
    """
    count = figures.clusters
    every, none = np.ones(count), np.zeros(count)
    before, after = figures.at(every, none), figures.at(none, every)
    observed = after - before
    if count < 2:
        ends = [(float(one), float(two), math.nan, math.nan) for one, two in zip(before, after, strict=True)]
        return {key: Difference(*ends[i], clusters=count) for i, key in enumerate(figures.keys)}
    weightings = resampled_weights(count, replicates, seed)
    drawn = np.array([figures.at(none, weights) - figures.at(weights, none) for weights in weightings])
    exchanged = None
    if figures.exchangeable:
        # Another stream than the bootstrap's, so that the two are independent.
        orders = exchanges(count, replicates, seed + 1)
        exchanged = np.array([figures.at(1 - stays, stays) - figures.at(stays, 1 - stays) for stays in orders])
    found = {}
    for i, key in enumerate(figures.keys):
        low, high = _interval(float(observed[i]), drawn[:, i], level, count) or (math.nan, math.nan)
        p_value = figures.exact.get(key)
        if p_value is None and exchanged is not None:
            p_value = permutation_p_value(float(observed[i]), exchanged[:, i])
        elif p_value is None:
            p_value = bootstrap_p_value(float(observed[i]), drawn[:, i])
        defined = drawn[:, i][~np.isnan(drawn[:, i])]
        error = float(defined.std()) if len(defined) else math.nan
        found[key] = Difference(
            float(before[i]), float(after[i]), low, high, p_value, error, count, key in figures.exact
        )
    return found


def jackknife_intervals(
    clusters: Sequence[str],
    figures_without: Callable[[frozenset[str]], Mapping[str, float | None]],
    level: float = 0.95,
) -> dict[str, Figure]:
    """Figures of any kind with intervals by the delete-a-group jackknife (Kott 2001).

    ``figures_without`` computes them without some of ``clusters``. They are computed without one of 20 groups of
    clusters at a time, and their spread is scaled by Student's t. There is no interval for fewer than 20 clusters, nor
    for a figure that is not defined without each group.
    """
    whole = figures_without(frozenset())
    if len(clusters) < JACKKNIFE_GROUPS:
        return {name: Figure(value) for name, value in whole.items()}
    quantile = student_quantile(0.5 + level / 2, JACKKNIFE_GROUPS - 1)
    groups = [frozenset(clusters[start::JACKKNIFE_GROUPS]) for start in range(JACKKNIFE_GROUPS)]
    parts = [figures_without(group) for group in groups]
    found = {}
    for name, value in whole.items():
        defined = [part for item in parts if (part := item.get(name)) is not None]
        if value is None or len(defined) < JACKKNIFE_GROUPS:
            found[name] = Figure(value)
            continue
        middle = math.fsum(defined) / len(defined)
        spread = math.fsum((part - middle) ** 2 for part in defined)
        wide = quantile * math.sqrt((JACKKNIFE_GROUPS - 1) / JACKKNIFE_GROUPS * spread)
        found[name] = Figure(value, value - wide, value + wide)
    return found


def difference_of_means(
    before: Mapping[str, list[float]],
    after: Mapping[str, list[float]],
    *,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> Difference:
    """The difference of the means of all values, which are given by image.

    Raises :class:`UserError` where the images are not the same, or fewer than two.
    """
    images = _same_images(before.keys(), after.keys())
    sums = np.array([[sum(run[image]) for image in images] for run in (before, after)])
    counts = np.array([[len(run[image]) for image in images] for run in (before, after)], dtype=np.float64)
    values = sums.sum(axis=1) / counts.sum(axis=1)
    drawn = [(sums @ weights) / (counts @ weights) for weights in resampled_weights(len(images), replicates, seed)]
    return _difference(values, np.array(drawn), level, len(images))


def difference_of_ap(
    before: Answers,
    after: Answers,
    categories: tuple[str, ...],
    rules: Rules,
    *,
    threshold: float | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> Difference:
    """The difference of AP, mean over ``categories`` with truth: at one IoU ``threshold``, or over .50:.95.

    Each completion index is a run of its own, and a figure is the mean over them. Raises :class:`UserError` where the
    two are not about the same images, or about fewer than two.
    """
    ids = ImageIds()
    index = {name: number for number, name in enumerate(categories)}
    runs = [_tables(answers, ids, index, rules) for answers in (before, after)]
    _same_images(runs[0].images, runs[1].images)
    tables = [table for run in runs for table in run.tables]
    order = image_order(ids, tables)
    batch = range(len(categories))
    places = [table.beyond_limit(order, [batch], rules.limit_per_image)[0] for table in tables]
    ranked = [table.ranked(order, batch, place) for table, place in zip(tables, places, strict=True)]
    curves = [PrecisionRecall(outcomes, len(categories), len(order)) for outcomes in ranked]
    first = len(runs[0].tables)

    def figures(weights: Floats | None) -> tuple[float, float]:
        values = [_mean_ap(curve, weights, threshold) for curve in curves]
        return float(np.mean(values[:first])), float(np.mean(values[first:]))

    drawn = [figures(weights) for weights in resampled_weights(len(order), replicates, seed)]
    return _difference(np.array(figures(None)), np.array(drawn), level, len(order))


@dataclass(frozen=True, slots=True)
class _Run:
    tables: list[OutcomeTable]
    images: set[str]


def _tables(answers: Answers, ids: ImageIds, index: Mapping[str, int], rules: Rules) -> _Run:
    found: dict[int, OutcomeTable] = {}
    images: set[str] = set()
    for sample, n, prediction in answers:
        assert isinstance(sample.target, BoxTarget)
        table = found.setdefault(n, OutcomeTable(ids))
        outcome = outcome_of(sample.target, prediction.detections, rules)
        table.add(sample.fields["image_id"], index[sample.fields["category"]], outcome)
        images.add(sample.fields["image_id"])
    return _Run([found[n] for n in sorted(found)], images)


def _mean_ap(curve: PrecisionRecall, weights: Floats | None, threshold: float | None) -> float:
    by_threshold = curve.average_precision(weights)
    chosen = by_threshold.mean(axis=0) if threshold is None else by_threshold[IOU_THRESHOLDS.index(threshold)]
    value = mean_defined(chosen)
    return float("nan") if value is None else value


def _same_images(before: Iterable[str], after: Iterable[str]) -> list[str]:
    one, two = set(before), set(after)
    if one != two or len(one) < 2:
        raise UserError(
            f"the runs share {len(one & two)} images, and have {len(one - two)} and {len(two - one)} of their own",
            fix="compare runs on the same questions, about two images at least",
        )
    return sorted(one)


def _difference(values: Floats, drawn: Floats, level: float, clusters: int) -> Difference:
    """``values`` are (before, after); ``drawn`` has a row of them per replicate."""
    changes = drawn[:, 1] - drawn[:, 0]
    change = float(values[1] - values[0])
    low, high = _interval(change, changes, level, clusters) or (change, change)
    return Difference(float(values[0]), float(values[1]), low, high)


def _interval(change: float, drawn: Floats, level: float, clusters: int) -> tuple[float, float] | None:
    return basic_interval(change, drawn, expanded_level(level, clusters), (-math.inf, math.inf))

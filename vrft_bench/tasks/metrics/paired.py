"""The difference between two runs on the same questions, with its interval: what a gain is worth.

Both runs are resampled together, image by image (paired cluster bootstrap; Efron and Tibshirani 1993, chapter 8): what
makes an image hard makes it hard for both, so the interval of the difference is much narrower than two intervals side
by side suggest. The interval is the basic one, [2d - q_high, 2d - q_low] for the difference d and the quantiles q of
its replicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from vrft_bench.errors import UserError
from vrft_bench.tasks.base import BoxTarget, Prediction, Sample
from vrft_bench.tasks.metrics.average_precision import Floats, PrecisionRecall, mean_defined
from vrft_bench.tasks.metrics.outcome_table import ImageIds, OutcomeTable, image_order
from vrft_bench.tasks.metrics.outcomes import IOU_THRESHOLDS, Rules, outcome_of
from vrft_bench.tasks.metrics.statistics import resampled_weights

Answers = Iterable[tuple[Sample, int, Prediction]]
"""(sample, completion index, prediction)."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of two runs, and the interval of ``after - before``."""

    before: float
    after: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.after - self.before

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out no difference at all."""
        return self.low > 0 or self.high < 0


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
    return _difference(values, np.array(drawn), level)


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
    return _difference(np.array(figures(None)), np.array(drawn), level)


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


def _difference(values: Floats, drawn: Floats, level: float) -> Difference:
    """``values`` are (before, after); ``drawn`` has a row of them per replicate."""
    changes = drawn[:, 1] - drawn[:, 0]
    changes = changes[~np.isnan(changes)]
    change = float(values[1] - values[0])
    low, high = np.quantile(changes, [(1 - level) / 2, (1 + level) / 2]) if len(changes) else (change, change)
    return Difference(
        float(values[0]), float(values[1]), min(change, 2 * change - float(high)), max(change, 2 * change - float(low))
    )

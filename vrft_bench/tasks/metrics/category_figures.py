"""Figures per category of a batch of categories: AP and its replicates, and precision, recall and F1 without scores.

A batch is all that is computed on at once, so that memory does not grow with the number of categories or of answers.
All batches see the same draws and shuffles of the images, so joining them gives the figures of one large batch; means
over categories come after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrft_bench.tasks.metrics.average_precision import Floats, Indices, Integers, PrecisionRecall, mean_defined
from vrft_bench.tasks.metrics.outcome_table import RankedOutcomes
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES, IOU_THRESHOLDS
from vrft_bench.tasks.metrics.statistics import resampled_weights
from vrft_bench.tasks.metrics.ties import shuffled_ap, tied_categories

TIE_ORDERS = 50


@dataclass(frozen=True, slots=True)
class CategoryFigures:
    """Figures with an item per category, NaN where not defined; means over completion indices.

    ``replicates`` are the APs of bootstrap replicates, as (replicates, categories); ``orders`` those of the documented
    order of images and of :data:`TIE_ORDERS` random ones, which differ in the categories that are ``tied``.
    """

    values: dict[str, Floats]
    truths: Integers
    images: Integers
    replicates: Floats
    orders: Floats
    tied: NDArray[np.bool_]

    def tie_range(self) -> tuple[float | None, float | None, float | None]:
        """Least, mean and greatest AP over orders of the images."""
        values = [mean_defined(row) for row in (self.orders if self.tied.any() else self.orders[:1])]
        defined = [value for value in values if value is not None]
        return (min(defined), float(np.mean(defined)), max(defined)) if defined else (None, None, None)


def category_figures(
    runs: Sequence[RankedOutcomes], categories: int, images: int, replicates: int, seed: int
) -> CategoryFigures:
    """The figures of ``categories`` from the outcomes of each completion index."""
    all_areas = [PrecisionRecall(outcomes, categories, images) for outcomes in runs]
    by_run = [_values(outcomes, curves, categories, images) for outcomes, curves in zip(runs, all_areas, strict=True)]
    drawn = np.empty((replicates, categories))
    for row, weights in zip(drawn, resampled_weights(images, replicates, seed), strict=True):
        row[:] = mean_over_runs([curves.average_precision(weights).mean(axis=0) for curves in all_areas])

    tied = [tied_categories(outcomes) for outcomes in runs]
    shuffled = [
        np.vstack([values["ap"], shuffled_ap(outcomes, values["ap"], images, affected, TIE_ORDERS, seed)])
        for outcomes, values, affected in zip(runs, by_run, tied, strict=True)
    ]
    first = runs[0]
    return CategoryFigures(
        values={name: mean_over_runs([values[name] for values in by_run]) for name in by_run[0]},
        truths=_sums(first, first.truths[0], categories).astype(np.int64),
        images=np.bincount(first.question_category, minlength=categories),
        replicates=drawn,
        orders=mean_over_runs(shuffled),
        tied=np.isin(np.arange(categories), np.concatenate(tied)),
    )


def joined(parts: Sequence[CategoryFigures]) -> CategoryFigures:
    """The figures of neighbouring batches as those of one."""
    return CategoryFigures(
        values={name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        truths=np.concatenate([part.truths for part in parts]),
        images=np.concatenate([part.images for part in parts]),
        replicates=np.concatenate([part.replicates for part in parts], axis=1),
        orders=np.concatenate([part.orders for part in parts], axis=1),
        tied=np.concatenate([part.tied for part in parts]),
    )


def _values(outcomes: RankedOutcomes, all_areas: PrecisionRecall, categories: int, images: int) -> dict[str, Floats]:
    """The figures of one completion index."""
    by_threshold = all_areas.average_precision()
    values = {"ap": by_threshold.mean(axis=0)}
    for name, threshold in (("ap50", 0.5), ("ap75", 0.75)):
        values[name] = by_threshold[IOU_THRESHOLDS.index(threshold)]
    for number, name in enumerate(AREA_RANGES):
        if name != "all":
            values[f"ap_{name}"] = (
                PrecisionRecall(outcomes, categories, images, number).average_precision().mean(axis=0)
            )
    # What is not defined is left out, as where lvis-api's precision array is averaged over area ranges too.
    values["ap_areas"] = mean_over_runs(
        [values[name] for name in ("ap", *(f"ap_{area}" for area in AREA_RANGES if area != "all"))]
    )
    values["ar"] = all_areas.recall().mean(axis=0)

    truths, hits, extras = (
        _sums(outcomes, counts, categories) for counts in (outcomes.truths[0], outcomes.hits, outcomes.extras)
    )
    values["precision"] = np.where(truths > 0, _ratio(hits, hits + extras), np.nan)
    values["recall"] = _ratio(hits, truths)
    values["f1"] = np.where(truths > 0, _ratio(2 * hits, hits + extras + truths), np.nan)
    return values


def _sums(outcomes: RankedOutcomes, counts: Indices, categories: int) -> Floats:
    """Sums of what is counted per question."""
    return np.bincount(outcomes.question_category, counts, categories).astype(np.float64)


def mean_over_runs(values: list[Floats]) -> Floats:
    """Mean over completion indices, item by item; NaN where no run defines it."""
    stacked = np.array(values)
    defined = ~np.isnan(stacked)
    count = defined.sum(axis=0)
    total = np.where(defined, stacked, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.maximum(whole, 1.0), np.nan)

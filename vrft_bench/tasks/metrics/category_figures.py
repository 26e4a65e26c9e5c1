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

    ``replicates`` are figures of bootstrap replicates by name (see :func:`resampled_ap`); ``orders`` the APs of the
    documented order of images and of :data:`TIE_ORDERS` random ones, which differ in the categories that are ``tied``.
    """

    values: dict[str, Floats]
    truths: Integers
    replicates: dict[str, Floats]
    orders: Floats
    tied: NDArray[np.bool_]

    def tie_range(self) -> tuple[float | None, float | None, float | None]:
        """Least, mean and greatest AP over orders of the images."""
        values = [mean_defined(row) for row in (self.orders if self.tied.any() else self.orders[:1])]
        defined = [value for value in values if value is not None]
        return (min(defined), float(np.mean(defined)), max(defined)) if defined else (None, None, None)


def category_figures(
    runs: Sequence[RankedOutcomes],
    categories: int,
    images: int,
    replicates: int,
    seed: int,
    *,
    over_areas: bool = False,
) -> CategoryFigures:
    """The figures of ``categories`` from the outcomes of each completion index.

    With ``over_areas``, ``ap_areas`` has replicates too, which costs four times as much.
    """
    areas = range(len(AREA_RANGES) if over_areas else 1)
    by_area = [[PrecisionRecall(outcomes, categories, images, area) for area in areas] for outcomes in runs]
    by_run = [values_of(outcomes, curves, categories, images) for outcomes, curves in zip(runs, by_area, strict=True)]
    tied = [tied_categories(outcomes) for outcomes in runs]
    shuffled = [
        np.vstack([values["ap"], shuffled_ap(outcomes, values["ap"], images, affected, TIE_ORDERS, seed)])
        for outcomes, values, affected in zip(runs, by_run, tied, strict=True)
    ]
    first = runs[0]
    return CategoryFigures(
        values={name: mean_over_runs([values[name] for values in by_run]) for name in by_run[0]},
        truths=_sums(first, first.truths[0], categories).astype(np.int64),
        replicates=resampled_ap(by_area, categories, images, replicates, seed),
        orders=mean_over_runs(shuffled),
        tied=np.isin(np.arange(categories), np.concatenate(tied)),
    )


def resampled_ap(
    runs: Sequence[Sequence[PrecisionRecall]], categories: int, images: int, replicates: int, seed: int
) -> dict[str, Floats]:
    """Figures of bootstrap replicates over the images, as (replicates, categories): ``ap``, and ``ap_areas`` where each
    of ``runs`` (a completion index) has the curves of every area range instead of the first alone."""
    names = ("ap", "ap_areas") if len(runs[0]) > 1 else ("ap",)
    drawn = {name: np.empty((replicates, categories)) for name in names}
    for row, weights in enumerate(resampled_weights(images, replicates, seed)):
        by_run = [[curves.average_precision(weights).mean(axis=0) for curves in own] for own in runs]
        drawn["ap"][row] = mean_over_runs([own[0] for own in by_run])
        if "ap_areas" in drawn:
            drawn["ap_areas"][row] = mean_over_runs([mean_over_runs(own) for own in by_run])
    return drawn


def precision_recall_f1(truths: Floats, hits: Floats, extras: Floats) -> dict[str, Floats]:
    """``precision``, ``recall`` and ``f1`` per category; NaN without truth, and precision also without a detection."""
    return {
        "precision": np.where(truths > 0, _ratio(hits, hits + extras), np.nan),
        "recall": _ratio(hits, truths),
        "f1": np.where(truths > 0, _ratio(2 * hits, hits + extras + truths), np.nan),
    }


def joined(parts: Sequence[CategoryFigures]) -> CategoryFigures:
    """The figures of neighbouring batches as those of one."""
    return CategoryFigures(
        values={name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
        truths=np.concatenate([part.truths for part in parts]),
        replicates={
            name: np.concatenate([part.replicates[name] for part in parts], axis=1) for name in parts[0].replicates
        },
        orders=np.concatenate([part.orders for part in parts], axis=1),
        tied=np.concatenate([part.tied for part in parts]),
    )


def values_of(
    outcomes: RankedOutcomes,
    curves: Sequence[PrecisionRecall],
    categories: int,
    images: int,
    weights: Floats | None = None,
) -> dict[str, Floats]:
    """The figures of one completion index, where image k counts ``weights[k]`` times (default: once).

    ``curves`` are those of the first area ranges, one or all of them.
    """
    by_threshold = curves[0].average_precision(weights)
    values = {"ap": by_threshold.mean(axis=0)}
    for name, threshold in (("ap50", 0.5), ("ap75", 0.75)):
        values[name] = by_threshold[IOU_THRESHOLDS.index(threshold)]
    for number, name in enumerate(AREA_RANGES):
        if name != "all":
            own = curves[number] if len(curves) > 1 else PrecisionRecall(outcomes, categories, images, number)
            values[f"ap_{name}"] = own.average_precision(weights).mean(axis=0)
    # What is not defined is left out, as where lvis-api's precision array is averaged over area ranges too.
    values["ap_areas"] = mean_over_runs(
        [values[name] for name in ("ap", *(f"ap_{area}" for area in AREA_RANGES if area != "all"))]
    )
    values["ar"] = curves[0].recall(weights).mean(axis=0)

    truths, hits, extras = (
        _sums(outcomes, counts, categories, weights) for counts in (outcomes.truths[0], outcomes.hits, outcomes.extras)
    )
    return values | precision_recall_f1(truths, hits, extras)


def _sums(outcomes: RankedOutcomes, counts: Indices, categories: int, weights: Floats | None = None) -> Floats:
    """Sums of what is counted per question."""
    mass = counts if weights is None else counts * weights[outcomes.question_image]
    return np.bincount(outcomes.question_category, mass, categories).astype(np.float64)


def mean_over_runs(values: list[Floats]) -> Floats:
    """Mean over completion indices, item by item; NaN where no run defines it."""
    stacked = np.array(values)
    defined = ~np.isnan(stacked)
    count = defined.sum(axis=0)
    total = np.where(defined, stacked, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.maximum(whole, 1.0), np.nan)

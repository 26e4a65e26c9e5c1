"""The report on a results file: AP and its companions by the rules of COCO or LVIS.

The definitions are those of :mod:`~vrft_bench.tasks.metrics.detection`. There is no precision, recall or F1: a results
file holds ranked detections, of which the last ones are not meant to be answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from vrft_bench.tasks.base import Figure, MetricReport
from vrft_bench.tasks.metrics.average_precision import Floats, Integers, PrecisionRecall, mean_defined
from vrft_bench.tasks.metrics.bulk_outcomes import BulkOutcomes
from vrft_bench.tasks.metrics.category_figures import TIE_ORDERS
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES, IOU_THRESHOLDS
from vrft_bench.tasks.metrics.statistics import basic_interval, resampled_weights
from vrft_bench.tasks.metrics.ties import shuffled_ap, tied_categories

REPLICATES = (100, 1000)
"""Fewest and most bootstrap replicates."""
_WORK = 60_000_000
"""About how many detections and images all replicates together may touch."""
_BATCH = 1 << 16
"""About how many detections are worked on at once; a larger category is a batch of its own."""


@dataclass(frozen=True, slots=True)
class ResultsFigures:
    """Figures with an item per category, NaN where not defined.

    ``replicates`` are the APs of bootstrap replicates and ``orders`` those of random orders of the images, as (number,
    categories); both are without rows where nobody asked for intervals.
    """

    values: Mapping[str, Floats]
    truths: Integers
    detections: Integers
    replicates: Floats
    orders: Floats


def results_figures(
    outcomes: BulkOutcomes, categories: int, images: int, *, intervals: bool = False, seed: int = 0
) -> ResultsFigures:
    """The figures of ``outcomes``. ``intervals`` resamples the images and shuffles those of equal scores."""
    ranked = outcomes.ranked
    detections = np.bincount(ranked.category, minlength=categories)
    # No interval for fewer than two images.
    resampled = intervals and images > 1
    drawn = min(max(_WORK // (images + len(ranked.score)), REPLICATES[0]), REPLICATES[1]) if resampled else 0
    values: dict[str, list[Floats]] = {}
    replicates, orders = [], []
    for batch in _batches(detections):
        own = outcomes.of(batch)
        curves = [PrecisionRecall(own, len(batch), images, area) for area in range(len(AREA_RANGES))]
        precisions = [item.average_precision() for item in curves]
        for name, value in figures_by_name(precisions, curves[0].recall()).items():
            values.setdefault(name, []).append(value)
        part = np.empty((drawn, len(batch)))
        for row, weights in zip(part, resampled_weights(images, drawn, seed), strict=True):
            row[:] = curves[0].average_precision(weights).mean(axis=0)
        replicates.append(part)
        shuffled = TIE_ORDERS if resampled else 0
        ap = precisions[0].mean(axis=0)
        orders.append(shuffled_ap(own, ap, images, tied_categories(own), shuffled, seed) if shuffled else part)
    return ResultsFigures(
        values={name: np.concatenate(parts) for name, parts in values.items()},
        truths=np.bincount(ranked.question_category, ranked.truths[0], categories).astype(np.int64),
        detections=detections,
        replicates=np.concatenate(replicates, axis=1),
        orders=np.concatenate(orders, axis=1),
    )


def figures_by_name(precisions: Sequence[Floats], recall: Floats) -> dict[str, Floats]:
    """Figures per category from AP in each area range and recall over all of them, as (thresholds, categories)."""
    values = {"ap": precisions[0].mean(axis=0)}
    for name, threshold in (("ap50", 0.5), ("ap75", 0.75)):
        values[name] = precisions[0][IOU_THRESHOLDS.index(threshold)]
    for name, precision in zip(AREA_RANGES, precisions, strict=True):
        if name != "all":
            values[f"ap_{name}"] = precision.mean(axis=0)
    by_area = np.array([precision.mean(axis=0) for precision in precisions])
    defined = ~np.isnan(by_area)
    total = np.where(defined, by_area, 0.0).sum(axis=0)
    values["ap_areas"] = np.where(defined.any(axis=0), total / np.maximum(defined.sum(axis=0), 1), np.nan)
    values["ar"] = recall.mean(axis=0)
    return values


def results_report(
    found: ResultsFigures,
    categories: Sequence[str],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    over_areas: bool = False,
    notes: Sequence[str] = (),
) -> MetricReport:
    """The report on ``found``, whose categories are called ``categories``.

    ``groups`` names sets of categories that get a figure ``ap_<group>``. With ``over_areas``, ``ap_areas`` is the
    headline (the figure of Visual-RFT's LVIS tables); without, it is not shown.
    """
    headline = "ap_areas" if over_areas else "ap"
    values = {name: item for name, item in found.values.items() if over_areas or name != "ap_areas"}
    figures = {name: Figure(mean_defined(item)) for name, item in values.items()}
    figures["ap"] = _figure(values["ap"], found.replicates)
    index = {name: number for number, name in enumerate(categories)}
    for name, members in (groups or {}).items():
        chosen = [index[member] for member in members if member in index]
        figures[f"ap_{name}"] = _figure(values["ap"][chosen], found.replicates[:, chosen])
    orders = [figures["ap"].value, *map(mean_defined, found.orders)]
    defined = [value for value in orders if value is not None] if len(orders) > 1 else []
    if defined:
        figures["ap_tie_min"], figures["ap_tie_max"] = Figure(min(defined)), Figure(max(defined))
        figures["ap_tie_mean"] = Figure(float(np.mean(defined)))
    columns = ("ap_areas", "ap50", "ap75") if over_areas else ("ap50", "ap75")
    rows: dict[str, dict[str, Figure | int | str]] = {
        name: {
            "truths": int(found.truths[number]),
            "detections": int(found.detections[number]),
            "ap": _with_interval(_defined(values["ap"][number]), found.replicates[:, number]),
            **{key: Figure(_defined(values[key][number])) for key in columns},
        }
        for name, number in index.items()
    }
    return MetricReport(headline, figures, rows, (*_notes(found, categories, defined), *notes))


def _batches(sizes: Integers) -> list[range]:
    """All categories in runs of neighbours, each small enough to be worked on at once."""
    starts = np.flatnonzero(np.diff((np.cumsum(sizes) - sizes) // _BATCH, prepend=-1)).tolist()
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True)]


def _figure(ap: Floats, replicates: Floats) -> Figure:
    """Mean over categories, with the interval of that mean."""
    means = [mean_defined(row) for row in replicates]
    return _with_interval(mean_defined(ap), np.array([np.nan if mean is None else mean for mean in means]))


def _with_interval(value: float | None, replicates: Floats) -> Figure:
    interval = None if value is None else basic_interval(value, replicates)
    return Figure(value, *interval) if interval else Figure(value)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _notes(found: ResultsFigures, categories: Sequence[str], orders: Sequence[float]) -> list[str]:
    notes = []
    absent = list(compress(categories, np.isnan(found.values["ap"])))
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        notes.append(f"no truth for {', '.join(absent[:5])}{more}: left out of all means")
    if orders and min(orders) < max(orders):
        notes.append(
            f"equal scores are ranked by image id; {TIE_ORDERS} random orders of the images gave an AP from "
            f"{min(orders):.4f} to {max(orders):.4f}"
        )
    if 0 < len(found.replicates) < REPLICATES[1]:
        notes.append(
            f"intervals come from {len(found.replicates)} bootstrap replicates instead of {REPLICATES[1]:,}: large set"
        )
    return notes

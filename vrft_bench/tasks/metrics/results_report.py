"""The report on a results file: AP and its companions by the rules of COCO or LVIS.

The definitions are those of :mod:`~vrft_bench.tasks.metrics.detection`, but for precision, recall and F1: a results
file holds ranked detections, of which the last ones are not meant to be answers. So these are given for all detections
(``f1``) and for those above the score at which the mean F1 is highest (``best_f1``), or above one that the user chose
(``f1`` alone); see :mod:`~vrft_bench.tasks.metrics.working_point`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np

from vrft_bench.tasks.base import Figure, MetricReport
from vrft_bench.tasks.metrics.average_precision import Floats, Integers, PrecisionRecall, mean_defined
from vrft_bench.tasks.metrics.bulk_outcomes import BulkOutcomes
from vrft_bench.tasks.metrics.category_figures import TIE_ORDERS, mean_over_runs, resampled_ap
from vrft_bench.tasks.metrics.outcome_table import RankedOutcomes
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES, IOU_THRESHOLDS
from vrft_bench.tasks.metrics.statistics import basic_interval
from vrft_bench.tasks.metrics.ties import shuffled_ap, tied_categories
from vrft_bench.tasks.metrics.working_point import RightAndWrong, right_and_wrong

REPLICATES = (100, 1000)
"""Fewest and most bootstrap replicates."""
_WORK = 60_000_000
"""About how many detections and images all replicates together may touch."""
_BATCH = 1 << 16
"""About how many detections are worked on at once; a larger category is a batch of its own."""


RECALL_LIMITS = (1, 10)
"""Of the detections per image and category, where COCO reports recall apart; ``ar`` is at its limit of 100."""


@dataclass(frozen=True, slots=True)
class ResultsFigures:
    """Figures with an item per category, NaN where not defined.

    ``replicates`` are figures of bootstrap replicates by name, and ``orders`` APs of random orders of the images, as
    (number, categories); both are without rows where nobody asked for intervals. ``judged`` is what precision, recall
    and F1 are counted from.
    """

    values: Mapping[str, Floats]
    truths: Integers
    detections: Integers
    replicates: Mapping[str, Floats]
    orders: Floats
    judged: RightAndWrong


def results_figures(
    outcomes: BulkOutcomes,
    categories: int,
    images: int,
    *,
    intervals: bool = False,
    over_areas: bool = False,
    recall_limits: Sequence[int] = (),
    seed: int = 0,
) -> ResultsFigures:
    """The figures of ``outcomes``. ``intervals`` resamples the images and shuffles those of equal scores.

    With ``over_areas``, ``ap_areas`` is resampled too. Each of ``recall_limits`` adds the recall of so many detections
    per image and category.
    """
    ranked = outcomes.ranked
    detections = np.bincount(ranked.category, minlength=categories)
    # No interval for fewer than two images.
    resampled = intervals and images > 1
    areas = len(AREA_RANGES) if over_areas else 1
    work = (images + len(ranked.score)) * areas
    drawn = min(max(_WORK // work, REPLICATES[0]), REPLICATES[1]) if resampled else 0
    values: dict[str, list[Floats]] = {}
    replicates: dict[str, list[Floats]] = {}
    orders = []
    for batch in _batches(detections):
        own = outcomes.of(batch)
        curves = [PrecisionRecall(own, len(batch), images, area) for area in range(len(AREA_RANGES))]
        precisions = [item.average_precision() for item in curves]
        recalls = [item.recall() for item in curves]
        limited = {limit: recall_at(own, len(batch), limit) for limit in recall_limits}
        for name, value in figures_by_name(precisions, recalls, limited).items():
            values.setdefault(name, []).append(value)
        for name, part in resampled_ap([curves[:areas]], len(batch), images, drawn, seed).items():
            replicates.setdefault(name, []).append(part)
        ap = precisions[0].mean(axis=0)
        orders.append(
            shuffled_ap(own, ap, images, tied_categories(own), TIE_ORDERS, seed)
            if resampled
            else np.empty((0, len(batch)))
        )
    truths = np.bincount(ranked.question_category, ranked.truths[0], categories).astype(np.int64)
    return ResultsFigures(
        values={name: np.concatenate(parts) for name, parts in values.items()},
        truths=truths,
        detections=detections,
        replicates={name: np.concatenate(parts, axis=1) for name, parts in replicates.items()},
        orders=np.concatenate(orders, axis=1),
        judged=right_and_wrong(ranked, truths),
    )


def figures_by_name(
    precisions: Sequence[Floats], recalls: Sequence[Floats], limited: Mapping[int, Floats]
) -> dict[str, Floats]:
    """Figures per category from AP and recall in each area range, as (thresholds, categories).

    ``limited`` is recall over all areas by the number of detections per image and category.
    """
    values = {"ap": precisions[0].mean(axis=0)}
    for name, threshold in (("ap50", 0.5), ("ap75", 0.75)):
        values[name] = precisions[0][IOU_THRESHOLDS.index(threshold)]
    for name, precision in zip(AREA_RANGES, precisions, strict=True):
        if name != "all":
            values[f"ap_{name}"] = precision.mean(axis=0)
    values["ap_areas"] = mean_over_runs([precision.mean(axis=0) for precision in precisions])
    values |= {f"ar{limit}": recall.mean(axis=0) for limit, recall in limited.items()}
    for name, recall in zip(AREA_RANGES, recalls, strict=True):
        values["ar" if name == "all" else f"ar_{name}"] = recall.mean(axis=0)
    return values


def recall_at(outcomes: RankedOutcomes, categories: int, limit: int) -> Floats:
    """The recall of the ``limit`` most confident detections per image and category, as (thresholds, categories).

    As in pycocotools, they keep the objects that they claimed among all detections. NaN without truth.
    """
    # Detections are ranked within their category, so a stable sort by image ranks those of a pair.
    rows = np.lexsort((outcomes.image, outcomes.category))
    pair = outcomes.category[rows].astype(np.int64) << 32 | outcomes.image[rows]
    starts = np.flatnonzero(np.diff(pair, prepend=-1))
    first = rows[np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows))) < limit]
    true, category = outcomes.masks(0)[0][first], outcomes.category[first]
    truths = np.bincount(outcomes.question_category, outcomes.truths[0], categories)
    found = [np.bincount(category[true & 1 << bit > 0], minlength=categories) for bit in range(len(IOU_THRESHOLDS))]
    recall: Floats = np.where(truths > 0, np.array(found) / np.maximum(truths, 1.0), np.nan)
    return recall


def results_report(
    found: ResultsFigures,
    categories: Sequence[str],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    score_threshold: float | None = None,
    best_score: float | None = None,
    notes: Sequence[str] = (),
) -> MetricReport:
    """The report on ``found``, whose categories are called ``categories``.

    ``groups`` names sets of categories that get a figure ``ap_<group>``. Where ``found`` is over areas, ``ap_areas`` is
    the headline (the figure of Visual-RFT's LVIS tables); else it is not shown. ``score_threshold`` is the least score
    that counts for precision, recall and F1, and for nothing else; without one, they are given for all detections and
    for those of ``best_score`` and more.
    """
    headline = "ap_areas" if "ap_areas" in found.replicates else "ap"
    values = {name: item for name, item in found.values.items() if name != "ap_areas" or name == headline}
    points = _points(found.judged, score_threshold, best_score)
    values |= points
    figures = {name: Figure(mean_defined(item)) for name, item in values.items()}
    figures |= {name: _figure(values[name], item) for name, item in found.replicates.items()}
    index = {name: number for number, name in enumerate(categories)}
    for name, members in (groups or {}).items():
        chosen = [index[member] for member in members if member in index]
        figures[f"ap_{name}"] = _figure(values["ap"][chosen], found.replicates["ap"][:, chosen])
    orders = [figures["ap"].value, *map(mean_defined, found.orders)]
    defined = [value for value in orders if value is not None] if len(orders) > 1 else []
    if defined:
        figures["ap_tie_min"], figures["ap_tie_max"] = Figure(min(defined)), Figure(max(defined))
        figures["ap_tie_mean"] = Figure(float(np.mean(defined)))
    rows: dict[str, dict[str, Figure | int | str]] = {
        name: {
            "truths": int(found.truths[number]),
            "detections": int(found.detections[number]),
            **{
                key: _with_interval(_defined(values[key][number]), item[:, number])
                for key, item in found.replicates.items()
            },
            **{key: Figure(_defined(values[key][number])) for key in ("ap50", "ap75", *points)},
        }
        for name, number in index.items()
    }
    said = (*_notes(found, categories, defined), _about_points(score_threshold, best_score))
    return MetricReport(headline, figures, rows, (*said, *notes))


def _points(judged: RightAndWrong, chosen: float | None, best: float | None) -> dict[str, Floats]:
    """Precision, recall and F1 of the detections above the chosen score; else of all, and of those above the best."""
    if chosen is not None:
        return judged.figures(chosen)
    at_best = judged.figures(math.inf if best is None else best)
    return judged.figures(-math.inf) | {f"best_{name}": item for name, item in at_best.items()}


def _about_points(chosen: float | None, best: float | None) -> str:
    if chosen is not None:
        return f"precision, recall and F1 (at IoU .5) count detections of score {chosen!r} and more; AP ranks all"
    said = "precision, recall and F1 (at IoU .5) count every detection"
    if best is None:
        return said
    return (
        f"{said}, the best ones those of score {best!r} and more: the score of the highest mean F1 on these very data "
        "(--score-threshold sets another)"
    )


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
    drawn = len(found.replicates["ap"])
    if 0 < drawn < REPLICATES[1]:
        notes.append(f"intervals come from {drawn} bootstrap replicates instead of {REPLICATES[1]:,}: large set")
    return notes

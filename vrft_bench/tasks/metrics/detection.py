"""Detection metrics: AP by the rules of COCO or LVIS, its uncertainty, and precision, recall and F1 without scores.

Definitions:

* ``ap`` is the mean of AP over the chosen categories that have truth and over IoU .50:.95. COCO keeps the 100 most
  confident detections per image and category, LVIS 300 per image; a box without confidence scores 1.
* The order of equal scores is fixed: by image id, numerically where all ids are numbers, then by the order in the
  answer. ``ap_tie_min``, ``ap_tie_mean`` and ``ap_tie_max`` are over this order and 50 random orders of the images.
* Intervals resample images with replacement (basic bootstrap, 1,000 replicates, fewer on large runs).
* ``precision``, ``recall`` and ``f1`` are means over the categories with truth, at IoU .5, boxes paired one to one.
  Boxes on crowd regions and unmatched boxes of categories that are not exhaustively annotated are not errors.
  Precision leaves out categories in which nothing was predicted.
* Where a sample was asked several times, every completion index is a run of its own and figures are means over these.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vrft_bench.tasks.base import BoxTarget, Dataset, Figure, MetricReport, Prediction, Sample
from vrft_bench.tasks.metrics.average_precision import Floats, Indices, PrecisionRecall, mean_defined
from vrft_bench.tasks.metrics.outcome_table import ImageIds, OutcomeTable, RankedOutcomes, image_order
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES, COCO_RULES, IOU_THRESHOLDS, LVIS_RULES, outcome_of
from vrft_bench.tasks.metrics.statistics import basic_interval, resampled_weights
from vrft_bench.tasks.metrics.ties import shuffled_ap, tied_categories

TIE_ORDERS = 50
REPLICATES = (100, 1000)
"""Fewest and most bootstrap replicates."""
_BOOTSTRAP_WORK = 60_000_000
"""About how many detections, curve points and images all replicates together may touch: one or two seconds."""


class DetectionMetric:
    """AP and its companions over the samples of ``dataset``, each of which asks for one category in one image.

    ``groups`` names sets of categories (novel, base) that get a figure ``ap_<group>`` of their own. Every question must
    be counted, also those that nobody asked (with ``NO_PREDICTION``), and once for each completion index.
    """

    def __init__(
        self,
        dataset: Dataset,
        groups: Mapping[str, tuple[str, ...]] | None = None,
        *,
        seed: int = 0,
        confidence_level: float = 0.95,
    ) -> None:
        self._categories = dataset.categories
        self._index = {name: number for number, name in enumerate(dataset.categories)}
        self._rules = LVIS_RULES if dataset.rules == "lvis" else COCO_RULES
        self._groups = dict(groups or {})
        if dataset.rules == "lvis":
            for letter in "rcf":
                self._groups[letter] = tuple(name for name, item in dataset.frequency.items() if item == letter)
        self._seed = seed
        self._level = confidence_level
        self._images = ImageIds()
        self._tables: dict[int, OutcomeTable] = {}
        self._boxes = self._without_confidence = self._cut = self._unverified = 0

    def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:
        """Count the answer to one question; ``NO_PREDICTION`` misses all its truth."""
        target = sample.target
        assert isinstance(target, BoxTarget)
        detections = prediction.detections
        outcome = outcome_of(target, detections, self._rules)
        table = self._tables.get(n)
        if table is None:
            table = self._tables[n] = OutcomeTable(self._images)
        table.add(sample.fields["image_id"], self._index[sample.fields["category"]], outcome)
        self._boxes += len(detections)
        for item in detections:
            if item.confidence is None:
                self._without_confidence += 1
        self._cut += outcome.cut
        if not target.verified:
            self._unverified += 1

    def compute(self) -> MetricReport:
        """The figures over everything counted so far."""
        order = image_order(self._images, list(self._tables.values()))
        per_image = self._rules.limit_per_image
        runs = [_Run(table.ranked(order, per_image), len(self._categories), len(order)) for table in self._in_order()]
        ap = _over_runs([run.ap for run in runs])
        replicates, drawn = self._bootstrap(runs, len(order))
        ties, tied = self._ties(runs, len(order))
        counts = [_Counts(run.outcomes, len(self._categories)) for run in runs]

        figures = {"ap": self._figure(ap, replicates)}
        for name, threshold in (("ap50", 0.5), ("ap75", 0.75)):
            row = IOU_THRESHOLDS.index(threshold)
            figures[name] = Figure(mean_defined(_over_runs([run.ap_by_threshold[row] for run in runs])))
        for number, name in enumerate(AREA_RANGES):
            if name != "all":
                by_run = [run.curves(number).average_precision().mean(axis=0) for run in runs]
                figures[f"ap_{name}"] = Figure(mean_defined(_over_runs(by_run)))
        figures["ar"] = Figure(mean_defined(_over_runs([run.all_areas.recall().mean(axis=0) for run in runs])))
        for name in ("precision", "recall", "f1"):
            figures[name] = Figure(mean_defined(_over_runs([getattr(item, name) for item in counts])))
        for name, value in zip(("ap_tie_min", "ap_tie_mean", "ap_tie_max"), ties, strict=True):
            figures[name] = Figure(value)
        for name, members in self._groups.items():
            chosen = [self._index[member] for member in members if member in self._index]
            figures[f"ap_{name}"] = self._figure(ap[chosen], replicates[:, chosen])
        if self._boxes:
            figures["boxes_without_confidence"] = Figure(self._without_confidence / self._boxes)

        return MetricReport(
            headline="ap",
            figures=figures,
            by_category=self._rows(runs, counts, ap, replicates),
            notes=tuple(self._notes(ap, ties, tied, drawn)),
        )

    def _in_order(self) -> list[OutcomeTable]:
        return [self._tables[n] for n in sorted(self._tables)] or [OutcomeTable(self._images)]

    def _bootstrap(self, runs: list[_Run], images: int) -> tuple[Floats, int]:
        """AP as (replicates, categories), and how many replicates there are; none for fewer than two images."""
        if images < 2:
            return np.empty((0, len(self._categories))), 0
        work = images + sum(run.all_areas.size for run in runs)
        drawn = int(min(max(_BOOTSTRAP_WORK // work, REPLICATES[0]), REPLICATES[1]))
        result = np.empty((drawn, len(self._categories)))
        for row, weights in zip(result, resampled_weights(images, drawn, self._seed), strict=True):
            row[:] = _over_runs([run.all_areas.average_precision(weights).mean(axis=0) for run in runs])
        return result, drawn

    def _ties(self, runs: list[_Run], images: int) -> tuple[tuple[float | None, ...], list[str]]:
        """Least, mean and greatest AP over orders of the images, and the names of the categories that depend on it."""
        affected = [tied_categories(run.outcomes) for run in runs]
        orders = TIE_ORDERS if any(map(len, affected)) else 0
        shuffled = [
            np.vstack([run.ap, shuffled_ap(run.outcomes, run.ap, images, tied, orders, self._seed)])
            for run, tied in zip(runs, affected, strict=True)
        ]
        values = [mean_defined(_over_runs([run[row] for run in shuffled])) for row in range(orders + 1)]
        defined = [value for value in values if value is not None]
        names = [self._categories[index] for index in np.unique(np.concatenate(affected)).tolist()]
        if not defined:
            return (None, None, None), names
        return (min(defined), float(np.mean(defined)), max(defined)), names

    def _figure(self, ap: Floats, replicates: Floats) -> Figure:
        """Mean over categories, with the interval of that mean."""
        value = mean_defined(ap)
        means = [mean_defined(row) for row in replicates]
        return self._with_interval(value, np.array([np.nan if mean is None else mean for mean in means]))

    def _with_interval(self, value: float | None, replicates: Floats) -> Figure:
        interval = None if value is None else basic_interval(value, replicates, self._level)
        return Figure(value, *interval) if interval else Figure(value)

    def _rows(
        self, runs: list[_Run], counts: list[_Counts], ap: Floats, replicates: Floats
    ) -> dict[str, dict[str, Figure | int | str]]:
        ap50 = _over_runs([run.ap_by_threshold[0] for run in runs])
        precision, recall, f1 = (
            _over_runs([getattr(item, name) for item in counts]) for name in ("precision", "recall", "f1")
        )
        return {
            name: {
                "truths": int(counts[0].truths[index]),
                "images": int(counts[0].images[index]),
                "ap": self._with_interval(_defined(ap[index]), replicates[:, index]),
                "ap50": Figure(_defined(ap50[index])),
                "precision": Figure(_defined(precision[index])),
                "recall": Figure(_defined(recall[index])),
                "f1": Figure(_defined(f1[index])),
            }
            for index, name in enumerate(self._categories)
        }

    def _notes(self, ap: Floats, ties: tuple[float | None, ...], tied: list[str], drawn: int) -> list[str]:
        notes = []
        absent = [name for name, value in zip(self._categories, ap.tolist(), strict=True) if np.isnan(value)]
        if absent:
            notes.append(f"no truth for {_listed(absent)}: left out of all means")
        if self._without_confidence:
            share = self._without_confidence / self._boxes
            notes.append(f"{share:.1%} of the boxes state no confidence and count as confidence 1")
        if tied and ties[0] is not None and ties[2] is not None:
            notes.append(
                f"equal scores in {_listed(tied)} are ranked by image id; other orders of the images give "
                f"an AP from {ties[0]:.4f} to {ties[2]:.4f}"
            )
        if self._cut:
            notes.append(
                f"{self._cut:,} boxes beyond the {self._rules.limit} most confident of an answer do not count for AP"
            )
        if self._unverified:
            notes.append(f"{self._unverified:,} questions about unverified image-category pairs count for nothing")
        if 0 < drawn < REPLICATES[1]:
            notes.append(f"intervals come from {drawn} bootstrap replicates instead of {REPLICATES[1]:,}: large run")
        return notes


class _Run:
    """Outcomes and AP of one completion index."""

    def __init__(self, outcomes: RankedOutcomes, categories: int, images: int) -> None:
        self.outcomes = outcomes
        self._sizes = categories, images
        self.all_areas = self.curves(0)
        self.ap_by_threshold = self.all_areas.average_precision()
        self.ap = self.ap_by_threshold.mean(axis=0)

    def curves(self, area: int) -> PrecisionRecall:
        """The curves in one area range, by its index in :data:`AREA_RANGES`."""
        return PrecisionRecall(self.outcomes, *self._sizes, area)


class _Counts:
    """Counts per category, and what they give without scores; NaN where not defined."""

    def __init__(self, outcomes: RankedOutcomes, categories: int) -> None:
        def per_category(values: Indices | None = None) -> Floats:
            return np.bincount(outcomes.question_category, values, categories).astype(np.float64)

        self.images = per_category()
        self.truths = per_category(outcomes.truths[0])
        hits, extras = per_category(outcomes.hits), per_category(outcomes.extras)
        has_truth = self.truths > 0
        self.recall = _ratio(hits, self.truths)
        self.precision = np.where(has_truth, _ratio(hits, hits + extras), np.nan)
        self.f1 = np.where(has_truth, _ratio(2 * hits, hits + extras + self.truths), np.nan)


def _over_runs(values: list[Floats]) -> Floats:
    """Mean over completion indices, item by item; NaN where no run defines it."""
    stacked = np.array(values)
    defined = ~np.isnan(stacked)
    count = defined.sum(axis=0)
    total = np.where(defined, stacked, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.maximum(whole, 1.0), np.nan)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _listed(names: list[str], shown: int = 5) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")

"""Detection metrics: AP by the rules of COCO or LVIS, its uncertainty, and precision, recall and F1 without scores.

Definitions:

* ``ap`` is the mean of AP over the chosen categories that have truth and over IoU .50:.95. COCO keeps the 100 most
  confident detections per image and category, LVIS 300 per image; a box without confidence scores 1.
* ``ap_areas`` is AP averaged over the four area ranges (all, small, medium, large) as well, of each category those in
  which it has truth. It is no standard figure: Visual-RFT's LVIS tables print it.
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
from dataclasses import dataclass
from itertools import compress

import numpy as np

from vrft_bench.tasks.base import UNASKED, BoxTarget, Dataset, Figure, MetricReport, Prediction, Sample
from vrft_bench.tasks.metrics.average_precision import Floats, mean_defined
from vrft_bench.tasks.metrics.category_figures import TIE_ORDERS, CategoryFigures, category_figures, joined
from vrft_bench.tasks.metrics.outcome_table import ImageIds, OutcomeTable, category_batches, image_order
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES, COCO_RULES, LVIS_RULES, Rules, outcome_of
from vrft_bench.tasks.metrics.statistics import basic_interval

REPLICATES = (100, 1000)
"""Fewest and most bootstrap replicates."""
FEW_IMAGES = 30
"""Below this many images, intervals are known to be too narrow (see ``statistics``)."""
_BOOTSTRAP_WORK = 60_000_000
"""About how many detections, curve points and images all replicates together may touch: one or two seconds."""


@dataclass(frozen=True, slots=True)
class CountedDetections:
    """The outcomes of all answers, with a table per completion index, and what to make of them.

    ``groups`` are sets of categories, by their index, that get a figure of their own.
    """

    categories: tuple[str, ...]
    groups: Mapping[str, list[int]]
    rules: Rules
    over_areas: bool
    images: ImageIds
    tables: Mapping[int, OutcomeTable]


class DetectionMetric:
    """AP and its companions over the samples of ``dataset``, each of which asks for one category in one image.

    ``groups`` names sets of categories (novel, base) that get a figure ``ap_<group>`` of their own. With
    ``over_areas``, ``ap_areas`` is the headline; without, it is not shown. Every question must be counted, also those
    that nobody asked (with ``UNASKED``), and once for each completion index.
    """

    def __init__(
        self,
        dataset: Dataset,
        groups: Mapping[str, tuple[str, ...]] | None = None,
        *,
        over_areas: bool = False,
        seed: int = 0,
        confidence_level: float = 0.95,
    ) -> None:
        self._headline = "ap_areas" if over_areas else "ap"
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
        self._asked = [0] * len(dataset.categories)
        self._boxes = self._without_confidence = self._cut = self._unverified = 0

    def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:
        """Count the answer to one question; ``NO_PREDICTION`` and ``UNASKED`` miss all its truth."""
        target = sample.target
        assert isinstance(target, BoxTarget)
        detections = prediction.detections
        outcome = outcome_of(target, detections, self._rules)
        table = self._tables.get(n)
        if table is None:
            table = self._tables[n] = OutcomeTable(self._images)
        category = self._index[sample.fields["category"]]
        table.add(sample.fields["image_id"], category, outcome)
        if n == 0 and prediction is not UNASKED:
            self._asked[category] += 1
        self._boxes += len(detections)
        for item in detections:
            if item.confidence is None:
                self._without_confidence += 1
        self._cut += outcome.cut
        if not target.verified:
            self._unverified += 1

    def counted(self) -> CountedDetections:
        """What the figures are computed from; not a copy."""
        groups = {
            name: [self._index[member] for member in members if member in self._index]
            for name, members in self._groups.items()
        }
        over_areas = self._headline == "ap_areas"
        return CountedDetections(self._categories, groups, self._rules, over_areas, self._images, self._tables)

    def compute(self) -> MetricReport:
        """The figures over everything counted so far."""
        tables = [self._tables[n] for n in sorted(self._tables)] or [OutcomeTable(self._images)]
        order = image_order(self._images, tables)
        batches = category_batches(tables, len(self._categories))
        without = [table.beyond_limit(order, batches, self._rules.limit_per_image) for table in tables]
        # No interval for fewer than two images.
        over_areas = self._headline == "ap_areas"
        work = (len(order) + sum(table.work() for table in tables)) * (len(AREA_RANGES) if over_areas else 1)
        drawn = min(max(_BOOTSTRAP_WORK // work, REPLICATES[0]), REPLICATES[1]) if len(order) > 1 else 0
        parts = []
        for number, batch in enumerate(batches):
            runs = [table.ranked(order, batch, places[number]) for table, places in zip(tables, without, strict=True)]
            parts.append(category_figures(runs, len(batch), len(order), drawn, self._seed, over_areas=over_areas))
            del runs
        found = joined(parts)
        values, replicates, ties = found.values, found.replicates, found.tie_range()

        figures = {name: Figure(mean_defined(item)) for name, item in values.items()}
        if not over_areas:
            del figures["ap_areas"]
        figures |= {name: self._figure(values[name], drawn_figures) for name, drawn_figures in replicates.items()}
        for name, value in zip(("ap_tie_min", "ap_tie_mean", "ap_tie_max"), ties, strict=True):
            figures[name] = Figure(value)
        for name, chosen in self.counted().groups.items():
            figures[f"ap_{name}"] = self._figure(values["ap"][chosen], replicates["ap"][:, chosen])
        if self._boxes:
            figures["boxes_without_confidence"] = Figure(self._without_confidence / self._boxes)

        return MetricReport(
            headline=self._headline,
            figures=figures,
            by_category=self._rows(found),
            notes=tuple(self._notes(found, ties, drawn, len(order))),
        )

    def _figure(self, ap: Floats, replicates: Floats) -> Figure:
        """Mean over categories, with the interval of that mean."""
        value = mean_defined(ap)
        means = [mean_defined(row) for row in replicates]
        return self._with_interval(value, np.array([np.nan if mean is None else mean for mean in means]))

    def _with_interval(self, value: float | None, replicates: Floats) -> Figure:
        interval = None if value is None else basic_interval(value, replicates, self._level)
        return Figure(value, *interval) if interval else Figure(value)

    def _rows(self, found: CategoryFigures) -> dict[str, dict[str, Figure | int | str]]:
        values = found.values
        return {
            name: {
                "truths": int(found.truths[index]),
                "images": self._asked[index],
                **{
                    key: self._with_interval(_defined(values[key][index]), item[:, index])
                    for key, item in found.replicates.items()
                },
                **{key: Figure(_defined(values[key][index])) for key in ("ap50", "precision", "recall", "f1")},
            }
            for index, name in enumerate(self._categories)
        }

    def _notes(self, found: CategoryFigures, ties: tuple[float | None, ...], drawn: int, images: int) -> list[str]:
        notes = []
        absent = list(compress(self._categories, np.isnan(found.values["ap"])))
        tied = list(compress(self._categories, found.tied))
        if absent:
            notes.append(f"no truth for {_listed(absent)}: left out of all means")
        if self._without_confidence:
            share = self._without_confidence / self._boxes
            notes.append(f"{share:.1%} of the boxes state no confidence and count as confidence 1")
        if tied and ties[0] is not None and ties[2] is not None and ties[0] < ties[2]:
            notes.append(
                f"equal scores in {_listed(tied)} are ranked by image id; {TIE_ORDERS} random orders of the images "
                f"gave an AP from {ties[0]:.4f} to {ties[2]:.4f}"
            )
        if 1 < images < FEW_IMAGES:
            notes.append(f"{images} images are few: the intervals are narrower than they should be")
        if self._cut:
            notes.append(
                f"{self._cut:,} boxes beyond the {self._rules.limit} most confident of an answer do not count for AP"
            )
        if self._unverified:
            notes.append(f"{self._unverified:,} questions about unverified image-category pairs count for nothing")
        if 0 < drawn < REPLICATES[1]:
            notes.append(f"intervals come from {drawn} bootstrap replicates instead of {REPLICATES[1]:,}: large run")
        return notes


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _listed(names: list[str], shown: int = 5) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")

"""Grounding: how well the first box of each answer covers the one object that was asked for.

``miou`` is the mean IoU of that box with the truth, 0 where there is no box; ``acc50`` is the share of answers with IoU
.5 or more. Intervals resample images (basic bootstrap, 1,000 replicates).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from vrft_bench.tasks.base import BoxTarget, ClassTarget, Dataset, Figure, MetricReport, Prediction, Sample, Target
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.statistics import bootstrap_mean_interval


class GroundingMetric:
    """Box IoU over the samples of ``dataset``: several answers to one sample, or about one image, are one cluster."""

    def __init__(self, dataset: Dataset, *, seed: int = 0, confidence_level: float = 0.95) -> None:
        del dataset  # Every metric is made from its dataset; this one needs nothing of it.
        self._seed = seed
        self._level = confidence_level
        self._ious: dict[str, list[float]] = {}

    def value(self, sample: Sample, prediction: Prediction) -> float:
        """The IoU of one answer: ``miou`` is the mean of this."""
        truth = _truth(sample.target)
        found = prediction.detections
        return iou(found[0].box, truth) if found and truth else 0.0

    def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:  # noqa: ARG002
        """Count one answer."""
        cluster = sample.fields.get("image_id", sample.id)
        self._ious.setdefault(cluster, []).append(self.value(sample, prediction))

    def compute(self) -> MetricReport:
        """Mean IoU and the share of answers at IoU .5."""
        clusters = [self._ious[key] for key in sorted(self._ious)]
        return MetricReport(
            headline="miou",
            figures={
                "miou": self._figure(clusters),
                "acc50": self._figure([[float(value >= 0.5) for value in values] for values in clusters]),
            },
        )

    def _figure(self, clusters: Iterable[list[float]]) -> Figure:
        values = list(clusters)
        counts = np.array([len(item) for item in values], dtype=np.float64)
        # fsum is exact, so the figure does not depend on the order of updates.
        sums = np.array([math.fsum(item) for item in values])
        if not values:
            return Figure(None)
        interval = bootstrap_mean_interval(sums, counts, level=self._level, seed=self._seed)
        return Figure(math.fsum(sums.tolist()) / float(counts.sum()), *(interval or ()))


def _truth(target: Target) -> Box | None:
    """The one true box: a region's bounding box, or the first box of a box target."""
    assert not isinstance(target, ClassTarget)
    if isinstance(target, BoxTarget):
        return target.boxes[0] if target.boxes else None
    return target.box

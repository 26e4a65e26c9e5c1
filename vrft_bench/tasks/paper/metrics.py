"""The figures that the paper's tables print, from predictions by the paper's rules."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from vrft_bench.tasks.base import (
    Dataset,
    Detection,
    Figure,
    MaskTarget,
    MetricReport,
    Prediction,
    Sample,
)
from vrft_bench.tasks.metrics.detection import DetectionMetric
from vrft_bench.tasks.metrics.statistics import bootstrap_mean_interval

_FAR = -1e7
"""Pixels. Where boxes go that can match nothing: out of every image, yet near enough for their area to stay exact."""


class PaperDetectionMetric(DetectionMetric):
    """AP over boxes that may have their corners in the wrong order, as pycocotools and lvis-api take such boxes.

    They see (x, y, width, height). With one side negative, the area is negative, so below every area range: the box is
    neither right nor wrong. With both negative it is positive: a false positive of that area, which matches nothing.
    """

    def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:
        """Count the answer to one question."""
        if any(_is_reversed(item) for item in prediction.detections):
            judged = tuple(found for item in prediction.detections if (found := _as_judged(item)) is not None)
            prediction = replace(prediction, detections=judged)
        super().update(sample, prediction, n)


def _is_reversed(item: Detection) -> bool:
    x1, y1, x2, y2 = item.box
    return x2 < x1 or y2 < y1


def _as_judged(item: Detection) -> Detection | None:
    """A box whose corners are in order and that is judged as ``item`` would be; ``None`` where that is not at all."""
    if not _is_reversed(item):
        return item
    x1, y1, x2, y2 = item.box
    width, height = x2 - x1, y2 - y1
    if width * height < 0:
        return None
    return Detection((_FAR, _FAR, _FAR + abs(width), _FAR + abs(height)), item.confidence)


class PaperGroundingMetric:
    """Mean IoU of the first box with the true one, in the unit square and with 1e-6 added to the union.

    Areas keep their sign; an error counts as 0. Intervals resample samples (basic bootstrap, 1,000 replicates).
    """

    def __init__(self, dataset: Dataset, *, seed: int = 0) -> None:
        del dataset  # Every metric is made from its dataset; this one needs nothing of it.
        self._seed = seed
        self._ious: dict[str, list[float]] = {}

    def value(self, sample: Sample, prediction: Prediction) -> float:
        """The IoU of one answer: ``miou`` is the mean of this."""
        return normalised_iou(sample, prediction.detections[0]) if prediction.detections else 0.0

    def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:  # noqa: ARG002
        """Count one answer."""
        self._ious.setdefault(sample.id, []).append(self.value(sample, prediction))

    def compute(self) -> MetricReport:
        """The mean over all answers."""
        values = [self._ious[key] for key in sorted(self._ious)]
        if not values:
            return MetricReport("miou", {"miou": Figure(None)})
        sums = np.array([math.fsum(item) for item in values])
        counts = np.array([len(item) for item in values], dtype=np.float64)
        interval = bootstrap_mean_interval(sums, counts, seed=self._seed)
        mean = math.fsum(sums.tolist()) / float(counts.sum())
        return MetricReport("miou", {"miou": Figure(mean, *(interval or ()))})


def normalised_iou(sample: Sample, item: Detection) -> float:
    """IoU as the grounding script computes it; a perfect box has a little less than 1."""
    assert isinstance(sample.target, MaskTarget)
    sides = (sample.image.width, sample.image.height) * 2
    ax1, ay1, ax2, ay2 = (value / side for value, side in zip(item.box, sides, strict=True))
    bx1, by1, bx2, by2 = (value / side for value, side in zip(sample.target.box, sides, strict=True))
    shared = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    whole = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared + 1e-6
    return shared / whole if shared and whole else 0.0

"""Masks of grounding targets, and the gIoU and cIoU of predicted masks, as LISA defines them.

LISA (arXiv 2308.00692, ``utils/data_processing.py`` and ``validate`` of its training script): polygons are drawn from
the largest to the smallest, so that a small one inside a large one wins, ``ignore`` regions with a value of their own.
Ignored pixels count neither for the prediction nor for the truth. ``giou`` is the mean over answers of intersection /
union (1 where both masks are empty); ``ciou`` is the sum of intersections over the sum of unions, which weighs large
objects more.

A mask is a bool array (height, width) over the pixels of the original image. Where a predicted mask comes from (a box
filled out, a segmenter) is not known here: the metric is given a function from image and box to mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vrft_bench.tasks.base import Figure, ImageRef, MaskTarget, MetricReport, Prediction, Sample
from vrft_bench.tasks.boxes import area, clip
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.statistics import basic_interval, bootstrap_mean_interval, resampled_weights

Mask = NDArray[np.bool_]
Segment = Callable[[ImageRef, Box], Mask]
"""The mask (height, width) of what a box in original pixels shows in an image."""


@dataclass(frozen=True, slots=True)
class MaskTruth:
    """The true mask, and the pixels that do not count. No pixel is in both."""

    mask: Mask
    ignore: Mask


def rasterise(target: MaskTarget, width: int, height: int) -> MaskTruth:
    """The truth of ``target`` over an image of ``width`` x ``height`` pixels: all its polygons united, ignore regions
    apart. A target without polygons is its filled box."""
    drawn = [(fill_polygon(polygon, width, height), True) for polygon in target.polygons]
    drawn += [(fill_polygon(polygon, width, height), False) for polygon in target.ignore]
    if not target.polygons:
        drawn.append((fill_box(target.box, width, height), True))
    mask, ignore = np.zeros((height, width), np.bool_), np.zeros((height, width), np.bool_)
    for shape, is_target in sorted(drawn, key=lambda item: -int(item[0].sum())):
        mask[shape] = is_target
        ignore[shape] = not is_target
    return MaskTruth(mask, ignore)


def fill_polygon(polygon: Sequence[float], width: int, height: int) -> Mask:
    """The pixels of a flat polygon (x, y, x, y, ...) and of its outline; fractions of a pixel are cut off, as in LISA.

    Parts outside of the image are cut off. One with fewer than three points has no pixels.
    """
    from PIL import Image, ImageDraw

    image = Image.new("1", (width, height))
    points = [(int(x), int(y)) for x, y in zip(polygon[0::2], polygon[1::2], strict=True)]
    if len(points) > 2:
        draw = ImageDraw.Draw(image)
        draw.polygon(points, fill=1)
        # Pillow draws no outline where it has the colour of the inside.
        draw.line([*points, points[0]], fill=1)
    return np.array(image, dtype=np.bool_)


def fill_box(box: Box, width: int, height: int) -> Mask:
    """The pixels whose centre lies in ``box`` (original pixels), of an image of ``width`` x ``height``."""
    mask = np.zeros((height, width), np.bool_)
    x1, y1, x2, y2 = (math.ceil(value - 0.5) for value in clip(box, width, height))
    mask[y1:y2, x1:x2] = True
    return mask


def fill_ellipse(box: Box, width: int, height: int) -> Mask:
    """The pixels whose centre lies in the ellipse that ``box`` (original pixels) holds."""
    mask = np.zeros((height, width), np.bool_)
    if area(box) <= 0.0:
        return mask
    x1, y1, x2, y2 = box
    x = (np.arange(width) + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    y = (np.arange(height) + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
    mask[:] = (x * x)[None, :] + (y * y)[:, None] <= 1.0
    return mask


def mask_overlap(predicted: Mask, truth: MaskTruth) -> tuple[int, int]:
    """Pixels of the intersection and of the union, without the ignored ones. Raises ``ValueError`` for other sizes."""
    if predicted.shape != truth.mask.shape:
        raise ValueError(f"the predicted mask has shape {predicted.shape}, the true one {truth.mask.shape}")
    counted = predicted & ~truth.ignore
    both = int(np.count_nonzero(counted & truth.mask))
    return both, int(np.count_nonzero(counted)) + int(np.count_nonzero(truth.mask)) - both


@dataclass
class _Overlaps:
    """Per image: intersections and unions of its answers."""

    pixels: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def add(self, cluster: str, overlap: tuple[int, int]) -> None:
        self.pixels.setdefault(cluster, []).append(overlap)

    def figures(self, suffix: str, level: float, seed: int) -> dict[str, Figure]:
        clusters = [self.pixels[key] for key in sorted(self.pixels)]
        if not clusters:
            return {f"giou{suffix}": Figure(None), f"ciou{suffix}": Figure(None)}
        ious = [[both / whole if whole else 1.0 for both, whole in items] for items in clusters]
        sums, counts = np.array([math.fsum(items) for items in ious]), np.array([float(len(items)) for items in ious])
        mean = math.fsum(sums.tolist()) / float(counts.sum())
        # Pixel counts are integers below 2^53, so these sums are exact in any order.
        inside, whole = np.array([np.sum(items, axis=0) for items in clusters], dtype=np.float64).T
        ciou = float(inside.sum() / whole.sum()) if whole.any() else 1.0
        interval = None
        if len(clusters) > 1:
            drawn = [_ratio(weights, inside, whole) for weights in resampled_weights(len(clusters), 1000, seed)]
            interval = basic_interval(ciou, np.array(drawn), level)
        return {
            f"giou{suffix}": Figure(mean, *(bootstrap_mean_interval(sums, counts, level=level, seed=seed) or ())),
            f"ciou{suffix}": Figure(ciou, *(interval or ())),
        }


def _ratio(weights: NDArray[np.float64], inside: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
    union = float(weights @ whole)
    return float(weights @ inside) / union if union else math.nan


class MaskMetric:
    """gIoU and cIoU of the first box of each answer, turned into a mask by ``segment``, beside the segmenter's ceiling.

    ``giou_ceiling`` and ``ciou_ceiling`` are what the same segmenter reaches from the true boxes: what lies below them
    is the model's error, what lies above them the segmenter's. An answer without a box has an empty mask, and its
    truth counts whole. With ``whole_pixels`` the segmenter is given boxes with their fractions cut off, as by the
    paper's code. Intervals resample images (basic bootstrap, 1,000 replicates).

    ``segment`` is called with the true box once for every sample, and with the predicted box once for every answer;
    samples should come image by image, since a segmenter holds what it knows of the last image.
    """

    def __init__(
        self, segment: Segment, *, whole_pixels: bool = False, seed: int = 0, confidence_level: float = 0.95
    ) -> None:
        self._segment = segment
        self._whole_pixels = whole_pixels
        self._seed = seed
        self._level = confidence_level
        self._found, self._ceiling = _Overlaps(), _Overlaps()
        self._without_box = self._answers = 0
        self._seen: set[str] = set()

    def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:  # noqa: ARG002
        """Count one answer. The sample's target is a :class:`MaskTarget`."""
        target, image = sample.target, sample.image
        assert isinstance(target, MaskTarget)
        cluster = sample.fields.get("image_id", sample.id)
        truth = rasterise(target, image.width, image.height)
        if sample.id not in self._seen:
            self._seen.add(sample.id)
            self._ceiling.add(cluster, mask_overlap(self._mask(image, target.box), truth))
        self._answers += 1
        if prediction.detections:
            mask = self._mask(image, prediction.detections[0].box)
        else:
            self._without_box += 1
            mask = np.zeros((image.height, image.width), np.bool_)
        self._found.add(cluster, mask_overlap(mask, truth))

    def compute(self) -> MetricReport:
        """The figures over everything counted so far."""
        notes = []
        if self._without_box:
            notes.append(f"{self._without_box:,} of {self._answers:,} answers give no box: their masks are empty")
        return MetricReport(
            headline="giou",
            figures={
                **self._found.figures("", self._level, self._seed),
                **self._ceiling.figures("_ceiling", self._level, self._seed),
            },
            notes=tuple(notes),
        )

    def _mask(self, image: ImageRef, box: Box) -> Mask:
        """What the segmenter makes of ``box``; nothing where the box has no area."""
        if self._whole_pixels:
            x1, y1, x2, y2 = (float(int(value)) for value in box)
            box = (x1, y1, x2, y2)
        if area(box) <= 0.0:
            return np.zeros((image.height, image.width), np.bool_)
        return self._segment(image, box)

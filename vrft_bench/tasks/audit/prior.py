"""What can be known without looking at an image: where the objects of other images lie.

It is taken from the training split. Where there is none, or where it shows audited images (files of one's own have no
splits), it is taken for each half of the audited images from the other half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vrft_bench.errors import UserError
from vrft_bench.tasks.base import BoxTarget, DataSpec, MaskTarget, Sample, Task
from vrft_bench.tasks.boxes import area, iou_column
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.rewards import MATCH_IOU

LIKELIEST = 30
"""How many of the likeliest boxes are kept, at most."""

_SAMPLES = 2000
"""How much of the training split is looked at."""
_CANDIDATES = 1000
"""Among so many boxes the likeliest are looked for, which takes the square of their number."""

Guess = tuple[Box, float]
"""A box as fractions of the width and height of an image, and the confidence that it is given with."""


@dataclass(frozen=True)
class Prior:
    """Boxes as fractions of the width and height of their image.

    ``mean`` is the mean box of each category. ``likeliest`` are the boxes that find the most objects of any category
    (see :func:`likeliest_boxes`), ``of_category`` those that find the most of one. The objects of grounding data are of
    the category ``""``.
    """

    mean: Mapping[str, Box]
    likeliest: Sequence[Guess]
    of_category: Mapping[str, Sequence[Guess]]


PriorOf = Callable[[Sample], Prior]
"""What may be known when a sample is answered."""


def prior_of(task: Task, spec: DataSpec, samples: Sequence[Sample]) -> PriorOf:
    """The prior for each of ``samples``, which are those of ``spec`` that are audited."""
    audited = {image: index for index, image in enumerate(dict.fromkeys(map(_image, samples)))}
    training = _training(task, spec)
    if training and not any(_image(sample) in audited for sample in training):
        known = make_prior(training)
        return lambda _sample: known
    halves = [make_prior(item for item in samples if audited[_image(item)] % 2 != side) for side in (0, 1)]
    return lambda sample: halves[audited[_image(sample)] % 2]


def make_prior(samples: Iterable[Sample]) -> Prior:
    """Where the objects of ``samples`` lie."""
    found: dict[str, list[Box]] = {}
    for sample in samples:
        width, height = sample.image.width, sample.image.height
        for x1, y1, x2, y2 in true_boxes(sample):
            box = x1 / width, y1 / height, x2 / width, y2 / height
            found.setdefault(sample.fields.get("category", ""), []).append(box)
    return Prior(
        mean={name: mean_box(boxes) for name, boxes in found.items()},
        likeliest=likeliest_boxes([box for boxes in found.values() for box in boxes]),
        of_category={name: likeliest_boxes(boxes) for name, boxes in found.items()},
    )


def mean_box(boxes: Sequence[Box]) -> Box:
    """The mean of at least one box."""
    a, b, c, d = (sum(values) / len(boxes) for values in zip(*boxes, strict=True))
    return a, b, c, d


def likeliest_boxes(boxes: Sequence[Box]) -> list[Guess]:
    """Up to :data:`LIKELIEST` of ``boxes``, each of which finds the most of what those before it leave over.

    A box finds what it overlaps by :data:`~vrft_bench.tasks.rewards.MATCH_IOU`; its confidence is the share of all
    boxes that it adds. Of more than :data:`_CANDIDATES` boxes every n-th is looked at.
    """
    boxes = boxes[:: max(math.ceil(len(boxes) / _CANDIDATES), 1)]
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    finds = np.array([iou_column(corners, box) >= MATCH_IOU for box in boxes])
    left = np.ones(len(boxes), dtype=bool)
    chosen: list[Guess] = []
    while left.any() and len(chosen) < LIKELIEST:
        gains = (finds & left).sum(axis=1)
        best = int(gains.argmax())
        chosen.append((boxes[best], round(float(gains[best]) / len(boxes), 4)))
        left &= ~finds[best]
    return chosen


def true_boxes(sample: Sample) -> tuple[Box, ...]:
    """The boxes that an answer to ``sample`` should give, of those that have an area."""
    target = sample.target
    if isinstance(target, MaskTarget):
        return (target.box,) if area(target.box) else ()
    return target.findable if isinstance(target, BoxTarget) else ()


def _training(task: Task, spec: DataSpec) -> list[Sample]:
    """The first samples of the training split that have truth; none where there is no training split."""
    found: list[Sample] = []
    try:
        for sample in task.load(replace(spec, split="train")).samples():
            if true_boxes(sample):
                found.append(sample)
            if len(found) >= _SAMPLES:
                break
    except UserError:
        return []
    return found


def _image(sample: Sample) -> Hashable:
    """What tells one image from another, in whichever split it is read."""
    return sample.image.path or sample.image.data or sample.id

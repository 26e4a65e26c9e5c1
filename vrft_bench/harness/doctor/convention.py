"""Which coordinate convention a model speaks, measured: its answers are read under each one, by the real parser.

A profile says what the numbers of an answer mean. Each answer about a known square is therefore read once per
convention (and per order of the axes), and the reading under which the boxes lie on the squares is what the model
speaks. Readings are compared on the same images, so a weak model can be judged as well as a strong one, as long as its
answers depend on where the square is: that is tested first, against the squares of the other images.

Tests are one-sided sign-flip tests over images (Fisher's randomization test of paired differences), at :data:`LEVEL`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vrft_bench.harness.doctor.squares import Question
from vrft_bench.harness.models.base import Completion
from vrft_bench.registry import PROFILES
from vrft_bench.tasks.base import Prediction, Status
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Box, Convention, Frame, ModelProfile
from vrft_bench.tasks.metrics.statistics import bootstrap_mean_interval

Floats = NDArray[np.float64]

LEVEL = 0.01
FLIPS = 20_000
READABLE = 0.1
"""With fewer answers than this share that hold a box under any convention, nothing is concluded."""
FOUND = 0.1
"""A mean IoU this far above chance counts as finding the squares of one size of images."""

_AS_WRITTEN = 10**6
"""A side, in pixels, that no number of an answer leaves: read in an image of this size, a box keeps its numbers."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A way to read: ``profile`` is the asked one but for convention and axes, and a factor if it has none."""

    name: str
    profile: ModelProfile


def readings(asked: ModelProfile) -> list[Reading]:
    """Every convention in both orders of the axes; first the one that ``asked`` declares.

    A profile without a resize rule borrows the factor of the first registered one that speaks of resized pixels.
    """
    found = []
    for convention in get_args(Convention):
        for axes in ("xyxy", "yxyx"):
            base = asked
            if convention == "abs_resized" and asked.factor is None:
                base = replace(asked, factor=_profile_of("abs_resized").factor)
            found.append(Reading(reading_name(convention, axes), replace(base, convention=convention, axes=axes)))
    declared = reading_name(asked.convention, asked.axes)
    return sorted(found, key=lambda reading: reading.name != declared)


def reading_name(convention: str, axes: str) -> str:
    """``norm_1000``, or ``norm_1000, y first``."""
    return convention if axes == "xyxy" else f"{convention}, y first"


def registered_as(name: str) -> list[str]:
    """The registered profiles that speak as the reading called ``name`` reads."""
    usable = (entry for entry in PROFILES if PROFILES.broken(entry) is None)
    profiles: list[ModelProfile] = [PROFILES.get(entry.name) for entry in usable]
    return [profile.name for profile in profiles if reading_name(profile.convention, profile.axes) == name]


def _profile_of(convention: Convention) -> ModelProfile:
    profile: ModelProfile = PROFILES.get(registered_as(convention)[0])
    return profile


@dataclass(frozen=True, slots=True)
class Answer:
    """What one completion says under every reading.

    ``boxes`` holds its most confident box per reading, in original pixels (``None``: none can be read); ``written`` are
    its numbers (right and bottom edge) as they stand, ``status`` is how it is read under the asked profile.
    """

    question: Question
    boxes: tuple[Box | None, ...]
    written: tuple[float, float] | None
    status: Status
    processed: tuple[int, int] | None


def read_answer(question: Question, completion: Completion, ways: Sequence[Reading]) -> Answer:
    """``completion``, which has no error, read in all ``ways``; the first one is the asked profile's own."""
    width, height = question.sample.image.width, question.sample.image.height
    truncated = completion.finish_reason == "length"

    def read(profile: ModelProfile, size: tuple[int, int], processed: tuple[int, int] | None) -> Prediction:
        return question.task.parse(completion.text, Frame(profile, *size, processed), truncated=truncated)

    found = [read(way.profile, (width, height), completion.processed) for way in ways]
    as_written = replace(ways[0].profile, convention="abs_original")
    numbers = _chosen(read(as_written, (_AS_WRITTEN, _AS_WRITTEN), None))
    return Answer(
        question,
        tuple(_chosen(prediction) for prediction in found),
        None if numbers is None else (numbers[2], numbers[3]),
        found[0].status,
        completion.processed,
    )


def _chosen(prediction: Prediction) -> Box | None:
    """The box that the model is surest of; of equals the first."""
    return max(prediction.detections, key=lambda one: one.confidence or 0.0).box if prediction.detections else None


@dataclass(frozen=True)
class Measurement:
    """The answers to all questions, as figures per image and reading.

    ``overlap`` is the (images, readings) mean IoU of the chosen boxes with their squares; ``chance`` the same with the
    squares of the other images of that size, which is what the answers are worth without looking; ``images`` names the
    rows: (width, height) and number.
    """

    ways: tuple[Reading, ...]
    answers: tuple[Answer, ...]
    overlap: Floats
    chance: Floats
    images: tuple[tuple[tuple[int, int], int], ...]

    def mean(self, way: int) -> float:
        return float(self.overlap[:, way].mean())

    def interval(self, way: int) -> tuple[float, float] | None:
        return bootstrap_mean_interval(self.overlap[:, way], np.ones(len(self.overlap)))

    def mean_of_size(self, way: int, size: tuple[int, int]) -> float | None:
        rows = self._rows(size)
        return float(self.overlap[rows, way].mean()) if rows else None

    def found(self, way: int, size: tuple[int, int]) -> bool:
        """Whether the boxes meet the squares of this size clearly better than without looking."""
        rows = self._rows(size)
        return bool(rows) and float((self.overlap[rows, way] - self.chance[rows, way]).mean()) >= FOUND

    def better_than(self, other: Measurement) -> float:
        """:func:`sign_flip` of what is gained on ``other`` over the same images, each read as it was asked."""
        there = dict(zip(other.images, other.overlap[:, 0], strict=True))
        pairs = zip(self.images, self.overlap[:, 0], strict=True)
        return sign_flip(np.array([own - there[image] for image, own in pairs if image in there]))

    def _rows(self, size: tuple[int, int]) -> list[int]:
        return [index for index, image in enumerate(self.images) if image[0] == size]

    @property
    def readable(self) -> float:
        """The share of answers that hold a box under some reading."""
        return sum(any(box is not None for box in answer.boxes) for answer in self.answers) / len(self.answers)

    @property
    def statuses(self) -> dict[str, int]:
        counts = Counter(answer.status for answer in self.answers)
        return {status.value: counts[status] for status in Status if counts[status]}

    def seen(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """The size to which the processor brought images of ``size``, where the backend knows."""
        return next((answer.processed for answer in self.answers if answer.question.image[0] == size), None)

    def span(self, size: tuple[int, int]) -> tuple[float, float] | None:
        """How far the numbers would run across images of ``size``: the median of edge / (edge's place in the image).

        For a model that finds the squares, that is the unit it speaks: 1000 x 1000, or the size of some image.
        """
        pairs = [
            (written[0] / (box[2] / size[0]), written[1] / (box[3] / size[1]))
            for answer in self.answers
            if answer.question.image[0] == size and (written := answer.written) is not None
            for box in [answer.question.box]
        ]
        return (median(x for x, _ in pairs), median(y for _, y in pairs)) if pairs else None


def measure(ways: Sequence[Reading], answers: Sequence[Answer]) -> Measurement:
    """Figures of ``answers`` (at least one), with the answers about one image taken together."""
    by_image: dict[tuple[tuple[int, int], int], list[Answer]] = {}
    for answer in answers:
        by_image.setdefault(answer.question.image, []).append(answer)
    truths = {image: members[0].question.box for image, members in by_image.items()}
    overlap = np.zeros((len(by_image), len(ways)))
    chance = np.zeros_like(overlap)
    for row, (image, members) in enumerate(by_image.items()):
        others = [box for other, box in truths.items() if other[0] == image[0] and other != image]
        for way in range(len(ways)):
            boxes = [box for answer in members if (box := answer.boxes[way]) is not None]
            overlap[row, way] = sum(iou(box, truths[image]) for box in boxes) / len(members)
            elsewhere = sum(iou(box, other) for box in boxes for other in others)
            chance[row, way] = elsewhere / (len(members) * max(len(others), 1))
    return Measurement(tuple(ways), tuple(answers), overlap, chance, tuple(by_image))


Finding = Literal["agrees", "contradicts", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the measurement says of the declared convention, in ``text``; ``speaks`` are the readings that fit best."""

    finding: Finding
    text: str
    speaks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"finding": self.finding, "text": self.text, "speaks": list(self.speaks)}


def judge(found: Measurement) -> Verdict:
    """Whether the model speaks the convention that it was asked in, which is the first of the readings."""
    if found.readable < READABLE:
        said = ", ".join(f"{count} {status}" for status, count in found.statuses.items())
        return Verdict("cannot tell", f"cannot tell: {found.readable:.0%} of the answers hold a readable box ({said})")
    order = sorted(range(len(found.ways)), key=found.mean, reverse=True)
    best, name = order[0], found.ways[order[0]].name
    if sign_flip(found.overlap[:, best] - found.chance[:, best]) >= LEVEL:
        blind = float(found.chance[:, best].mean())
        return Verdict(
            "cannot tell",
            f"cannot tell: under no convention do the boxes follow the squares (best {name}, IoU "
            f"{found.mean(best):.2f} against {blind:.2f} with the squares of other images)",
        )
    against = {way: sign_flip(found.overlap[:, best] - found.overlap[:, way]) for way in order[1:]}
    alike = [best, *(way for way, chance in against.items() if chance >= LEVEL)]
    speaks = tuple(found.ways[way].name for way in alike)
    declared = found.ways[0].name
    if 0 not in alike:
        either = " or ".join(speaks)
        return Verdict(
            "contradicts",
            f"speaks {either} (IoU {found.mean(best):.2f}), not {declared} as its profile declares "
            f"(IoU {found.mean(0):.2f}; {_chance(against[0])}, {len(found.images)} images)",
            speaks,
        )
    if len(alike) > 1:
        figures = ", ".join(f"{found.ways[way].name} {found.mean(way):.2f}" for way in alike)
        return Verdict(
            "cannot tell", f"cannot tell: several conventions fit alike, the declared one too ({figures})", speaks
        )
    rival = order[1]
    return Verdict(
        "agrees",
        f"speaks {declared}, as its profile declares (IoU {found.mean(0):.2f} against {found.mean(rival):.2f} for "
        f"{found.ways[rival].name}; {_chance(against[rival])}, {len(found.images)} images)",
        speaks,
    )


def sign_flip(differences: Floats, seed: int = 0) -> float:
    """The chance that differences of random sign would have a mean this large; at least 1 / (FLIPS + 1)."""
    moved = differences[differences != 0.0]
    if not len(moved) or moved.mean() <= 0.0:
        return 1.0
    signs = np.random.default_rng(seed).integers(0, 2, (FLIPS, len(moved)), dtype=np.int8) * 2 - 1
    reached = int((signs @ moved >= moved.sum() * (1 - 1e-12)).sum())
    return (reached + 1) / (FLIPS + 1)


def _chance(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}"

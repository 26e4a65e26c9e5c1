"""The outcomes of a whole run, kept in compact columns while they stream in, and ranked once at the end.

A question costs 28 bytes and a detection 24, so that 200,000 questions fit in some ten megabytes. Nothing here
depends on the order in which questions are added: :meth:`OutcomeTable.ranked` sorts detections by category, then by
descending score, then by image id (numerically where all ids are decimal numbers, else as text), then by their order in
the answer. This is the order of pycocotools and lvis-api, which walk sorted image ids with a stable sort.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrft_bench.tasks.metrics.outcomes import AREA_RANGES, IOU_THRESHOLDS, Outcome

_BITS = len(IOU_THRESHOLDS)


class ImageIds:
    """Image ids as integers, without keeping the text of those that are plain numbers."""

    def __init__(self) -> None:
        self._named: dict[str, int] = {}

    def handle(self, image_id: str) -> int:
        """The integer that stands for ``image_id``: its own value, or a negative one where it is not a plain number."""
        if (
            image_id.isdecimal()
            and image_id.isascii()
            and len(image_id) <= 18
            and (image_id[0] != "0" or image_id == "0")
        ):
            return int(image_id)
        return self._named.setdefault(image_id, -1 - len(self._named))

    def ordered(self, handles: NDArray[np.int64]) -> NDArray[np.int64]:
        """The distinct ``handles`` in the order of the ids that they stand for."""
        distinct = np.unique(handles)
        if not self._named:
            return distinct
        names = list(self._named)
        ids = [names[-1 - handle] if handle < 0 else str(handle) for handle in distinct.tolist()]
        numeric = all(item.isdecimal() for item in ids)
        by_id = sorted(range(len(ids)), key=lambda index: (int(ids[index]) if numeric else 0, ids[index]))
        return distinct[by_id]


@dataclass(frozen=True, slots=True)
class RankedOutcomes:
    """A run's outcomes in ranking order; images are numbered by their rank, categories by their index.

    ``question_*`` and ``truths`` (area ranges x questions) have an item per question, ``image``, ``category``,
    ``score``, ``true`` and ``counted`` one per detection (the masks as in :class:`Outcome`).
    """

    question_image: NDArray[np.int32]
    question_category: NDArray[np.int32]
    truths: NDArray[np.int32]
    hits: NDArray[np.int32]
    extras: NDArray[np.int32]
    image: NDArray[np.int32]
    category: NDArray[np.int32]
    score: NDArray[np.float64]
    true: NDArray[np.uint64]
    counted: NDArray[np.uint64]

    def masks(self, area: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Threshold masks of true positives and of all counted detections in one area range."""
        shift, keep = np.uint64(_BITS * area), np.uint64((1 << _BITS) - 1)
        return ((self.true >> shift) & keep).astype(np.uint16), ((self.counted >> shift) & keep).astype(np.uint16)


class OutcomeTable:
    """Streaming columns of outcomes."""

    def __init__(self, images: ImageIds) -> None:
        self._images = images
        self._image = array("q")
        self._category = array("i")
        self._kept = array("H")
        self._truths = tuple(array("H") for _ in AREA_RANGES)
        self._hits = array("H")
        self._extras = array("i")
        self._score = array("d")
        self._true = array("Q")
        self._counted = array("Q")

    def __len__(self) -> int:
        return len(self._image)

    def add(self, image_id: str, category: int, outcome: Outcome) -> None:
        """Keep the outcome of one question."""
        self._image.append(self._images.handle(image_id))
        self._category.append(category)
        self._kept.append(len(outcome.scores))
        for column, count in zip(self._truths, outcome.truths, strict=True):
            column.append(count)
        self._hits.append(outcome.hits)
        self._extras.append(outcome.extras)
        self._score.extend(outcome.scores)
        self._true.extend(outcome.true)
        self._counted.extend(outcome.counted)

    def handles(self) -> NDArray[np.int64]:
        """The image of each question, as a handle of :class:`ImageIds`."""
        return np.array(self._image, dtype=np.int64)

    def ranked(self, order: NDArray[np.int64], limit_per_image: int | None = None) -> RankedOutcomes:
        """The outcomes with images numbered by their place in ``order``.

        ``limit_per_image`` keeps the most confident detections of an image over all categories (LVIS: 300); where
        scores tie at the limit, those of the earlier category and then of the earlier place in the answer stay.
        """
        # Handles are not sorted as numbers where ids are text, so the rank is looked up through a sorted copy.
        by_handle = np.argsort(order)
        question_image = by_handle[np.searchsorted(order, self.handles(), sorter=by_handle)].astype(np.int32)
        question_category = np.array(self._category, dtype=np.int32)
        kept = np.array(self._kept)
        image, category = np.repeat(question_image, kept), np.repeat(question_category, kept)
        score = np.array(self._score)
        # Answers come with their detections by descending score already, and lexsort is stable within an answer.
        rows = np.lexsort((image, -score, category))
        if limit_per_image is not None:
            rows = rows[_within_limit(image[rows], score[rows], limit_per_image)]
        return RankedOutcomes(
            question_image=question_image,
            question_category=question_category,
            truths=np.array([np.array(column) for column in self._truths], dtype=np.int32),
            hits=np.array(self._hits, dtype=np.int32),
            extras=np.array(self._extras, dtype=np.int32),
            image=image[rows],
            category=category[rows],
            score=score[rows],
            true=np.array(self._true)[rows],
            counted=np.array(self._counted)[rows],
        )


def image_order(images: ImageIds, tables: Sequence[OutcomeTable]) -> NDArray[np.int64]:
    """Handles of all images that any of ``tables`` asks about, in ranking order."""
    handles = [table.handles() for table in tables]
    return images.ordered(np.concatenate(handles) if handles else np.empty(0, dtype=np.int64))


def _within_limit(image: NDArray[np.int32], score: NDArray[np.float64], limit: int) -> NDArray[np.bool_]:
    """Which rows, in ranking order, are among the ``limit`` most confident of their image."""
    if not len(image) or np.bincount(image).max() <= limit:
        return np.ones(len(image), dtype=np.bool_)
    rows = np.lexsort((np.arange(len(image)), -score, image))
    first = np.searchsorted(image[rows], image[rows], side="left")
    keep = np.empty(len(image), dtype=np.bool_)
    keep[rows] = np.arange(len(image)) - first < limit
    return keep

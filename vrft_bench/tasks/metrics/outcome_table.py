"""The outcomes of a whole run, kept in compact columns while they stream in, and ranked some categories at a time.

A question costs 6 bytes and a detection 10 (12 and 12 at worst): what repeats, the counts of a question and the masks
of a detection, is kept once and named by a small number, and every category has columns of its own. So 200,000
questions fit in a few megabytes, and what is computed from them needs no more than a batch of categories in memory.

Nothing here depends on the order in which questions are added: :meth:`OutcomeTable.ranked` sorts detections by
category, then by descending score, then by image id (numerically where all ids are decimal numbers, else as text), then
by their order in the answer. This is the order of pycocotools and lvis-api, which walk sorted image ids with a stable
sort.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrft_bench.tasks.metrics.outcomes import IOU_THRESHOLDS, Outcome

_BITS = len(IOU_THRESHOLDS)
_BATCH = 1 << 16
"""About how many questions and detections are ranked at once; a larger category is a batch of its own."""
Integers = NDArray[np.int64]


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

    def ordered(self, handles: Integers) -> Integers:
        """The distinct ``handles``, sorted as numbers, in the order of the ids that they stand for."""
        if not self._named:
            return handles
        names = list(self._named)
        ids = [names[-1 - handle] if handle < 0 else str(handle) for handle in handles.tolist()]
        numeric = all(item.isdecimal() for item in ids)
        by_id = sorted(range(len(ids)), key=lambda index: (int(ids[index]) if numeric else 0, ids[index]))
        return handles[by_id]


@dataclass(frozen=True, slots=True)
class RankedOutcomes:
    """Outcomes of some categories in ranking order; images are numbered by their rank, categories from 0.

    ``question_*``, ``truths`` (area ranges x questions), ``hits`` and ``extras`` have an item per question; ``image``,
    ``category``, ``score`` and ``mask`` one per detection. ``mask`` names an item of ``true`` and ``counted``, which
    are the masks of :class:`Outcome`.
    """

    question_image: NDArray[np.int32]
    question_category: NDArray[np.int32]
    truths: NDArray[np.int32]
    hits: NDArray[np.int32]
    extras: NDArray[np.int32]
    image: NDArray[np.int32]
    category: NDArray[np.int32]
    score: NDArray[np.float64]
    mask: NDArray[np.uint32]
    true: NDArray[np.uint64]
    counted: NDArray[np.uint64]

    def masks(self, area: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Threshold masks of true positives and of all counted detections in one area range."""
        return _in_area(self.true, area)[self.mask], _in_area(self.counted, area)[self.mask]


class _Numbers:
    """A growing column of integers, as narrow as its values allow: of the first of ``types`` that holds them all."""

    __slots__ = ("_types", "values")

    def __init__(self, types: str) -> None:
        self._types = types[1:]
        self.values: array[int] = array(types[0])

    def extend(self, numbers: list[int]) -> None:
        while True:
            try:
                # Unlike extend, fromlist adds nothing where one of the numbers does not fit.
                return self.values.fromlist(numbers)
            except OverflowError:
                if not self._types:
                    raise
                self.values = array(self._types[0], self.values)
                self._types = self._types[1:]


class _Columns:
    """One category: ``image`` and ``counts`` have an item per question, ``score`` and ``mask`` one per detection."""

    __slots__ = ("counts", "image", "mask", "score")

    def __init__(self) -> None:
        self.image, self.counts, self.mask = _Numbers("iq"), _Numbers("HI"), _Numbers("HI")
        self.score = array("d")


class OutcomeTable:
    """Streaming columns of outcomes."""

    def __init__(self, images: ImageIds) -> None:
        self._images = images
        self._columns: dict[int, _Columns] = {}
        # Each distinct tuple and its number: detections kept, hits, extras, truths per area range; true, counted.
        self._counts: dict[tuple[int, ...], int] = {}
        self._masks: dict[tuple[int, int], int] = {}

    def add(self, image_id: str, category: int, outcome: Outcome) -> None:
        """Keep the outcome of one question."""
        columns = self._columns.get(category)
        if columns is None:
            columns = self._columns[category] = _Columns()
        counts, masks = self._counts, self._masks
        key = (len(outcome.scores), outcome.hits, outcome.extras, *outcome.truths)
        columns.image.extend([self._images.handle(image_id)])
        columns.counts.extend([counts.setdefault(key, len(counts))])
        if outcome.scores:
            columns.score.fromlist(outcome.scores)
            pairs = zip(outcome.true, outcome.counted, strict=True)
            columns.mask.extend([masks.setdefault(pair, len(masks)) for pair in pairs])

    @property
    def categories(self) -> int:
        """One more than the highest index of a category."""
        return max(self._columns, default=-1) + 1

    def size(self, category: int) -> int:
        """How many questions and detections of ``category`` there are."""
        columns = self._columns.get(category)
        return len(columns.image.values) + len(columns.score) if columns else 0

    def handles(self, categories: range) -> Integers:
        """The image of each question about ``categories``, as a handle of :class:`ImageIds`."""
        return _joined([item.image.values for _, item in self._of(categories)], np.int64)

    def work(self) -> int:
        """How many detections and curve points of all area ranges a weighting of the images touches."""
        pairs = self._mask_pairs()
        true, counted = _in_area(pairs[:, 0], 0), _in_area(pairs[:, 1], 0)
        times = np.zeros(len(pairs), dtype=np.int64)
        for columns in self._columns.values():
            times += np.bincount(np.asarray(columns.mask.values), minlength=len(pairs))
        times[counted == 0] = 0
        total = times.sum()
        verdicts = [(true >> bit & 1, counted >> bit & 1) for bit in range(_BITS)]
        for bit, (right, known) in enumerate(verdicts):
            # Thresholds between which nothing changes share their curves.
            if bit == 0 or any(
                ((a != b) & (times > 0)).any() for a, b in zip(*verdicts[bit - 1 : bit + 1], strict=True)
            ):
                total += times[right > 0].sum() + times[known == 0].sum()
        return int(total)

    def ranked(
        self, order: Integers, categories: range | None = None, without: Integers | None = None
    ) -> RankedOutcomes:
        """The outcomes of ``categories`` (default: all), with images numbered by their place in ``order``.

        ``without`` are places in the result of detections to leave out.
        """
        if categories is None:
            categories = range(self.categories)
        own = self._of(categories)
        question_image, image, counts = self._image_ranks(order, categories)
        question_category = np.repeat(
            np.array([number for number, _ in own], dtype=np.int32), [len(item.image.values) for _, item in own]
        )
        category = np.repeat(question_category, counts[0])
        score = _joined([item.score for _, item in own], np.float64)
        # Answers come with their detections by descending score already, and lexsort is stable within an answer.
        rows = np.lexsort((image, -score, category))
        if without is not None:
            rows = np.delete(rows, without)
        pairs = self._mask_pairs()
        return RankedOutcomes(
            question_image=question_image,
            question_category=question_category,
            truths=counts[3:],
            hits=counts[1],
            extras=counts[2],
            image=image[rows],
            category=category[rows],
            score=score[rows],
            mask=_joined([item.mask.values for _, item in own], np.uint32)[rows],
            true=pairs[:, 0],
            counted=pairs[:, 1],
        )

    def beyond_limit(self, order: Integers, batches: Sequence[range], limit: int | None) -> list[Integers | None]:
        """Per batch of categories, the places of detections that are not among the ``limit`` best of their image.

        These are the most confident over all categories (LVIS: 300); where scores tie at the limit, those of the
        earlier category and then of the earlier place in the answer stay.
        """
        if limit is None:
            return [None] * len(batches)
        kept = sum(np.bincount(self._image_ranks(order, batch)[1], minlength=len(order)) for batch in batches)
        crowded = np.asarray(kept > limit)
        if not crowded.any():
            return [None] * len(batches)
        images, scores, places = [], [], []
        for batch in batches:
            outcomes = self.ranked(order, batch)
            places.append(np.flatnonzero(crowded[outcomes.image]))
            images.append(outcomes.image[places[-1]])
            scores.append(outcomes.score[places[-1]])
        image = np.concatenate(images)
        rows = np.lexsort((-np.concatenate(scores), image))
        first = np.searchsorted(image[rows], image[rows], side="left")
        beyond = np.zeros(len(rows), dtype=np.bool_)
        beyond[rows] = np.arange(len(rows)) - first >= limit
        bounds = np.cumsum([len(item) for item in places])[:-1]
        return [place[leave] for place, leave in zip(places, np.split(beyond, bounds), strict=True)]

    def _of(self, categories: range) -> list[tuple[int, _Columns]]:
        """The columns of ``categories`` that were asked about, numbered from the first of them."""
        return [(number, self._columns[item]) for number, item in enumerate(categories) if item in self._columns]

    def _image_ranks(
        self, order: Integers, categories: range
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """The image of each question and of each detection, by its place in ``order``, and each question's counts."""
        # Handles are not sorted as numbers where ids are text, so the rank is looked up through a sorted copy.
        by_handle = np.argsort(order)
        ranks = by_handle[np.searchsorted(order, self.handles(categories), sorter=by_handle)].astype(np.int32)
        distinct = np.array(list(self._counts) or [(0,) * 7], dtype=np.int32).T
        counts = distinct[:, _joined([item.counts.values for _, item in self._of(categories)], np.uint32)]
        return ranks, np.repeat(ranks, counts[0]), counts

    def _mask_pairs(self) -> NDArray[np.uint64]:
        return np.array(list(self._masks), dtype=np.uint64).reshape(-1, 2)


def category_batches(tables: Sequence[OutcomeTable], categories: int) -> list[range]:
    """All ``categories`` in runs of neighbours that are small enough to be worked on at once."""
    batches, start, size = [], 0, 0
    for category in range(categories):
        own = sum(table.size(category) for table in tables)
        if size and size + own > _BATCH:
            batches.append(range(start, category))
            start, size = category, 0
        size += own
    return [*batches, range(start, categories)]


def image_order(images: ImageIds, tables: Sequence[OutcomeTable]) -> Integers:
    """Handles of all images that any of ``tables`` asks about, in ranking order."""
    distinct = np.empty(0, dtype=np.int64)
    for table in tables:
        for batch in category_batches([table], table.categories):
            distinct = np.unique(np.concatenate([distinct, table.handles(batch)]))
    return images.ordered(distinct)


def _in_area(masks: NDArray[np.uint64], area: int) -> NDArray[np.uint16]:
    """The bits of ``masks`` that belong to one area range."""
    return ((masks >> np.uint64(_BITS * area)) & np.uint64((1 << _BITS) - 1)).astype(np.uint16)


def _joined(columns: list[array[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(column) for column in columns)], dtype=dtype)

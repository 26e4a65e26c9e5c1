"""The numbers behind a report's charts, one run at a time. The page and matplotlib draw the same ones.

* ``precision_recall``: at IoU .5, the highest precision at each of the 101 recall levels or beyond, per category with
  truth, and their mean. The mean over levels and categories is AP50 as the run's metric has it.
* ``calibration``: predicted boxes by the confidence that was stated, in ten bins: how many, their mean confidence, and
  the share that is right at IoU .5 with Wilson's interval. ``ece`` is the mean distance of the two, weighted by boxes.
* ``ious``: predicted boxes by their best IoU with truth of their own category, in twenty bins.
* ``scores``: answers by total score, in twenty bins from the lowest to the highest.
* ``errors``: how many boxes (detection) or answers have each kind of mistake, and how many objects were missed.
* ``confusions``: for classification, which class was most often named for which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrft_bench.harness.records import Key
from vrft_bench.leaderboards.report.joined import JoinedRun
from vrft_bench.leaderboards.report.verdicts import KINDS, NOT_COUNTED, RIGHT, Verdict
from vrft_bench.tasks.base import BoxTarget, ClassTarget, Figure
from vrft_bench.tasks.metrics.average_precision import RECALL_LEVELS
from vrft_bench.tasks.metrics.error_breakdown import counted_truths
from vrft_bench.tasks.metrics.outcome_table import ImageIds
from vrft_bench.tasks.metrics.statistics import wilson_interval

IOU_BINS, SCORE_BINS, CONFIDENCE_BINS = 20, 20, 10
_CONFUSIONS = 12
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Boxes whose confidence lies in one tenth of [0, 1]."""

    count: int
    confidence: float
    right: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A category's headline figure."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    count: int | None


@dataclass(frozen=True, slots=True)
class Charts:
    """What is drawn of one run. A chart that its task does not have is empty."""

    headline: str
    categories: tuple[Bar, ...]
    precision_recall: Mapping[str, tuple[float, ...]]
    mean_precision: tuple[float, ...]
    calibration: tuple[Bin, ...]
    ece: float | None
    ious: tuple[int, ...]
    scores: tuple[int, ...]
    score_range: tuple[float, float]
    errors: Mapping[str, int]
    statuses: Mapping[str, int]
    confusions: tuple[tuple[str, str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """As the page reads it."""
        return asdict(self)


def score_range(runs: Iterable[JoinedRun]) -> tuple[float, float]:
    """From the lowest to the highest total of ``runs``, and at least from 0 to 1."""
    totals = [total for run in runs for total in _totals(run)]
    return min([0.0, *totals]), max([1.0, *totals])


def charts_of(run: JoinedRun, verdicts: Mapping[Key, Verdict], scores_within: tuple[float, float]) -> Charts:
    """The charts of ``run``, whose answers have ``verdicts``."""
    curves = _precision_recall(run, verdicts) if run.family == "detection" and run.samples else {}
    bins, ece = _calibration(verdicts.values())
    totals = _totals(run)
    scores, _ = np.histogram(totals, SCORE_BINS, scores_within)
    report, answers = run.row.report, run.row.answers
    return Charts(
        headline=report.headline if report else "",
        categories=_bars(run),
        precision_recall={name: _rounded(curve) for name, curve in curves.items()},
        mean_precision=_rounded(np.mean(list(curves.values()), axis=0)) if curves else (),
        calibration=bins,
        ece=ece,
        ious=_iou_histogram(run, verdicts),
        scores=tuple(scores.tolist()) if totals else (),
        score_range=scores_within,
        errors=_errors(verdicts.values()),
        statuses=dict(answers.status) if answers else {},
        confusions=_confusions(run, verdicts),
    )


def _totals(run: JoinedRun) -> list[float]:
    return [float(record["score"]["total"]) for record in run.records.values() if "total" in record.get("score", {})]


def _bars(run: JoinedRun) -> tuple[Bar, ...]:
    report = run.row.report
    if report is None:
        return ()
    bars = []
    for name, row in report.by_category.items():
        figure = row.get(report.headline)
        counts = (row.get(key) for key in ("truths", "n", "images"))
        count = next((item for item in counts if isinstance(item, int)), None)
        figure = figure if isinstance(figure, Figure) else Figure(None)
        bars.append(Bar(name, figure.value, figure.low, figure.high, count))
    return tuple(bars)


def _precision_recall(run: JoinedRun, verdicts: Mapping[Key, Verdict]) -> dict[str, Floats]:
    """Precision at the recall levels, by category with truth; where samples were asked several times, the mean."""
    order = _image_ranks(run)
    truths: Counter[tuple[str, int]] = Counter()
    ranked: dict[tuple[str, int], list[tuple[float, int, int, bool]]] = {}
    for (sample_id, n), verdict in verdicts.items():
        sample = run.samples.get(sample_id)
        if sample is None or not isinstance(sample.target, BoxTarget):
            continue
        key = (sample.fields["category"], n)
        truths[key] += len(counted_truths(sample.target, run.rules))
        rank = order[sample.fields["image_id"]]
        own = ranked.setdefault(key, [])
        for place, (box, found) in enumerate(zip(verdict.boxes, verdict.prediction.detections, strict=True)):
            if box.kind != NOT_COUNTED:
                stated = 1.0 if found.confidence is None else found.confidence
                own.append((-stated, rank, place, box.kind == RIGHT))
    curves: dict[str, list[Floats]] = {}
    for (category, n), count in truths.items():
        if count:
            hits = [hit for *_, hit in sorted(ranked.get((category, n), ()))]
            curves.setdefault(category, []).append(precision_at_levels(hits, count))
    return {name: np.mean(curves[name], axis=0) for name in run.categories if name in curves}


def precision_at_levels(hits: Sequence[bool], truths: int) -> Floats:
    """The highest precision at each recall level or beyond, of boxes by descending score."""
    true = np.cumsum(np.array(hits, dtype=np.float64))
    precision = true / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(true / truths, RECALL_LEVELS, side="left")
    return np.append(best, 0.0)[np.minimum(place, len(hits))]


def _image_ranks(run: JoinedRun) -> dict[str, int]:
    """The rank of each image in the order in which AP ranks equal scores."""
    ids = ImageIds()
    handles = {name: ids.handle(name) for name in {sample.fields["image_id"] for sample in run.samples.values()}}
    ordered = ids.ordered(np.unique(np.array(list(handles.values()), dtype=np.int64)))
    ranks = {handle: rank for rank, handle in enumerate(ordered.tolist())}
    return {name: ranks[handle] for name, handle in handles.items()}


def _calibration(verdicts: Iterable[Verdict]) -> tuple[tuple[Bin, ...], float | None]:
    stated, right = [], []
    for verdict in verdicts:
        for box, found in zip(verdict.boxes, verdict.prediction.detections, strict=True):
            if found.confidence is not None and box.kind != NOT_COUNTED:
                stated.append(found.confidence)
                right.append(box.kind == RIGHT)
    if not stated:
        return (), None
    confidences, hits = np.array(stated), np.array(right, dtype=np.float64)
    owner = np.minimum((confidences * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    bins = []
    for number in range(CONFIDENCE_BINS):
        own = owner == number
        if count := int(own.sum()):
            share = float(hits[own].mean())
            bins.append(Bin(count, float(confidences[own].mean()), share, *wilson_interval(share, count)))
    return tuple(bins), sum(item.count * abs(item.right - item.confidence) for item in bins) / len(stated)


def _iou_histogram(run: JoinedRun, verdicts: Mapping[Key, Verdict]) -> tuple[int, ...]:
    values = [
        box.iou
        for (sample_id, _), verdict in verdicts.items()
        if sample_id in run.samples
        for box in verdict.boxes
        if box.kind != NOT_COUNTED
    ]
    counts, _ = np.histogram(values, IOU_BINS, (0.0, 1.0))
    return tuple(counts.tolist()) if values else ()


def _errors(verdicts: Iterable[Verdict]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for verdict in verdicts:
        boxed = {box.kind for box in verdict.boxes}
        found.update(box.kind for box in verdict.boxes if box.kind not in (RIGHT, NOT_COUNTED))
        found.update(kind for kind in verdict.errors if kind not in boxed and kind != "missed")
        if "missed" in verdict.errors:
            found["missed"] += len(verdict.missed)
    return {kind: found[kind] for kind in KINDS if found[kind]}


def _confusions(run: JoinedRun, verdicts: Mapping[Key, Verdict]) -> tuple[tuple[str, str, int], ...]:
    found: Counter[tuple[str, str]] = Counter()
    for (sample_id, _), verdict in verdicts.items():
        sample = run.samples.get(sample_id)
        if sample is not None and isinstance(sample.target, ClassTarget) and verdict.right is False:
            found[sample.target.label, verdict.prediction.label or "no answer"] += 1
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple((truth, said, count) for (truth, said), count in ordered[:_CONFUSIONS])


def _rounded(curve: Floats) -> tuple[float, ...]:
    return tuple(np.round(curve, 4).tolist())

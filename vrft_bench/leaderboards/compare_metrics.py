"""How a task's own metric differs between two runs: by the figures that it is made of, or by computing it anew.

Accuracy, IoU and detection are known: their figures can be weighted, so they have paired intervals and tests. Any other
metric, a plugin's, is computed anew on parts of the data, which gives intervals and no test.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from vrft_bench.leaderboards.compare_shared import Answer, ComparedRun
from vrft_bench.tasks.base import UNASKED, BoxTarget, ClassTarget, MaskTarget, Metric, Prediction, Sample, Target
from vrft_bench.tasks.boxes import area
from vrft_bench.tasks.metrics.accuracy import AccuracyMetric
from vrft_bench.tasks.metrics.detection import DetectionMetric
from vrft_bench.tasks.metrics.grounding import GroundingMetric
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES
from vrft_bench.tasks.metrics.paired import Difference, FigureKey, jackknife_intervals, paired_differences
from vrft_bench.tasks.metrics.paired_figures import PairedAccuracy, PairedDetection, PairedMeans
from vrft_bench.tasks.paper.metrics import PaperDetectionMetric, PaperGroundingMetric

RIGHT_IOU = 0.5
FEWEST_REPLICATES = 200
_WORK = 1_500_000_000
"""About how many detections and curve points all replicates together may touch: half a minute or so."""
_COST = 6
"""Of a replicate and an exchange together, in evaluations of one run: one of each, and two of both together."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals and p-values are made: how many replicates, from which seed, at which level."""

    replicates: int = 2000
    seed: int = 0
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class MetricDifferences:
    """The differences of every figure, the headline's name among them, and from how many ``replicates``."""

    headline: FigureKey
    figures: Mapping[FigureKey, Difference]
    replicates: int


class PairedMetric(ABC):
    """Is fed the answers of a baseline (run 0) and of another run (1)."""

    @abstractmethod
    def add(self, run: int, answer: Answer) -> None:
        """Count one answer."""

    @abstractmethod
    def differences(self, how: Resampling) -> MetricDifferences:
        """How the figures of everything counted differ."""

    def miss(self, run: int, sample: Sample, n: int) -> None:  # noqa: B027 - only detection and plugins have such
        """Count a question that nobody asked, whose truth is missed."""


def paired_metric(first: ComparedRun) -> PairedMetric:
    """Counts by the metric of ``first``, the baseline."""
    metric = first.plan.task.metric(first.plan.dataset)
    # By the exact type: a plugin's subclass may make something else of the same answers.
    if type(metric) in (DetectionMetric, PaperDetectionMetric):
        assert isinstance(metric, DetectionMetric)
        return _Detection(metric, first.completions)
    if type(metric) is AccuracyMetric:
        return _Accuracy(metric, len(first.plan.dataset.categories))
    if isinstance(metric, GroundingMetric | PaperGroundingMetric):
        return _Overlap(metric)
    return _Anything(first)


class _Detection(PairedMetric):
    """Both runs' completions in one metric, those of the second under higher indices."""

    def __init__(self, metric: DetectionMetric, first: int) -> None:
        self._metric, self._first = metric, first

    def add(self, run: int, answer: Answer) -> None:
        self._metric.update(answer.sample, answer.prediction, answer.n + run * self._first)

    def miss(self, run: int, sample: Sample, n: int) -> None:
        self._metric.update(sample, UNASKED, n + run * self._first)

    def differences(self, how: Resampling) -> MetricDifferences:
        figures = PairedDetection(self._metric.counted(), self._first)
        count = min(how.replicates, max(FEWEST_REPLICATES, _WORK // max(figures.work * _COST, 1)))
        found = paired_differences(figures, level=how.level, replicates=count, seed=how.seed)
        return MetricDifferences(FigureKey(figures.headline), found, count)


class _Accuracy(PairedMetric):
    def __init__(self, metric: AccuracyMetric, choices: int) -> None:
        self._metric, self._figures = metric, PairedAccuracy(choices)

    def add(self, run: int, answer: Answer) -> None:
        assert isinstance(answer.sample.target, ClassTarget)
        value = self._metric.value(answer.sample, answer.prediction)
        self._figures.add_answer(run, answer.image, answer.sample.target.label, value)

    def differences(self, how: Resampling) -> MetricDifferences:
        found = paired_differences(self._figures, level=how.level, replicates=how.replicates, seed=how.seed)
        return MetricDifferences(FigureKey("accuracy"), found, how.replicates)


class _Overlap(PairedMetric):
    """Mean IoU, also by the size of the object, and the share of answers at IoU .5 where the metric has it."""

    def __init__(self, metric: GroundingMetric | PaperGroundingMetric) -> None:
        self._metric, self._figures = metric, PairedMeans()

    def add(self, run: int, answer: Answer) -> None:
        value = self._metric.value(answer.sample, answer.prediction)
        self._figures.add(run, answer.image, FigureKey("miou"), value)
        if isinstance(self._metric, GroundingMetric):
            self._figures.add(run, answer.image, FigureKey("acc50"), float(value >= RIGHT_IOU))
        for size in sizes_of(answer.sample.target)[:1]:
            self._figures.add(run, answer.image, FigureKey("miou", size=size), value)

    def differences(self, how: Resampling) -> MetricDifferences:
        found = paired_differences(self._figures, level=how.level, replicates=how.replicates, seed=how.seed)
        return MetricDifferences(FigureKey("miou"), found, how.replicates)


class _Anything(PairedMetric):
    """A metric that can only be computed. Its answers are kept."""

    def __init__(self, first: ComparedRun) -> None:
        self._plan = first.plan
        self._headline = ""
        self._given: tuple[list[tuple[str, Sample, Prediction, int]], ...] = ([], [])

    def add(self, run: int, answer: Answer) -> None:
        self._given[run].append((answer.image, answer.sample, answer.prediction, answer.n))

    def miss(self, run: int, sample: Sample, n: int) -> None:
        self._given[run].append((sample.fields.get("image_id", sample.id), sample, UNASKED, n))

    def differences(self, how: Resampling) -> MetricDifferences:
        del how  # nothing here is drawn, and the level is the jackknife's own, 95 %
        before, after = self._both(frozenset())
        images = list(dict.fromkeys(image for image, *_ in self._given[0]))
        found = {}
        for name, change in jackknife_intervals(images, self._changes).items():
            ends = [_number(end) for end in (before[name], after.get(name), change.low, change.high)]
            found[FigureKey(name)] = Difference(ends[0], ends[1], ends[2], ends[3], clusters=len(images))
        return MetricDifferences(FigureKey(self._headline), found, 0)

    def _changes(self, without: frozenset[str]) -> dict[str, float | None]:
        before, after = self._both(without)
        pairs = {name: (value, after.get(name)) for name, value in before.items()}
        return {name: None if one is None or two is None else two - one for name, (one, two) in pairs.items()}

    def _both(self, without: frozenset[str]) -> list[dict[str, float | None]]:
        found = []
        for given in self._given:
            metric: Metric = self._plan.task.metric(self._plan.dataset)
            for image, sample, prediction, n in given:
                if image not in without:
                    metric.update(sample, prediction, n)
            report = metric.compute()
            self._headline = report.headline
            found.append({name: figure.value for name, figure in report.figures.items()})
        return found


def sizes_of(target: Target) -> list[str]:
    """COCO's name for the size of each true object: small below 32 x 32 pixels, large above 96 x 96.

    By the annotated areas where there are any, else by those of the boxes.
    """
    match target:
        case BoxTarget():
            return [_size(own) for own in target.areas or [area(box) for box in target.boxes]]
        case MaskTarget():
            return [_size(area(target.box))]
        case ClassTarget():
            return []


def _size(square_pixels: float) -> str:
    return next(
        name for name in ("small", "medium", "large") if square_pixels <= AREA_RANGES[name][1] or name == "large"
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value

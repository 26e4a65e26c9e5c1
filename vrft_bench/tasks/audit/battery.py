"""Runs every trick through the real scorer, and says what each earned, where, and whether the task allows that."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from vrft_bench.errors import UserError
from vrft_bench.tasks.audit.bounds import Bounds, Earned, Verdict, bounds_of, has_truth, mean_earned
from vrft_bench.tasks.audit.boxes import detection_tricks, grounding_tricks
from vrft_bench.tasks.audit.labels import classification_tricks
from vrft_bench.tasks.audit.prior import prior_of
from vrft_bench.tasks.audit.tricks import Trick, common_tricks
from vrft_bench.tasks.base import (
    NO_PREDICTION,
    Dataset,
    DataSpec,
    MetricReport,
    Prediction,
    Sample,
    Score,
    Target,
    Task,
)
from vrft_bench.tasks.classification import ClassificationTask, refuse_alike
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.data.label_list import load_label_list
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.grounding import GroundingTask

T = TypeVar("T")

LIMIT = 1000
"""How many samples are drawn where nobody says. AP over few objects of a category is noisy, and high rather than low:
on 100 samples of ``coco_ovd`` blind boxes get up to twice what the task allows, which tells nothing, and half of it on
1,000."""

_SLOW, _VERY_SLOW = 100, 10
"""On how many samples rewards are computed where one takes milliseconds, and where it takes half a second."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one trick earned over all samples.

    ``earned`` are the mean reward components and ``total``, over ``judged`` samples, and ``metric``, the headline
    figure when every sample is answered so (it is left out where it is not defined). ``where_present`` are the means
    over the samples that have truth. ``best`` is the highest total of a single sample, ``best_sample`` its id and
    ``completion`` what was said there. ``not_finite`` counts reward values that were NaN or infinite before they were
    put in range. ``verdict`` says what exceeds the task's bounds.
    """

    trick: Trick
    earned: Mapping[str, Earned]
    where_present: Mapping[str, Earned]
    judged: int
    best: float
    best_sample: str
    completion: str
    not_finite: int
    verdict: Verdict

    @property
    def means(self) -> dict[str, float]:
        return {name: figure.value for name, figure in self.earned.items() if name != "metric"}

    @property
    def metric(self) -> float | None:
        return self.earned["metric"].value if "metric" in self.earned else None

    def to_json(self) -> dict[str, Any]:
        return {
            "trick": self.trick.name,
            "family": self.trick.family,
            "blind": self.trick.blind,
            "mean": self.means,
            "where_present": {name: figure.value for name, figure in self.where_present.items()},
            "metric": self.metric,
            "low": {name: figure.low for name, figure in self.earned.items()},
            "low_where_present": {name: figure.low for name, figure in self.where_present.items()},
            "judged": self.judged,
            "best": self.best,
            "best_sample": self.best_sample,
            "completion": self.completion if len(self.completion) <= 500 else f"{self.completion[:500]}...",
            "not_finite": self.not_finite,
            "above": list(self.verdict.above),
            "unsure": list(self.verdict.unsure),
        }


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All results of one task under one protocol.

    ``data`` is ``labels`` for a list of labels without images.
    """

    task: str
    protocol: str
    profile: str
    headline: str
    samples: int
    with_truth: int
    data: Literal["real", "sample", "labels"]
    bounds: Bounds
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether no trick exceeds a bound, as far as the samples tell."""
        return not any(result.verdict.above for result in self.results)

    @property
    def unsure(self) -> bool:
        """Whether a trick may exceed a bound, and there are too few samples to tell."""
        return any(result.verdict.unsure for result in self.results)

    @property
    def judged(self) -> int:
        """The most samples that rewards are means over."""
        return max(result.judged for result in self.results)

    @property
    def best_blind(self) -> Result | None:
        """The trick that gets the highest metric without looking; ``None`` where the metric is not defined."""
        blind = [result for result in self.results if result.trick.blind and result.metric is not None]
        return max(blind, key=lambda result: result.metric or 0.0, default=None)

    def best_of_families(self) -> list[Result]:
        """The most profitable trick of each family: the one that exceeds most bounds, then may, then by mean total."""
        best: dict[str, Result] = {}
        for result in self.results:
            known = best.get(result.trick.family)
            if known is None or _profit(result) > _profit(known):
                best[result.trick.family] = result
        return list(best.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "protocol": self.protocol,
            "profile": self.profile,
            "headline": self.headline,
            "samples": self.samples,
            "with_truth": self.with_truth,
            "data": self.data,
            "bounds": dict(self.bounds.samples),
            "bounds_where_present": dict(self.bounds.where_present),
            "passed": self.passed,
            "unsure": self.unsure,
            "results": [result.to_json() for result in self.results],
        }


def audit(task: Task, spec: DataSpec, profile: ModelProfile, *, limit: int = LIMIT, seed: int = 0) -> AuditReport:
    """Try the battery on up to ``limit`` samples of ``task``, drawn with ``seed``, no more without truth than with it.

    Raises :class:`UserError` where nothing can be earned but by the best honest constant: there is no sample, or none
    with truth, or a single class.
    """
    dataset = task.load(spec)
    samples = _draw(dataset.samples(), limit, seed)
    if not samples:
        raise UserError(
            f"task {task.name!r} has no sample with truth to audit: where there is nothing to find, nothing can be had "
            "by a trick",
            fix="name --categories that the images show, or another --split or data",
        )
    kind: Literal["real", "sample"] = "sample" if dataset.is_sample else "real"
    return _report(task, dataset, samples, _tricks(task, spec, samples), profile, kind)


def audit_labels(
    task: Task, path: Path, profile: ModelProfile, *, limit: int | None = None, seed: int = 0
) -> AuditReport:
    """Try the battery on the labels in ``path`` (see :func:`~vrft_bench.tasks.data.label_list.load_label_list`).

    No trick on classification looks at an image, so the labels of a test set say what the rules give away on it. All
    of them are taken, or ``limit``, drawn with ``seed``. Raises :class:`UserError` for a task that is no
    classification, and :class:`~vrft_bench.errors.DataError` for a file that is no list of labels.
    """
    if not isinstance(task, ClassificationTask):
        raise UserError(
            f"task {task.name!r} is {task.family}: a list of labels does not say where anything is",
            fix="leave out --labels, or name a classification task",
        )
    task.require_libraries()
    dataset = load_label_list(path)
    refuse_alike(dataset.categories, path)
    samples = list(dataset.samples())
    if limit is not None:
        samples = _draw(samples, limit, seed)
    return _report(task, dataset, samples, classification_tricks(task, samples), profile, "labels")


def _report(
    task: Task,
    dataset: Dataset,
    samples: Sequence[Sample],
    tricks: Iterable[Trick],
    profile: ModelProfile,
    data: Literal["real", "sample", "labels"],
) -> AuditReport:
    bounds = bounds_of(task, samples, profile)
    silence = _metric(task, dataset, [(sample, NO_PREDICTION) for sample in samples])
    results = tuple(_try(trick, task, dataset, samples, profile, silence, bounds) for trick in tricks)
    return AuditReport(
        task=task.name,
        protocol=task.protocol,
        profile=profile.name,
        headline=silence.headline,
        samples=len(samples),
        with_truth=sum(map(has_truth, samples)),
        data=data,
        bounds=bounds,
        results=results,
    )


def _tricks(task: Task, spec: DataSpec, samples: Sequence[Sample]) -> list[Trick]:
    match task:
        case ClassificationTask():
            return classification_tricks(task, samples)
        case DetectionTask():
            return detection_tricks(task, samples, prior_of(task, spec, samples))
        case GroundingTask():
            return grounding_tricks(task, prior_of(task, spec, samples))
    return common_tricks(task)


def _draw(samples: Iterable[Sample], limit: int, seed: int) -> list[Sample]:
    """Up to ``limit`` samples, at most half of them without truth; reservoir sampling, in constant memory.

    What a task allows is over such a draw: of more samples without truth there would be less to gain.
    """
    rng = random.Random(seed)
    kept: dict[bool, list[Sample]] = {True: [], False: []}
    seen = {True: 0, False: 0}
    for sample in samples:
        side = has_truth(sample)
        seen[side] += 1
        if len(kept[side]) < limit:
            kept[side].append(sample)
        elif (place := rng.randrange(seen[side])) < limit:
            kept[side][place] = sample
    absent = min(len(kept[False]), len(kept[True]), limit // 2)
    return kept[True][: limit - absent] + kept[False][:absent]


def _try(
    trick: Trick,
    task: Task,
    dataset: Dataset,
    samples: Sequence[Sample],
    profile: ModelProfile,
    silence: MetricReport,
    bounds: Bounds,
) -> Result:
    frames = [Frame(profile, sample.image.width, sample.image.height) for sample in samples]
    tried = _spread(list(zip(samples, frames, strict=True)), trick.at_most)
    asked = [(sample, frame, trick.write(sample, frame)) for sample, frame in tried]
    said_in = dict.fromkeys((text, frame) for _, frame, text in asked)
    parsed = {(text, frame): task.parse(text, frame) for text, frame in said_in}
    predictions = [(sample, parsed[text, frame]) for sample, frame, text in asked]

    rows: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    best, best_sample, said, not_finite = -math.inf, "", "", 0
    known: dict[tuple[str, Frame, Target], tuple[Score, int]] = {}
    judged = _spread(asked, _most_judged(task, {text for _, _, text in asked}))
    for sample, frame, text in judged:
        # a test set repeats its labels, and judging by the paper's rules takes long
        if (question := (text, frame, sample.target)) not in known:
            prediction = parsed[text, frame]
            values = [reward.function(prediction, sample.target) for reward in task.rewards]
            faults = sum(not math.isfinite(value) for value in values)
            known[question] = task.judge(prediction, sample.target), faults
        score, faults = known[question]
        not_finite += faults
        rows[has_truth(sample)].append(score.to_json())
        if score.total > best:
            best, best_sample, said = score.total, sample.id, text
    # most tricks say nothing that can be read: their figures are those of silence, and need no computing
    spoke = any(prediction.detections or prediction.label is not None for _, prediction in predictions)
    report = _metric(task, dataset, predictions) if spoke else silence
    figure = report.figures[report.headline]
    earned, where_present = _means(rows[True], rows[False]), _means(rows[True])
    if figure.value is not None:
        earned["metric"] = Earned(figure.value, figure.low)
    return Result(
        trick=trick,
        earned=earned,
        where_present=where_present,
        judged=len(judged),
        best=best,
        best_sample=best_sample,
        completion=said,
        not_finite=not_finite,
        verdict=bounds.verdict(earned, where_present),
    )


def _most_judged(task: Task, texts: Iterable[str]) -> int | None:
    """On how many samples rewards are computed: the paper's verify every detection answer as a formula."""
    if not isinstance(task, DetectionTask) or task.protocol != "paper":
        return None
    from vrft_bench.tasks.paper.symbolic import may_take_long

    return _VERY_SLOW if any(map(may_take_long, texts)) else _SLOW


def _spread(items: Sequence[T], at_most: int | None) -> Sequence[T]:
    """Up to ``at_most`` of ``items``, evenly from first to last."""
    count = len(items) if at_most is None else min(at_most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _metric(task: Task, dataset: Dataset, predictions: Iterable[tuple[Sample, Prediction]]) -> MetricReport:
    metric = task.metric(dataset)
    for sample, prediction in predictions:
        metric.update(sample, prediction)
    return metric.compute()


def _means(present: Sequence[Mapping[str, float]], absent: Sequence[Mapping[str, float]] = ()) -> dict[str, Earned]:
    """The mean of each component; none where there is no row."""
    names = next((list(row) for row in (*present, *absent)), [])
    return {name: mean_earned((row[name] for row in present), (row[name] for row in absent)) for name in names}


def _profit(result: Result) -> tuple[int, int, float, float]:
    verdict = result.verdict
    return len(verdict.above), len(verdict.unsure), result.means["total"], result.metric or 0.0

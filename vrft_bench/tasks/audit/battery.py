"""Runs every trick through the real scorer, and says what each earned, where, and whether the task allows that."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.tasks.audit.boxes import detection_tricks, grounding_tricks, mean_box, true_box
from vrft_bench.tasks.audit.labels import classification_tricks, largest_share
from vrft_bench.tasks.audit.tricks import Trick, answer, common_tricks
from vrft_bench.tasks.base import (
    NO_PREDICTION,
    BoxTarget,
    Dataset,
    DataSpec,
    MetricReport,
    Prediction,
    Sample,
    Task,
)
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.coordinates import Box, Frame, ModelProfile
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.grounding import GroundingTask

TOLERANCE = 1e-9
_PRIOR_SAMPLES = 2000
"""How much of the training set the mean boxes are taken from."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one trick earned over all samples.

    ``means`` are the mean reward components and ``total``; ``metric`` the headline figure when every sample is answered
    so (``None`` where it is not defined). ``best`` is the highest total of a single sample, ``best_sample`` its id and
    ``completion`` what was said there. ``not_finite`` counts reward values that were NaN or infinite before they were
    put in range. ``above`` names what exceeds the task's bound.
    """

    trick: Trick
    means: Mapping[str, float]
    metric: float | None
    best: float
    best_sample: str
    completion: str
    not_finite: int
    above: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "trick": self.trick.name,
            "family": self.trick.family,
            "blind": self.trick.blind,
            "mean": dict(self.means),
            "metric": self.metric,
            "best": self.best,
            "best_sample": self.best_sample,
            "completion": self.completion if len(self.completion) <= 500 else f"{self.completion[:500]}...",
            "not_finite": self.not_finite,
            "above": list(self.above),
        }


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All results of one task under one protocol. ``bounds`` are the highest allowed means, by component or metric."""

    task: str
    protocol: str
    profile: str
    headline: str
    samples: int
    with_truth: int
    is_sample: bool
    bounds: Mapping[str, float]
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        return not any(result.above for result in self.results)

    def best_of_families(self) -> list[Result]:
        """The most profitable trick of each family: the one that exceeds most bounds, then by mean total."""
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
            "data": "sample" if self.is_sample else "real",
            "bounds": dict(self.bounds),
            "passed": self.passed,
            "results": [result.to_json() for result in self.results],
        }


def audit(task: Task, spec: DataSpec, profile: ModelProfile, *, limit: int = 100, seed: int = 0) -> AuditReport:
    """Try the battery on ``limit`` samples of ``task``, drawn with ``seed``: half with truth, where there are both.

    Raises :class:`UserError` where no sample can be had.
    """
    dataset = task.load(spec)
    samples = _draw(dataset.samples(), limit, seed)
    if not samples:
        raise UserError(f"task {task.name!r} has no sample to audit", fix="widen --categories or --split")
    bounds = bounds_of(task, samples, profile)
    silence = _metric(task, dataset, [(sample, NO_PREDICTION) for sample in samples])
    results = tuple(
        _judged(_try(trick, task, dataset, samples, profile, silence), bounds) for trick in _tricks(task, spec, samples)
    )
    return AuditReport(
        task=task.name,
        protocol=task.protocol,
        profile=profile.name,
        headline=silence.headline,
        samples=len(samples),
        with_truth=sum(_has_truth(sample) for sample in samples),
        is_sample=dataset.is_sample,
        bounds=bounds,
        results=results,
    )


def bounds_of(task: Task, samples: Sequence[Sample], profile: ModelProfile) -> dict[str, float]:
    """The highest mean that a trick may have, by reward component and for the headline metric (``metric``).

    What the best honest constant earns (the most common class; right refusals, where the protocol pays for them) is
    nobody's trick; ``Task.blind_bounds`` is what the task allows beyond it.
    """
    honest: dict[str, float] = {}
    if isinstance(task, ClassificationTask):
        share = largest_share(samples)
        honest = dict.fromkeys(task.blind_bounds, share)
    elif isinstance(task, DetectionTask):
        for sample in samples:
            if _has_truth(sample):
                continue
            frame = Frame(profile, sample.image.width, sample.image.height)
            score = task.judge(task.parse(answer("No Objects"), frame), sample.target)
            for name, value in score.components.items():
                honest[name] = honest.get(name, 0.0) + value / len(samples)
    return {name: extra + honest.get(name, 0.0) for name, extra in task.blind_bounds.items()}


def _tricks(task: Task, spec: DataSpec, samples: Sequence[Sample]) -> list[Trick]:
    match task:
        case ClassificationTask():
            return classification_tricks(task, samples)
        case DetectionTask():
            boxes: dict[str, list[tuple[Box, int, int]]] = {}
            for sample in _training(task, spec):
                for box in sample.target.findable if isinstance(sample.target, BoxTarget) else ():
                    boxes.setdefault(sample.fields["category"], []).append(
                        (box, sample.image.width, sample.image.height)
                    )
            prior = {name: mean for name, found in boxes.items() if (mean := mean_box(found)) is not None}
            return detection_tricks(task, samples, prior)
        case GroundingTask():
            found = [
                (truth, sample.image.width, sample.image.height)
                for sample in _training(task, spec)
                if (truth := true_box(sample)) is not None
            ]
            return grounding_tricks(task, mean_box(found))
    return common_tricks(task)


def _training(task: Task, spec: DataSpec) -> Iterable[Sample]:
    """Up to ``_PRIOR_SAMPLES`` training samples with truth; none where there is no training split."""
    found: list[Sample] = []
    try:
        for sample in task.load(replace(spec, split="train")).samples():
            if _has_truth(sample):
                found.append(sample)
            if len(found) >= _PRIOR_SAMPLES:
                break
    except UserError:
        return []
    return found


def _has_truth(sample: Sample) -> bool:
    return not isinstance(sample.target, BoxTarget) or bool(sample.target.findable)


def _draw(samples: Iterable[Sample], limit: int, seed: int) -> list[Sample]:
    """``limit`` samples, half of them without truth where there are such; reservoir sampling, in constant memory."""
    rng = random.Random(seed)
    kept: dict[bool, list[Sample]] = {True: [], False: []}
    seen = {True: 0, False: 0}
    for sample in samples:
        side = _has_truth(sample)
        seen[side] += 1
        if len(kept[side]) < limit:
            kept[side].append(sample)
        elif (place := rng.randrange(seen[side])) < limit:
            kept[side][place] = sample
    absent = min(len(kept[False]), max(limit // 2, limit - len(kept[True])))
    return kept[True][: limit - absent] + kept[False][:absent]


def _try(
    trick: Trick,
    task: Task,
    dataset: Dataset,
    samples: Sequence[Sample],
    profile: ModelProfile,
    silence: MetricReport,
) -> Result:
    samples = samples[: trick.at_most]
    sums: dict[str, float] = {}
    best, best_sample, said, not_finite = -math.inf, "", "", 0
    predictions: list[tuple[Sample, Prediction]] = []
    for sample in samples:
        frame = Frame(profile, sample.image.width, sample.image.height)
        text = trick.write(sample, frame)
        prediction = task.parse(text, frame)
        predictions.append((sample, prediction))
        score = task.judge(prediction, sample.target)
        not_finite += sum(not math.isfinite(reward.function(prediction, sample.target)) for reward in task.rewards)
        for name, value in score.to_json().items():
            sums[name] = sums.get(name, 0.0) + value
        if score.total > best:
            best, best_sample, said = score.total, sample.id, text
    # most tricks say nothing that can be read: their figures are those of silence, and need no computing
    spoke = any(prediction.detections or prediction.label is not None for _, prediction in predictions)
    report = _metric(task, dataset, predictions) if spoke else silence
    return Result(
        trick=trick,
        means={name: value / len(samples) for name, value in sums.items()},
        metric=report.figures[report.headline].value,
        best=best,
        best_sample=best_sample,
        completion=said,
        not_finite=not_finite,
    )


def _metric(task: Task, dataset: Dataset, predictions: Iterable[tuple[Sample, Prediction]]) -> MetricReport:
    metric = task.metric(dataset)
    for sample, prediction in predictions:
        metric.update(sample, prediction)
    return metric.compute()


def _judged(result: Result, bounds: Mapping[str, float]) -> Result:
    earned: dict[str, float] = dict(result.means)
    if result.metric is not None:
        earned["metric"] = result.metric
    above = tuple(name for name, bound in bounds.items() if earned.get(name, 0.0) > bound + TOLERANCE)
    return replace(result, above=above)


def _profit(result: Result) -> tuple[int, float, float]:
    return len(result.above), result.means["total"], result.metric or 0.0

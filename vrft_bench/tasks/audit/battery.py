"""Runs every trick through the real scorer, and says what each earned, where, and whether the task allows that."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from vrft_bench.errors import UserError
from vrft_bench.tasks.audit.boxes import detection_tricks, grounding_tricks
from vrft_bench.tasks.audit.labels import classification_tricks, largest_share
from vrft_bench.tasks.audit.prior import prior_of
from vrft_bench.tasks.audit.tricks import Trick, answer, common_tricks
from vrft_bench.tasks.base import (
    NO_PREDICTION,
    BoxTarget,
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

TOLERANCE = 1e-9
LIMIT = 1000
"""How many samples are drawn where nobody says. AP over few objects of a category is noisy, and high rather than low:
on 100 samples of ``coco_ovd`` blind boxes get up to twice what the task allows, and half of it on 1,000."""

_SLOW, _VERY_SLOW = 100, 10
"""On how many samples rewards are computed where one takes milliseconds, and where it takes half a second."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one trick earned over all samples.

    ``means`` are the mean reward components and ``total``, over ``judged`` samples, and ``where_present`` those over
    the samples among them that have truth; ``metric`` is the headline figure when every sample is answered so
    (``None`` where it is not defined). ``best`` is the highest total of a single sample, ``best_sample`` its id and
    ``completion`` what was said there. ``not_finite`` counts reward values that were NaN or infinite before they were
    put in range. ``above`` names what exceeds the task's bound.
    """

    trick: Trick
    means: Mapping[str, float]
    where_present: Mapping[str, float]
    judged: int
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
            "where_present": dict(self.where_present),
            "judged": self.judged,
            "metric": self.metric,
            "best": self.best,
            "best_sample": self.best_sample,
            "completion": self.completion if len(self.completion) <= 500 else f"{self.completion[:500]}...",
            "not_finite": self.not_finite,
            "above": list(self.above),
        }


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All results of one task under one protocol.

    ``bounds`` are the highest allowed means, by component or metric, and ``bounds_where_present`` those over the
    samples that have truth: refusals earn so much where there is none that they would hide what can be had where there
    is. ``data`` is ``labels`` for a list of labels without images.
    """

    task: str
    protocol: str
    profile: str
    headline: str
    samples: int
    with_truth: int
    data: Literal["real", "sample", "labels"]
    bounds: Mapping[str, float]
    bounds_where_present: Mapping[str, float]
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        return not any(result.above for result in self.results)

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
            "data": self.data,
            "bounds": dict(self.bounds),
            "bounds_where_present": dict(self.bounds_where_present),
            "passed": self.passed,
            "results": [result.to_json() for result in self.results],
        }


def audit(task: Task, spec: DataSpec, profile: ModelProfile, *, limit: int = LIMIT, seed: int = 0) -> AuditReport:
    """Try the battery on ``limit`` samples of ``task``, drawn with ``seed``: half with truth, where there are both.

    Raises :class:`UserError` where no sample can be had.
    """
    dataset = task.load(spec)
    samples = _draw(dataset.samples(), limit, seed)
    if not samples:
        raise UserError(f"task {task.name!r} has no sample to audit", fix="widen --categories or --split")
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
    where_present = _bounds_where_present(task, samples)
    silence = _metric(task, dataset, [(sample, NO_PREDICTION) for sample in samples])
    tried = (_try(trick, task, dataset, samples, profile, silence) for trick in tricks)
    results = tuple(_judged(result, bounds, where_present) for result in tried)
    return AuditReport(
        task=task.name,
        protocol=task.protocol,
        profile=profile.name,
        headline=silence.headline,
        samples=len(samples),
        with_truth=sum(_has_truth(sample) for sample in samples),
        data=data,
        bounds=bounds,
        bounds_where_present=where_present,
        results=results,
    )


def bounds_of(task: Task, samples: Sequence[Sample], profile: ModelProfile) -> dict[str, float]:
    """The highest mean that a trick may have, by reward component and for the headline metric (``metric``).

    What the best honest constant earns (the most common class; right refusals, where the protocol pays for them) is
    nobody's trick; ``Task.blind_bounds`` is what the task allows beyond it.
    """
    honest: dict[str, float] = {}
    if isinstance(task, ClassificationTask):
        honest = dict.fromkeys(task.blind_bounds, largest_share(samples))
    elif isinstance(task, DetectionTask):
        for sample in samples:
            if _has_truth(sample):
                continue
            frame = Frame(profile, sample.image.width, sample.image.height)
            score = task.judge(task.parse(answer("No Objects"), frame), sample.target)
            for name, value in score.components.items():
                honest[name] = honest.get(name, 0.0) + value / len(samples)
    return {name: extra + honest.get(name, 0.0) for name, extra in task.blind_bounds.items()}


def _bounds_where_present(task: Task, samples: Sequence[Sample]) -> dict[str, float]:
    """The highest mean reward components over the samples with truth, where some have none.

    What a task allows is over a draw half of which has truth, so over that half it is twice as much.
    """
    if all(map(_has_truth, samples)) or not any(map(_has_truth, samples)):
        return {}
    return {name: 2.0 * bound for name, bound in task.blind_bounds.items() if name != "metric"}


def _tricks(task: Task, spec: DataSpec, samples: Sequence[Sample]) -> list[Trick]:
    match task:
        case ClassificationTask():
            return classification_tricks(task, samples)
        case DetectionTask():
            return detection_tricks(task, samples, prior_of(task, spec, samples))
        case GroundingTask():
            return grounding_tricks(task, prior_of(task, spec, samples))
    return common_tricks(task)


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
    frames = [Frame(profile, sample.image.width, sample.image.height) for sample in samples]
    tried = _spread(list(zip(samples, frames, strict=True)), trick.at_most)
    asked = [(sample, frame, trick.write(sample, frame)) for sample, frame in tried]
    said_in = dict.fromkeys((text, frame) for _, frame, text in asked)
    parsed = {(text, frame): task.parse(text, frame) for text, frame in said_in}
    predictions = [(sample, parsed[text, frame]) for sample, frame, text in asked]

    earned: list[dict[str, float]] = []
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
        earned.append(score.to_json())
        if score.total > best:
            best, best_sample, said = score.total, sample.id, text
    # most tricks say nothing that can be read: their figures are those of silence, and need no computing
    spoke = any(prediction.detections or prediction.label is not None for _, prediction in predictions)
    report = _metric(task, dataset, predictions) if spoke else silence
    return Result(
        trick=trick,
        means=_means(earned),
        where_present=_means(own for own, (sample, _, _) in zip(earned, judged, strict=True) if _has_truth(sample)),
        judged=len(judged),
        metric=report.figures[report.headline].value,
        best=best,
        best_sample=best_sample,
        completion=said,
        not_finite=not_finite,
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


def _means(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each component; none where there is no row."""
    kept = list(rows)
    return {name: sum(row[name] for row in kept) / len(kept) for name in (kept[0] if kept else ())}


def _judged(result: Result, bounds: Mapping[str, float], where_present: Mapping[str, float]) -> Result:
    earned: dict[str, float] = dict(result.means)
    if result.metric is not None:
        earned["metric"] = result.metric
    above = [name for name, bound in bounds.items() if earned.get(name, 0.0) > bound + TOLERANCE]
    above += [
        f"{name} where present"
        for name, bound in where_present.items()
        if result.where_present.get(name, 0.0) > bound + TOLERANCE
    ]
    return replace(result, above=tuple(above))


def _profit(result: Result) -> tuple[int, float, float]:
    return len(result.above), result.means["total"], result.metric or 0.0

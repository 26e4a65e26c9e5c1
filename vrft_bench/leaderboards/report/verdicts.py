"""What is right and what is wrong about each answer, box by box: what cards are marked with and filtered by.

* Detection: the kinds of mistake of :mod:`~vrft_bench.tasks.metrics.error_breakdown`, which looks at all categories of
  an image together. An answer is right if none of its boxes is wrong and every object is found at IoU .5.
* Grounding: the first box counts, and is right from IoU .5, badly placed from .1, and otherwise on something else.
* Classification: the run's own accuracy reward decides.

An answer that could not be read, or never came, is never right, unless its text was read as saying that nothing is
there and nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vrft_bench.harness.records import Key, Record
from vrft_bench.leaderboards.report.joined import JoinedRun, prediction_of
from vrft_bench.tasks.base import UNPARSABLE, BoxTarget, ClassTarget, MaskTarget, Prediction, Sample
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.answer_columns import Question
from vrft_bench.tasks.metrics.error_breakdown import ERRORS, IGNORED, MATCH, NEAR, counted_truths, image_errors
from vrft_bench.tasks.metrics.outcomes import Rules
from vrft_bench.tasks.rewards import accuracy_reward

RIGHT, NOT_COUNTED = "right", "not counted"
WRONG_LABEL, OFF_TARGET, UNREAD, FAILED = "wrong label", "off target", "unparsable", "failed"
KINDS = (*ERRORS, WRONG_LABEL, OFF_TARGET, UNREAD, FAILED)
"""Every kind of mistake, in the order in which they are listed."""


@dataclass(frozen=True, slots=True)
class BoxVerdict:
    """What one predicted box is: right, not counted, or a kind of mistake; and its best IoU with truth."""

    kind: str
    iou: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one answer is. ``right`` is ``None`` where there is no truth to hold it to; ``missed`` are the true
    boxes that no box came near, by place."""

    prediction: Prediction
    right: bool | None
    errors: tuple[str, ...] = ()
    boxes: tuple[BoxVerdict, ...] = ()
    missed: tuple[int, ...] = ()


def judge_run(run: JoinedRun) -> dict[Key, Verdict]:
    """The verdict on every stored answer."""
    found: dict[Key, Verdict] = {}
    images: dict[tuple[str, int], list[Key]] = {}
    for key, record in run.records.items():
        sample = run.samples.get(key[0])
        if sample is not None and run.family == "detection" and isinstance(sample.target, BoxTarget):
            images.setdefault((sample.fields["image_id"], key[1]), []).append(key)
        else:
            found[key] = _alone(record, sample)
    for keys in images.values():
        found.update(_together(run, keys))
    return {key: found[key] for key in run.records}


def _alone(record: Record, sample: Sample | None) -> Verdict:
    """The verdict on an answer that no other answer matters for."""
    prediction = prediction_of(record)
    errors = _unread(record, prediction)
    if sample is None:
        return Verdict(prediction, None, errors, tuple(BoxVerdict(NOT_COUNTED, 0.0) for _ in prediction.detections))
    match sample.target:
        case ClassTarget() as target:
            accuracy = record.get("score", {}).get("accuracy")
            right = (accuracy_reward(prediction, target) if accuracy is None else accuracy) >= 1.0
            return Verdict(prediction, right, errors if right or errors else (WRONG_LABEL,))
        case MaskTarget(box=box):
            return _grounded(prediction, box, errors)
        case BoxTarget(boxes=boxes):
            return _grounded(prediction, boxes[0] if boxes else None, errors)


def _grounded(prediction: Prediction, truth: Box | None, errors: tuple[str, ...]) -> Verdict:
    if not prediction.detections:
        missed = (0,) if truth else ()
        return Verdict(prediction, truth is None and not errors, (*(("missed",) if truth else ()), *errors), (), missed)
    overlaps = [iou(item.box, truth) if truth else 0.0 for item in prediction.detections]
    first = RIGHT if overlaps[0] >= MATCH else "localisation" if overlaps[0] >= NEAR else OFF_TARGET
    boxes = [BoxVerdict(first, overlaps[0])] + [BoxVerdict(NOT_COUNTED, value) for value in overlaps[1:]]
    mistakes = () if first == RIGHT else (first,)
    return Verdict(prediction, first == RIGHT, (*mistakes, *errors), tuple(boxes))


def _together(run: JoinedRun, keys: list[Key]) -> Mapping[Key, Verdict]:
    """The verdicts on the answers about one image, one completion each of its questions."""
    numbers = {name: number for number, name in enumerate(run.categories)}
    keys = sorted(keys, key=lambda key: numbers.get(run.samples[key[0]].fields["category"], len(numbers)))
    predictions = [prediction_of(run.records[key]) for key in keys]
    questions = []
    for (sample_id, n), prediction in zip(keys, predictions, strict=True):
        sample = run.samples[sample_id]
        assert isinstance(sample.target, BoxTarget)
        category = numbers.get(sample.fields["category"], len(numbers))
        questions.append(Question(n, category, sample.target, prediction.detections))
    errors = image_errors(questions, run.rules)
    kinds = {(item.question, item.detection): NOT_COUNTED if item.truth == IGNORED else RIGHT for item in errors.judged}
    for mistake in errors.mistakes:
        wrong = errors.judged[mistake.judged]
        kinds[wrong.question, wrong.detection] = mistake.kind
    claimed = {(item.question, item.truth) for item in errors.judged if item.truth >= 0}
    return {
        key: _detected(run.records[key], number, question, prediction, kinds, claimed, errors.missed, run.rules)
        for number, (key, question, prediction) in enumerate(zip(keys, questions, predictions, strict=True))
    }


def _detected(
    record: Record,
    number: int,
    question: Question,
    prediction: Prediction,
    kinds: Mapping[tuple[int, int], str],
    claimed: set[tuple[int, int]],
    missed: Iterable[tuple[int, int]],
    rules: Rules,
) -> Verdict:
    """The verdict on question ``number`` of an image whose boxes are of ``kinds``."""
    target = question.target
    boxes = tuple(
        BoxVerdict(
            kinds.get((number, place), NOT_COUNTED), max((iou(item.box, box) for box in target.boxes), default=0.0)
        )
        for place, item in enumerate(question.detections)
    )
    found = {box.kind for box in boxes}
    own_missed = tuple(place for owner, place in missed if owner == number)
    if own_missed:
        found.add("missed")
    unread = _unread(record, prediction)
    all_found = all((number, place) in claimed for place in counted_truths(target, rules))
    right = all_found and not unread and found <= {RIGHT, NOT_COUNTED}
    return Verdict(prediction, right, (*(kind for kind in ERRORS if kind in found), *unread), boxes, own_missed)


def _unread(record: Record, prediction: Prediction) -> tuple[str, ...]:
    if "error" in record:
        return (FAILED,)
    return (UNREAD,) if prediction.status in UNPARSABLE else ()

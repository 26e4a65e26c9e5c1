"""The audit lets the sound rules pass, and catches rules that can be gamed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from vrft_bench.errors import UserError
from vrft_bench.tasks import get_task
from vrft_bench.tasks.audit import battery
from vrft_bench.tasks.audit.battery import AuditReport, audit
from vrft_bench.tasks.audit.bounds import Verdict, has_truth
from vrft_bench.tasks.audit.boxes import detection_tricks
from vrft_bench.tasks.audit.labels import most_profitable, most_profitable_words
from vrft_bench.tasks.audit.prior import prior_of
from vrft_bench.tasks.base import BoxTarget, ClassTarget, DataSpec, Prediction, Reward
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL
from vrft_bench.tasks.rewards import FORMAT, FREE_BOXES, iou_reward

pytestmark = pytest.mark.usefixtures("sample_cache")


def by_name(report: AuditReport) -> dict[str, dict[str, float]]:
    return {result.trick.name: dict(result.means) for result in report.results}


@pytest.mark.parametrize("name", ["lvis_fewshot", "coco_ovd", "classification", "lisa_grounding"])
def test_the_strict_rules_stay_within_their_bounds(name: str) -> None:
    profile = QWEN2_5_VL if name == "lvis_fewshot" else QWEN2_VL
    report = audit(get_task(name), DataSpec(), profile)
    assert report.passed, [(item.trick.name, item.verdict) for item in report.results if item.verdict.above]
    assert not report.unsure
    assert not any(result.not_finite for result in report.results)
    assert report.samples == {"lvis_fewshot": 308, "coco_ovd": 1000, "classification": 240, "lisa_grounding": 200}[name]
    assert report.judged == report.samples


def test_half_of_the_samples_have_truth_where_there_are_both() -> None:
    report = audit(get_task("coco_ovd"), DataSpec(), QWEN2_VL, limit=20)
    assert report.with_truth == 10
    assert report.bounds.samples["iou"] == pytest.approx(0.5 + DetectionTask.blind_bounds["iou"])


def test_no_more_samples_without_truth_are_drawn_than_with_it() -> None:
    """Of 430 questions of lvis_fewshot 154 have truth: of the others as many are drawn, or the bounds would be idle."""
    report = audit(get_task("lvis_fewshot"), DataSpec(), QWEN2_VL)
    assert (report.samples, report.with_truth) == (308, 154)
    assert report.bounds.samples["iou"] == pytest.approx(0.6)
    (alone,) = battery._draw(get_task("lvis_fewshot").load(DataSpec()).samples(), 1, 0)
    assert has_truth(alone)


def test_refusing_everywhere_earns_what_absent_truth_is_worth_and_no_metric() -> None:
    report = audit(get_task("coco_ovd"), DataSpec(), QWEN2_VL, limit=20)
    (refusal,) = [item for item in report.results if item.trick.name == "always No Objects"]
    assert refusal.means["iou"] == 0.5
    assert refusal.metric == 0.0
    assert refusal.best == 3.0


def test_the_most_common_class_earns_its_share_and_no_more() -> None:
    report = audit(get_task("classification"), DataSpec(), QWEN2_VL, limit=30)
    most = max(means["accuracy"] for means in by_name(report).values())
    assert most == report.bounds.samples["accuracy"] == report.bounds.samples["metric"]


def _either_way(prediction: Prediction, target: ClassTarget) -> float:
    said = (prediction.label or "").lower()
    return float(said in target.label or target.label in said)


def _always(prediction: Prediction, target: BoxTarget) -> float:
    return 1.0


def _mean_confidence(prediction: Prediction, target: BoxTarget) -> float:
    stated = [item.confidence or 0.0 for item in prediction.detections]
    return sum(1.0 - value for value in stated) / len(stated) if stated else float("nan")


@dataclass(frozen=True)
class SubstringTask(ClassificationTask):
    @property
    def rewards(self) -> tuple[Reward, ...]:
        return Reward("accuracy", _either_way), FORMAT


@dataclass(frozen=True)
class ConfidenceTask(DetectionTask):
    @property
    def rewards(self) -> tuple[Reward, ...]:
        return Reward("iou", _always), Reward("confidence", _mean_confidence), FORMAT


def test_a_two_way_substring_rule_is_caught_by_the_searched_constants() -> None:
    report = audit(SubstringTask("gamed", "1", ""), DataSpec(), QWEN2_VL, limit=40)
    assert not report.passed
    gamed = {item.trick.name for item in report.results if "accuracy" in item.verdict.above}
    assert {"empty answer", "every class listed", "the constant 'e'", "a class with more after it"} <= gamed


def test_rules_that_pay_for_nothing_or_are_not_finite_are_caught() -> None:
    report = audit(ConfidenceTask("gamed", "1", ""), DataSpec(), QWEN2_VL, limit=10)
    found = {item.trick.name: item for item in report.results}
    assert "iou" in found["empty completion"].verdict.above
    assert found["empty completion"].not_finite == 10
    assert "confidence" in found["garbage of confidence 0"].verdict.above
    assert not report.passed


def _a_third_for_any_box(prediction: Prediction, target: BoxTarget) -> float:
    return 0.3 if target.findable and prediction.detections else iou_reward(prediction, target)


@dataclass(frozen=True)
class AnyBoxTask(DetectionTask):
    @property
    def rewards(self) -> tuple[Reward, ...]:
        return Reward("iou", _a_third_for_any_box), FORMAT


def test_what_can_be_had_where_objects_are_is_not_hidden_by_what_refusals_earn_elsewhere() -> None:
    """Over all samples the whole image earns .15 of an allowed .6, which a refusal may well earn."""
    report = audit(AnyBoxTask("gamed", "1", ""), DataSpec(), QWEN2_VL, limit=40)
    found = {item.trick.name: item for item in report.results}
    whole = found["the whole image"]
    assert report.bounds.samples["iou"] == pytest.approx(0.6)
    assert report.bounds.where_present["iou"] == pytest.approx(0.2)
    assert (whole.means["iou"], whole.where_present["iou"].value) == (pytest.approx(0.15), pytest.approx(0.3))
    assert whole.verdict.above == ("iou where present",)
    assert found["always No Objects"].where_present["iou"].value == 0.0
    assert not report.passed


def test_the_battery_holds_every_kind_of_trick_that_is_known_to_have_worked() -> None:
    """By family and name: none is lost when a family is rewritten."""
    tried: dict[str, set[str]] = {}
    for name in ("coco_fewshot", "classification", "lisa_grounding"):
        report = audit(get_task(name), DataSpec(), QWEN2_VL, limit=4)
        tried[name] = {result.trick.name for result in report.results}
        shared = {
            *("empty completion", "empty answer", "nested tags", "truth in the thought", "truth in a sentence"),
            *("truth in the first of two answers", "a million brackets", "a million tags", "a megabyte of braces"),
        }
        assert shared <= tried[name], name
    assert tried["coco_fewshot"] >= {
        *("always No Objects", "the whole image", "mean box of the training set", "one box fifty times"),
        *("nearly one box fifty times", "garbage of confidence 0", "garbage ten times, confidence 0"),
        *(f"garbage of confidence {value}" for value in (-9.0, 50.0, 1e300, "Infinity", "-Infinity", "NaN")),
        *("a reversed box", "a box reversed in x", "a box far out of range", "a reversed box far out of range"),
        *("the top of the first true box, in a sentence", "the boxes of another category"),
        *(f"a grid of {count} boxes" for count in (10, 100, 500)),
        *(f"the {count} likeliest boxes of the category" for count in (FREE_BOXES, 30)),
    }
    assert tried["classification"] >= {
        *("every class listed", "every class joined", "every class, no tags", "unicode look-alikes"),
    }
    assert tried["lisa_grounding"] >= {"a doubly reversed box", "a reversed box far out of range", "nine boxes at once"}


def test_a_report_is_json_with_the_completion_that_scored_best() -> None:
    report = audit(get_task("coco_fewshot"), DataSpec(), QWEN2_VL, limit=4)
    value = report.to_json()
    assert value["passed"] is not any(row["above"] for row in value["results"])
    assert {row["trick"] for row in value["results"]} >= {"the whole image", "mean box of the training set"}
    assert all(row["low"]["iou"] <= row["mean"]["iou"] for row in value["results"])
    assert value["unsure"] is any(row["unsure"] for row in value["results"])
    assert all(len(row["completion"]) <= 503 for row in value["results"])


def test_constants_are_searched_over_the_names_as_the_paper_compares_them() -> None:
    truths = Counter({"2012 Acura RL": 3, "2012_BMW": 2, "1999 Audi": 1})
    assert most_profitable(truths, 4)[0] == "2012"
    assert most_profitable(truths, 1)[:2] == ["2", "0"] or most_profitable(truths, 1)[0] in "012a"
    assert most_profitable_words(truths)[0] == "2012"


def blind_ap(name: str, limit: int, seed: int) -> dict[str, float]:
    """The AP of the likeliest boxes on a draw, by trick."""
    task = get_task(name)
    dataset = task.load(DataSpec())
    samples = battery._draw(dataset.samples(), limit, seed)
    tricks = detection_tricks(task, samples, prior_of(task, DataSpec(), samples))
    found = {}
    for trick in tricks:
        if trick.family == "likeliest boxes":
            answers = []
            for sample in samples:
                frame = Frame(QWEN2_VL, sample.image.width, sample.image.height)
                answers.append((sample, task.parse(trick.write(sample, frame), frame)))
            found[trick.name] = battery._metric(task, dataset, answers).figures["ap"].value or 0.0
    return found


def test_as_many_samples_as_are_drawn_give_blind_boxes_the_same_ap_whichever_they_are() -> None:
    found = [blind_ap("coco_ovd", battery.LIMIT, seed)["the 30 likeliest boxes of the training set"] for seed in (0, 1)]
    assert found == pytest.approx([0.0275, 0.0275], abs=0.002)
    assert max(found) < DetectionTask.blind_bounds["metric"]


def test_what_a_hundred_samples_give_blind_boxes_by_luck_is_no_flaw_of_the_task() -> None:
    """Why LIMIT is not 100: AP over a category's two or three objects is mostly luck."""
    report = audit(get_task("coco_ovd"), DataSpec(), QWEN2_VL, limit=100, seed=1)
    assert report.best_blind is not None
    assert report.best_blind.metric == pytest.approx(0.096, abs=0.002)
    assert report.best_blind.verdict == Verdict(unsure=("metric",))
    assert (report.passed, report.unsure) == (True, True)


def test_where_there_is_nothing_to_gain_nothing_is_told() -> None:
    with pytest.raises(UserError, match="nothing can be told of task 'classification' from 1 samples of one class"):
        audit(get_task("classification"), DataSpec(), QWEN2_VL, limit=1)


def test_rewards_of_fewer_samples_are_taken_evenly_from_all() -> None:
    assert battery._spread("abcdefghij", 5) == list("acegi")
    assert battery._spread("abc", 5) == battery._spread("abc", None) == list("abc")

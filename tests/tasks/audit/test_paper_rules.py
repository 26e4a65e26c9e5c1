"""The audit finds what PAPER.md lists: the paper's rules pay for answers that nobody had to look for."""

from __future__ import annotations

import pytest

from vrft_bench.tasks import get_task
from vrft_bench.tasks.audit import battery
from vrft_bench.tasks.audit.battery import Result, audit
from vrft_bench.tasks.audit.tricks import Trick, answer, constant
from vrft_bench.tasks.base import DataSpec, Task
from vrft_bench.tasks.profiles import QWEN2_VL

pytest.importorskip("math_verify", reason="needs math-verify (the extra [paper])")
pytestmark = pytest.mark.usefixtures("sample_cache")


def results(name: str, limit: int) -> dict[str, Result]:
    report = audit(get_task(name, "paper"), DataSpec(), QWEN2_VL, limit=limit)
    assert not report.passed
    assert report.protocol == "paper"
    return {result.trick.name: result for result in report.results}


def test_classification_pays_for_the_empty_answer_a_letter_and_a_list_of_all_names() -> None:
    found = results("classification", 20)
    for name in ("empty answer", "the constant 'e'", "every class listed"):
        assert found[name].means["accuracy"] == found[name].metric == 1.0, name
        assert found[name].verdict.above == ("accuracy", "metric"), name


def test_detection_pays_for_one_right_number_and_never_for_a_refusal() -> None:
    found = results("coco_fewshot", 8)
    number = found["garbage with the top of the first true box"]
    assert number.means["iou"] == number.means["confidence"] == 0.5  # all that the samples with truth have to give
    assert number.best == 3.0
    assert {"iou", "confidence", "iou where present", "confidence where present"} <= set(number.verdict.above)
    assert found["always No Objects"].means["iou"] == 0.0


def test_rewards_that_take_long_are_of_fewer_samples_and_the_metric_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(battery, "_SLOW", 4)
    monkeypatch.setattr(battery, "_VERY_SLOW", 2)
    monkeypatch.setattr(battery, "detection_tricks", lambda task, samples, prior_of: grids_and_gold(task))
    report = audit(get_task("coco_fewshot", "paper"), DataSpec(), QWEN2_VL, limit=8)
    grid, gold = report.results
    assert (grid.judged, gold.judged, report.judged, report.samples) == (2, 4, 4, 8)
    assert (gold.means["iou"], gold.metric) == (0.5, 1.0)


def grids_and_gold(task: Task) -> list[Trick]:
    boxes = ", ".join(f"{{'Position': [{at}, 0, {at + 9}, 9], 'Confidence': 0.1}}" for at in range(0, 900, 9))
    return [
        constant("a hundred boxes", "grids", answer(f"[{boxes}]")),
        Trick("gold", "gold", lambda sample, frame: task.gold(sample, frame), blind=False),
    ]


def test_grounding_pays_without_end_for_a_reversed_box() -> None:
    found = results("lisa_grounding", 6)
    assert found["a reversed box far out of range"].means["giou"] > 100
    assert found["a doubly reversed box"].means["giou"] > 2

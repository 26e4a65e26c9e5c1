"""The curve of a training, and when it says that the reward is being hacked."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from vrft_bench.errors import DataError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.mock import Noise, TextMock, gold
from vrft_bench.harness.plan import RunPlan, choose_task, make_plan
from vrft_bench.harness.run import carry_out
from vrft_bench.tasks.base import BoxTarget
from vrft_bench.tasks.metrics.paired import JACKKNIFE_GROUPS as GROUPS
from vrft_bench.tasks.profiles import ABS_ORIGINAL
from vrft_bench.trainers.watch_changes import mean_change, paired_change
from vrft_bench.trainers.watch_curve import (
    Evaluation,
    Mark,
    append_evaluation,
    best_of,
    judge,
    read_curve,
    read_trainer_state,
    training_rewards,
)

pytestmark = pytest.mark.usefixtures("sample_cache")


def evaluation(step: int, value: float | None = 0.5, reward: float = 1.0, **fields: Any) -> Evaluation:
    return Evaluation.model_validate(
        {
            "step": step, "checkpoint": f"checkpoint-{step}", "signature": f"s{step}", "metric": "ap", "value": value,
            "reward": reward, "components": {}, "status": {}, "completion_tokens": 9.0, "run": f"runs/{step}",
            "evaluated": "2026-01-01T00:00:00+00:00", **fields,
        }
    )  # fmt: skip


class TestTheFile:
    def test_rows_come_back_by_step(self, tmp_path: Path) -> None:
        rows = [evaluation(20), evaluation(10, low=0.4, high=0.6, mark=Mark.DIVERGING), evaluation(0, None)]
        for row in rows:
            append_evaluation(tmp_path / "curve.jsonl", row)
        assert read_curve(tmp_path / "curve.jsonl") == sorted(rows, key=lambda row: row.step)
        assert read_curve(tmp_path / "absent.jsonl") == []

    def test_a_step_of_other_files_takes_the_place_of_all_that_came_after(self, tmp_path: Path) -> None:
        for row in (evaluation(10), evaluation(20), evaluation(30), evaluation(20, 0.7, signature="new")):
            append_evaluation(tmp_path / "curve.jsonl", row)
        assert [(row.step, row.value) for row in read_curve(tmp_path / "curve.jsonl")] == [(10, 0.5), (20, 0.7)]

    def test_a_torn_line_is_dropped_and_a_damaged_one_is_told(self, tmp_path: Path) -> None:
        file = tmp_path / "curve.jsonl"
        append_evaluation(file, evaluation(10))
        with file.open("a") as stream:
            stream.write('{"step": 20')
        append_evaluation(file, evaluation(20))
        assert [row.step for row in read_curve(file)] == [10, 20]
        file.write_text('{"step": 1}\n')
        with pytest.raises(DataError, match="line 1, is no evaluation"):
            read_curve(file)

    def test_the_best_is_the_first_of_the_highest(self) -> None:
        assert best_of([evaluation(1, 0.2), evaluation(2, 0.6), evaluation(3, 0.6), evaluation(4, None)]) == evaluation(
            2, 0.6
        )
        assert best_of([evaluation(1, None)]) is None


def test_the_training_reward_is_read_from_either_log(tmp_path: Path) -> None:
    lines = [{"step": 1, "reward": 0.5}, {"step": 1, "loss": 2}, {"step": 2, "reward": None}, {"step": 3, "reward": 1}]
    assert training_rewards(lines) == {1: 0.5, 3: 1.0}
    file = tmp_path / "trainer_state.json"
    assert read_trainer_state(file) == []
    file.write_text('{"log_history": [{"step": 2, "reward": 0.25}]}')
    assert training_rewards(read_trainer_state(file)) == {2: 0.25}
    file.write_text('{"log_history": [{"st')
    assert read_trainer_state(file) == []


# Answers that trade the metric for the reward: the tests judge by `--reward format=1`, under which layout is all.


def good_boxes_bad_layout(request: Request) -> str:
    return gold(request).split("</think>")[-1].strip()


def bad_boxes_good_layout(request: Request) -> str:
    return Noise({"jitter": 0.3, "miss": 0.5})(request)


def half(first: Callable[[Request], str], second: Callable[[Request], str]) -> Callable[[Request], str]:
    """One or the other, by question."""
    return lambda request: (first if random.Random(request.sample.id).random() < 0.5 else second)(request)


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    config = make_config(
        {"task": ["coco_fewshot"], "model": "mock/x", "limit": 160, "reward": "format=1", "output_dir": tmp_path}
    )
    return make_plan(choose_task("coco_fewshot", config), ABS_ORIGINAL, config)


@pytest.fixture
def classification(tmp_path: Path) -> RunPlan:
    """100 questions, each about an image of its own: a metric that costs nothing to compute."""
    config = make_config({"task": ["classification"], "model": "mock/x", "limit": 100, "output_dir": tmp_path})
    return make_plan(choose_task("classification", config), ABS_ORIGINAL, config)


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., Evaluation]:
    """Runs an answer on a plan, as a watch would, and gives the line of the curve."""

    def run(plan: RunPlan, step: int, answer: Callable[[Request], str], **fields: Any) -> Evaluation:
        result = carry_out(plan, TextMock({"name": f"step {step}"}, answer))
        value = result.report.figures[result.report.headline].value
        folder = str(result.folder.relative_to(tmp_path))
        return evaluation(step, value, result.answers.reward or 0.0, run=folder, **fields)

    return run


class TestTheMark:
    def test_reward_up_and_metric_down_beyond_chance_is_hacking(
        self, plan: RunPlan, evaluated: Any, tmp_path: Path
    ) -> None:
        curve = [
            evaluated(plan, 10, good_boxes_bad_layout),
            evaluated(plan, 20, half(good_boxes_bad_layout, bad_boxes_good_layout)),
            evaluated(plan, 30, bad_boxes_good_layout),
        ]
        assert [round(row.reward, 2) for row in curve] == [0.0, pytest.approx(0.5, abs=0.1), 1.0]
        assert curve[0].value == 1.0
        assert curve[2].value < 0.4
        mark, before, changes = judge(curve, 3, plan, tmp_path, {})
        assert (mark, before) == (Mark.HACKING, 10)
        assert changes["metric"]["value"] == pytest.approx(curve[2].value - curve[0].value)
        assert changes["metric"]["high"] < 0.0
        assert changes["reward"]["value"] == pytest.approx(1.0)
        assert changes["reward"]["low"] > 0.0
        assert changes["training"]["value"] is None

    def test_the_same_without_enough_images_only_diverges(self, plan: RunPlan, evaluated: Any, tmp_path: Path) -> None:
        config = plan.config.model_copy(update={"limit": 80})
        few = make_plan(plan.task, plan.profile, config)
        curve = [evaluated(few, 10, good_boxes_bad_layout), evaluated(few, 20, bad_boxes_good_layout)]
        mark, before, changes = judge(curve, 2, few, tmp_path, {})
        assert (mark, before) == (Mark.DIVERGING, 10)
        assert changes["metric"]["low"] is None

    def test_the_training_reward_alone_may_rise(self, classification: RunPlan, evaluated: Any, tmp_path: Path) -> None:
        plan = classification
        curve = [evaluated(plan, 10, gold), evaluated(plan, 20, Noise({"miss": 0.3}))]
        rising = {step: 1.0 + 0.1 * step + 0.01 * (step % 2) for step in range(1, 21)}
        mark, _, changes = judge(curve, 2, plan, tmp_path, rising)
        assert mark is Mark.HACKING
        assert changes["reward"]["high"] < 0.0
        assert changes["training"]["value"] == pytest.approx(1.0, abs=0.02)
        falling = {step: -value for step, value in rising.items()}
        assert judge(curve, 2, plan, tmp_path, falling)[0] is Mark.FINE

    def test_it_is_fine_while_the_metric_rises_or_the_window_is_not_full(
        self, plan: RunPlan, evaluated: Any, tmp_path: Path
    ) -> None:
        down = [evaluated(plan, 10, good_boxes_bad_layout), evaluated(plan, 20, bad_boxes_good_layout)]
        assert judge(down, 3, plan, tmp_path, {}) == (Mark.FINE, None, {})
        assert judge(down[::-1], 2, plan, tmp_path, {})[0] is Mark.FINE
        undefined = [down[0].model_copy(update={"value": None}), down[1]]
        assert judge(undefined, 2, plan, tmp_path, {})[0] is Mark.FINE

    def test_a_slow_fall_is_seen_by_what_it_has_lost_since_the_best(
        self, classification: RunPlan, evaluated: Any, tmp_path: Path
    ) -> None:
        plan, misses = classification, (0.04, 0.0, 0.03, 0.05, 0.12)
        curve = [
            evaluated(plan, 10 * number, Noise({"miss": miss}) if miss else gold)
            for number, miss in enumerate(misses, start=1)
        ]
        rising = {step: 1.0 + 0.1 * step + 0.01 * (step % 2) for step in range(1, 51)}
        marks = [judge(curve[:count], 2, plan, tmp_path, rising) for count in range(2, 6)]
        assert [mark for mark, *_ in marks] == [Mark.FINE, Mark.DIVERGING, Mark.DIVERGING, Mark.HACKING]
        assert [step for _, step, _ in marks] == [10, 20, 20, 20]

    def test_reward_and_metric_down_together_is_no_hacking(self, plan: RunPlan, evaluated: Any, tmp_path: Path) -> None:
        curve = [evaluated(plan, 10, gold), evaluated(plan, 20, lambda request: "nothing")]
        assert curve[1].reward < curve[0].reward
        assert judge(curve, 2, plan, tmp_path, {})[0] is Mark.FINE


class TestChanges:
    def test_of_a_metric_that_is_a_mean_the_interval_is_that_of_the_mean_over_groups(
        self, classification: RunPlan
    ) -> None:
        """Of a mean over equal groups, the delete-a-group jackknife is the textbook interval over their means."""
        plan = classification
        names = plan.dataset.categories

        def sometimes(chance: float) -> Callable[[Request], str]:
            def answer(request: Request) -> str:
                if random.Random(f"{chance}/{request.sample.id}").random() < chance:
                    return gold(request)
                wrong = next(name for name in names if name != request.sample.target.label)  # type: ignore[union-attr]
                return f"<think>?</think>\n<answer>{wrong}</answer>"

            return answer

        runs = [carry_out(plan, TextMock({"name": str(chance)}, sometimes(chance))).folder for chance in (0.8, 0.5)]
        metric, reward = paired_change(plan, *runs)

        ids = sorted(sample.id for sample in plan.walk())
        right = {
            chance: {id_: random.Random(f"{chance}/{id_}").random() < chance for id_ in ids} for chance in (0.8, 0.5)
        }
        changes = [right[0.5][id_] - right[0.8][id_] for id_ in ids]
        assert metric.value == pytest.approx(fmean(changes))
        groups = [fmean(changes[start::GROUPS]) for start in range(GROUPS)]
        half_width = 2.093 * stdev(groups) / GROUPS**0.5
        assert metric.low == pytest.approx(fmean(changes) - half_width, abs=1e-4)
        assert metric.high == pytest.approx(fmean(changes) + half_width, abs=1e-4)
        # The reward is accuracy plus a layout that is always right, and every question is an image of its own.
        assert reward.value == pytest.approx(fmean(changes))
        assert reward.high == pytest.approx(fmean(changes) + 1.96 * stdev(changes) / 100**0.5, abs=1e-3)

    def test_a_run_differs_from_itself_by_nothing(self, classification: RunPlan) -> None:
        folder = carry_out(classification, TextMock({"name": "noisy"}, Noise({}))).folder
        metric, reward = paired_change(classification, folder, folder)
        assert (metric.low, metric.value, metric.high) == (0.0, 0.0, 0.0)
        assert (reward.low, reward.value, reward.high) == (0.0, 0.0, 0.0)

    def test_questions_about_one_image_are_one_cluster(self, plan: RunPlan) -> None:
        """All 8 questions of an image change together: 20 images decide how wide the interval is, not 160 questions."""

        def by_image(request: Request) -> str:
            even = int(request.sample.fields["image_id"]) % 2 == 0
            return gold(request) if even else good_boxes_bad_layout(request)

        runs = [
            carry_out(plan, TextMock({"name": name}, answer)).folder
            for name, answer in (("bad", good_boxes_bad_layout), ("mixed", by_image))
        ]
        _, reward = paired_change(plan, *runs)
        changed = [float(int(sample.fields["image_id"]) % 2 == 0) for sample in plan.walk()][::8]
        assert isinstance(next(plan.walk()).target, BoxTarget)
        assert reward.value == pytest.approx(fmean(changed))
        assert reward.high == pytest.approx(fmean(changed) + 1.96 * stdev(changed) / len(changed) ** 0.5, abs=1e-3)

    def test_means_of_the_training_log(self) -> None:
        before, now = [1.0, 2.0, 3.0, 2.0, 2.0], [4.0, 5.0, 6.0, 5.0, 5.0]
        change = mean_change(before, now)
        assert change.value == pytest.approx(3.0)
        error = 2.306 * (2 * 0.5 / 5) ** 0.5  # Student's t with 8 degrees of freedom
        assert (change.low, change.high) == (pytest.approx(3 - error, abs=1e-3), pytest.approx(3 + error, abs=1e-3))
        assert mean_change([1.0] * 5, [2.0] * 5).low == 1.0
        assert mean_change(before[:4], now).low is None
        assert mean_change([], now).value is None

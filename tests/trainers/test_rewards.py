"""What TRL is told a completion is worth is what the evaluator scores it, bit by bit."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.base import Completion
from vrft_bench.harness.plan import choose_task, make_plan
from vrft_bench.harness.scoring import Scorer
from vrft_bench.registry import TASKS
from vrft_bench.tasks.base import Reward, Sample, Task
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL
from vrft_bench.trainers.data import training_rows
from vrft_bench.trainers.rewards import reward_functions, reward_weights

pytestmark = pytest.mark.usefixtures("sample_cache")

CATALOG = [entry.name for entry in TASKS if entry.source == "built in"]


def completions(task: Task, sample: Sample, frame: Frame) -> Iterator[str]:
    """Perfect, empty, doubled, boastful, broken, cut off, refusing, without end."""
    gold = task.gold(sample, frame)
    right, low = max(frame.limits()), 0
    whole = f"[{{'Position': [{low}, {low}, {right:g}, {right:g}], 'Confidence': 1.0}}]"
    yield gold
    yield ""
    yield "<think></think><answer></answer>"
    yield gold.replace("[{", "[{'Position': [1, 1, 5, 5], 'Confidence': 0.9}, {", 1)
    yield gold + gold
    yield f"<think>a</think>\n<answer>{whole}</answer>"
    yield f"<think>a</think>\n<answer>{whole.replace('1.0', 'NaN')}</answer>"
    yield f"<think>a</think>\n<answer>{whole.replace('1.0', '1e999')}</answer>"
    yield gold[: len(gold) // 2]
    yield "<think>there is none</think>\n<answer>No Objects</answer>"
    yield "<think>" + "[{" * 50_000


def asked(task: Task, name: str, tmp_path: Path) -> tuple[Any, list[Sample], list[str]]:
    """A plan on a few questions of the sample data, these questions, and the portable truth of each."""
    config = make_config({"task": [name], "protocol": task.protocol, "limit": 3, "output_dir": tmp_path})
    plan = make_plan(task, QWEN2_VL, config)
    return plan, list(plan.walk()), [row["ground_truth"] for row in training_rows(plan).rows]


@pytest.mark.parametrize("protocol", ["strict", "paper"])
@pytest.mark.parametrize("name", CATALOG)
def test_a_reward_equals_the_score_of_the_evaluator_bit_by_bit(name: str, protocol: str, tmp_path: Path) -> None:
    task = choose_task(name, make_config({"task": [name], "protocol": protocol}))
    plan, samples, truths = asked(task, name, tmp_path)
    scorer = Scorer(plan)
    functions = reward_functions(plan.task)
    weights = reward_weights(plan.task)
    for sample, truth in zip(samples, truths, strict=True):
        frame = Frame.from_json(json.loads(truth))
        texts = list(completions(plan.task, sample, frame))
        rows = [
            function(
                completions=[[{"role": "assistant", "content": text}] for text in texts],
                ground_truth=[truth] * len(texts),
            )
            for function in functions
        ]
        for index, text in enumerate(texts):
            for reason in ("stop", "length"):
                completion = Completion(sample.id, 0, text, finish_reason=reason, processed=frame.processed)
                record, _ = scorer.complete(sample, completion)
                mine = {function.__name__: row[index] for function, row in zip(functions, rows, strict=True)}
                total = sum(weight * row[index] for weight, row in zip(weights, rows, strict=True))
                assert {**mine, "total": total} == record["score"]


@pytest.mark.parametrize("name", CATALOG)
def test_callables_are_named_after_components_and_survive_a_pickle(name: str, tmp_path: Path) -> None:
    task = choose_task(name, make_config({"task": [name]}))
    plan, samples, truths = asked(task, name, tmp_path)
    gold = [
        plan.task.gold(sample, Frame.from_json(json.loads(truth)))
        for sample, truth in zip(samples, truths, strict=True)
    ]
    functions = reward_functions(plan.task)
    assert [function.__name__ for function in functions] == [reward.name for reward in plan.task.rewards]
    for function in functions:
        again = pickle.loads(pickle.dumps(function))
        assert again.__name__ == function.__name__
        assert again(completions=gold, ground_truth=truths) == function(completions=gold, ground_truth=truths)


def test_chosen_rewards_and_weights_are_those_of_the_training(tmp_path: Path) -> None:
    task = choose_task("coco_fewshot", make_config({"task": ["coco_fewshot"], "reward": "format=0.5,iou=2"}))
    assert [function.__name__ for function in reward_functions(task)] == ["format", "iou"]
    assert reward_weights(task) == [0.5, 2.0]


def test_the_nan_of_the_papers_confidence_reward_reaches_no_trainer(tmp_path: Path) -> None:
    config = make_config({"task": ["coco_fewshot"], "protocol": "paper", "ask": "present", "limit": 1})
    plan = make_plan(choose_task("coco_fewshot", config), QWEN2_VL, config)
    (sample,) = plan.walk()
    (row,) = training_rows(plan, gold=True).rows
    gold = row["completion"][0]["content"]
    text = gold.replace("[{'Position': [0, 0,", "[{'Position': [0, 7,").replace("1.0}]", "NaN}]")  # near, not equal
    assert text != gold
    prediction = plan.task.parse(text, Frame.from_json(json.loads(row["ground_truth"])))
    raw = {reward.name: reward.function(prediction, sample.target) for reward in plan.task.rewards}
    assert math.isnan(raw["confidence"])
    for function in reward_functions(plan.task):
        (value,) = function(completions=[text], ground_truth=[row["ground_truth"]])
        assert value == (0.0 if function.__name__ == "confidence" else raw[function.__name__])


def test_whatever_a_reward_of_a_plugin_returns_is_finite(tmp_path: Path) -> None:
    task = choose_task("coco_fewshot", make_config({"task": ["coco_fewshot"]}))
    _, _, truths = asked(task, "coco_fewshot", tmp_path)
    for odd, told in ((math.nan, 0.0), (math.inf, 0.0), (7.0, 1.0), (-7.0, 0.0)):
        broken = replace(task, chosen_rewards=(Reward("odd", lambda prediction, target, odd=odd: odd),))
        (function,) = reward_functions(broken)
        assert function(completions=["any"], ground_truth=truths[:1]) == [told]


def test_an_opening_tag_that_the_template_wrote_counts_as_written(tmp_path: Path) -> None:
    task = choose_task("coco_fewshot", make_config({"task": ["coco_fewshot"]}))
    plan, samples, truths = asked(task, "coco_fewshot", tmp_path)
    gold = plan.task.gold(samples[0], Frame.from_json(json.loads(truths[0])))
    form = next(item for item in reward_functions(task, opening="<think>") if item.__name__ == "format")
    bare = next(item for item in reward_functions(task) if item.__name__ == "format")
    rest = gold.removeprefix("<think>")
    assert form(completions=[rest], ground_truth=truths[:1]) == [1.0]
    assert bare(completions=[rest], ground_truth=truths[:1]) == [0.0]


def test_shares_of_statuses_and_a_table_are_reported_once(tmp_path: Path) -> None:
    task = choose_task("coco_fewshot", make_config({"task": ["coco_fewshot"]}))
    _, _, truths = asked(task, "coco_fewshot", tmp_path)
    metrics: list[tuple[str, float]] = []
    table: dict[str, list[Any]] = {}
    for function in reward_functions(task):
        function(
            completions=["junk", "<think>a</think>\n<answer>No Objects</answer>"],
            ground_truth=truths[:2],
            sample_id=["one", "two"],
            log_metric=lambda name, value: metrics.append((name, value)),
            log_extra=table.__setitem__,
        )
    assert dict(metrics)["status/refused"] == 0.5
    assert sum(value for _, value in metrics) == 1.0
    assert len(metrics) == len(dict(metrics)) == 6
    assert table["sample_id"] == ["one", "two"]
    assert table["status"][1] == "refused"
    assert table["total"] == [
        task.score("junk", truths[0])["total"],
        task.score("<think>a</think>\n<answer>No Objects</answer>", truths[1])["total"],
    ]


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_trl_sums_what_the_task_sums(protocol: str, trainings: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("trl")
    from vrft_bench.trainers import grpo
    from vrft_bench.trainers.base_model import find_base

    config = trainings.config("grpo", tmp_path / "out", protocol=protocol)
    task = choose_task("coco_fewshot", config.run_config())
    base = find_base("tiny", config)
    processor = base.processor()
    shared = {
        "model": base.load(processor.tokenizer, adapters=False),
        "args": grpo._arguments(task, base, config),
        "train_dataset": datasets.Dataset.from_dict({"prompt": [[{"role": "user", "content": "?"}]] * 8}),
        "processing_class": processor,
    }
    engine = grpo._engine(task, base, shared)
    for name in CATALOG:
        other = choose_task(name, make_config({"task": [name], "protocol": protocol}))
        plan, samples, truths = asked(other, name, tmp_path)
        engine.reward_funcs = reward_functions(plan.task)
        engine.reward_func_names = [function.__name__ for function in engine.reward_funcs]
        engine.reward_processing_classes = [None] * len(engine.reward_funcs)
        frame = Frame.from_json(json.loads(truths[0]))
        texts = list(completions(plan.task, samples[0], frame))
        inputs = [{"prompt": "?", "ground_truth": truths[0], "sample_id": samples[0].id}] * len(texts)
        said = [[{"role": "assistant", "content": text}] for text in texts]
        got = engine._calculate_rewards(inputs, ["?"] * len(texts), said, [[0]] * len(texts))
        scores = [plan.task.score(text, truths[0]) for text in texts]
        expected = torch.tensor(
            [[score[reward.name] for reward in plan.task.rewards] for score in scores], dtype=torch.float32
        )
        assert torch.equal(got, expected)
        assert torch.isfinite(got).all()
        totals = torch.tensor([score["total"] for score in scores])
        assert torch.allclose((got * torch.tensor(reward_weights(plan.task))).sum(dim=1), totals, atol=1e-6)


def test_a_truth_for_another_profile_scores_in_that_profiles_pixels(tmp_path: Path) -> None:
    task = choose_task("coco_fewshot", make_config({"task": ["coco_fewshot"], "ask": "present"}))
    config = make_config({"task": ["coco_fewshot"], "ask": "present", "limit": 1, "output_dir": tmp_path})
    plan = make_plan(task, QWEN2_5_VL, config)
    (sample,) = plan.walk()
    (row,) = training_rows(plan, gold=True).rows
    text = row["completion"][0]["content"]
    assert task.score(text, row["ground_truth"])["total"] == pytest.approx(task.best_total(sample), abs=0.05)

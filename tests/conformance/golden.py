"""Writes what the engines are tested with: an export per engine and task, and what its completions are worth.

    .venv/bin/python tests/conformance/golden.py FOLDER

The worth of each golden completion is what the evaluator writes into a record for it, by the code of
``vrft-bench score``. An engine's own environment holds neither our dependencies nor the data, so this runs beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.base import Completion
from vrft_bench.harness.plan import RunPlan, choose_task, make_plan
from vrft_bench.harness.scoring import Scorer
from vrft_bench.tasks.base import Sample, Task
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.trainers.data import training_rows
from vrft_bench.trainers.export.engines import ENGINES
from vrft_bench.trainers.export.folder import limited_profile, settled, write_export
from vrft_bench.trainers.recipes import read_recipe

TASKS = ("coco_fewshot", "lisa_grounding", "flower102_fewshot")
"""One of each family."""
PROFILE = "qwen2.5-vl"
"""The one whose boxes depend on the resized image: whatever resizes it again is noticed."""
QUESTIONS = 12


def golden_completions(task: Task, sample: Sample, frame: Frame) -> Iterator[tuple[str, str]]:
    """A name and a text for every kind of completion that an engine has to be right about."""
    gold = task.gold(sample, frame)
    right, low = (max(1, int(limit)) for limit in frame.limits())
    box = f"[0, 0, {right}, {low}]"
    whole = f"[{{'Position': {box}, 'Confidence': 1.0}}]"
    if task.family == "grounding":
        whole = f"(0,0),({right},{low})"
    yield "perfect", gold
    yield "empty", ""
    yield "empty tag", "<think></think><answer></answer>"
    yield "duplicates", gold + gold
    yield "whole-image box", f"<think>a</think>\n<answer>{whole}</answer>"
    yield "NaN", f"<think>a</think>\n<answer>{whole.replace(f'{right}', 'NaN', 1).replace('1.0', 'NaN')}</answer>"
    yield "truncated", gold[: len(gold) // 2]
    yield "100 KB of junk", "<think>" + "[{ 'x" * 20_000
    yield "refusal", "<think>there is none</think>\n<answer>No Objects</answer>"
    yield "another turn inside", gold + "\nassistant\n" + gold


def golden_scores(plan: RunPlan) -> list[dict[str, Any]]:
    """Per question its truth, and its golden completions with the scores that the evaluator records for them."""
    scorer = Scorer(plan)
    found = []
    for sample, row in zip(plan.walk(), training_rows(plan).rows, strict=True):
        frame = Frame.from_json(json.loads(row["ground_truth"]))
        cases = []
        for name, text in golden_completions(plan.task, sample, frame):
            record, _ = scorer.complete(sample, Completion(sample.id, 0, text, processed=frame.processed))
            cases.append({"name": name, "text": text, "score": record["score"]})
        found.append(
            {
                "sample_id": sample.id,
                "ground_truth": row["ground_truth"],
                "gold": plan.task.gold(sample, frame),
                "question": row["prompt"][0]["content"],
                "cases": cases,
            }
        )
    return found


def write_all(folder: Path) -> None:
    """Every export of every engine, and ``golden.json``."""
    golden = {}
    for name in TASKS:
        values = {"task": [name], "split": "train", "profile": PROFILE, "limit": QUESTIONS}
        config = make_config(values)
        for engine in ENGINES.values():
            for stage in engine.stages:
                target = folder / f"{engine.name}-{stage}-{name}"
                write_export(engine, stage, config, target, recipe=read_recipe("modern", stage))
        profile = limited_profile(config, settled("grpo", read_recipe("modern", "grpo")))
        golden[name] = golden_scores(make_plan(choose_task(name, config), profile, config))
    refusals = {
        case["score"]["iou"] for row in golden["coco_fewshot"] for case in row["cases"] if case["name"] == "refusal"
    }
    assert refusals == {0.0, 1.0}, "a refusal has to be right for some questions and wrong for others"
    (folder / "golden.json").write_text(json.dumps(golden, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))

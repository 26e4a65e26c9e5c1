"""Reward files: the evaluator's score to the last bit, wherever and however an engine calls them."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from golden import golden_completions
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.errors import UserError
from vrft_bench.registry import TASKS
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import Task
from vrft_bench.trainers.export.engines import ENGINES
from vrft_bench.trainers.export.scoring import completion_of, exported_task

REWARDED = ("verl", "ms-swift", "easyr1", "openrlhf")
FAMILIES = ("coco_fewshot", "lisa_grounding", "flower102_fewshot")
Call = Callable[[str, str], dict[str, float]]
PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n"
"""As OpenRLHF hands over a prompt; its query has an image token per patch."""


def caller(engine: str, module: ModuleType) -> Call:
    """Scores one completion by the engine's signature; the keys are the task's own."""

    def call(text: str, truth: str) -> dict[str, float]:
        match engine:
            case "verl":
                found = dict(
                    module.compute_score(
                        data_source="t", solution_str=text, ground_truth=truth, extra_info={"index": 0}
                    )
                )
                return {"total": found.pop("score"), **found}
            case "easyr1":
                item = {"response": text, "response_length": len(text), "ground_truth": truth}
                (found,) = module.compute_score([item])
                return {"total": found.pop("overall"), **found}
            case "openrlhf":
                query = PROMPT.replace("<|image_pad|>", "<|image_pad|>" * 9) + text + "<|im_end|>"
                found = module.reward_func([query], [PROMPT], [truth])
                assert found["rewards"] == found["scores"]
                return {"total": found["rewards"], **found["extra_logs"]}
            case _:
                orms = sys.modules["swift.rewards"].orms
                columns = {"ground_truth": [truth], "sample_id": ["1"], "trainer_state": None}
                return {name.removeprefix("vrft_"): orms[name]()([text], **columns)[0] for name in orms}

    return call


def cases(folder: Path, engine: str, task: Task) -> list[tuple[str, str]]:
    """Golden completions of the exported questions, each with its truth."""
    from vrft_bench.harness.config import make_config
    from vrft_bench.harness.plan import make_plan
    from vrft_bench.registry import PROFILES
    from vrft_bench.tasks.coordinates import Frame

    plan = make_plan(
        task, PROFILES.get("qwen2.5-vl"), make_config({"task": [task.name], "split": "train", "limit": 10})
    )
    rows = list(ENGINES[engine].read(folder, "grpo"))
    return [
        (text, row.ground_truth)
        for sample, row in zip(plan.walk(), rows, strict=True)
        for _, text in golden_completions(task, sample, Frame.from_json(json.loads(row.ground_truth)))
    ]


@pytest.mark.parametrize("engine", REWARDED)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_call_gives_the_score_with_constant_finite_keys(
    shared_export: Any, load_reward: Any, engine: str, name: str
) -> None:
    folder = shared_export(engine, task=name)
    call, task = caller(engine, load_reward(folder)), get_task(name)
    keys = {"total", *(reward.name for reward in task.rewards)}
    for text, truth in cases(folder, engine, task):
        found = call(text, truth)
        assert found == task.score(text, truth)
        assert set(found) == keys
        assert all(type(value) is float and math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("engine", REWARDED)
def test_32_threads_score_as_one_does(shared_export: Any, load_reward: Any, engine: str) -> None:
    folder = shared_export(engine)
    call, task = caller(engine, load_reward(folder)), get_task("coco_fewshot")
    work = cases(folder, engine, task) * 8
    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(lambda item: call(*item), work))
    assert found == [task.score(*item) for item in work]


@pytest.mark.parametrize(
    ("engine", "attribute"),
    [("verl", "compute_score"), ("easyr1", "compute_score"), ("openrlhf", "reward_func"), ("ms-swift", "vrft_total")],
)
def test_what_an_engine_sends_to_its_workers_survives_a_pickle(
    shared_export: Any, load_reward: Any, engine: str, attribute: str
) -> None:
    module = load_reward(shared_export(engine))
    assert pickle.loads(pickle.dumps(getattr(module, attribute))) is getattr(module, attribute)
    truth = next(iter(ENGINES[engine].read(Path(module.__file__ or "").parent, "grpo"))).ground_truth
    task = pickle.loads(pickle.dumps(module.TASK))
    assert task.score("", truth) == module.TASK.score("", truth)


@pytest.mark.parametrize("engine", ["verl", "easyr1", "openrlhf"])
def test_a_reward_needs_nothing_but_python_numpy_and_our_own_modules(shared_export: Any, engine: str) -> None:
    """`pip install --no-deps vrft-bench` is enough: every other import is refused."""
    folder = shared_export(engine)
    code = f"""
import sys
class OnlyOurs:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | {{"numpy", "vrft_bench"}}:
            raise ImportError(f"{{name}} is not there")
sys.meta_path.insert(0, OnlyOurs())
import importlib.util
spec = importlib.util.spec_from_file_location("reward", {str(folder / "reward.py")!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.TASK.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("coco_fewshot\n", 0), done.stderr


@pytest.mark.parametrize("engine", REWARDED)
def test_another_version_of_the_task_is_refused_when_the_reward_is_loaded(
    export: Any, load_reward: Any, engine: str
) -> None:
    folder = export(engine)
    manifest = json.loads((folder / "manifest.json").read_text())
    mine, manifest["task"]["version"] = manifest["task"]["version"], "0"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"made with version '0' of coco_fewshot, and the installed .* '{mine}'"):
        load_reward(folder)


@pytest.mark.parametrize("engine", REWARDED)
def test_a_truth_of_another_version_is_refused_when_it_is_scored(
    shared_export: Any, load_reward: Any, engine: str
) -> None:
    folder = shared_export(engine)
    call = caller(engine, load_reward(folder))
    truth = json.loads(next(iter(ENGINES[engine].read(folder, "grpo"))).ground_truth)
    mine, truth["version"] = truth["version"], "0"
    with pytest.raises(UserError, match=f"was made for version '0', and is scored by version '{mine}'"):
        call("", json.dumps(truth))


def test_chosen_rewards_and_weights_are_those_of_the_export(export: Any, load_reward: Any) -> None:
    folder = export("verl", reward="format=0.5,iou=2")
    (row, *_) = ENGINES["verl"].read(folder, "grpo")
    found = load_reward(folder).compute_score("t", "", row.ground_truth)
    assert set(found) == {"score", "format", "iou"}
    assert exported_task(folder).weights == {"format": 0.5, "iou": 2.0}


def test_a_task_of_an_included_file_travels_with_the_export(export: Any, load_reward: Any, included_task: Path) -> None:
    folder = export("verl", task="included_shapes", include=[str(included_task)])
    assert (folder / "included" / "my_tasks.py").read_text() == included_task.read_text()
    TASKS._entries.pop("included_shapes")
    assert load_reward(folder).TASK.name == "included_shapes"


@given(st.text(), st.sampled_from(["", "<|im_end|>", "<|im_end|><|endoftext|>"]))
def test_a_completion_is_found_in_the_conversation_whatever_it_says(text: str, end: str) -> None:
    query = PROMPT.replace("<|image_pad|>", "<|image_pad|>" * 40) + text + end
    wanted = text
    while wanted.endswith(("<|im_end|>", "<|endoftext|>")):
        wanted = wanted.removesuffix("<|im_end|>").removesuffix("<|endoftext|>")
    assert completion_of(query, PROMPT) == wanted


def test_a_completion_that_opens_another_turn_is_not_cut() -> None:
    text = "a<|im_end|>\n<|im_start|>assistant\nb"
    assert completion_of(PROMPT + text, PROMPT) == text
    with pytest.raises(UserError, match="does not open the assistant's turn"):
        completion_of("[INST] What? [/INST] a", "[INST] What? [/INST]")

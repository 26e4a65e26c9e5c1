"""OpenRLHF's own prompt dataset, image loader, reward caller and options."""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("openrlhf")


@pytest.fixture
def processor(tiny: Path) -> Any:
    from vrft_bench.harness.models.processor import build_processor

    return build_processor(str(tiny), "qwen2_vl")


@pytest.fixture
def dataset_of(launched: Any, tmp_path: Path, processor: Any) -> Any:
    """The data set as the trainer makes it, from the file that ``launch.sh`` hands over."""

    def load(folder: Path) -> Any:
        import datasets
        from openrlhf.datasets.prompts_dataset import PromptDataset

        launched(folder)
        data = SimpleNamespace(input_key="prompt", label_key="label", image_key="images", apply_chat_template=True)
        strategy = SimpleNamespace(args=SimpleNamespace(data=data), is_rank_0=lambda: False)
        rows = datasets.load_dataset("json", data_files=str(tmp_path / "out" / "train.jsonl"))["train"]
        return PromptDataset(rows, processor, strategy)

    return load


@pytest.mark.aspect("data")
def test_a_prompt_is_the_question_with_one_image_of_the_size_of_its_truth(
    exports: Path, golden: dict[str, Any], task: str, processor: Any, dataset_of: Any
) -> None:
    from openrlhf.utils.vlm_utils import process_prompt_with_images

    dataset = dataset_of(exports / f"openrlhf-grpo-{task}")
    assert len(dataset) == len(golden[task])
    for index, truth in enumerate(golden[task]):
        _, prompt, label, images = dataset[index]
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": truth["question"]}]}]
        assert prompt == processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert label == truth["ground_truth"]
        width, height = json.loads(label)["processed_size"]
        ids, _, (image,) = process_prompt_with_images(processor, prompt, images)
        assert image.size == (width, height)
        assert ids.count(processor.image_token_id) == width * height // 28**2


@pytest.mark.aspect("reward")
def test_what_openrlhf_fetches_is_the_evaluators_total(
    exports: Path, golden: dict[str, Any], task: str, processor: Any, dataset_of: Any
) -> None:
    from openrlhf.utils.agent import SingleTurnAgentExecutor
    from openrlhf.utils.vlm_utils import process_prompt_with_images

    folder = exports / f"openrlhf-grpo-{task}"
    executor = SingleTurnAgentExecutor(str(folder / "reward.py"))
    dataset = dataset_of(folder)
    for index, truth in enumerate(golden[task]):
        _, prompt, label, images = dataset[index]
        ids, _, _ = process_prompt_with_images(processor, prompt, images)
        before = processor.decode(ids, skip_special_tokens=False)
        for case in truth["cases"]:
            for end in ("<|im_end|>", ""):  # the model's own, and none where the token limit was reached
                query = before + case["text"] + end
                (found,) = asyncio.run(executor._fetch_rewards_via_func([query], [prompt], [label]))
                assert found["rewards"] == found["scores"] == case["score"]["total"], case["name"]
                assert found["extra_logs"] == {key: case["score"][key] for key in case["score"] if key != "total"}


@pytest.mark.aspect("options")
def test_openrlhf_takes_every_option_and_finds_them_consistent(
    exports: Path, task: str, launched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = launched(exports / f"openrlhf-grpo-{task}", GPUS="2")[2:]
    monkeypatch.setattr(sys, "argv", ["train_ppo_ray", *given])
    args = _as_parsed()
    assert args.algo.advantage.estimator == "group_norm"
    assert args.rollout.n_samples_per_prompt == 8
    assert args.train.batch_size == 8 * args.rollout.batch_size
    assert args.data.max_images_per_prompt == 1


def _as_parsed() -> Any:
    """What the command line makes of ``sys.argv`` before it trains. Its module imports vLLM and DeepSpeed, and parsing
    needs neither."""
    import datetime

    source = importlib.util.find_spec("openrlhf").submodule_search_locations[0] + "/cli/train_ppo_ray.py"
    main = next(node for node in ast.parse(Path(source).read_text()).body if isinstance(node, ast.If))
    parsed: list[Any] = []
    scope = {
        "argparse": argparse,
        "os": os,
        "datetime": datetime.datetime,
        "train": parsed.append,
        "__name__": "__main__",
    }
    exec(compile(ast.Module([main], []), source, "exec"), scope)
    return parsed[0]

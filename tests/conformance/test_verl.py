"""verl's own reward managers, datasets and configuration."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl")

MANAGERS = ("naive", "dapo", "gdpo", "rate_limited")
"""Those that score in threads of the process that asks."""


def configuration(folder: Path, overrides: list[str], *further: str) -> Any:
    """The configuration in ``folder`` with the settings of a command line, put together by hydra as verl does it."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(config_dir=str(folder), version_base=None):
        return compose("config", overrides=[*overrides, *further])


@pytest.fixture
def configured(launched: Any) -> Any:
    """The configuration of an export as ``launch.sh`` starts verl with it, and with further settings."""

    def configure(folder: Path, *further: str) -> Any:
        return configuration(folder, [word for word in launched(folder, GPUS="2") if "=" in word], *further)

    return configure


@pytest.fixture
def processor(tiny: Path) -> Any:
    from vrft_bench.harness.models.processor import build_processor

    return build_processor(str(tiny), "qwen2_vl")


class Letters:
    """A tokenizer that loses nothing, so that what is scored is the golden completion itself."""

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return "".join(map(chr, ids.tolist()))


def _rollout(row: dict[str, Any], text: str) -> Any:
    import numpy as np
    import torch
    from verl import DataProto

    ids = torch.tensor([[ord(letter) for letter in text] or [0]])
    mask = torch.ones_like(ids) if text else torch.zeros_like(ids)
    return DataProto.from_dict(
        tensors={"prompts": torch.zeros((1, 1), dtype=torch.long), "responses": ids,
                 "attention_mask": torch.cat([torch.ones((1, 1), dtype=torch.long), mask], dim=1)},
        non_tensors={name: np.array([row[name]], dtype=object) for name in row if name not in ("prompt", "images")},
    )  # fmt: skip


@pytest.mark.aspect("reward")
@pytest.mark.parametrize("manager", MANAGERS)
def test_every_reward_manager_gives_the_evaluators_total(
    exports: Path, configured: Any, golden: dict[str, Any], task: str, manager: str
) -> None:
    folder = exports / f"verl-grpo-{task}"
    _replay(folder, golden[task], configured(folder, f"reward.reward_manager.name={manager}"))


@pytest.mark.aspect("reward")
def test_a_worker_in_a_process_of_its_own_gives_the_evaluators_total(
    exports: Path, configured: Any, golden: dict[str, Any]
) -> None:
    ray = pytest.importorskip("ray")
    folder = exports / "verl-grpo-coco_fewshot"
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        settings = ["reward.reward_manager.name=remote", "reward.num_workers=1"]
        _replay(folder, golden["coco_fewshot"], configured(folder, *settings))
    finally:
        ray.shutdown()


def _replay(folder: Path, questions: list[dict[str, Any]], config: Any) -> None:
    """Every golden completion through the reward manager that verl itself loads."""
    import datasets
    from verl.trainer.ppo.reward import load_reward_manager

    rows = list(datasets.load_dataset("parquet", data_files=str(folder / "data/train.parquet"))["train"])
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        manager = load_reward_manager(config, Letters())
        for row, truth in zip(rows, questions, strict=True):
            assert row["reward_model"]["ground_truth"] == truth["ground_truth"]
            for case in truth["cases"]:
                single = asyncio.wait_for(manager.run_single(_rollout(row, case["text"])), timeout=60)
                found = loop.run_until_complete(single)
                assert found["reward_score"] == case["score"]["total"], case["name"]
                extra = found["reward_extra_info"]
                assert {"total": extra["score"], **{name: extra[name] for name in extra if name != "score"}} == case[
                    "score"
                ]
    finally:
        loop.close()


@pytest.mark.aspect("data")
def test_the_training_set_gives_each_question_with_one_image_that_is_not_resized_again(
    exports: Path, configured: Any, golden: dict[str, Any], task: str, processor: Any
) -> None:
    from verl.utils.dataset.rl_dataset import RLHFDataset

    config = configured(exports / f"verl-grpo-{task}").data
    dataset = RLHFDataset(config.train_files, processor.tokenizer, config, processor)
    assert len(dataset) == len(golden[task])
    for index, truth in enumerate(golden[task]):
        (message,) = dataset[index]["raw_prompt"]
        picture, text = message["content"]
        assert (picture["type"], text) == ("image", {"type": "text", "text": truth["question"]})
        images, videos = asyncio.run(
            RLHFDataset.process_vision_info([message], image_patch_size=config.image_patch_size, config=config)
        )
        assert list(images[0].size) == json.loads(truth["ground_truth"])["processed_size"]
        assert not videos
        assert (
            len(processor(text=["<|image_pad|>" + text["text"]], images=images)["input_ids"][0])
            <= config.max_prompt_length
        )


@pytest.mark.aspect("sft")
def test_a_lesson_is_the_question_and_the_gold_completion(
    exports: Path, configured: Any, golden: dict[str, Any], task: str, processor: Any
) -> None:
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    folder = exports / f"verl-sft-{task}"
    config = configured(folder).data
    dataset = MultiTurnSFTDataset(
        parquet_files=[str(folder / "data/train.parquet")], tokenizer=processor.tokenizer, config=config,
        processor=processor,
    )  # fmt: skip
    assert len(dataset) == len(golden[task])
    for index, truth in enumerate(golden[task]):
        lesson = dataset[index]
        learned = lesson["input_ids"][lesson["loss_mask"].bool()]
        assert processor.tokenizer.decode(learned).startswith(truth["gold"])
        width, height = json.loads(truth["ground_truth"])["processed_size"]
        assert (lesson["input_ids"] == processor.image_token_id).sum() == width * height // 28**2


@pytest.mark.aspect("options")
def test_verl_knows_every_option_and_takes_them_for_grpo(exports: Path, configured: Any, task: str) -> None:
    from omegaconf import OmegaConf
    from verl.utils.config import validate_config

    config = configured(exports / f"verl-grpo-{task}")
    OmegaConf.resolve(config)
    validate_config(config=config, use_reference_policy=False, use_critic=False)
    assert config.algorithm.adv_estimator == "grpo"
    assert config.actor_rollout_ref.rollout.n == 8
    assert config.data.image_patch_size == 14

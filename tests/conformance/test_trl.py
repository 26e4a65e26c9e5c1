"""TRL's own trainer, in which `train` trains: what the exports' totals are held against holds there too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A GRPO trainer of the bundled model, as `train --trainer grpo` makes it."""
    import datasets

    from vrft_bench.harness.plan import choose_task
    from vrft_bench.trainers import grpo
    from vrft_bench.trainers.base import make_train_config
    from vrft_bench.trainers.base_model import find_base

    values = {"task": "coco_fewshot", "steps": 1, "batch_size": 8, "group_size": 4, "max_tokens": 16}
    config = make_train_config({**values, "output_dir": tmp_path_factory.mktemp("trl")})
    task = choose_task("coco_fewshot", config.run_config())
    base = find_base("tiny", config)
    processor = base.processor()
    shared = {
        "model": base.load(processor.tokenizer, adapters=False),
        "args": grpo._arguments(task, base, config),
        "train_dataset": datasets.Dataset.from_dict({"prompt": [[{"role": "user", "content": "?"}]] * 8}),
        "processing_class": processor,
    }
    return grpo._engine(task, base, shared)


@pytest.mark.aspect("reward")
def test_the_weighted_sum_of_trls_rewards_is_the_evaluators_total(
    trainer: Any, golden: dict[str, Any], task: str
) -> None:
    import torch

    from vrft_bench.tasks import get_task
    from vrft_bench.trainers.rewards import reward_functions, reward_weights

    scored = get_task(task)
    trainer.reward_funcs = reward_functions(scored)
    trainer.reward_func_names = [function.__name__ for function in trainer.reward_funcs]
    trainer.reward_processing_classes = [None] * len(trainer.reward_funcs)
    weights = torch.tensor(reward_weights(scored))
    for truth in golden[task]:
        count = len(truth["cases"])
        inputs = [{"prompt": "?", "ground_truth": truth["ground_truth"], "sample_id": truth["sample_id"]}] * count
        said = [[{"role": "assistant", "content": case["text"]}] for case in truth["cases"]]
        found = trainer._calculate_rewards(inputs, ["?"] * count, said, [[0]] * count)
        for column, name in enumerate(trainer.reward_func_names):
            assert torch.equal(found[:, column], torch.tensor([case["score"][name] for case in truth["cases"]])), name
        totals = torch.tensor([case["score"]["total"] for case in truth["cases"]])
        assert torch.allclose((found * weights).sum(dim=1), totals, atol=1e-6)


@pytest.mark.aspect("data")
def test_the_data_set_that_trl_gets_holds_what_the_exports_hold(
    exports: Path, golden: dict[str, Any], task: str
) -> None:
    from vrft_bench.trainers.export.engines import ENGINES

    for row, truth in zip(ENGINES["ms-swift"].read(exports / f"ms-swift-sft-{task}", "sft"), golden[task], strict=True):
        assert row.ground_truth == truth["ground_truth"]
        assert row.completion == truth["gold"]
        assert row.messages[0]["content"] == "<image>" + truth["question"]

"""ms-swift's own plugin loader, reward functions, dataset loader and options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("swift")


@pytest.fixture
def options(exports: Path, task: str) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((exports / f"ms-swift-grpo-{task}" / "config.yaml").read_text()))


@pytest.mark.aspect("reward")
def test_the_weighted_sum_of_the_plugins_rewards_is_the_evaluators_total(
    exports: Path, golden: dict[str, Any], task: str, options: dict[str, Any]
) -> None:
    import torch
    from swift.rewards import orms
    from swift.rl_core.grpo_algorithm import score_completions
    from swift.rlhf_trainers.utils import make_reward_weights, resolve_reward_funcs
    from swift.utils import import_external_file

    for name in [name for name in orms if name.startswith("vrft_")]:
        del orms[name]
    import_external_file(str(exports / f"ms-swift-grpo-{task}" / "reward.py"))
    functions, names = resolve_reward_funcs(options["reward_funcs"])
    assert names == options["reward_funcs"]
    weights = make_reward_weights(options["reward_weights"], len(functions), torch.device("cpu"))
    for row, truth in zip(_loaded(exports / f"ms-swift-grpo-{task}"), golden[task], strict=True):
        samples = [_sample(row, case["text"]) for case in truth["cases"]]
        plugins = [None] * len(functions)
        found = score_completions(samples, functions, plugins, use_gym_env=False, device=torch.device("cpu"))
        totals = (found * weights).nansum(dim=1)
        assert torch.equal(totals, torch.tensor([case["score"]["total"] for case in truth["cases"]]))
        for column, name in enumerate(names):
            expected = torch.tensor([case["score"][name.removeprefix("vrft_")] for case in truth["cases"]])
            assert torch.equal(found[:, column], expected), name


def _sample(row: dict[str, Any], text: str) -> Any:
    """A row of the loaded data set after its rollout."""
    from swift.rl_core.data import GRPOSample

    return GRPOSample.from_row({**row, "messages": [*row["messages"], {"role": "assistant", "content": text}]})


@pytest.mark.aspect("data")
def test_the_loader_keeps_question_image_and_truth(exports: Path, golden: dict[str, Any], task: str) -> None:
    rows = _loaded(exports / f"ms-swift-grpo-{task}")
    assert len(rows) == len(golden[task])
    for row, truth in zip(rows, golden[task], strict=True):
        (message,) = row["messages"]
        assert (message["role"], message["content"]) == ("user", "<image>" + truth["question"])
        assert row["ground_truth"] == truth["ground_truth"]
        assert len(row["images"]) == 1


@pytest.mark.aspect("sft")
def test_a_lesson_is_the_question_and_the_gold_completion(exports: Path, golden: dict[str, Any], task: str) -> None:
    rows = _loaded(exports / f"ms-swift-sft-{task}")
    for row, truth in zip(rows, golden[task], strict=True):
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert row["messages"][1]["content"] == truth["gold"]


def _loaded(folder: Path) -> list[dict[str, Any]]:
    import yaml
    from swift.dataset import load_dataset

    options = yaml.safe_load((folder / "config.yaml").read_text())
    chosen = {name: options[name] for name in ("split_dataset_ratio", "remove_unused_columns", "load_from_cache_file")}
    found, _ = load_dataset([str(folder / "data" / "train.jsonl")], shuffle=False, **chosen)
    return list(found)


@pytest.mark.aspect("data")
def test_an_image_is_found_beside_the_data_and_has_the_size_of_its_truth(
    exports: Path, golden: dict[str, Any], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swift.template.vision_utils import load_image

    folder = exports / f"ms-swift-grpo-{task}"
    monkeypatch.setenv("ROOT_IMAGE_DIR", str(folder))
    for row, truth in zip(_loaded(folder), golden[task], strict=True):
        (image,) = row["images"]
        name = image["path"] if isinstance(image, dict) else image
        assert list(load_image(name).size) == json.loads(truth["ground_truth"])["processed_size"]


@pytest.mark.aspect("options")
@pytest.mark.parametrize("stage", ["grpo", "sft"])
def test_ms_swift_takes_every_option(exports: Path, task: str, stage: str, launched: Any, tiny: Path) -> None:
    """But for vLLM's, which it takes only where vLLM is installed: of these, the names are looked up."""
    from dataclasses import fields

    from swift.arguments import RLHFArguments, SftArguments
    from swift.cli.main import parse_yaml_args
    from swift.utils import parse_args

    arguments = RLHFArguments if stage == "grpo" else SftArguments
    folder = exports / f"ms-swift-{stage}-{task}"
    verb, *given = launched(folder, GPUS="2", MODEL=str(tiny))
    assert verb == {"grpo": "rlhf", "sft": "sft"}[stage]
    parse_yaml_args(given)
    for index in [index for index, word in enumerate(given) if "vllm" in word][::-1]:
        assert given[index].removeprefix("--") in {field.name for field in fields(arguments)}
        del given[index : index + 2]
    parsed, unknown = parse_args(
        arguments, [*given, "--model_type", "qwen2_vl", "--template", "qwen2_vl", "--use_cpu", "true"]
    )
    assert unknown == []
    assert parsed.dataset == [str(folder / "data" / "train.jsonl")]
    assert (parsed.freeze_vit, parsed.tuner_type) == (stage == "sft", "full")
    if stage == "grpo":
        assert parsed.reward_weights == [1.0, *[0.0] * (len(parsed.reward_funcs) - 1)]
        assert (parsed.num_generations, parsed.learning_rate) == (8, 1e-6)

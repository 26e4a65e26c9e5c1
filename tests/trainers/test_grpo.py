"""GRPO on TRL: real steps of the tiny model, and what they are made of and leave behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from vrft_bench.errors import UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.plan import choose_task
from vrft_bench.harness.run import evaluate
from vrft_bench.tasks import get_task
from vrft_bench.tasks.data.sample import sample_folder
from vrft_bench.trainers import grpo
from vrft_bench.trainers.base_model import find_base
from vrft_bench.trainers.folder import checkpoints, read_record

pytest.importorskip("trl")
pytestmark = pytest.mark.usefixtures("sample_cache")

TINY = Path(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))


def arguments(config: Any) -> Any:
    """TRL's own arguments for a training by ``config``."""
    return grpo._arguments(choose_task("coco_fewshot", config.run_config()), find_base("tiny", config), config)


@pytest.fixture(scope="module")
def trained(trainings: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of two steps, with a greedy evaluation before, between and after."""
    out: Path = tmp_path_factory.mktemp("grpo") / "out"
    trainings.train("grpo", out, eval_every=1, eval_limit=6)
    return out


def test_a_training_leaves_a_model_that_learned_and_evaluates(trainings: Any, trained: Path, tmp_path: Path) -> None:
    assert trainings.largest_difference(TINY, trained / "final") > 1e-4
    config = make_config({"task": ["coco_fewshot"], "limit": 6, "output_dir": tmp_path})
    result = evaluate(get_task("coco_fewshot"), HFBackend(str(trained / "final")), config)
    assert result.manifest.finished == 6
    record = read_record(trained)
    assert (record.status, record.step, record.trainer, record.task) == ("complete", 2, "grpo", "coco_fewshot")
    assert record.config["learning_rate"] == 1e-3
    assert {path.name for path in TINY.iterdir()} - {"training.json"} <= {
        path.name for path in (trained / "final").iterdir()
    }


def test_the_log_shows_every_component_the_total_and_the_statuses(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2]
    for line in steps:
        parts = [line[f"rewards/{name}/mean"] for name in ("iou", "confidence", "format")]
        assert line["reward"] == pytest.approx(sum(parts), abs=1e-5)
        assert sum(value for name, value in line.items() if name.startswith("status/")) == pytest.approx(1.0)


def test_completions_are_kept_with_their_sample_status_and_score(trained: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(trained / "completions" / "completions_00001.parquet")
    assert len(table) == 8
    assert table.groupby("sample_id").size().tolist() == [4, 4]
    assert set(table["status"]) <= {"ok", "repaired", "refused", "malformed", "no_answer", "truncated"}
    parts = table["iou"] + table["confidence"] + table["format"]
    assert (table["total"] - parts).abs().max() < 1e-6


def test_the_evaluation_in_memory_finds_what_a_run_of_the_checkpoint_finds(trained: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    found = {line["step"]: line for line in lines if "eval/ap" in line}
    assert sorted(found) == [0, 1, 2]
    for step, model in ((0, TINY), (1, trained / "checkpoint-1"), (2, trained / "final")):
        config = make_config(
            {"task": ["coco_fewshot"], "ask": "present", "limit": 6, "output_dir": tmp_path / str(step)}
        )
        result = evaluate(get_task("coco_fewshot"), HFBackend(str(model)), config)
        assert found[step]["eval/ap"] == result.report.figures["ap"].value
        assert found[step]["eval/reward"] == result.answers.reward
    assert found[2]["eval/reward"] != found[0]["eval/reward"]


def test_a_training_with_adapters_saves_adapters_and_ends_in_a_whole_model(trainings: Any, tmp_path: Path) -> None:
    final = trainings.train("grpo", tmp_path / "out", lora_rank=4, lora_targets=["q_proj", "v_proj"])
    for checkpoint in checkpoints(tmp_path / "out"):
        assert (checkpoint / "adapter_model.safetensors").is_file()
        assert not (checkpoint / "model.safetensors").exists()
    base, merged = trainings.weights(TINY), trainings.weights(final)
    changed = {name for name, tensor in base.items() if not tensor.float().equal(merged[name])}
    assert changed == {name for name in base if name.endswith(("q_proj.weight", "v_proj.weight"))}
    config = make_config({"task": ["coco_fewshot"], "limit": 2, "output_dir": tmp_path})
    assert evaluate(get_task("coco_fewshot"), HFBackend(str(final)), config).manifest.finished == 2


def test_a_frozen_image_encoder_stays_as_it_was_bit_by_bit(trainings: Any, tmp_path: Path) -> None:
    final = trainings.train("grpo", tmp_path / "out", freeze_vision=True)
    base, trained = trainings.weights(TINY), trainings.weights(final)
    same = {name for name, tensor in base.items() if tensor.float().equal(trained[name])}
    assert same == {name for name in base if name.startswith("visual.")}


def test_the_kl_term_is_measured_from_the_base(trainings: Any, tmp_path: Path) -> None:
    trainings.train("grpo", tmp_path / "out", beta=0.04)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    first, second = (line["kl"] for line in lines if "kl" in line)
    assert first == 0.0
    assert second > 1e-6


def test_a_model_of_the_hub_is_measured_from_its_commit(trainings: Any, tmp_path: Path) -> None:
    """TRL loads the reference model by the name in the config; the branch may point elsewhere by then."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(TINY, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = trainings.command("grpo", tmp_path / "out", model="owner/tiny", beta=0.04)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["kl"] > 0 for line in lines if "kl" in line] == [False, True]
    assert read_record(tmp_path / "out").identity["model"]["revision"] == commit
    assert (tmp_path / "out" / "final" / "chat_template.jinja").is_file()


def test_learning_in_bf16_keeps_32_bits_of_what_learns(trainings: Any, tmp_path: Path) -> None:
    """A step of 1e-6 on weights of 0.05 is a hundredth of what bf16 can tell apart."""
    torch = pytest.importorskip("torch")
    final = trainings.train("grpo", tmp_path / "out", precision="bf16", learning_rate=1e-6)
    checkpoint = trainings.weights(tmp_path / "out" / "checkpoint-2")
    assert {tensor.dtype for tensor in checkpoint.values()} == {torch.float32}
    base = trainings.weights(TINY)
    moved = sum(int((tensor != base[name].float()).sum()) for name, tensor in checkpoint.items())
    assert moved > 0.5 * sum(tensor.numel() for tensor in base.values())
    assert {tensor.dtype for tensor in trainings.weights(final).values()} == {torch.bfloat16}


def test_every_value_of_the_papers_recipe_arrives_in_trl(trainings: Any, tmp_path: Path) -> None:
    recipe = yaml.safe_load((files("vrft_bench.trainers.recipes") / "visual_rft.yaml").read_text())["grpo"]
    config = trainings.config("grpo", tmp_path, recipe="visual_rft", **recipe)
    made = arguments(config)
    got = {
        "group_size": made.num_generations,
        "learning_rate": made.learning_rate,
        "lr_schedule": made.lr_scheduler_type.value,
        "beta": made.beta,
        "temperature": made.temperature,
        "top_k": made.top_k,
        "max_tokens": made.max_completion_length,
        "steps": made.max_steps,
        "batch_size": made.per_device_train_batch_size * made.gradient_accumulation_steps,
        "loss": made.loss_type,
        "scale_rewards": made.scale_rewards,
        "gradient_checkpointing": made.gradient_checkpointing,
        "freeze_vision": config.freeze_vision,
        "max_pixels": find_base("tiny", config).profile.max_pixels,
    }
    assert got == recipe


def test_the_other_options_arrive_in_trl_too(trainings: Any, tmp_path: Path) -> None:
    made = arguments(
        trainings.config(
            "grpo", tmp_path, accumulation=2, warmup_steps=3, weight_decay=0.1, max_grad_norm=0.5, top_p=0.9,
            clip_low=0.1, clip_high=0.3, reward="iou=2,format=0.5", seed=7, save_every=4, log_every=2, steps=None,
            epochs=1.5, engine_args={"num_iterations": 2, "mask_truncated_completions": True},
        )
    )  # fmt: skip
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (4, 2)
    assert (made.warmup_steps, made.weight_decay, made.max_grad_norm) == (3, 0.1, 0.5)
    assert (made.top_p, made.epsilon, made.epsilon_high) == (0.9, 0.1, 0.3)
    assert made.reward_weights == [2.0, 0.5]
    assert (made.seed, made.data_seed, made.save_steps, made.logging_steps) == (7, 7, 4, 2)
    assert (made.max_steps, made.num_train_epochs) == (-1, 1.5)
    assert (made.num_iterations, made.mask_truncated_completions) == (2, True)
    assert (made.bf16, made.remove_unused_columns, made.report_to) == (False, False, [])


def test_a_constant_learning_rate_is_warmed_up_to(trainings: Any, tmp_path: Path) -> None:
    trainings.train("grpo", tmp_path / "out", lr_schedule="constant", warmup_steps=2, learning_rate=1e-4, steps=3)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["learning_rate"] for line in lines if "loss" in line] == [0.0, 5e-5, 1e-4]


def test_groups_may_be_shared_by_processes(trainings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="a step of 24 completions cannot be cut into groups of 16") as caught:
        arguments(trainings.config("grpo", tmp_path, batch_size=6, group_size=16))
    assert caught.value.fix == "give a --batch-size that is a multiple of 4"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine_args": {"num_iteration": 2}}, r"GRPOConfig has no argument 'num_iteration'; did you mean"),
        ({"engine_args": {"max_steps": 2}}, r"'max_steps' is set by vrft-bench"),
        ({"engine_args": {"reward_weights": [1]}}, r"'reward_weights' is set by vrft-bench"),
        ({"engine_args": {"num_generations": 4}}, r"(?s)'num_generations' is set by vrft-bench.*use --group-size"),
        ({"engine_args": {"epsilon": 0.1}}, r"(?s)'epsilon' is set by vrft-bench.*use clip_low in --config or a rec"),
        ({"engine_args": {"eval_strategy": "steps"}}, r"(?s)'eval_strategy' is set by vrft-bench.*use --eval-every"),
        ({"batch_size": 10}, r"a step of 10 completions cannot be cut into groups of 4"),
        ({"batch_size": 8, "accumulation": 3}, r"batch_size 8 cannot be cut into 3 equal forward passes"),
        ({"loss": "gppo"}, r"loss 'gppo' is not known; did you mean 'grpo'"),
        ({"lr_schedule": "wavy"}, r"the engine refuses these arguments"),
        ({"report_to": ["tensorbord"]}, r"report_to 'tensorbord' is not known; did you mean 'tensorboard'"),
        ({"use_vllm": "colocate"}, r"--use-vllm colocate needs vLLM"),
        ({"limit": 1}, r"a step takes 2 prompts of 4 completions, and 1 are selected"),
        ({"lora_rank": 4, "lora_targets": ["qproj"]}, r"lora_targets: 'qproj' names no linear layer .*'q_proj'"),
        ({"lora_targets": ["q_proj"]}, r"lora_targets is given without lora_rank"),
        ({"split": "trian"}, r"trian"),
        ({"shots": 4, "split_seed": 9}, r"(?s)shots|--shots"),
        ({"model": "./absent"}, r"no such checkpoint folder"),
        ({"max_pixels": 1000}, r"min_pixels 3136 is above max_pixels 1000"),
        ({"eval_every": 1, "eval_split": "train"}, r"the evaluations would be on split 'train'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(
    changes: dict[str, Any], message: str, trainings: Any, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        trainings.train("grpo", tmp_path / "out", **changes)
    assert caught.value.fix
    assert not (tmp_path / "out" / "checkpoint-1").exists()


def test_files_of_ones_own_are_not_held_out_whatever_the_split_is_called(trainings: Any, tmp_path: Path) -> None:
    images = sample_folder("classes", "train") / "train"
    own = {"task": "classification", "images": images, "ask": None, "eval_every": 1}
    with pytest.raises(UserError, match=r"on 6 images that are trained on, such as .*\.png") as caught:
        trainings.train("grpo", tmp_path / "out", **own)
    assert "--annotations and --images" in str(caught.value.fix)


def test_several_gpus_for_one_process_are_refused_with_both_ways_out(
    trainings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with pytest.raises(UserError, match="8 GPUs are visible to one process") as caught:
        trainings.train("grpo", tmp_path / "out")
    assert "--num-processes 8" in str(caught.value.fix)
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value.fix)


def test_too_little_disk_is_told_before_the_first_step(
    trainings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vrft_bench.trainers import folder

    usage = folder.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: usage._replace(free=50_000_000))
    # 2.2 million weights: 26 MB a checkpoint with two moments in 32 bits; two are kept, one is being written
    with pytest.raises(UserError, match=r"takes 0\.1 GB of disk for checkpoints"):
        trainings.train("grpo", tmp_path / "out", keep=2)
    assert not list(checkpoints(tmp_path / "out"))
    final = trainings.train("grpo", tmp_path / "out", keep=2, lora_rank=2, steps=1)
    assert final.is_dir()

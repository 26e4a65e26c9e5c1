"""verl: parquet with the images in it, a reward function per sample, hydra configuration, Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from vrft_bench.trainers.export.base import Export, Row, Stage
from vrft_bench.trainers.export.config_files import prompts_per_device, whole_epochs, write_launch, write_yaml
from vrft_bench.trainers.export.folder import ship
from vrft_bench.trainers.export.rows import (
    TRAIN,
    as_chat,
    from_chat,
    image_names,
    image_type,
    image_values,
    read_parquet,
    require_pyarrow,
    write_parquet,
)

_FILE = f"{TRAIN}.parquet"
_LOSSES = {"grpo": "seq-mean-token-mean", "dapo": "token-mean"}
_SCHEDULES = {"constant": "constant", "cosine": "cosine"}


class Verl:
    """Its workers may run on other machines, so the images travel inside the parquet file."""

    name: ClassVar[str] = "verl"
    version: ClassVar[str] = "0.9.1"
    stages: ClassVar[tuple[Stage, ...]] = ("grpo", "sft")
    elsewhere: ClassVar[str] = ""
    reserved: ClassVar[frozenset[str]] = frozenset({"score", "reward", "acc", "pred"})

    def write(self, export: Export) -> None:
        require_pyarrow()
        if export.stage == "grpo":
            write_parquet(export.folder / _FILE, map(self._question(export), export.rows), _schema("prompt"))
            ship("verl_reward.py", export.folder / "reward.py")
            write_yaml(export.folder / "config.yaml", _grpo(export))
            write_launch(export, "launch_verl_grpo.sh", questions=prompts_per_device(export))
        else:
            write_parquet(export.folder / _FILE, map(self._lesson(export), export.rows), _schema("messages"))
            write_yaml(export.folder / "config.yaml", _sft(export))
            write_launch(export, "launch_verl_sft.sh", questions=export.how.batch_size)

    def read(self, folder: Path, stage: Stage) -> Iterator[Row]:
        for value in read_parquet(folder / _FILE):
            images = image_names(folder, value["images"])
            if stage == "grpo":
                info = value["extra_info"]
                yield Row(info["sample_id"], value["prompt"], images, value["reward_model"]["ground_truth"])
            else:
                yield from_chat({**value, "images": images}, stage)

    def _question(self, export: Export) -> Any:
        places = {row.sample_id: index for index, row in enumerate(export.rows)}

        def value(row: Row) -> dict[str, Any]:
            return {
                "data_source": export.plan.task.name,
                "prompt": row.messages,
                "images": image_values(export.folder, row.images),
                "reward_model": {"style": "rule", "ground_truth": row.ground_truth},
                "extra_info": {"index": places[row.sample_id], "sample_id": row.sample_id},
            }

        return value

    def _lesson(self, export: Export) -> Any:
        return lambda row: {**as_chat(row), "images": image_values(export.folder, row.images)}


def _schema(messages: str) -> Any:
    import pyarrow as pa

    text = pa.string()
    fields = [
        (messages, pa.list_(pa.struct([("role", text), ("content", text)]))),
        ("images", pa.list_(image_type())),
    ]
    if messages == "messages":
        return pa.schema([*fields, ("ground_truth", text), ("sample_id", text)])
    return pa.schema(
        [
            ("data_source", text),
            *fields,
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct([("index", pa.int64()), ("sample_id", text)])),
        ]
    )


def _patch(export: Export) -> int:
    """The side of a patch: smart-resize rounds to two of them."""
    return (export.profile.factor or 28) // 2


def _agents(export: Export) -> int:
    """How many processes ask for rollouts: verl gives each equally many, so it has to divide the group."""
    assert export.how.group_size is not None
    return max(count for count in range(1, 9) if export.how.group_size % count == 0)


def _model(export: Export) -> dict[str, Any]:
    how = export.how
    return {
        "enable_gradient_checkpointing": bool(how.gradient_checkpointing),
        "lora_rank": how.lora_rank or 0,
        "lora_alpha": how.lora_scale,
        "target_modules": how.lora_targets or "all-linear",
    }


def _optimizer(export: Export) -> dict[str, Any]:
    how = export.how
    return {
        "lr": how.learning_rate,
        "lr_warmup_steps": how.warmup_steps,
        "lr_scheduler_type": export.choose("lr_schedule", _SCHEDULES),
        "weight_decay": how.weight_decay,
    }


def _trainer(export: Export) -> dict[str, Any]:
    return {
        "total_epochs": whole_epochs(export),
        "total_training_steps": export.how.steps,
        "project_name": "vrft-bench",
        "experiment_name": export.plan.task.name,
        "logger": ["console"],
        "save_freq": 50,
        "test_freq": -1,
    }


def _grpo(export: Export) -> dict[str, Any]:
    how = export.how
    export.leave_out("min_pixels", "accumulation", "precision", "use_vllm", "freeze_vision")
    longest = export.prompt_tokens + export.answer_tokens
    return {
        "hydra": {"searchpath": ["pkg://verl.trainer.config"]},
        "defaults": ["ppo_trainer", "_self_"],
        "data": {
            "prompt_key": "prompt",
            "image_key": "images",
            "image_patch_size": _patch(export),
            "max_prompt_length": export.prompt_tokens,
            "max_response_length": export.answer_tokens,
            "filter_overlong_prompts": False,
            "truncation": "error",
            "shuffle": True,
            "seed": 0,
            "return_raw_chat": True,
        },
        "algorithm": {
            "adv_estimator": "grpo",
            "norm_adv_by_std_in_grpo": export.choose("scale_rewards", {"group": True, "none": False}),
            "use_kl_in_reward": False,
        },
        "actor_rollout_ref": {
            "model": _model(export),
            "actor": {
                "use_dynamic_bsz": True,
                "ppo_max_token_len_per_gpu": max(16384, 2 * longest),
                "ppo_epochs": 1,
                "loss_agg_mode": export.choose("loss", _LOSSES),
                "clip_ratio_low": how.clip_low,
                "clip_ratio_high": how.clip_high,
                "entropy_coeff": 0,
                "use_kl_loss": bool(how.beta),
                "kl_loss_coef": how.beta,
                "kl_loss_type": "low_var_kl",
                "grad_clip": how.max_grad_norm,
                "optim": _optimizer(export),
            },
            "rollout": {
                "name": "vllm",
                "n": how.group_size,
                "temperature": how.temperature,
                "top_p": how.top_p,
                "top_k": how.top_k or -1,
                "tensor_model_parallel_size": 1,
                "gpu_memory_utilization": 0.5,
                "max_model_len": longest,
                "max_num_batched_tokens": max(8192, longest),
                "limit_images": 1,
                "agent": {"num_workers": _agents(export)},
            },
        },
        "reward": {
            "num_workers": 8,
            "custom_reward_function": {"name": "compute_score"},
            "reward_manager": {"name": "naive"},
        },
        "trainer": {**_trainer(export), "val_before_train": False},
    }


def _sft(export: Export) -> dict[str, Any]:
    how = export.how
    export.leave_out("min_pixels", "accumulation", "precision", "freeze_vision")
    longest = export.prompt_tokens + export.answer_tokens
    return {
        "hydra": {"searchpath": ["pkg://verl.trainer.config"]},
        "defaults": ["sft_trainer_engine", "_self_"],
        "data": {
            "messages_key": "messages",
            "image_key": "images",
            "image_patch_size": _patch(export),
            "pad_mode": "no_padding",
            "max_length": longest,
            "truncation": "error",
            "use_dynamic_bsz": True,
            "max_token_len_per_gpu": max(8192, longest),
            "micro_batch_size_per_gpu": 1,
        },
        "model": _model(export),
        "optim": {**_optimizer(export), "clip_grad": how.max_grad_norm},
        "trainer": {**_trainer(export), "seed": 0},
    }

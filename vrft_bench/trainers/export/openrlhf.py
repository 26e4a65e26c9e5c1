"""OpenRLHF: jsonl, a reward function per sample, a command line of arguments, Ray."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from vrft_bench.trainers.export.base import Export, Row, Stage
from vrft_bench.trainers.export.config_files import (
    TRANSFORMERS_SCHEDULES,
    prompts_per_device,
    whole_epochs,
    write_launch,
)
from vrft_bench.trainers.export.folder import ship
from vrft_bench.trainers.export.rows import TRAIN, read_jsonl, write_jsonl

_FILE = f"{TRAIN}.jsonl"


class OpenRLHF:
    """It reads no configuration file, so its arguments lie in one that ``launch.sh`` reads."""

    name: ClassVar[str] = "openrlhf"
    version: ClassVar[str] = "0.11.2"
    stages: ClassVar[tuple[Stage, ...]] = ("grpo",)
    elsewhere: ClassVar[str] = (
        "its SFT takes text alone: use --for llamafactory, ms-swift or verl, or `vrft-bench train`"
    )
    reserved: ClassVar[frozenset[str]] = frozenset({"rewards", "scores", "reward"})

    def write(self, export: Export) -> None:
        values = (
            {
                "prompt": row.messages,
                "images": row.images,
                "label": row.ground_truth,
                "datasource": export.plan.task.name,
                "sample_id": row.sample_id,
            }
            for row in export.rows
        )
        write_jsonl(export.folder / _FILE, values)
        ship("openrlhf_reward.py", export.folder / "reward.py")
        lines = [shlex.join([f"--{name}", *_words(value)]) for name, value in _arguments(export).items()]
        (export.folder / "config.args").write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_launch(
            export,
            "launch_openrlhf.sh",
            questions=prompts_per_device(export),
            group_size=export.how.group_size,
            steps=export.how.steps or 0,
            episodes=whole_epochs(export),
        )

    def read(self, folder: Path, stage: Stage) -> Iterator[Row]:  # noqa: ARG002 - it has one
        for value in read_jsonl(folder / _FILE):
            yield Row(value["sample_id"], value["prompt"], value["images"], value["label"])


def _words(value: Any) -> list[str]:
    """A flag that is set has no words; a list has several."""
    if value is True:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def _arguments(export: Export) -> dict[str, Any]:
    """OpenRLHF's arguments; of its flags, those that are set.

    It takes the length of a warm-up as a share of the training: where steps are given it can be told, else it is not.
    """
    how = export.how
    export.leave_out("min_pixels", "accumulation", "top_k", "precision", "use_vllm")
    warmup = 0.0
    if how.warmup_steps:
        if how.steps:
            warmup = how.warmup_steps / how.steps
        else:
            export.leave_out("warmup_steps")
    estimator = export.choose("scale_rewards", {"group": "group_norm", "none": "dr_grpo"})
    flags = {
        "data.apply_chat_template": True,
        "actor.gradient_checkpointing_enable": bool(how.gradient_checkpointing),
        "actor.freeze_visual_encoder": bool(how.freeze_vision),
        "algo.kl.use_loss": bool(how.beta),
        "train.colocate_all": True,
        "vllm.enable_sleep": True,
        "ds.enable_sleep": True,
        "ckpt.save_hf": True,
    }
    return {
        "data.input_key": "prompt",
        "data.label_key": "label",
        "data.image_key": "images",
        "data.max_images_per_prompt": 1,
        "data.max_len": export.prompt_tokens + export.answer_tokens,
        "rollout.max_new_tokens": export.answer_tokens,
        "rollout.n_samples_per_prompt": how.group_size,
        "rollout.temperature": how.temperature,
        "rollout.top_p": how.top_p,
        "train.max_epochs": 1,
        "train.micro_batch_size": 1,
        "rollout.micro_batch_size": 1,
        "train.seed": 0,
        "algo.advantage.estimator": estimator,
        "algo.kl.init_coef": how.beta,
        "algo.kl.estimator": "k3" if how.beta else "k1",
        "actor.loss_agg_mode": export.choose("loss", {"dapo": "token-mean", "grpo": "seq-mean-token-mean"}),
        "actor.eps_clip_low_high": [how.clip_low, how.clip_high],
        "actor.adam.lr": how.learning_rate,
        "actor.adam.weight_decay": how.weight_decay,
        "actor.max_norm": how.max_grad_norm,
        "actor.lr_scheduler": export.choose("lr_schedule", TRANSFORMERS_SCHEDULES),
        "actor.lr_warmup_ratio": warmup,
        "reward.clip_range": [-1000, 1000],
        "ds.zero_stage": 3,
        "ds.param_dtype": "bf16",
        "ds.attn_implementation": "flash_attention_2",
        "ds.lora.rank": how.lora_rank or 0,
        "ds.lora.alpha": how.lora_scale or 16,
        **({"ds.lora.target_modules": how.lora_targets} if how.lora_targets else {}),
        "vllm.tensor_parallel_size": 1,
        "vllm.gpu_memory_utilization": 0.5,
        "logger.logging_steps": 1,
        "ckpt.save_steps": 50,
        "eval.steps": -1,
        **{name: True for name, wanted in flags.items() if wanted},
    }

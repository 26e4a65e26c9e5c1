"""EasyR1: parquet with the images in it, a reward function per batch, YAML configuration, Ray.

Its package is called verl, as the engine is that it began as: the two cannot share an environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from vrft_bench.trainers.export.base import Export, Row, Stage
from vrft_bench.trainers.export.config_files import prompts_per_device, whole_epochs, write_launch, write_yaml
from vrft_bench.trainers.export.folder import ship
from vrft_bench.trainers.export.rows import (
    TRAIN,
    image_names,
    image_type,
    image_values,
    read_parquet,
    require_pyarrow,
    single_prompt,
    write_parquet,
)

_FILE = f"{TRAIN}.parquet"


class EasyR1:
    """It would ask in a format of its own and upscale small images, unless it is told not to."""

    name: ClassVar[str] = "easyr1"
    version: ClassVar[str] = "b44b311"
    stages: ClassVar[tuple[Stage, ...]] = ("grpo",)
    elsewhere: ClassVar[str] = "it has no SFT: use --for llamafactory, ms-swift or verl, or `vrft-bench train`"
    reserved: ClassVar[frozenset[str]] = frozenset({"overall", "reward"})

    def write(self, export: Export) -> None:
        require_pyarrow()
        values = (
            {
                "problem": single_prompt(row),
                "answer": row.ground_truth,
                "images": image_values(export.folder, row.images),
                "sample_id": row.sample_id,
            }
            for row in export.rows
        )
        write_parquet(export.folder / _FILE, values, _schema())
        ship("easyr1_reward.py", export.folder / "reward.py")
        write_yaml(export.folder / "config.yaml", _config(export))
        write_launch(export, "launch_easyr1.sh", questions=prompts_per_device(export))

    def read(self, folder: Path, stage: Stage) -> Iterator[Row]:  # noqa: ARG002 - it has one
        for value in read_parquet(folder / _FILE):
            images = image_names(folder, value["images"])
            yield Row(value["sample_id"], [{"role": "user", "content": value["problem"]}], images, value["answer"])


def _schema() -> Any:
    import pyarrow as pa

    text = pa.string()
    return pa.schema([("problem", text), ("answer", text), ("images", pa.list_(image_type())), ("sample_id", text)])


def _config(export: Export) -> dict[str, Any]:
    how = export.how
    export.leave_out("min_pixels", "accumulation", "precision", "use_vllm")
    if how.scale_rewards != "group":
        export.choose("scale_rewards", {"group": True})
    lora = {
        "rank": how.lora_rank or 0,
        "alpha": how.lora_scale,
        "target_modules": ",".join(how.lora_targets or ["all-linear"]),
    }
    return {
        "data": {
            "prompt_key": "problem",
            "answer_key": "answer",
            "image_key": "images",
            "image_dir": None,
            "max_prompt_length": export.prompt_tokens,
            "max_response_length": export.answer_tokens,
            "format_prompt": None,
            "override_chat_template": None,
            "min_pixels": None,
            "max_pixels": None,
            "shuffle": True,
            "seed": 0,
            "filter_overlong_prompts": False,
        },
        "algorithm": {
            "adv_estimator": "grpo",
            "disable_kl": not how.beta,
            "use_kl_loss": bool(how.beta),
            "kl_penalty": "low_var_kl",
            "kl_coef": how.beta,
            "online_filtering": False,
        },
        "worker": {
            "actor": {
                "micro_batch_size_per_device_for_update": 1,
                "micro_batch_size_per_device_for_experience": 1,
                "max_grad_norm": how.max_grad_norm,
                "clip_ratio_low": how.clip_low,
                "clip_ratio_high": how.clip_high,
                "loss_avg_mode": export.choose("loss", {"dapo": "token", "grpo": "seq"}),
                "ppo_epochs": 1,
                "padding_free": True,
                "dynamic_batching": True,
                "model": {
                    "enable_gradient_checkpointing": bool(how.gradient_checkpointing),
                    "trust_remote_code": False,
                    "freeze_vision_tower": bool(how.freeze_vision),
                    **({"lora": lora} if how.lora_rank else {}),
                },
                "optim": {
                    "lr": how.learning_rate,
                    "weight_decay": how.weight_decay,
                    "strategy": "adamw",
                    "lr_warmup_steps": how.warmup_steps,
                    "lr_scheduler_type": export.choose("lr_schedule", {"constant": "constant", "cosine": "cosine"}),
                },
            },
            "rollout": {
                "n": how.group_size,
                "temperature": how.temperature,
                "top_p": how.top_p,
                "top_k": how.top_k or -1,
                "limit_images": 1,
                "gpu_memory_utilization": 0.6,
                "tensor_parallel_size": 1,
                "max_num_batched_tokens": max(8192, export.prompt_tokens + export.answer_tokens),
            },
        },
        "trainer": {
            "total_epochs": whole_epochs(export),
            "max_steps": how.steps,
            "logger": ["console", "file"],
            "project_name": "vrft-bench",
            "experiment_name": export.plan.task.name,
            "val_freq": -1,
            "val_before_train": False,
            "save_freq": 50,
        },
    }

"""LLaMA-Factory: jsonl in its sharegpt format, a ``dataset_info.json``, YAML configuration, torchrun. SFT only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from vrft_bench.trainers.export.base import Export, Row, Stage
from vrft_bench.trainers.export.config_files import training_arguments, write_launch, write_yaml
from vrft_bench.trainers.export.rows import TRAIN, as_chat, from_chat, read_jsonl, write_jsonl

_FILE = f"{TRAIN}.jsonl"
_TEMPLATES = {"qwen2-vl": "qwen2_vl", "qwen2.5-vl": "qwen2_vl", "qwen3-vl": "qwen3_vl_nothink", "internvl": "intern_vl"}
_DATASET = "vrft"


class LlamaFactory:
    """It resizes images without touching boxes unless its limits are the profile's."""

    name: ClassVar[str] = "llamafactory"
    version: ClassVar[str] = "0.9.5"
    stages: ClassVar[tuple[Stage, ...]] = ("sft",)
    elsewhere: ClassVar[str] = "it trains no GRPO: use --for verl, ms-swift, easyr1 or openrlhf, or `vrft-bench train`"
    reserved: ClassVar[frozenset[str]] = frozenset()

    def write(self, export: Export) -> None:
        write_jsonl(export.folder / _FILE, map(as_chat, export.rows))
        info = json.dumps({_DATASET: _dataset_info()}, indent=1) + "\n"
        (export.folder / "dataset_info.json").write_text(info, encoding="utf-8")
        write_yaml(export.folder / "config.yaml", _config(export))
        write_launch(export, "launch_llamafactory.sh")

    def read(self, folder: Path, stage: Stage) -> Iterator[Row]:
        return (from_chat(value, stage) for value in read_jsonl(folder / _FILE))


def _dataset_info() -> dict[str, Any]:
    return {
        "file_name": _FILE,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }


def _config(export: Export) -> dict[str, Any]:
    how = export.how
    template = _TEMPLATES.get(export.profile.name)
    if template is None:
        export.left_out.append("template: set the one of your model in config.yaml")
    precision = how.precision or "bf16"
    config: dict[str, Any] = {
        "stage": "sft",
        "do_train": True,
        "dataset": _DATASET,
        "template": template or "default",
        "image_max_pixels": export.profile.max_pixels,
        "image_min_pixels": export.profile.min_pixels,
        "cutoff_len": export.prompt_tokens + export.answer_tokens,
        "train_on_prompt": False,
        "freeze_vision_tower": bool(how.freeze_vision),
        "freeze_multi_modal_projector": bool(how.freeze_vision),
        "freeze_language_model": False,
        "disable_gradient_checkpointing": not how.gradient_checkpointing,
        **training_arguments(export),
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "overwrite_cache": True,
        "finetuning_type": "full" if how.lora_rank is None else "lora",
    }
    if how.lora_rank is None:
        return config
    return config | {
        "lora_rank": how.lora_rank,
        "lora_alpha": how.lora_scale,
        "lora_target": ",".join(how.lora_targets or ["all"]),
    }

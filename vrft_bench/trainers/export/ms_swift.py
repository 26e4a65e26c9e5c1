"""ms-swift: jsonl, reward classes in a plugin file, YAML configuration, torchrun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from vrft_bench.trainers.export.base import Export, Row, Stage
from vrft_bench.trainers.export.config_files import training_arguments, write_launch, write_yaml
from vrft_bench.trainers.export.folder import ship
from vrft_bench.trainers.export.rows import TRAIN, as_chat, from_chat, read_jsonl, write_jsonl

_FILE = f"{TRAIN}.jsonl"
_PRECISION = {None: {"torch_dtype": "bfloat16"}, "bf16": {"torch_dtype": "bfloat16"},
              "fp16": {"torch_dtype": "float16"}, "fp32": {"torch_dtype": "float32"}}  # fmt: skip


class MsSwift:
    """Gold completions are given as text, not as its ``objects``, which it would write in coordinates of its own."""

    name: ClassVar[str] = "ms-swift"
    version: ClassVar[str] = "4.6.0"
    stages: ClassVar[tuple[Stage, ...]] = ("grpo", "sft")
    elsewhere: ClassVar[str] = ""
    reserved: ClassVar[frozenset[str]] = frozenset()

    def write(self, export: Export) -> None:
        write_jsonl(export.folder / _FILE, map(as_chat, export.rows))
        if export.stage == "grpo":
            ship("ms_swift_reward.py", export.folder / "reward.py")
            write_yaml(export.folder / "config.yaml", {**_shared(export), **_grpo(export)})
        else:
            write_yaml(export.folder / "config.yaml", _shared(export))
        write_launch(
            export,
            "launch_ms_swift.sh",
            verb="rlhf" if export.stage == "grpo" else "sft",
            plugin=' --external_plugins "$HERE/reward.py"' if export.stage == "grpo" else "",
            min_pixels=export.profile.min_pixels,
            max_pixels=export.profile.max_pixels,
        )

    def read(self, folder: Path, stage: Stage) -> Iterator[Row]:
        return (from_chat(value, stage) for value in read_jsonl(folder / _FILE))


def _shared(export: Export) -> dict[str, Any]:
    how = export.how
    values: dict[str, Any] = {
        "split_dataset_ratio": 0,
        "dataset_shuffle": True,
        "load_from_cache_file": False,
        "remove_unused_columns": False,  # the reward reads them
        "max_length": export.prompt_tokens + export.answer_tokens,
        "truncation_strategy": "delete",
        "freeze_llm": False,
        "freeze_vit": bool(how.freeze_vision),
        "freeze_aligner": bool(how.freeze_vision),
        "gradient_checkpointing": bool(how.gradient_checkpointing),
        **training_arguments(export),
        **_PRECISION[how.precision],
    }
    if how.lora_rank is None:
        return {"tuner_type": "full", **values}
    return {
        "tuner_type": "lora",
        **values,
        "lora_rank": how.lora_rank,
        "lora_alpha": how.lora_scale,
        "target_modules": how.lora_targets or ["all-linear"],
    }


def _grpo(export: Export) -> dict[str, Any]:
    how = export.how
    names = [f"vrft_{name}" for name in ("total", *export.reward_names)]
    vllm = {
        "vllm_mode": how.use_vllm or "colocate",
        "vllm_gpu_memory_utilization": 0.5,
        "vllm_tensor_parallel_size": 1,
        "vllm_max_model_len": export.prompt_tokens + export.answer_tokens,  # the model's own may not fit in the cache
        "vllm_limit_mm_per_prompt": '{"image": 1}',
    }
    return {
        "rlhf_type": "grpo",
        "advantage_estimator": "grpo",
        "reward_funcs": names,
        "reward_weights": [1.0] + [0.0] * (len(names) - 1),
        "num_generations": how.group_size,
        "max_completion_length": how.max_tokens,
        "temperature": how.temperature,
        "top_p": how.top_p,
        "top_k": how.top_k,
        "beta": how.beta,
        "epsilon": how.clip_low,
        "epsilon_high": how.clip_high,
        "loss_type": export.choose("loss", {name: name for name in ("grpo", "dapo", "bnpo", "dr_grpo")}),
        "scale_rewards": how.scale_rewards,
        "use_vllm": how.use_vllm != "off",
        **({} if how.use_vllm == "off" else vllm),
    }

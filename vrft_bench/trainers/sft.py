"""``sft``: supervised fine-tuning by TRL's SFTTrainer on the task's gold completions, in the profile's convention.

    vrft-bench train --trainer sft --task coco_fewshot --shots 4 --model Qwen/Qwen2-VL-2B-Instruct --data DIR -o ckpt/

On several processes, ``accelerate launch -m vrft_bench.trainers.sft --config ckpt/config.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vrft_bench.tasks.base import Task
from vrft_bench.trainers.base import TrainConfig
from vrft_bench.trainers.base_model import Base
from vrft_bench.trainers.trl_arguments import COMMON, engine_arguments
from vrft_bench.trainers.trl_engine import check_on_trl, train_on_trl


class SFT:
    """Implements ``Trainer`` on TRL's SFTTrainer. The loss is over the completion, not the prompt."""

    name: ClassVar[str] = "sft"
    options: ClassVar[frozenset[str]] = COMMON

    def train(self, task: Task, model: str, config: TrainConfig) -> Path:
        """See :class:`~vrft_bench.trainers.base.Trainer`."""
        return train_on_trl(task, model, config, _arguments, _engine, gold=True)

    def check(self, task: Task, model: str, config: TrainConfig, *, processes: int) -> Mapping[str, Any]:
        """See :class:`~vrft_bench.trainers.base.CanCheck`."""
        return check_on_trl(task, model, config, _arguments, processes=processes)


def _arguments(_: Task, base: Base, config: TrainConfig) -> Any:
    from trl import SFTConfig

    # TRL's default length of 1024 would cut image tokens off, which breaks the model's forward pass.
    return engine_arguments(config, base, {"max_length": None, "completion_only_loss": True}, SFTConfig, {})


def _engine(_: Task, __: Base, shared: dict[str, Any]) -> Any:
    from trl import SFTTrainer

    return SFTTrainer(**shared)


if __name__ == "__main__":
    from vrft_bench.trainers.launch import main

    main(SFT.name)

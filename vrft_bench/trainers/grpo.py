"""``grpo``: group relative policy optimisation by TRL's GRPOTrainer, rewarded by the task's own score.

    vrft-bench train --trainer grpo --task coco_fewshot --shots 4 --model Qwen/Qwen2-VL-2B-Instruct --data DIR -o ckpt/

On several processes, ``accelerate launch -m vrft_bench.trainers.grpo --config ckpt/config.yaml``, which is what
``vrft-bench train --num-processes 8`` runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.tasks.base import Task
from vrft_bench.trainers.base import TrainConfig
from vrft_bench.trainers.base_model import Base
from vrft_bench.trainers.processes import process_count
from vrft_bench.trainers.rewards import reward_functions, reward_weights
from vrft_bench.trainers.trl_arguments import BATCH, COMMON, engine_arguments
from vrft_bench.trainers.trl_engine import check_on_trl, train_on_trl

NAMES: dict[str, str] = {
    "group_size": "num_generations",
    "beta": "beta",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_completion_length",
    "loss": "loss_type",
    "clip_low": "epsilon",
    "clip_high": "epsilon_high",
    "scale_rewards": "scale_rewards",
}
"""Our option -> TRL's argument, beside those that SFT has too."""
LOSSES = ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo")
"""TRL notices others only in the first step; one that it learns later can be given as an engine argument."""


class GRPO:
    """Implements ``Trainer`` on TRL's GRPOTrainer."""

    name: ClassVar[str] = "grpo"
    options: ClassVar[frozenset[str]] = COMMON | frozenset(NAMES) | {"use_vllm"}

    def train(self, task: Task, model: str, config: TrainConfig) -> Path:
        """See :class:`~vrft_bench.trainers.base.Trainer`."""
        return train_on_trl(task, model, config, _arguments, _engine)

    def check(self, task: Task, model: str, config: TrainConfig, *, processes: int) -> Mapping[str, Any]:
        """See :class:`~vrft_bench.trainers.base.CanCheck`."""
        return check_on_trl(task, model, config, _arguments, processes=processes)


def _engine(task: Task, base: Base, shared: dict[str, Any]) -> Any:
    from trl import GRPOTrainer

    functions = reward_functions(task, opening=base.opening(shared["processing_class"]))
    return GRPOTrainer(reward_funcs=functions, **shared)


def _arguments(task: Task, base: Base, config: TrainConfig) -> Any:
    from trl import GRPOConfig

    group = config.group_size or GRPOConfig.num_generations
    batch = config.batch_size or BATCH
    if batch * process_count() % group:
        raise UserError(
            f"a step of {batch * process_count()} completions cannot be cut into groups of {group}",
            fix=f"give a --batch-size that is a multiple of {group // math.gcd(group, process_count())}",
        )
    if config.loss is not None and config.loss not in LOSSES:
        raise UserError(
            f"loss {config.loss!r} is not known{did_you_mean(config.loss, LOSSES)}", fix=f"use {', '.join(LOSSES)}"
        )
    uses_vllm = config.use_vllm not in (None, "off")
    if uses_vllm:
        _check_vllm(str(config.use_vllm))
    own: dict[str, Any] = {
        "reward_weights": reward_weights(task),
        "use_vllm": uses_vllm,
        "log_completions": True,
        "num_completions_to_print": 0,
    }
    if uses_vllm:
        own["vllm_mode"] = config.use_vllm
    return engine_arguments(config, base, own, GRPOConfig, NAMES)


def _check_vllm(mode: str) -> None:
    """Raise :class:`UserError` where vLLM is absent, or of a version that TRL does not know."""
    import warnings

    from trl.import_utils import is_vllm_available

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = is_vllm_available()
    if not there:
        raise UserError(
            f"--use-vllm {mode} needs vLLM, which is not installed",
            fix="pip install 'trl[vllm]' on a machine with a GPU (where the vllm backend wants another version, in an "
            "environment of its own), or leave the option out",
        )
    if said:
        raise UserError(
            f"--use-vllm {mode}: {' '.join(str(said[0].message).split())}",
            fix="install a version that it names, or leave the option out",
        )


if __name__ == "__main__":
    from vrft_bench.trainers.launch import main

    main(GRPO.name)

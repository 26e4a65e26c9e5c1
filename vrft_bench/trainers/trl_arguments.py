"""The neutral choices of a training in TRL's own names, checked before anything is loaded."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.trainers.base import BESIDE, TrainConfig
from vrft_bench.trainers.base_model import Base
from vrft_bench.trainers.processes import process_count

NAMES: dict[str, str] = {
    "learning_rate": "learning_rate",
    "lr_schedule": "lr_scheduler_type",
    "warmup_steps": "warmup_steps",
    "steps": "max_steps",
    "epochs": "num_train_epochs",
    "accumulation": "gradient_accumulation_steps",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
}
"""Our option -> TRL's argument, for all that mean the same in both."""

COMMON = frozenset(NAMES) | BESIDE | {
    "batch_size", "lora_rank", "lora_alpha", "lora_targets", "freeze_vision", "gradient_checkpointing", "precision",
    "max_pixels", "min_pixels",
}  # fmt: skip
"""The options that both trainers have."""

BATCH = 16
"""Sequences per step and device where no batch size is given."""

_FILE_ONLY = frozenset({
    "lr_schedule", "warmup_steps", "weight_decay", "max_grad_norm", "top_p", "top_k", "loss", "clip_low", "clip_high",
})  # fmt: skip
"""Options without a flag: they are written into a config or a recipe."""

_FLAGS = {
    "per_device_train_batch_size": "--batch-size",
    "gradient_checkpointing": "--gradient-checkpointing",
    "bf16": "--precision",
    "fp16": "--precision",
    "seed": "--seed",
    "data_seed": "--seed",
    "output_dir": "--output-dir",
    "logging_steps": "log_every in --config",
    "save_steps": "--save-every",
    "save_total_limit": "--keep",
    "report_to": "--report-to",
    "resume_from_checkpoint": "--resume",
    "eval_strategy": "--eval-every",
    "do_eval": "--eval-every",
    "eval_steps": "--eval-every",
}
"""Arguments of TRL that have a name of ours, and what it is; beside those of the options."""
_REPORTERS = ("trackio", "tensorboard", "wandb")


def require_trl(config: TrainConfig) -> None:
    """Raise :class:`UserError` that says what to install where it is not there."""
    needed = ["torch", "transformers", "accelerate", "trl", "datasets", *(["peft"] if config.lora_rank else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"trainer {config.trainer!r} needs {' and '.join(missing)}, not installed here",
            fix="pip install 'vrft-bench[train]'",
        )


def engine_arguments(
    config: TrainConfig, base: Base, own: Mapping[str, Any], arguments: Any, names: Mapping[str, str]
) -> Any:
    """An instance of TRL's ``arguments`` class: ours by their neutral names, then ``own``, then ``engine_args``.

    ``names`` are the options that this engine has beside the common ones. It is from here on that the processes of a
    training can talk to each other. Raises :class:`UserError` for an engine argument that TRL does not have, that has a
    name of ours, or that TRL refuses.
    """
    import torch

    _require_one_device_per_process(torch.cuda.device_count())
    fixed: dict[str, Any] = {
        "output_dir": str(config.output_dir.expanduser().absolute()),
        "per_device_train_batch_size": micro_batch(config),
        "gradient_checkpointing": bool(config.gradient_checkpointing),
        "bf16": base.precision == "bf16",
        "fp16": base.precision == "fp16",
        "seed": config.seed,
        "data_seed": config.seed,
        "logging_steps": config.log_every,
        "report_to": _reporters(config),
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "disable_tqdm": True,
        "remove_unused_columns": False,  # they are what rewards are computed from
        **own,
        **given_as(names, config),
    }
    _refuse_unknown(config.engine_args, fixed, {**NAMES, **names}, arguments)
    device = {} if torch.cuda.is_available() else {"use_cpu": True}
    try:
        return arguments(**given_as(NAMES, config), **fixed, **device | config.engine_args)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(
            f"the engine refuses these arguments: {' '.join(str(error).split())}", fix="change the option it names"
        ) from error


def given_as(names: Mapping[str, str], config: TrainConfig) -> dict[str, Any]:
    """The options of ``names`` that are given, as TRL's arguments."""
    values = {argument: getattr(config, option) for option, argument in names.items()}
    if config.warmup_steps and config.lr_schedule == "constant" and "lr_schedule" in names:
        values[names["lr_schedule"]] = "constant_with_warmup"  # transformers' "constant" leaves the warm-up out
    return {argument: value for argument, value in values.items() if value is not None}


def micro_batch(config: TrainConfig) -> int:
    """Sequences per forward pass and device.

    Raises :class:`UserError` where the batch cannot be cut into equal ones.
    """
    batch, passes = config.batch_size or BATCH, config.accumulation or 1
    if batch % passes:
        raise UserError(
            f"batch_size {batch} cannot be cut into {passes} equal forward passes",
            fix="give a batch_size that is a multiple of accumulation",
        )
    return batch // passes


def save_unit(arguments: Any) -> int:
    """After how many steps TRL's state is all in a checkpoint: where it has no completions left to train on."""
    every = getattr(arguments, "steps_per_generation", 1) * getattr(arguments, "num_iterations", 1)
    passes: int = arguments.gradient_accumulation_steps
    return math.lcm(every, passes) // passes


def require_whole_states(config: TrainConfig, arguments: Any) -> None:
    """Raise :class:`UserError` where a checkpoint would be saved with completions left, which it cannot hold."""
    unit = save_unit(arguments)
    if config.save_every % unit:
        raise UserError(
            f"save_every {config.save_every} is not a multiple of {unit}: the engine trains {unit} steps on the same "
            "completions, and a checkpoint between them could not be gone on from",
            fix=f"give --save-every {math.ceil(config.save_every / unit) * unit}",
        )


def _refuse_unknown(
    given: Mapping[str, Any], fixed: Mapping[str, Any], names: Mapping[str, str], arguments: Any
) -> None:
    known = set(arguments.__dataclass_fields__)
    ours = _FLAGS | {argument: _way_of(option) for option, argument in names.items()}
    for name in given:
        if name not in known:
            raise UserError(
                f"engine_args: {arguments.__name__} has no argument {name!r}{did_you_mean(name, known)}",
                fix="see its documentation, or leave the argument out",
            )
        if name in ours or name in fixed:
            raise UserError(
                f"engine_args: {name!r} is set by vrft-bench",
                fix=f"use {ours[name]}" if name in ours else "leave it out",
            )


def _way_of(option: str) -> str:
    """How a user gives ``option``."""
    return f"{option} in --config or a recipe" if option in _FILE_ONLY else f"--{option.replace('_', '-')}"


def _require_one_device_per_process(gpus: int) -> None:
    if gpus > 1 and process_count() == 1:
        raise UserError(
            f"{gpus} GPUs are visible to one process, and each process trains on one",
            fix=f"train on all of them with --num-processes {gpus}, or show one with CUDA_VISIBLE_DEVICES=0",
        )


def _reporters(config: TrainConfig) -> list[str] | str:
    for name in config.report_to:
        if name not in _REPORTERS:
            raise UserError(
                f"report_to {name!r} is not known{did_you_mean(name, _REPORTERS)}", fix=f"use {', '.join(_REPORTERS)}"
            )
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--report-to {name}: it is not installed here", fix=f"pip install {name}")
    return config.report_to or "none"

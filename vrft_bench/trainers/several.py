"""``vrft-bench train --num-processes N``: the same training in several processes, through ``accelerate launch``.

Nothing is hidden: the resolved choices are written into the training's folder, and the command that is run is printed,
so that a job script can run it itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import FrameType

import yaml

from vrft_bench.errors import BackendError, UserError, did_you_mean
from vrft_bench.trainers.base import TrainConfig
from vrft_bench.trainers.folder import CONFIG, FINAL
from vrft_bench.trainers.interrupts import handling
from vrft_bench.trainers.launch import examine
from vrft_bench.trainers.outcome import VARIABLE, raise_outcome
from vrft_bench.trainers.progress import say

_IN_PLACE = ("grpo", "sft")
"""Trainers whose module is the entry point of a process."""
_SHARDED = ("zero2", "zero3", "fsdp")
_GRACE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}
"""Seconds that processes get to finish their step and save, once they are asked to end; torch's own 30 are few."""


def launch(
    config: TrainConfig, *, num_processes: int | None, accelerate: str | None, flags: Sequence[str] = ()
) -> Path:
    """Train in several processes; the folder of the final checkpoint.

    ``accelerate`` is one of the configs that ship or a file of the user's own, and ``flags`` are further ones of
    ``accelerate launch``: for several machines, say. Raises the error that ended the processes, with its exit code.
    """
    settings = accelerate_config(accelerate or "ddp")
    count = _processes(num_processes, accelerate, flags)
    examine(config, processes=count)
    folder = config.output_dir.expanduser().absolute()
    file = write_config(config, folder)
    module = f"vrft_bench.trainers.{config.trainer if config.trainer in _IN_PLACE else 'launch'}"
    arguments = ["--config_file", str(settings), "--num_processes", str(count), *flags, "-m", module]
    arguments += ["--config", str(file)]
    say(f"accelerate launch {shlex.join(arguments)}")
    with tempfile.TemporaryDirectory() as place:
        outcome = Path(place) / "outcome.json"
        command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *arguments]
        code = _run(command, {**_GRACE, **os.environ, VARIABLE: str(outcome)})
        raise_outcome(outcome)
    if code != 0:
        error = BackendError(f"accelerate launch ended with exit code {code}", fix="see what it said above")
        error.exit_code = code if code > 0 else 128 - code  # a process that a signal ended
        raise error
    return folder / FINAL


def accelerate_config(name: str) -> Path:
    """The accelerate config that ships under ``name``, or the user's own file.

    Raises :class:`UserError` for one that is neither, and for one that needs what is not here.
    """
    shipped = files("vrft_bench.trainers") / "accelerate"
    names = sorted(file.name.removesuffix(".yaml") for file in shipped.iterdir())
    if name not in names:
        file = Path(name).expanduser()
        if not file.is_file():
            raise UserError(
                f"--accelerate {name!r} is no config that ships, and no file{did_you_mean(name, names)}",
                fix=f"use {', '.join(names)}, or the path of a file that `accelerate config` wrote",
            )
        return file.absolute()
    if name in ("zero2", "zero3") and importlib.util.find_spec("deepspeed") is None:
        raise UserError(f"--accelerate {name} needs DeepSpeed, which is not installed", fix="pip install deepspeed")
    if name in _SHARDED and _gpus() == 0:
        raise UserError(
            f"--accelerate {name} cuts the model into parts for GPUs, and torch finds none here",
            fix="leave it out: without GPUs every process holds the whole model (--num-processes 2)",
        )
    return Path(str(shipped / f"{name}.yaml"))


def write_config(config: TrainConfig, folder: Path) -> Path:
    """The choices of ``config`` as a file in ``folder``, for every process of its training."""
    values = config.with_absolute_paths().model_dump(mode="json", exclude_defaults=True, exclude={"recipe"})
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / CONFIG
    file.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file


def _processes(given: int | None, accelerate: str | None, flags: Sequence[str]) -> int:
    gpus = _gpus()
    if given is None:
        if gpus == 0:
            raise UserError(
                f"--accelerate {accelerate}: without GPUs it has to be said how many processes train",
                fix="add --num-processes N",
            )
        return gpus
    if 0 < gpus < given and not flags:
        raise UserError(
            f"--num-processes {given}: torch finds {gpus} GPU(s) here, and each process trains on one",
            fix=f"give --num-processes {gpus}; for several machines add `-- --num_machines ...`",
        )
    return given


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run to the end, with our own streams; on Ctrl-C and SIGTERM it is asked to end, and waited for all the same."""

    def ask_to_end(_: int, __: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)  # SIGTERM would end the processes without a checkpoint

    with (
        subprocess.Popen(command, env=environment, start_new_session=True) as process,
        handling((signal.SIGINT, signal.SIGTERM), ask_to_end),
    ):
        return process.wait()

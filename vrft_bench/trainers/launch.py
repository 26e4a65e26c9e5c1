"""Starting a training: in this process, or in several through ``accelerate launch``, from the same config."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.registry import include
from vrft_bench.tasks.base import Task
from vrft_bench.trainers import load_trainer
from vrft_bench.trainers.base import (
    CanCheck,
    TrainConfig,
    Trainer,
    by_field,
    layered,
    make_train_config,
    refuse_foreign_options,
)


def start(config: TrainConfig) -> Path:
    """Train as ``config`` says; the folder of the final checkpoint."""
    trainer, task = choose(config)
    return trainer.train(task, config.model, config)


def examine(config: TrainConfig, *, processes: int) -> dict[str, Any]:
    """What the training would be about, by name: nothing where its trainer cannot say it. Nothing is written.

    Raises :class:`UserError` for what would end it at once.
    """
    trainer, task = choose(config)
    if not isinstance(trainer, CanCheck):
        return {}
    return dict(trainer.check(task, config.model, config, processes=processes))


def choose(config: TrainConfig) -> tuple[Trainer, Task]:
    """The trainer and the task of ``config``.

    Raises :class:`UserError` for names that are not registered, and for options that the trainer does not have.
    """
    from vrft_bench.harness.plan import choose_task

    for file in config.include:
        include(file)
    trainer = load_trainer(config.trainer)
    refuse_foreign_options(trainer, config)
    return trainer, choose_task(config.task, config.run_config())


def prepare(file: Path | None, flags: Mapping[str, Any]) -> TrainConfig:
    """The config of ``file`` (YAML, TOML, JSON, a ``train.json``) with ``flags`` before its own values.

    The data root that the environment names is in it: the same file trains on the same data however it is started.
    """
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.harness.config import read_config_file

    base = {} if file is None else by_field(read_config_file(file))
    for name in ("task", "output_dir"):
        if name not in base and name not in flags:
            flag = name.replace("_", "-")
            raise UserError(f"no {name} is given", fix=f"say --{flag} ..., or write it into --config")
    where = "the command line" if file is None else f"{file} and the command line"
    config = make_train_config(layered(base, flags), source=where)
    _, task = choose(config)
    rooted = with_data_root(config.run_config(), task)
    return config if rooted.data is None else config.model_copy(update={"data": rooted.data})


def main(trainer: str | None = None) -> None:
    """``accelerate launch -m vrft_bench.trainers.grpo --config FILE``: the entry point of every process.

    Without ``trainer`` (``-m vrft_bench.trainers.launch``), the file names it: the way for a plugin.
    """
    from vrft_bench.trainers.outcome import report_outcome

    match sys.argv[1:]:
        case ["--config", path]:
            pass
        case given:
            print(f"usage: --config FILE (given: {' '.join(given) or 'nothing'})", file=sys.stderr)  # noqa: T201
            sys.exit(2)
    with report_outcome():
        start(prepare(Path(path), {} if trainer is None else {"trainer": trainer}))


if __name__ == "__main__":
    main()

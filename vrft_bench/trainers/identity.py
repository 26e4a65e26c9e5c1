"""What identifies a training: the content that decides what comes out of it, as parts that can be compared."""

from __future__ import annotations

from vrft_bench.harness.plan import RunPlan
from vrft_bench.trainers.base import TrainConfig
from vrft_bench.trainers.base_model import Base
from vrft_bench.trainers.folder import TrainingRecord


def training_record(plan: RunPlan, base: Base, config: TrainConfig, *, processes: int = 1) -> TrainingRecord:
    """The record of a training of ``base`` on ``plan`` by so many processes together.

    Its identity is the model, the data, the rules, and every hyperparameter that is given; not how often it saves, logs
    or is evaluated.
    """
    parts = plan.identity({**base.checkpoint.fingerprint, "precision": base.precision})
    del parts["sampling"]  # of an evaluation; a trainer's own is among its hyperparameters
    identity = {
        "trainer": config.trainer,
        **parts,
        "hyperparameters": config.hyperparameters().given(),
        "engine_args": dict(config.engine_args),
        "manifest": None if config.manifest is None else config.manifest.read_text(encoding="utf-8"),
        "processes": processes,
        "seed": config.seed,
    }
    found = config.with_absolute_paths()
    chosen = found.model_dump(mode="json", exclude_defaults=True)
    return TrainingRecord.of(config.trainer, plan.task.name, found.model, identity, chosen)

"""How configurations and launch scripts are written: YAML in the order of its keys, scripts with values filled in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from vrft_bench.trainers.export.base import Export

_HEADING = (
    "# Written by `vrft-bench export` with every option that matters set, so that no default of the engine decides.\n"
    "# It is yours to edit; `vrft-bench export --check` holds only data, images and reward to what was written.\n"
)
_MANY_EPOCHS = 10_000
TRANSFORMERS_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Schedules as transformers names them, whose ``constant`` leaves the warm-up out."""


def write_yaml(file: Path, value: Mapping[str, Any], notes: str = "") -> None:
    """Write ``value`` with a heading; ``notes`` are lines for its reader."""
    import yaml

    comments = "".join(f"# {line}\n" for line in notes.splitlines())
    file.write_text(_HEADING + comments + yaml.safe_dump(dict(value), sort_keys=False), encoding="utf-8")


def write_launch(export: Export, template: str, **values: Any) -> None:
    """Write ``launch.sh`` from a script of ``shipped``: ``@NAME.sh@`` stands for a piece, ``@NAME@`` for a value.

    Raises ``KeyError`` for a name without a value: a defect of ours.
    """
    shipped = files("vrft_bench.trainers.export.shipped")
    text = (shipped / template).read_text(encoding="utf-8")
    text = re.sub(r"@(\w+\.sh)@\n", lambda match: (shipped / match[1]).read_text(encoding="utf-8"), text)
    given = {name.upper(): item for name, item in values.items()}
    known = {"MODEL": shlex.quote(export.model), "ROWS": len(export.rows), **given}
    filled = re.sub(r"@([A-Z_]+)@", lambda match: str(known[match[1]]), text)
    (export.folder / "launch.sh").write_text(filled, encoding="utf-8", newline="\n")


def prompts_per_device(export: Export) -> int:
    """How many prompts a device asks per step: ``batch_size`` counts completions, in whole groups."""
    assert export.how.batch_size is not None
    assert export.how.group_size is not None
    return export.how.batch_size // export.how.group_size


def whole_epochs(export: Export) -> int:
    """The epochs for an engine that counts whole ones; so many that steps decide when it ends, where they are given."""
    epochs = export.how.epochs
    if export.how.steps is not None or epochs is None:
        return _MANY_EPOCHS
    whole = max(1, round(epochs))
    if whole != epochs:
        export.left_out.append(f"epochs = {epochs}, since it counts whole ones: {whole}")
    return whole


def training_arguments(export: Export) -> dict[str, Any]:
    """The hyperparameters for an engine that hands its options on to transformers' ``TrainingArguments``."""
    how = export.how
    assert how.batch_size is not None
    passes = how.accumulation or how.batch_size
    return {
        "per_device_train_batch_size": how.batch_size // passes,
        "gradient_accumulation_steps": passes,
        "learning_rate": how.learning_rate,
        "lr_scheduler_type": export.choose("lr_schedule", TRANSFORMERS_SCHEDULES),
        "warmup_steps": how.warmup_steps,
        "weight_decay": how.weight_decay,
        "max_grad_norm": how.max_grad_norm,
        **({"num_train_epochs": how.epochs} if how.steps is None else {"max_steps": how.steps}),
        "seed": 0,
        "save_steps": 50,
        "logging_steps": 1,
        "report_to": "none",
    }

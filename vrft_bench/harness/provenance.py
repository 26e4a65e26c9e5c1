"""How a model came about: the trainings behind a checkpoint folder, which a run keeps beside the model's identity.

A folder or server does not say by itself whether it was trained, nor on how many examples, and the file that does
(``train.json``, written by ``vrft-bench train``) is seldom on the machine where results are compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vrft_bench.registry import MODELS

RECORD = "train.json"
"""What ``vrft-bench train`` writes into a training's folder, above its checkpoints."""
_LONGEST_CHAIN = 8


class Training(BaseModel):
    """One training by ``trainer`` on ``task``, from the model ``base``; ``shots`` where a few-shot split was drawn."""

    trainer: str
    task: str
    base: str
    shots: int | None = None
    split: str | None = None
    fingerprint: str


def trainings_of(model: str) -> list[Training]:
    """The trainings behind the model that ``--model`` names, the first of them first; none where nothing is known.

    A checkpoint's folder, or the one above it, holds the record of its training, whose base may have been trained too.
    A record that cannot be read tells nothing, and stops no run.
    """
    kind, slash, name = model.partition("/")
    place = Path(name if slash and kind in MODELS else model).expanduser()
    found: list[Training] = []
    while len(found) < _LONGEST_CHAIN and (record := _record(place)) is not None:
        base = str(record["model"])
        found.append(_training(record, base))
        place = Path(base)
    return found[::-1]


def _record(place: Path) -> Mapping[str, Any] | None:
    if not place.is_dir():
        return None
    for folder in (place, place.resolve().parent):
        try:
            record = json.loads((folder / RECORD).read_bytes())
            _training(record, "")
        except (OSError, ValueError, LookupError, TypeError, RecursionError):  # pydantic's is a ValueError
            continue
        return record  # type: ignore[no-any-return]
    return None


def _training(record: Mapping[str, Any], base: str) -> Training:
    config = record["config"]
    return Training(
        trainer=record["trainer"],
        task=record["task"],
        base=Path(base).name if Path(base).is_absolute() else base,
        shots=config.get("shots"),
        split=config.get("split"),
        fingerprint=record["fingerprint"],
    )

"""A training's folder: what it is, its checkpoints, and from where it goes on.

``train.json`` says what is trained (the fingerprint and all its parts), by which versions, and how it stands.
``checkpoint-N/`` are whole checkpoints of the engine, each marked by a file that is written after everything else: one
without it was being written when the process died, and is removed. ``final/`` is the result, and evaluates as it is.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.identity import differences, fingerprint
from vrft_bench.harness.models.pixel_limits import EDGES
from vrft_bench.harness.provenance import RECORD
from vrft_bench.harness.store import lock_folder, utc_now, versions, write_json

FINAL = "final"
CONFIG = "config.yaml"
"""The resolved choices, as the processes of one training read them."""
COMPLETIONS = "completions"
"""TRL's tables of sampled completions, one per logged step."""
WHOLE = "checkpoint.json"
"""Written last into a checkpoint: the fingerprint of its training, and its step."""
CARRIED = ("*.json", "*.jinja", "*.txt", "*.model", "*.py")
"""Files of the base checkpoint that a trained one needs to be evaluated, beside its weights."""
_OWN = ("config.json", "training.json", "model.safetensors.index.json", "adapter_config.json", "trainer_state.json")
"""Files that are not carried over: the engine writes its own, or they tell of another training."""
_ENGINES = ("trl", "accelerate", "peft", "datasets", "deepspeed")
"""What trains, beside what a run records."""
_BEFORE = frozenset({".lock", CONFIG, "watch"})
"""What may be in a folder before its training begins."""


class TrainingRecord(BaseModel):
    """What ``train.json`` says: ``identity`` holds the parts of the fingerprint, ``config`` every choice."""

    format: int = 1
    trainer: str
    task: str
    model: str
    fingerprint: str
    identity: dict[str, Any]
    config: dict[str, Any] = Field(default_factory=dict)
    status: Literal["running", "complete", "interrupted", "failed"] = "running"
    step: int = 0
    created: str
    updated: str
    sessions: list[dict[str, Any]] = Field(default_factory=list)

    @classmethod
    def of(cls, trainer: str, task: str, model: str, identity: dict[str, Any], config: dict[str, Any]) -> Self:
        """The record of a training that begins now."""
        now = utc_now()
        stored: dict[str, Any] = json.loads(json.dumps(identity))  # as it will be read back
        return cls(
            trainer=trainer,
            task=task,
            model=model,
            fingerprint=fingerprint(stored),
            identity=stored,
            config=config,
            created=now,
            updated=now,
        )


class TrainingFolder:
    """The folder of the training that ``record`` describes, held by this process until :meth:`close`.

    ``record`` becomes the stored one where the training was begun before. Raises :class:`UserError` where the folder
    holds another training that has saved something, or anything else, and where another process is at work in it.
    """

    def __init__(self, folder: Path, record: TrainingRecord) -> None:
        self.folder = folder
        made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot create {folder}: {error.strerror}", fix="choose another place with --output-dir"
            ) from error
        self._lock = lock_folder(folder)
        try:
            self.record = self._agreed(record)
        except BaseException:
            os.close(self._lock)
            if made:
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _agreed(self, new: TrainingRecord) -> TrainingRecord:
        if not (self.folder / RECORD).is_file():
            if foreign := sorted(item.name for item in self.folder.iterdir() if item.name not in _BEFORE):
                raise UserError(
                    f"{self.folder} is not empty and is no training's folder (it holds {', '.join(foreign[:3])})",
                    fix="give a new folder as --output-dir",
                )
            return new
        there = read_record(self.folder)
        if there.fingerprint != new.fingerprint and not (checkpoints(self.folder) or self.final.exists()):
            return new  # the other one never came to anything
        if there.fingerprint != new.fingerprint:
            changed = "; ".join(differences(there.identity, new.identity)[:4]) or "it is of another version"
            raise UserError(
                f"{self.folder} holds another training ({changed})",
                fix="give another --output-dir, or the same choices to go on with this one",
            )
        return there

    def begin_session(self) -> None:
        """Record that a process takes up the work. Tables of completions that no checkpoint stands for are removed."""
        if not checkpoints(self.folder):
            shutil.rmtree(self.folder / COMPLETIONS, ignore_errors=True)
        self.record.sessions.append({"started": utc_now(), "versions": versions() | _engine_versions()})
        self.update(status="running")

    def update(self, **fields: Any) -> None:
        """Replace fields of ``train.json``, atomically."""
        self.record = self.record.model_copy(update={**fields, "updated": utc_now()})
        write_json(self.folder / RECORD, self.record.model_dump(mode="json"))

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint of this training. Those that were never finished are removed."""
        whole = []
        for checkpoint in checkpoints(self.folder):
            if is_whole(checkpoint, self.record.fingerprint):
                whole.append(checkpoint)
            else:
                shutil.rmtree(checkpoint)
        return whole[-1] if whole else None

    def finish_checkpoint(
        self, checkpoint: Path, base: Path, step: int, *, keep: int | None, limits: tuple[int, int] | None = None
    ) -> None:
        """Give ``checkpoint`` what :func:`carry_over` gives, and mark it as whole.

        Only then are older ones removed but for the newest ``keep``: at every moment one whole checkpoint is there.
        """
        carry_over(base, checkpoint, limits)
        write_json(checkpoint / WHOLE, {"fingerprint": self.record.fingerprint, "step": step})
        self.update(step=step)
        older = [] if keep is None else checkpoints(self.folder)[:-keep]
        for old in older:
            (old / WHOLE).unlink(missing_ok=True)  # first, so that a half removed one does not pass for whole
            shutil.rmtree(old)

    @property
    def final(self) -> Path:
        """Where the result is."""
        return self.folder / FINAL

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_record(folder: Path) -> TrainingRecord:
    """``train.json`` of ``folder``. Raises :class:`DataError` where it is absent or damaged."""
    try:
        return TrainingRecord.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{folder} is no training's folder: it has no {RECORD}", fix="give a folder that `train` wrote"
        ) from error
    except (ValidationError, ValueError) as error:
        raise DataError(
            f"{folder / RECORD} is damaged: {str(error).splitlines()[0]}", fix="train anew in another folder"
        ) from error


def _engine_versions() -> dict[str, str]:
    found = {}
    for package in _ENGINES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def checkpoints(folder: Path) -> list[Path]:
    """The folders ``checkpoint-N`` in ``folder``, by N. Any engine that names them so."""
    found = [
        path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and path.name.removeprefix("checkpoint-").isdecimal()
    ]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """N of ``checkpoint-N``."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def is_whole(checkpoint: Path, training: str | None = None) -> bool:
    """Whether the mark of a finished checkpoint is there, and is of the training with the fingerprint ``training``."""
    try:
        mark = json.loads((checkpoint / WHOLE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(mark, Mapping) and (training is None or mark.get("fingerprint") == training)


def carry_over(base: Path, checkpoint: Path, limits: tuple[int, int] | None = None) -> None:
    """Copy tokenizer, processor and template files of ``base`` into ``checkpoint``, over what the engine wrote of them.

    Training changes none of them, and engines write some in a form that older readers do not know. Only the smallest
    and largest area of an image, ``limits``, are the training's where it was given any: whoever evaluates the
    checkpoint with others is told so.
    """
    for pattern in CARRIED:
        for file in base.glob(pattern):
            if file.name not in _OWN:
                shutil.copyfile(file, checkpoint / file.name)
    file = checkpoint / "preprocessor_config.json"
    if limits is not None and file.is_file():
        stated = json.loads(file.read_text(encoding="utf-8"))
        stated = {name: value for name, value in stated.items() if name not in ("min_pixels", "max_pixels")}
        write_json(file, {**stated, "size": dict(zip(EDGES, limits, strict=True))})


def require_space(folder: Path, needed: int) -> None:
    """Raise :class:`UserError` where the disk of ``folder`` has fewer than ``needed`` bytes free."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"this training takes {needed / 1e9:.1f} GB of disk for checkpoints, and {there} has {free / 1e9:.1f} GB",
            fix="free some space, keep fewer with --keep 1, train adapters with --lora-rank, or choose another "
            "--output-dir",
        )

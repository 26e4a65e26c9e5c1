"""Checkpoints of any engine: which are there, whether they are whole, and a copy of each that can be evaluated.

Known are ``checkpoint-N`` (transformers' Trainer, so TRL, ms-swift and LLaMA-Factory), ``global_step_N`` (verl and
EasyR1, with the model in ``actor/huggingface``) and ``global_stepN_hf`` (OpenRLHF). A training of our own marks a
checkpoint as whole. Any other counts as whole once its weights are all there, none of them is cut off, and no file has
changed for a while.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from vrft_bench.trainers.folder import WHOLE, is_whole

NAMES = re.compile(r"checkpoint-(\d+)|global_step_(\d+)|global_step(\d+)_hf")
PLACES = (".", "actor/huggingface", "huggingface", "actor/lora_adapter")
"""Where the model lies in a checkpoint's folder. verl's own files beside it are pieces for its processes."""
ADAPTER = "adapter_config.json"
_WEIGHTS = (
    "model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin", "adapter_model.safetensors",
    "adapter_model.bin",
)  # fmt: skip
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_BESIDE = ("*.json", "*.jinja", "*.txt", "*.model", "*.py")
"""Files beside the weights that evaluating may need; optimizer states match none of these."""


@dataclass(frozen=True)
class FoundCheckpoint:
    """A folder that is named as a checkpoint of ``step``."""

    step: int
    folder: Path

    @cached_property
    def model(self) -> Path:
        """Where its weights are, or ought to be."""
        places = [self.folder / place for place in PLACES if (self.folder / place).is_dir()]
        return next(
            (place for place in places if any(_matching(place, _WEIGHTS))), places[-1] if places else self.folder
        )

    @property
    def is_adapter(self) -> bool:
        """Whether it holds LoRA adapters and no whole model."""
        return (self.model / ADAPTER).is_file() and not (self.model / "config.json").is_file()

    def files(self) -> list[Path]:
        """The files that evaluating may need."""
        return sorted(path for path in _matching(self.model, (*_WEIGHTS, *_BESIDE)) if path.name != WHOLE)

    def signature(self) -> str:
        """Changes when its files do. Names, sizes and times: contents would take minutes to hash."""
        about = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.files()]
        return sha256(json.dumps(about).encode()).hexdigest()[:16]


def find_checkpoints(folder: Path) -> list[FoundCheckpoint]:
    """Those in ``folder``, by step; none where there is no such folder yet."""
    if not folder.is_dir():
        return []
    found = [
        FoundCheckpoint(int(next(filter(None, match.groups()))), path)
        for path in folder.iterdir()
        if path.is_dir() and (match := NAMES.fullmatch(path.name))
    ]
    return sorted(found, key=lambda item: item.step)


def why_unfinished(found: FoundCheckpoint, *, training: str | None, settle: float) -> str | None:
    """Why ``found`` cannot be evaluated yet; ``None`` where it can.

    ``training`` is the fingerprint of a training of our own. Without one, no file may have changed for ``settle``
    seconds.
    """
    if training is not None:
        return None if is_whole(found.folder, training) else "it has no mark of being whole"
    try:
        weights = list(_matching(found.model, _WEIGHTS))
        if not weights:
            return f"it has no weights in {found.model.relative_to(found.folder.parent)}" + _hint(found)
        if not any((found.model / name).is_file() for name in ("config.json", ADAPTER)):
            return "it has no config.json"
        if lacking := sorted(_indexed(found.model) - {path.name for path in weights}):
            return f"it lacks {len(lacking)} of its files ({', '.join(lacking[:3])})"
        if torn := [path.name for path in weights if not _is_complete(path)]:
            return f"{torn[0]} is cut off"
        quiet = time.time() - max(path.stat().st_mtime for path in found.files())
    except FileNotFoundError:
        return "files vanished from it"
    return None if quiet >= settle else f"it was written to within the last {settle:g} s"


def link_files(found: FoundCheckpoint, target: Path) -> None:
    """Put what is needed of ``found`` into ``target``, which appears when all of it is there.

    Files are linked where the disk allows it: the trainer may delete its checkpoint then, and no time or space is
    spent. Raises :class:`FileNotFoundError` where the checkpoint is deleted meanwhile.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for file in found.files():
            try:
                os.link(file, partial / file.name)
            except FileNotFoundError:
                raise
            except OSError:  # another disk, or one without links
                shutil.copyfile(file, partial / file.name)
        partial.replace(target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def unlink_files(folder: Path) -> None:
    """Make files of ``folder`` that are linked from elsewhere its own, so that no one else's writing changes them."""
    for file in folder.iterdir():
        if file.stat().st_nlink > 1:
            own = file.with_name(f".{file.name}.partial")
            shutil.copyfile(file, own)
            own.replace(file)


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    names = {path for pattern in patterns for path in folder.glob(pattern)}
    return (path for path in names if path.is_file())


def _indexed(folder: Path) -> set[str]:
    """The files that an index of weights names."""
    names: set[str] = set()
    for index in _INDICES:
        if (folder / index).is_file():
            try:
                content: Any = json.loads((folder / index).read_text(encoding="utf-8"))
                names |= set(content["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError):
                names.add(index)  # it is being written
    return names


def _is_complete(file: Path) -> bool:
    """Whether a file of weights has the length that its own header, or the directory at its end, states."""
    if file.suffix != ".safetensors":
        return zipfile.is_zipfile(file)
    with file.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > file.stat().st_size:
            return False
        try:
            header = json.loads(stream.read(length))
            ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return file.stat().st_size == 8 + length + max(ends, default=0)


def _hint(found: FoundCheckpoint) -> str:
    if any((found.folder / "actor").glob("model_world_size_*")):
        return " (verl: add hf_model to actor.checkpoint.save_contents, or merge its pieces with verl.model_merger)"
    return ""

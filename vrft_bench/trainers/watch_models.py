"""What a checkpoint lacks to be evaluated alone: adapters are merged, and files of the base model put beside it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.models.checkpoint import Checkpoint, find_checkpoint
from vrft_bench.harness.models.weights import no_progress_bars
from vrft_bench.harness.records import disk_error
from vrft_bench.trainers.watch_checkpoints import ADAPTER

_KINDS = {
    "tokenizer": ("tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json"),
    "image processor": ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    "chat template": ("chat_template*",),
    "generation config": ("generation_config.json",),
}
"""Files that go together: a checkpoint that has one of a kind is not given another one's."""
_NEEDED = frozenset({"tokenizer", "image processor"})


def make_evaluable(folder: Path, base: str | None, precision: str | None = None) -> None:
    """Turn ``folder``, a copy of a checkpoint, into a whole model.

    ``base`` is the model that the training began from (default, for adapters: what their config names); ``precision``
    (a torch dtype) that of its weights while adapters are merged into it (default: as they are stored). Raises
    :class:`UserError` where something is lacking, and :class:`BackendError` for adapters that do not fit.
    """
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        base = base or _named_base(folder)
        _merge(folder, find_checkpoint(base), precision)
    lacking = [kind for kind in _KINDS if not _has(folder, kind)]
    if base is None:
        if needed := [kind for kind in lacking if kind in _NEEDED]:
            raise UserError(
                f"{folder.name} has no {' and no '.join(needed)}", fix="name the model that it was trained from: --base"
            )
        return
    if lacking:
        source = _files_of(find_checkpoint(base))
        for kind in lacking:
            for pattern in _KINDS[kind]:
                for file in source.glob(pattern):
                    shutil.copyfile(file, folder / file.name)


def _has(folder: Path, kind: str) -> bool:
    if any(file for pattern in _KINDS[kind] for file in folder.glob(pattern)):
        return True
    return kind == "chat template" and "chat_template" in _read(folder / "tokenizer_config.json")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _named_base(folder: Path) -> str:
    named = _read(folder / ADAPTER).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise UserError(f"{folder.name} holds adapters and does not say of which model", fix="name it with --base")
    return named


def _files_of(base: Checkpoint) -> Path:
    """Where the files of ``base`` are; those of a hub model are fetched, but for its weights."""
    if base.is_folder:
        return Path(base.source)
    from huggingface_hub import snapshot_download

    patterns = [pattern for patterns in _KINDS.values() for pattern in patterns]
    return Path(snapshot_download(base.source, revision=base.revision, allow_patterns=patterns))


def _merge(folder: Path, base: Checkpoint, precision: str | None) -> None:
    """Replace the adapters in ``folder`` by the whole model."""
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"{folder.name} holds adapters: peft merges them", fix="pip install 'vrft-bench[train]'")
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    dtype = "auto" if precision is None else getattr(torch, precision)
    merged = folder.with_name(f".{folder.name}.merged")
    shutil.rmtree(merged, ignore_errors=True)
    try:
        with no_progress_bars(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = AutoModelForImageTextToText.from_pretrained(base.source, revision=base.revision, dtype=dtype)
            adapted = PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        raise _unfit(folder, base, str(error).strip().splitlines()[0]) from error
    for warning in said:
        if "missing adapter keys" in str(warning.message):
            raise _unfit(folder, base, str(warning.message)[:200])
    try:
        with no_progress_bars():
            adapted.merge_and_unload().save_pretrained(merged)
        for kind in _KINDS:
            for pattern in _KINDS[kind]:
                for file in folder.glob(pattern):
                    shutil.copyfile(file, merged / file.name)
        shutil.rmtree(folder)
        merged.replace(folder)
    except OSError as error:
        raise disk_error(merged, error) from error


def _unfit(folder: Path, base: Checkpoint, why: str) -> BackendError:
    return BackendError(
        f"the adapters of {folder.name} do not fit {base.name}: {why}",
        fix="name the model they were trained on: --base",
    )

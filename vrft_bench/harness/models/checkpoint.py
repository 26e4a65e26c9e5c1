"""What ``hf/NAME`` stands for (or ``vllm/NAME``): a folder, a hub id or the bundled model.

It is known by its content before a weight is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from vrft_bench.errors import BackendError
from vrft_bench.harness.models.fingerprint import fingerprint_folder
from vrft_bench.registry import PROFILES
from vrft_bench.tasks.coordinates import ModelProfile

BUNDLED = {"tiny": "tiny_qwen2_vl"}
"""Names of the models that ship with the package -> their folder under ``vrft_bench/assets``."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that exists. ``source`` is what transformers loads from; ``revision`` a hub model's commit.

    ``backend`` is the one that was asked for it.
    """

    name: str
    source: str
    revision: str | None = None
    backend: str = "hf"

    @property
    def is_folder(self) -> bool:
        return self.revision is None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed ``config.json``. Raises :class:`BackendError` when it is not JSON."""
        file = Path(self.source) / "config.json" if self.is_folder else hub_config(self.source, self.revision)
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BackendError(f"{file} is not JSON: {error}", fix="restore the file from the base model") from error
        if not isinstance(value, dict):
            raise BackendError(f"{file} is not a JSON object", fix="restore the file from the base model")
        return value

    @property
    def model_type(self) -> str | None:
        """The architecture that the config names. Raises :class:`BackendError` for one that is no name."""
        value = self.config.get("model_type")
        if value is not None and not isinstance(value, str):
            raise BackendError(
                f"{self.backend}/{self.name}: model_type in config.json is {value!r}",
                fix="restore the file from the base model",
            )
        return value

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Name and content: file hashes for a folder, id and commit for a hub model."""
        if not self.is_folder:
            return {"name": self.name, "revision": self.revision}
        try:
            return {"name": self.name, "files": fingerprint_folder(Path(self.source))}
        except OSError as error:
            raise BackendError(
                f"the checkpoint folder {self.source!r} cannot be read: {error}", fix="check its files' permissions"
            ) from error


def find_checkpoint(name: str, revision: str | None = None, *, backend: str = "hf") -> Checkpoint:
    """The checkpoint that ``name`` means: a bundled name, else an existing folder, else a hub id (``owner/model``).

    Raises :class:`BackendError` when there is none, or when the folder is not a whole model.
    """
    if name in BUNDLED:
        return _folder(name, Path(str(files("vrft_bench") / "assets" / BUNDLED[name])), backend)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _folder(folder.resolve().name, folder, backend)
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise BackendError(
            f"{backend}/{name}: no such checkpoint folder",
            fix=f"give a checkpoint folder, a hub id as OWNER/MODEL, or the bundled {backend}/tiny",
        )
    return Checkpoint(name, name, hub_config(name, revision, backend=backend).parent.name, backend)


def _folder(name: str, folder: Path, backend: str) -> Checkpoint:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise BackendError(
            f"{str(folder)!r} holds a LoRA adapter, not a whole model",
            fix="merge it into its base first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(DIR)",
        )
    if not (folder / "config.json").is_file():
        raise BackendError(
            f"the checkpoint folder {str(folder)!r} has no config.json",
            fix="give the folder that save_pretrained wrote, with config.json, weights, tokenizer and processor files",
        )
    return Checkpoint(name, str(folder), backend=backend)


def hub_config(model_id: str, revision: str | None, *, backend: str = "hf") -> Path:
    """The local copy of a hub model's ``config.json``; its folder is named by the commit.

    The commit, and not the branch that was asked for, is what identifies the model and what is loaded.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model_id, "config.json", revision=revision))
    except Exception as error:
        raise BackendError(
            f"{backend}/{model_id}: no such folder here, and the hub gave no such model: {_first_line(error)}",
            fix="check the id and the connection (for a gated model: `hf auth login`), or give a checkpoint folder",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def select_profile(model_type: str | None) -> ModelProfile | None:
    """The first registered profile that lists ``model_type``; ``None`` if none does. A broken plugin is passed over."""
    if model_type is None:
        return None
    for entry in PROFILES:
        if PROFILES.broken(entry) is not None:
            continue
        profile: ModelProfile = PROFILES.get(entry.name)
        if model_type in profile.model_types:
            return profile
    return None

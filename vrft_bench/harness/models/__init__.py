"""Model backends: a file each. Heavy libraries are imported inside the class that needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.models.base import Backend
from vrft_bench.registry import MODELS

__all__ = ["load_backend"]


def load_backend(model: str, args: Mapping[str, Any] | None = None) -> Backend:
    """The backend for ``backend/name``, or for the path of a checkpoint folder (which ``hf`` loads).

    Raises :class:`UserError` for a backend that is not registered; the checkpoint itself is not loaded yet.
    """
    kind, slash, name = model.partition("/")
    if kind in MODELS and slash and name:
        backend: Backend = MODELS.get(kind)(name, dict(args or {}))
        return backend
    if Path(model).expanduser().is_dir():
        folder: Backend = MODELS.get("hf")(str(Path(model).expanduser()), dict(args or {}))
        return folder
    hint = did_you_mean(kind, MODELS.names())
    fix = f"write backend/name, with one of the backends {', '.join(MODELS.names())}, or the path of an existing folder"
    if slash and kind not in MODELS and not model.startswith((".", "/", "~")):
        fix += f"; for a hub model: hf/{model}"
    raise UserError(f"--model {model!r} names no backend and no folder{hint}", fix=fix)

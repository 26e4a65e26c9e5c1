"""Model backends: a file each. Heavy libraries are imported inside the class that needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.models.base import Backend
from vrft_bench.harness.models.checkpoint import BUNDLED
from vrft_bench.registry import MODELS

__all__ = ["load_backend"]


def load_backend(model: str, args: Mapping[str, Any] | None = None) -> Backend:
    """The backend for ``backend/name``, or for the path of a checkpoint folder (which ``hf`` loads).

    Raises :class:`UserError` for a backend that is not registered, and for a bundled model's bare name where a folder
    has it too. The checkpoint itself is not loaded yet.
    """
    kind, slash, name = model.partition("/")
    if kind in MODELS and slash and name:
        backend: Backend = MODELS.get(kind)(name, dict(args or {}))
        return backend
    folder = Path(model).expanduser()
    if folder.is_dir():
        if model in BUNDLED:
            raise UserError(
                f"--model {model!r} may mean the folder of that name or the model that ships with the package",
                fix=f"write ./{model} for the folder, hf/{model} for the bundled model",
            )
        # Whole, so that no spelling of a folder can pass for a bundled name or a hub id.
        checkpoint: Backend = MODELS.get("hf")(str(folder.resolve()), dict(args or {}))
        return checkpoint
    hint = did_you_mean(kind, MODELS.names())
    fix = f"write backend/name, with one of the backends {', '.join(MODELS.names())}, or the path of an existing folder"
    if model in BUNDLED:
        fix = f"for the model that ships with the package, write hf/{model}"
    elif slash and kind not in MODELS and not model.startswith((".", "/", "~")):
        fix += f"; for a hub model: hf/{model}"
    raise UserError(f"--model {model!r} names no backend and no folder{hint}", fix=fix)

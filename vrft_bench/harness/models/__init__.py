"""Model backends: a file each. Heavy libraries are imported inside the class that needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.models.base import Backend
from vrft_bench.harness.models.checkpoint import BUNDLED
from vrft_bench.registry import MODELS

if TYPE_CHECKING:
    from vrft_bench.harness.config import RunConfig

__all__ = ["load_backend", "open_backend"]


def open_backend(config: RunConfig) -> Backend:
    """The backend that ``config`` asks for, in this process or on a Ray cluster, with its response cache if any.

    Raises :class:`UserError` for choices that do not go together, with nothing left running.
    """
    config.check_executor()
    if config.executor == "ray":
        from vrft_bench.harness.models.ray_replicas import RayBackend

        backend: Backend = RayBackend(
            config.model,
            config.backend_args(),
            address=config.address,
            replicas=config.replicas,
            gpus_per_replica=config.gpus_per_replica,
            include=config.include,
        )
    else:
        backend = load_backend(config.model, config.backend_args())
    if config.cache is not None:
        from vrft_bench.harness.models.response_cache import CachedBackend

        try:
            return CachedBackend(backend, config.cache, address=config.backend_args().get("base_url"))
        except BaseException:
            backend.close()
            raise
    return backend


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

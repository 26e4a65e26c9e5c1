"""The result store: one run is one folder, locked while it is written, and resumable whatever happened to it.

``results/<task>/<model>/<UTC time>-<fingerprint8>/`` holds

* ``run.json``, the :class:`Manifest`: the fingerprint with all its parts, the config, the status and every session;
* ``samples.jsonl``, a line per finished completion (see :mod:`vrft_bench.harness.records`);
* ``metrics.json``, the figures, once there are any.

``run.json`` and ``metrics.json`` are replaced atomically. A run whose status is ``running`` and whose lock nobody holds
was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError

from vrft_bench import __version__
from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.config import RunConfig, validation_lines
from vrft_bench.harness.identity import differences, fingerprint
from vrft_bench.harness.provenance import Training
from vrft_bench.harness.records import Record, RecordIndex, RecordWriter, disk_error
from vrft_bench.tasks.coordinates import ModelProfile

RunStatus = Literal["running", "complete", "failed", "interrupted"]
MANIFEST, SAMPLES, METRICS, LOCK = "run.json", "samples.jsonl", "metrics.json", ".lock"
_LOCAL_PATH = re.compile(r"(?:(?<=/)|(?<=replay:)|^)[/~.].*")
_UNSAFE = re.compile(r"[^\w.+=:-]+")
_PACKAGES = ("numpy", "pillow", "pycocotools", "torch", "transformers", "vllm")


class Session(BaseModel):
    """One process that worked on a run. ``cached`` of its answers came from ``--cache``, where one was given."""

    started: str
    versions: dict[str, str]
    cached: int | None = None


class Manifest(BaseModel):
    """What ``run.json`` says.

    ``identity`` holds the parts of the fingerprint: everything that can change a score. ``data`` is ``sample`` for the
    embedded sample data: such a run is never compared with one on real data. ``content`` tells whether runs of models
    with different profiles were asked the same (see :class:`~vrft_bench.harness.plan.Survey`); runs of earlier versions
    have none. ``trainings`` say how the model came about, as far as known. ``rescored`` lists when and by which version
    the stored texts were scored again.
    """

    format: int = 1
    task: str
    model: str
    fingerprint: str
    identity: dict[str, Any]
    data: Literal["sample", "real"]
    status: RunStatus = "running"
    samples: int
    completions: int
    content: dict[str, str] = Field(default_factory=dict)
    trainings: list[Training] = Field(default_factory=list)
    finished: int = 0
    failed: int = 0
    created: str
    updated: str
    sessions: list[Session] = Field(default_factory=list)
    rescored: list[dict[str, Any]] = Field(default_factory=list)
    config: RunConfig


class _TaskPart(BaseModel):
    name: str
    version: str
    protocol: str


class _DataPart(BaseModel):
    kind: str
    samples: int
    sha256: str


class _Identity(BaseModel):
    """What is read of a manifest's ``identity``; it holds more."""

    task: _TaskPart
    data: _DataPart
    profile: ModelProfile
    sampling: dict[str, Any]
    model: dict[str, Any]
    include: list[Any]


class RunStore:
    """A run's folder, held by this process from construction to :meth:`close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = lock_folder(folder)
        try:
            self.manifest = read_manifest(folder)  # only now: who held the lock before may have finished the run
            self._writer = RecordWriter(folder / SAMPLES)
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> RunStore:
        """A new run in ``folder``, which does not exist yet; a name in use gets a number.

        Where that fails, no folder is left that was not there before.
        """
        parents = [parent for parent in folder.parents if not parent.exists()]
        made = None
        try:
            made = _make_folder(folder)
            write_json(made / MANIFEST, manifest.model_dump(mode="json"))
            return cls(made)
        except BaseException:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
            for parent in parents:  # the innermost first; one that another process uses by now is not empty
                with contextlib.suppress(OSError):
                    parent.rmdir()
            raise

    def begin_session(self) -> None:
        """Record that this process starts to work on the run."""
        session = Session(started=utc_now(), versions=versions())
        self.update(status="running", sessions=[*self.manifest.sessions, session])

    def append(self, record: Record) -> None:
        """Put one record on disk. Raises :class:`~vrft_bench.errors.PartialRunError` when it takes no more."""
        self._writer.append(record)

    def index(self) -> RecordIndex:
        """Where the records of earlier sessions are."""
        return RecordIndex(self.folder / SAMPLES)

    def update(self, **fields: Any) -> None:
        """Change fields of ``run.json``."""
        self.manifest = self.manifest.model_copy(update={**fields, "updated": utc_now()})
        write_json(self.folder / MANIFEST, self.manifest.model_dump(mode="json"))

    def write_metrics(self, value: Mapping[str, Any]) -> None:
        """Replace ``metrics.json``."""
        write_json(self.folder / METRICS, value)

    def close(self) -> None:
        """Sync the records and let go of the lock. May be called twice."""
        if self._lock < 0:
            return
        try:
            self._writer.close()
        finally:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_folder(config: RunConfig, task: str, fingerprint: str) -> Path:
    """Where a new run of ``task`` goes."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return _parent(config, task) / f"{stamp}-{fingerprint[:8]}"


def find_run(config: RunConfig, task: str, fingerprint: str, identity: Mapping[str, Any]) -> Path | None:
    """The newest run with this fingerprint, or ``None``.

    Where ``output_dir`` is itself a run's folder, it is that one or a :class:`UserError` that lists what differs.
    """
    if (config.output_dir / MANIFEST).is_file():
        manifest = read_manifest(config.output_dir)
        if manifest.fingerprint != fingerprint:
            lines = differences(manifest.identity, identity)
            raise UserError(
                f"{config.output_dir} holds another run than the one asked for: " + "; ".join(lines),
                fix="choose another --output-dir (a new run gets a folder of its own there), or the same settings",
            )
        return config.output_dir
    candidates = sorted(_parent(config, task).glob(f"*-{fingerprint[:8]}*/{MANIFEST}"), reverse=True)
    return next((path.parent for path in candidates if read_manifest(path.parent).fingerprint == fingerprint), None)


def containing_run(path: Path) -> Path:
    """The run's folder that ``path`` means: the folder itself, or that of a file in it such as ``run.json``.

    Raises :class:`DataError` for a file that lies in no run's folder.
    """
    if not path.is_file():
        return path
    if not (path.parent / MANIFEST).is_file():
        raise DataError(f"{path} is not a run", fix="give the folder that a run printed as its last line")
    return path.parent


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run. Raises :class:`DataError` where there is none, or one that no run can have written."""
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{folder} is not a run: it has no {MANIFEST}", fix="give the folder that a run printed as its last line"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", fix="make it a file that can be read") from None
    except ValidationError as error:
        raise _damaged(path, validation_lines(error)) from None
    if contradictions := _contradictions(manifest):
        raise _damaged(path, contradictions)
    return manifest


def is_locked(folder: Path) -> bool:
    """Whether a live process works on the run. Leaves the folder as it is, and may look at one that is read-only."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """What ran: this package, Python, the platform and the libraries that can change a score. No names of machines."""
    found = {"vrft-bench": __version__, "python": platform.python_version()}
    found["platform"] = f"{platform.system()} {platform.machine()}"
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace ``path`` by ``value``, atomically: a crash leaves the old content or the new, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise disk_error(path, error) from error
        raise


def model_slug(model: str) -> str:
    """A model's name as one folder name: ``hf/Qwen/Qwen2-VL-2B`` -> ``hf__Qwen__Qwen2-VL-2B``.

    Of a checkpoint's absolute path only the last part is kept: the folders above it say nothing about the model.
    """
    name = _LOCAL_PATH.sub(lambda found: Path(found.group()).name, model)
    return _UNSAFE.sub("_", name.strip("/").replace("/", "__"))[:100].strip(".") or "model"


def _parent(config: RunConfig, task: str) -> Path:
    return config.output_dir / task / model_slug(config.model)


def _damaged(path: Path, lines: Sequence[str]) -> DataError:
    return DataError(
        f"{path} is damaged or of another version: {'; '.join(lines[:3])}",
        fix="put back what the run has written, or run again with --fresh",
    )


def _contradictions(manifest: Manifest) -> list[str]:
    """Where a manifest does not agree with its own identity, as one that was edited by hand."""
    config = manifest.config
    try:
        identity = _Identity.model_validate(manifest.identity)
    except ValidationError as error:
        return [f"identity.{line}" for line in validation_lines(error)]
    except UserError as error:  # a profile that no image could be converted with
        return [f"identity.profile: {error.message}"]
    task, data = identity.task, identity.data
    claims = {
        "fingerprint": (manifest.fingerprint, fingerprint(manifest.identity)),
        "task": (manifest.task, task.name),
        "data": (manifest.data, data.kind),
        "samples": (manifest.samples, data.samples),
        "completions": (manifest.completions, data.samples * config.samples),
        "config.task": (config.task, [task.name]),
        "config.protocol": (config.protocol, task.protocol),
        **{f"config.{key}": (value, identity.sampling.get(key)) for key, value in config.sampling().to_json().items()},
    }
    return [
        f"{name} is {stated!r}, and {recorded!r} by its identity"
        for name, (stated, recorded) in claims.items()
        if stated != recorded
    ]


def _make_folder(folder: Path) -> Path:
    for number in range(1, 1000):
        numbered = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            numbered.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"cannot create {folder}: {error.strerror}", fix="choose another place with --output-dir"
            ) from error
        return numbered
    raise UserError(f"{folder} and 998 more names are in use", fix="choose another place with --output-dir")


def lock_folder(folder: Path) -> int:
    """A descriptor that holds the folder's lock; the kernel frees it when the process dies, however that happens."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot write into {folder}: {error.strerror}", fix="choose another place with --output-dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(
            f"{folder} is being written by another process (pid {pid})",
            fix="wait for it to end, stop it, or start a separate run with --fresh",
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise disk_error(folder / LOCK, error) from error
    return descriptor

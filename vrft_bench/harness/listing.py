"""What runs lie in a results folder, damaged and unfinished ones too. Opens no data and loads no model."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vrft_bench.errors import DataError
from vrft_bench.harness.records import RecordIndex
from vrft_bench.harness.results import read_result
from vrft_bench.harness.store import MANIFEST, METRICS, SAMPLES, Manifest, is_locked, read_manifest
from vrft_bench.tasks.base import MetricReport

_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}(-\d+)?")


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run's folder.

    ``status`` is the manifest's, but for ``killed`` (its process is gone and did not say how it ended) and ``damaged``,
    for which ``reason`` says what is wrong. ``done`` of ``completions`` are answered, ``failed`` ones not counted.
    ``report`` is there for a run that is complete.
    """

    folder: Path
    status: str
    data: str = ""
    protocol: str = ""
    done: int | None = None
    completions: int | None = None
    report: MetricReport | None = None
    reason: str = ""


def list_runs(output_dir: Path) -> Iterator[ListedRun]:
    """Every run under ``output_dir``, by task, model and time."""
    for folder in sorted(output_dir.glob("*/*/*/")):
        if _NAME.fullmatch(folder.name) or any((folder / name).exists() for name in (MANIFEST, SAMPLES, METRICS)):
            yield _listed(folder)


def _listed(folder: Path) -> ListedRun:
    manifest = None
    try:
        manifest = read_manifest(folder)
        return _read(folder, manifest)
    except DataError as error:
        about = (manifest.data, manifest.config.protocol) if manifest is not None else ("", "")
        return ListedRun(folder, "damaged", *about, reason=" ".join(error.message.split()))


def _read(folder: Path, manifest: Manifest) -> ListedRun:
    about = (manifest.data, manifest.config.protocol)
    if manifest.status == "complete":
        if not (folder / SAMPLES).is_file():
            raise DataError(f"{folder} has lost its {SAMPLES}")
        report = read_result(folder, manifest).report
        return ListedRun(folder, manifest.status, *about, manifest.finished, manifest.completions, report)
    # Only the end of a session is written into the manifest: of one that is under way or was killed, records tell.
    with contextlib.closing(RecordIndex(folder / SAMPLES)) as index:
        done = len(index.answered)
    status = "running" if is_locked(folder) else "killed" if manifest.status == "running" else manifest.status
    return ListedRun(folder, status, *about, done, manifest.completions)

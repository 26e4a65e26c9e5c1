"""RunResult: what a run says in the end, and how it is kept in ``metrics.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vrft_bench.errors import DataError
from vrft_bench.harness.answers import AnswerStats
from vrft_bench.harness.config import validation_lines
from vrft_bench.harness.store import METRICS, Manifest, RunStatus
from vrft_bench.tasks.base import MetricReport


@dataclass(frozen=True)
class RunResult:
    """The outcome of one run. ``reused``: it was there already, and nothing was asked."""

    folder: Path
    manifest: Manifest
    report: MetricReport
    answers: AnswerStats
    reused: bool = False

    @property
    def status(self) -> RunStatus:
        return self.manifest.status

    def to_json(self) -> dict[str, Any]:
        """What ``metrics.json`` holds."""
        return {
            "task": self.manifest.task,
            "model": self.manifest.model,
            "fingerprint": self.manifest.fingerprint,
            "data": self.manifest.data,
            "report": self.report.to_json(),
            "answers": self.answers.to_json(),
        }


class _Stored(BaseModel):
    """What is read of ``metrics.json``; the rest of it is for people."""

    report: MetricReport
    answers: AnswerStats


def read_result(folder: Path, manifest: Manifest, *, reused: bool = False) -> RunResult:
    """The stored result of a run. Raises :class:`DataError` where ``metrics.json`` is missing or damaged."""
    path = folder / METRICS
    try:
        stored = _Stored.model_validate_json(path.read_bytes())
    except OSError as error:
        why = error.strerror or str(error)
    except ValidationError as error:
        why = "; ".join(validation_lines(error)[:3])
    else:
        if stored.report.headline in stored.report.figures:
            return RunResult(folder, manifest, stored.report, stored.answers, reused)
        why = f"report.headline: there is no figure {stored.report.headline!r}"
    raise DataError(
        f"{path} is missing or damaged: {why}",
        fix=f"compute it anew from the stored completions: vrft-bench score {folder}",
    )

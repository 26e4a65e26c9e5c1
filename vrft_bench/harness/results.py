"""RunResult: what a run says in the end, and how it is kept in ``metrics.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError
from vrft_bench.harness.answers import AnswerStats
from vrft_bench.harness.store import METRICS, Manifest, RunStatus
from vrft_bench.tasks.base import Figure, MetricReport


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


def read_result(folder: Path, manifest: Manifest, *, reused: bool = False) -> RunResult:
    """The stored result of a run. Raises :class:`DataError` where ``metrics.json`` is missing or damaged."""
    path = folder / METRICS
    try:
        value = json.loads(path.read_bytes())
        return RunResult(
            folder, manifest, report_from_json(value["report"]), AnswerStats.from_json(value["answers"]), reused
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is missing or damaged ({type(error).__name__})",
            fix=f"compute it anew from the stored completions: vrft-bench score {folder}",
        ) from None


def report_from_json(value: Mapping[str, Any]) -> MetricReport:
    """The inverse of ``MetricReport.to_json``."""
    return MetricReport(
        headline=value["headline"],
        figures={name: _figure(item) for name, item in value["figures"].items()},
        by_category={
            name: {key: _figure(item) if isinstance(item, dict) else item for key, item in row.items()}
            for name, row in value["by_category"].items()
        },
        notes=tuple(value["notes"]),
    )


def _figure(value: Mapping[str, float | None]) -> Figure:
    return Figure(value["value"], value["low"], value["high"])

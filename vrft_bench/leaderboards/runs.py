"""Run folders as the leaderboards read them: ``run.json`` and ``metrics.json``, read-only and quickly.

A folder that cannot be read is never a crash and never silently left out: it is an :class:`UnreadableRun` with its
reason. What is wrong with a run that can be read (unfinished, no figures) is in :attr:`RunRow.problems`.
"""

from __future__ import annotations

import glob
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vrft_bench.errors import DataError
from vrft_bench.harness.answers import AnswerStats
from vrft_bench.harness.results import RunResult, read_result
from vrft_bench.harness.store import MANIFEST, METRICS, SAMPLES, Manifest, containing_run, is_locked, read_manifest
from vrft_bench.tasks.base import Figure, MetricReport

FORMAT = 1
"""The newest format of ``run.json`` that this version reads."""
SITE_INDEX = "leaderboard.json"
"""The file by which a leaderboard's site is known. The runs in a site are copies of others."""
_RUN_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}(-\d+)?")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run's folder. ``report`` and ``answers`` are ``None`` where ``metrics.json`` cannot be read.

    ``problems`` say, for the user, why the run's figures are not to be had or not to be trusted; a run that ended as
    it should has none. That it was cut down by ``--limit`` is no problem of the folder: see ``partial``.
    """

    folder: Path
    manifest: Manifest
    report: MetricReport | None = None
    answers: AnswerStats | None = None
    problems: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether only a part of the data was asked for, by ``--limit`` or ``--sample-id``."""
        config = self.manifest.config
        return config.limit is not None or bool(config.sample_id)

    @property
    def is_sample(self) -> bool:
        """Whether it ran on the embedded sample data."""
        return self.manifest.data == "sample"

    def result(self) -> RunResult:
        """The run as the harness's own code takes it. Raises :class:`DataError` where there are no figures."""
        if self.report is None or self.answers is None:
            raise DataError(
                f"{self.folder} has no figures: {'; '.join(self.problems)}",
                fix=f"compute them from the stored completions: vrft-bench score {self.folder}",
            )
        return RunResult(self.folder, self.manifest, self.report, self.answers)


@dataclass(frozen=True, slots=True)
class UnreadableRun:
    """A run's folder whose ``run.json`` cannot be read, and why."""

    folder: Path
    reason: str


@dataclass(frozen=True, slots=True)
class FoundRuns:
    """What lies under some paths. Rows are sorted by folder, which puts runs of one task and model in order of time."""

    rows: tuple[RunRow, ...]
    unreadable: tuple[UnreadableRun, ...] = ()


def open_runs(paths: Iterable[str | Path]) -> FoundRuns:
    """The runs that ``paths`` name: runs' folders (or a file in one), folders that hold runs, or globs of either.

    Raises :class:`DataError` for a path that does not exist, and for paths under which there is no run at all.
    """
    given = list(paths)
    folders: dict[Path, None] = {}
    for path in given:
        for found in _expanded(path):
            folders.update(dict.fromkeys(found_folders(found)))
    if not folders:
        raise DataError(
            f"no run in {', '.join(str(path) for path in given)}",
            fix="give folders that `vrft-bench run` wrote, or the results folder that holds them",
        )
    opened = [open_run(folder) for folder in sorted(folders)]
    return FoundRuns(
        tuple(run for run in opened if isinstance(run, RunRow)),
        tuple(run for run in opened if isinstance(run, UnreadableRun)),
    )


def find_runs(root: Path) -> FoundRuns:
    """Every run under ``root``; none is no error."""
    opened = [open_run(folder) for folder in found_folders(root)]
    return FoundRuns(
        tuple(run for run in opened if isinstance(run, RunRow)),
        tuple(run for run in opened if isinstance(run, UnreadableRun)),
    )


def open_run(folder: Path) -> RunRow | UnreadableRun:
    """One run's folder, which is left as it is."""
    try:
        _refuse_newer(folder)
        manifest = read_manifest(folder)
    except DataError as error:
        return UnreadableRun(folder, " ".join(error.message.split()))
    problems = []
    if manifest.status != "complete":
        state = "running now" if is_locked(folder) else "unfinished"
        problems.append(f"{state}: its status is {manifest.status!r}")
    if not (folder / SAMPLES).is_file():
        problems.append(f"it has lost its {SAMPLES}")
    try:
        result = read_result(folder, manifest)
    except DataError as error:
        problems.append(" ".join(error.message.split()))
        return RunRow(folder, manifest, problems=tuple(problems))
    if flaw := _not_its_own(folder, manifest) or next(_impossible(result.report), ""):
        return RunRow(folder, manifest, problems=(*problems, f"its {METRICS} is damaged: {flaw}"))
    return RunRow(folder, manifest, result.report, result.answers, tuple(problems))


def found_folders(root: Path) -> list[Path]:
    """The folders of runs at and under ``root``, sorted; hidden folders are left out, and sites that lie under it."""
    if _is_run(root):
        return [root]
    found = []
    for place, folders, _ in os.walk(root):
        here = [Path(place, name) for name in folders if not name.startswith(".")]
        here = [path for path in here if not (path / SITE_INDEX).is_file()]
        runs = {path.name for path in here if _is_run(path)}
        found += [path for path in here if path.name in runs]
        folders[:] = [path.name for path in here if path.name not in runs]
    return sorted(found)


def _is_run(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or (_RUN_NAME.fullmatch(folder.name) is not None and folder.is_dir())


def _not_its_own(folder: Path, manifest: Manifest) -> str:
    """Whether the figures were written for another run, as where a file was copied into the wrong folder."""
    told = json.loads((folder / METRICS).read_bytes()).get("fingerprint", manifest.fingerprint)
    return "" if told == manifest.fingerprint else f"it is of the run {str(told)[:12]}"


def _impossible(report: MetricReport) -> Iterator[str]:
    """What no metric says, and only a file that was damaged or edited does."""
    for row in (report.figures, *report.by_category.values()):
        for name, figure in row.items():
            if isinstance(figure, Figure):
                ends = [end for end in (figure.value, figure.low, figure.high) if end is not None]
                if not all(map(math.isfinite, ends)):
                    yield f"{name!r} is not a finite number"


def _expanded(given: str | Path) -> Iterator[Path]:
    path = Path(given)
    if path.exists():
        yield containing_run(path)
        return
    matches = sorted(glob.glob(str(given), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not matches:
        raise DataError(f"{given} does not exist", fix="give a run's folder, or one that holds runs such as results/")
    for match in matches:
        if Path(match).is_dir():
            yield Path(match)


def _refuse_newer(folder: Path) -> None:
    """Raise :class:`DataError` for a ``run.json`` of a format that came after this version."""
    try:
        version = json.loads((folder / MANIFEST).read_bytes()).get("format", FORMAT)
    except (OSError, ValueError, AttributeError, RecursionError):
        return  # what is wrong with it, the manifest's reader says
    if isinstance(version, int) and version > FORMAT:
        raise DataError(
            f"{folder / MANIFEST} is of format {version}, and this version reads formats up to {FORMAT}",
            fix="upgrade vrft-bench",
        )

"""The head of a report, as rows for the page's template: figures with intervals, what was run on what, what to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrft_bench.harness.cli.printing import figure_text, interval_text
from vrft_bench.harness.cli.results import heading
from vrft_bench.harness.provenance import Training
from vrft_bench.leaderboards.report.joined import JoinedRun
from vrft_bench.tasks.base import Figure


@dataclass(frozen=True, slots=True)
class RunHead:
    """A run as it is headed: a letter, its model, and its headline figure."""

    letter: str
    model: str
    figure: str
    value: str
    interval: str
    low: float
    high: float
    at: float
    questions: int


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table with an item per run. ``differs``: not all of them are the same."""

    name: str
    cells: tuple[tuple[str, str], ...]
    differs: bool = False


def heads(runs: Sequence[JoinedRun]) -> list[RunHead]:
    """The runs by letter, A first."""
    found = []
    for number, run in enumerate(runs):
        row, manifest = run.row, run.row.manifest
        figure = row.report.figures[row.report.headline] if row.report else Figure(None)
        value = figure.value or 0.0
        low, high = (value if end is None else end for end in (figure.low, figure.high))
        found.append(
            RunHead(
                letter=letter(number),
                model=model_name(manifest.model),
                figure=heading(row.report.headline) if row.report else "no figures",
                value=figure_text(figure),
                interval=interval_text(figure),
                low=_percent(low),
                high=_percent(high),
                at=_percent(value),
                questions=manifest.samples,
            )
        )
    return found


def model_name(model: str) -> str:
    """A run's model as it is shown: of an absolute path, the last two folders."""
    backend, slash, name = model.partition("/")
    place = Path(model if not backend else name)
    if not slash or not (place.is_absolute() or name.startswith("~")):
        return model
    return "/".join(filter(None, (backend, *place.parts[-2:])))


def _trained(training: Training) -> str:
    shots = "" if training.shots is None else f", {training.shots} shots"
    return f"{training.trainer} on {training.task}{shots}"


def letter(number: int) -> str:
    """A, B, ... for the runs of a report; beyond Z, a number."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def figure_rows(runs: Sequence[JoinedRun]) -> list[Row]:
    """Every figure that any run has, the headline first; a run that lacks one has a dash."""
    names: dict[str, None] = {}
    for run in runs:
        if run.row.report is not None:
            names.update(dict.fromkeys((run.row.report.headline, *run.row.report.figures)))
    rows = []
    for name in names:
        figures = [run.row.report.figures.get(name) if run.row.report else None for run in runs]
        if any(figure is not None and figure.value is not None for figure in figures):
            rows.append(Row(heading(name), tuple((figure_text(item), interval_text(item)) for item in figures)))
    return rows + _reward_rows(runs)


def _reward_rows(runs: Sequence[JoinedRun]) -> list[Row]:
    names = dict.fromkeys(name for run in runs if run.row.answers for name in run.row.answers.components)
    answers = [run.row.answers for run in runs]
    rows = [Row("mean reward", tuple((_number(item.reward if item else None), "") for item in answers))]
    rows += [
        Row(f"reward: {name}", tuple((_number(item.components.get(name) if item else None), "") for item in answers))
        for name in names
    ]
    return rows if any(answers) else []


def fact_rows(runs: Sequence[JoinedRun]) -> list[Row]:
    """What was run on what; rows in which the runs differ are marked, for their figures may not compare."""
    columns = [_facts(run) for run in runs]
    rows = []
    for name in columns[0]:
        cells = [column[name] for column in columns]
        rows.append(Row(name, tuple((cell, "") for cell in cells), differs=len(set(cells)) > 1 and name not in _OWN))
    return rows


_OWN = ("model", "trained", "run", "fingerprint", "begun", "answers")
"""Facts in which any two runs differ."""


def _facts(run: JoinedRun) -> dict[str, str]:
    manifest, identity = run.row.manifest, run.row.manifest.identity
    task, data, sampling = identity["task"], identity["data"], identity["sampling"]
    heat = f"temperature {sampling.get('temperature')}, top-p {sampling.get('top_p')}"
    decoding = heat if sampling.get("temperature") else "greedy"
    profile: dict[str, Any] = identity["profile"]
    answers = run.row.answers
    status = ", ".join(f"{name} {count}" for name, count in answers.status.items()) if answers else "-"
    return {
        "model": model_name(manifest.model),
        "trained": "; ".join(map(_trained, manifest.trainings)) or "-",
        "task": f"{task['name']}, version {task['version']}",
        "protocol": str(task["protocol"]),
        "data": f"{'SAMPLE DATA' if run.row.is_sample else 'real'}, split {data.get('split')}",
        "data hash": str(data["sha256"])[:12],
        "asked about": str(data.get("ask") or "every question"),
        "questions": f"{manifest.samples:,}" + (" (PARTIAL)" if run.row.partial else ""),
        "completions each": str(manifest.config.samples),
        "decoding": f"{decoding}, at most {sampling.get('max_tokens')} tokens, seed {sampling.get('seed')}",
        "profile": f"{profile.get('name')} ({profile.get('convention')})",
        "answers": status,
        "run": "/".join(run.row.folder.resolve().parts[-3:]),
        "fingerprint": manifest.fingerprint[:16],
        "begun": f"{manifest.created[:16].replace('T', ' ')} UTC",
    }


def notes(runs: Sequence[JoinedRun]) -> list[str]:
    """What a reader of the figures must know; what holds for one run of several names it."""
    found: dict[str, list[str]] = {}
    for number, run in enumerate(runs):
        report = run.row.report.notes if run.row.report else ()
        answers = run.row.answers.notes if run.row.answers else ()
        for note in (*run.notes, *report, *answers):
            found.setdefault(note, []).append(letter(number))
    return [note if len(letters) == len(runs) else f"{', '.join(letters)}: {note}" for note, letters in found.items()]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float) -> float:
    return round(100 * min(max(value, 0.0), 1.0), 2)

"""The rows of own runs: which runs make one row, what its cells hold, and what tells rows of one name apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vrft_bench.harness.identity import differences
from vrft_bench.leaderboards.comparability import Conditions, said
from vrft_bench.leaderboards.labels import BASE, UNKNOWN, Label
from vrft_bench.leaderboards.layouts import MASKS, MEAN, TableColumn
from vrft_bench.leaderboards.runs import RunRow
from vrft_bench.leaderboards.tables import EMPTY, Cell, Row
from vrft_bench.tasks.base import Figure, MetricReport
from vrft_bench.tasks.data.survey import canonical

Slot = tuple[str, str | None]
SHARED = ("protocol", "sampling")
"""Conditions that hold for a whole table; the others hold for a column."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A run that has figures, with all that decides where it stands."""

    run: RunRow
    report: MetricReport
    conditions: Conditions
    label: Label

    @cached_property
    def model(self) -> str:
        """The model and how it was asked, by content."""
        return canonical(self.about)

    @property
    def about(self) -> dict[str, Any]:
        """What tells two models of one name apart."""
        identity = self.run.manifest.identity
        return {"model": identity["model"], "profile": identity["profile"]}

    def shared(self, allowed: frozenset[str]) -> tuple[str, ...]:
        """Equal for entries of one table."""
        parts = self.conditions.parts
        partial = "" if "data" in allowed else str(self.run.partial)
        return (self.conditions.kind, partial, *(parts[name] for name in SHARED if name not in allowed))


def rows_of_entries(slots: Mapping[Slot, list[Entry]]) -> list[list[Entry]]:
    """The entries of each row. Trained models of one label make one row, unless two of them claim the same column.

    (A few-shot benchmark of several data sets trains a model on each: their figures are one row, as in the paper.)
    """
    buckets: dict[tuple[Label, str], list[Entry]] = {}
    for entry in (entry for entries in slots.values() for entry in entries):
        apart = entry.model if entry.label.method in (BASE, UNKNOWN) else ""
        buckets.setdefault((entry.label, apart), []).append(entry)
    rows: list[list[Entry]] = []
    for bucket in buckets.values():
        models: dict[tuple[str, str], set[str]] = {}
        for entry in bucket:
            models.setdefault(_place(entry), set()).add(entry.model)
        if all(len(claims) < 2 for claims in models.values()):
            rows.append(bucket)
        else:
            each = dict.fromkeys(entry.model for entry in bucket)
            rows += [[entry for entry in bucket if entry.model == model] for model in each]
    return rows


def newest_runs(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """The newest run of each task and split, and the others."""
    newest: list[Entry] = []
    rest: list[Entry] = []
    seen: set[tuple[str, str]] = set()
    for entry in sorted(entries, key=lambda entry: (entry.run.manifest.created, entry.run.folder.name), reverse=True):
        (rest if _place(entry) in seen else newest).append(entry)
        seen.add(_place(entry))
    return newest, rest


def own_row(columns: Sequence[TableColumn], by_slot: Mapping[Slot, Entry], marks: Sequence[str]) -> Row:
    """The row of the runs in ``by_slot``, of which there is one at least."""
    entries = list(by_slot.values())
    cells = [_cell(column, by_slot.get(column.slot)) for column in columns]
    values = [cell.value for cell, column in zip(cells, columns, strict=True) if column.figure not in (MEAN, MASKS)]
    defined = [value for value in values if value is not None]
    if len(defined) == len(values):
        mean = Cell(sum(defined) / len(defined))
        cells = [mean if column.figure == MEAN else cell for cell, column in zip(cells, columns, strict=True)]
    partial = [f"PARTIAL, {entry.run.manifest.samples} samples" for entry in entries if entry.run.partial]
    return Row(entries[0].label, "own", tuple(cells), (*marks, *dict.fromkeys(partial)))


def deviations(
    entry: Entry, among: Sequence[Entry], allowed: frozenset[str], published: Sequence[Conditions]
) -> list[str]:
    """Which of the conditions that may differ do differ ``among`` the entries of its column or from published rows."""
    others = [*(other.conditions for other in among), *published]
    return [
        f"{name}: {said(entry.conditions, name)}"
        for name in sorted(allowed)
        if any(entry.conditions.parts[name] != other.parts.get(name, entry.conditions.parts[name]) for other in others)
    ]


def told_apart(rows: Sequence[Row], entries: Mapping[Path, Entry]) -> list[Row]:
    """Rows of one name get a mark that says in what their models differ."""
    named: dict[Label, list[Row]] = {}
    for row in rows:
        named.setdefault(row.label, []).append(row)
    return [_told_apart(row, [other for other in named[row.label] if other is not row], entries) for row in rows]


def _told_apart(row: Row, twins: Sequence[Row], entries: Mapping[Path, Entry]) -> Row:
    entry = entries[row.folders[0]]
    for twin in twins:
        other = entries[twin.folders[0]]
        if other.model != entry.model:
            line = next(iter(differences(entry.about, other.about)), entry.run.manifest.fingerprint[:8])
            return replace(row, marks=(line.split(" there, ")[0].removeprefix("model."), *row.marks))
    return row


def masks_report(folder: Path) -> MetricReport | None:
    """The mask figures of a segmenter with weights, of which the paper's is one; the newest where there are several."""
    for path in sorted(folder.glob("masks-sam-*.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            return _REPORT.validate_python(json.loads(path.read_bytes())["report"])
        except (OSError, ValueError, LookupError, TypeError, ValidationError):
            continue
    return None


_REPORT = TypeAdapter(MetricReport)


def _place(entry: Entry) -> tuple[str, str]:
    return entry.run.manifest.task, entry.conditions.parts["split"]


def _cell(column: TableColumn, entry: Entry | None) -> Cell:
    if entry is None:
        return EMPTY
    report = masks_report(entry.run.folder) if column.figure == MASKS else entry.report
    if report is None:
        return EMPTY
    name = column.figure if column.figure not in ("", MASKS) else report.headline
    found = report.by_category.get(column.category, {}) if column.category else report.figures
    figure = found.get(name)
    if not isinstance(figure, Figure) or figure.value is None:
        return Cell(run=entry.run.folder)
    low, high = (None if bound is None else 100 * bound for bound in (figure.low, figure.high))
    return Cell(100 * figure.value, low, high, entry.run.folder)

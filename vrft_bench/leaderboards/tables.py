"""Comparison tables: own runs as the paper lays its tables out, beside the published rows where these may stand there.

Every figure is in percent. A table holds runs of one protocol, one sampling and one kind of data, and in each of its
columns runs of the same task version, data, split, ask rule and prompt (see
:mod:`vrft_bench.leaderboards.comparability`); what differs goes into a table of its own. Best is the highest figure of
own runs in a column as it is printed, where there are two at least, ties included; published rows take no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vrft_bench.leaderboards.labels import Label, LabelRule
from vrft_bench.leaderboards.layouts import Layout, TableColumn

DECIMALS = 1
Origin = Literal["own", "published"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure in percent with its interval, and the run that it is of. ``note`` is a footnote of this cell alone."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    run: Path | None = None
    note: str = ""
    gain: float | None = None
    best: bool = False

    def to_json(self) -> dict[str, Any]:
        kept = {"value": self.value, "low": self.low, "high": self.high, "gain": self.gain, "best": self.best}
        return {**kept, "run": str(self.run) if self.run else None, "note": self.note or None}


EMPTY = Cell()


@dataclass(frozen=True, slots=True)
class Row:
    """One model's figures. ``marks`` say what sets it apart from the rows around it: partial, another protocol."""

    label: Label
    origin: Origin
    cells: tuple[Cell, ...]
    marks: tuple[str, ...] = ()

    @property
    def folders(self) -> tuple[Path, ...]:
        """The runs that its figures are from."""
        return tuple(dict.fromkeys(cell.run for cell in self.cells if cell.run is not None))

    def to_json(self) -> dict[str, Any]:
        label = {"model": self.label.model, "method": self.label.method, "shots": self.label.shots}
        cells = [cell.to_json() for cell in self.cells]
        return {**label, "origin": self.origin, "marks": list(self.marks), "cells": cells}


@dataclass(frozen=True, slots=True)
class Table:
    """One table. ``conditions`` are the lines that say how its own figures came about, ``notes`` what to know of it.

    ``flags`` are what must not be overlooked: sample data, partial runs, the protocol.
    """

    layout: Layout
    columns: tuple[TableColumn, ...]
    rows: tuple[Row, ...]
    kind: str
    conditions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""
    baseline: str = ""
    flags: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The paper's number where it has one, what is measured, and the flags."""
        number = f"{self.layout.table}: " if self.layout.table else ""
        return f"{number}{self.layout.title} ({', '.join(self.flags)})"

    def to_json(self) -> dict[str, Any]:
        """Everything, with the figures as they are: nothing is rounded."""
        return {
            "title": self.title,
            "table": self.layout.table or None,
            "unit": "percent",
            "data": self.kind,
            "conditions": list(self.conditions),
            "notes": list(self.notes),
            "source": self.source or None,
            "baseline": self.baseline or None,
            "columns": [
                {"heading": item.heading, "task": item.task or None, "category": item.category or None}
                for item in self.columns
            ],
            "rows": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What a user may choose. ``tasks`` of ``None`` is every task that there are runs of.

    ``baseline`` is ``base`` (each row against the base row of its model), a row's model or name, or a run's folder;
    ``sort`` the heading of a column.
    """

    tasks: tuple[str, ...] | None = None
    allowed: frozenset[str] = frozenset()
    labels: tuple[LabelRule, ...] = ()
    baseline: str = ""
    sort: str = ""
    every_run: bool = False
    published: bool = True


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run that stands in no table, and why."""

    folder: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of some runs, and the runs that are in none."""

    tables: tuple[Table, ...]
    left_out: tuple[LeftOut, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        left = [{"run": str(item.folder), "reason": item.reason} for item in self.left_out]
        return {"tables": [table.to_json() for table in self.tables], "left_out": left}


def printed(value: float) -> str:
    """A figure as tables print it."""
    return f"{value:.{DECIMALS}f}"


def with_best(rows: Sequence[Row]) -> tuple[Row, ...]:
    """``rows`` with the best own figure of each column marked; a lone one is not the best of anything."""
    width = len(rows[0].cells) if rows else 0
    best: list[str | None] = []
    for index in range(width):
        values = [row.cells[index].value for row in rows if row.origin == "own"]
        defined = [value for value in values if value is not None]
        best.append(printed(max(defined)) if len(defined) > 1 else None)
    return tuple(
        replace(row, cells=tuple(_marked(cell, top) for cell, top in zip(row.cells, best, strict=True)))
        if row.origin == "own"
        else row
        for row in rows
    )


def with_gains(rows: Sequence[Row], baselines: Mapping[int, Row]) -> tuple[Row, ...]:
    """``rows`` with what each gains over its baseline, which is given by the row's place."""
    return tuple(
        replace(row, cells=tuple(_gained(cell, from_) for cell, from_ in zip(row.cells, base.cells, strict=True)))
        if (base := baselines.get(place)) is not None and base is not row
        else row
        for place, row in enumerate(rows)
    )


def sorted_rows(rows: Iterable[Row], columns: Sequence[TableColumn], sort: str) -> list[Row]:
    """By label, own rows before published ones; or from the best to the worst in the column headed ``sort``."""
    ordered = sorted(rows, key=lambda row: (row.label.order(), row.origin, row.marks))
    places = [place for place, column in enumerate(columns) if column.heading.casefold() == sort.casefold()]
    if not sort or not places:
        return ordered
    return sorted(ordered, key=lambda row: -_or_least(row.cells[places[0]].value))


def _or_least(value: float | None) -> float:
    return float("-inf") if value is None else value


def _marked(cell: Cell, best: str | None) -> Cell:
    is_best = best is not None and cell.value is not None and printed(cell.value) == best
    return replace(cell, best=True) if is_best else cell


def _gained(cell: Cell, base: Cell) -> Cell:
    if cell.value is None or base.value is None:
        return cell
    return replace(cell, gain=cell.value - base.value)

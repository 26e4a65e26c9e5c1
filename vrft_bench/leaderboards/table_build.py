"""From run folders to tables: which runs may share a column, and whether published rows may join them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.leaderboards.comparability import (
    conditions_of,
    difference_lines,
    differing,
    may_stand_together,
    offer,
)
from vrft_bench.leaderboards.labels import BASE, Label, label_of
from vrft_bench.leaderboards.layouts import (
    MASKS,
    MEAN,
    Layout,
    TableColumn,
    fitted,
    heading_of,
    own_layout,
    paper_layouts,
    published_conditions,
)
from vrft_bench.leaderboards.published import PublishedRow, rows_of
from vrft_bench.leaderboards.runs import FoundRuns, RunRow
from vrft_bench.leaderboards.table_rows import (
    SHARED,
    Entry,
    Slot,
    deviations,
    masks_report,
    newest_runs,
    own_row,
    rows_of_entries,
    told_apart,
)
from vrft_bench.leaderboards.tables import (
    EMPTY,
    Cell,
    LeftOut,
    Row,
    Table,
    TableOptions,
    Tables,
    sorted_rows,
    with_best,
    with_gains,
)
from vrft_bench.registry import TASK_GROUPS, TASKS
from vrft_bench.tasks.base import MetricReport


def build_tables(found: FoundRuns, options: TableOptions) -> Tables:
    """The tables of the runs that were found, real data before sample data and whole runs before partial ones."""
    entries, left_out = _entries(found, options)
    tables: list[Table] = []
    layouts = [layout for layout in paper_layouts() if _is_wanted(layout, options, entries)]
    for layout in layouts:
        own = [entry for entry in entries if _slot_of(layout, entry) is not None]
        tables += _tables_of(layout, own, options)
    placed = {entry.run.folder for layout in layouts for entry in entries if _slot_of(layout, entry) is not None}
    rest = [entry for entry in entries if entry.run.folder not in placed]
    for task in dict.fromkeys(entry.run.manifest.task for entry in rest):
        own = [entry for entry in rest if entry.run.manifest.task == task]
        tables += _tables_of(own_layout(task, [entry.report for entry in own]), own, options)
    _check_choices(tables, options)
    return Tables(tuple(tables), tuple(left_out))


def _entries(found: FoundRuns, options: TableOptions) -> tuple[list[Entry], list[LeftOut]]:
    left = [LeftOut(run.folder, run.reason) for run in found.unreadable]
    usable: list[tuple[RunRow, MetricReport]] = []
    for run in found.rows:
        if options.tasks is not None and run.manifest.task not in options.tasks:
            continue
        if run.problems or run.report is None:
            left.append(LeftOut(run.folder, "; ".join(run.problems)))
        elif not run.manifest.samples:
            left.append(LeftOut(run.folder, "it has no samples"))
        else:
            usable.append((run, run.report))
    conditions = conditions_of([run.manifest for run, _ in usable])
    return [
        Entry(run, report, item, label_of(run, options.labels))
        for (run, report), item in zip(usable, conditions, strict=True)
    ], left


def _is_wanted(layout: Layout, options: TableOptions, entries: Sequence[Entry]) -> bool:
    """A table of the paper is shown for runs that stand in it, and as published where its tasks were asked for."""
    return any(_slot_of(layout, entry) is not None for entry in entries) or _is_asked(layout, options)


def _is_asked(layout: Layout, options: TableOptions) -> bool:
    """Whether the published table itself was asked for: all its tasks were, or all that the paper has."""
    if not options.published or options.tasks is None:
        return False
    asked = set(options.tasks)
    if asked.issuperset(TASK_GROUPS["visual_rft"]):
        asked.update(task for task in layout.tasks if task not in TASKS)
    return asked.issuperset(layout.tasks)


def _slot_of(layout: Layout, entry: Entry) -> Slot | None:
    """The columns that ``entry`` fills."""
    task, split = entry.run.manifest.task, entry.conditions.parts["split"]
    return next((item.slot for item in layout.columns if item.task == task and item.split in (None, split)), None)


def _tables_of(layout: Layout, entries: Sequence[Entry], options: TableOptions) -> list[Table]:
    tables: list[Table] = []
    published = rows_of(layout.table) if options.published and layout.table else []
    taken = False
    for key in sorted({entry.shared(options.allowed) for entry in entries}):
        group = [entry for entry in entries if entry.shared(options.allowed) == key]
        first: Mapping[Slot, list[Entry]] = {}
        for slots in _by_number(layout, group, options.allowed):
            fit = fitted(layout, key[0], [entry.report for own in slots.values() for entry in own])
            objections = _objections(fit, slots, options.allowed) if published else []
            joined = [] if objections else published
            taken = taken or bool(joined)
            table = _table(fit, key[0], slots, joined, objections, options)
            tables.append(replace(table, notes=(*table.notes, *_apart(slots, first))))
            first = first or slots
    if published and not taken and _is_asked(layout, options):
        tables.append(_published_table(layout, published))
    return tables


def _apart(slots: Mapping[Slot, list[Entry]], first: Mapping[Slot, list[Entry]]) -> list[str]:
    """Why the runs in ``slots`` stand in no column of the table before."""
    lines: dict[str, None] = {}
    names: dict[str, None] = {}
    for slot, entries in slots.items():
        for other in first.get(slot, ())[:1]:
            lines.update(dict.fromkeys(difference_lines(entries[0].conditions, other.conditions)))
            names.update(dict.fromkeys(differing(entries[0].conditions, other.conditions)))
    return [f"not in one table with the runs above: {'; '.join(lines)}{offer(names, 'joins them')}"] if lines else []


def _by_number(layout: Layout, entries: Sequence[Entry], allowed: frozenset[str]) -> list[dict[Slot, list[Entry]]]:
    """For each table, the runs of each slot. Of runs that may not share a column, those of the most models come first.

    The second table holds, slot by slot, what could not stand in the first, and so on.
    """
    columns: dict[Slot, list[list[Entry]]] = {}
    for slot in dict.fromkeys(column.slot for column in layout.columns if column.task):
        groups: dict[tuple[str, ...], list[Entry]] = {}
        for entry in entries:
            if _slot_of(layout, entry) == slot:
                groups.setdefault(entry.conditions.key(allowed), []).append(entry)
        columns[slot] = sorted(groups.values(), key=_weight, reverse=True)
    count = max((len(groups) for groups in columns.values()), default=0)
    return [
        {slot: groups[number] for slot, groups in columns.items() if number < len(groups)} for number in range(count)
    ]


def _weight(group: Sequence[Entry]) -> tuple[bool, int, str]:
    whole = any(not entry.run.partial for entry in group)
    return whole, len({entry.model for entry in group}), max(entry.run.manifest.created for entry in group)


def _table(
    layout: Layout,
    kind: str,
    slots: Mapping[Slot, list[Entry]],
    published: Sequence[PublishedRow],
    objections: Sequence[str],
    options: TableOptions,
) -> Table:
    columns = _columns(layout, slots, published)
    rows, older = _own_rows(columns, slots, bool(published), options)
    rows += [_published_row(columns, row) for row in published]
    best = with_best(sorted_rows(rows, columns, options.sort))
    baselines = _baselines(best, options.baseline)
    notes = [f"published rows do not stand here: {reason}" for reason in objections]
    if older:
        notes.append(f"{older} older run(s) of the same models are not shown; --all shows them")
    if options.baseline.casefold() == BASE:
        notes += [
            f"{model} has {len(own)} base rows: its gains are over none of them; give the folder of one as --baseline"
            for (model, _), own in _bases(best).items()
            if len(own) > 1
        ]
    if options.baseline and not baselines:
        notes.append(f"no row here is the baseline {options.baseline!r} of another")
    return Table(
        layout,
        columns,
        with_gains(best, baselines),
        kind,
        tuple(_condition_lines(slots, options.allowed)),
        tuple(notes),
        published[0].source if published else "",
        options.baseline if baselines else "",
        _flags(slots, kind),
    )


def _own_rows(
    columns: Sequence[TableColumn], slots: Mapping[Slot, list[Entry]], beside_published: bool, options: TableOptions
) -> tuple[list[Row], int]:
    """A row per model, and how many older runs of the same models are in none."""
    places = {entry.run.folder: slot for slot, own in slots.items() for entry in own}
    everyone = [entry for own in slots.values() for entry in own]
    printed = [published_conditions(column) for column in columns if beside_published and column.task]
    older = 0
    rows: list[Row] = []
    for entries in rows_of_entries(slots):
        newest, rest = newest_runs(entries)
        chosen = [newest, *([entry] for entry in rest)] if options.every_run else [newest]
        older += 0 if options.every_run else len(rest)
        for own in chosen:
            marks = [f"run of {own[0].run.manifest.created}"] if len(chosen) > 1 else []
            for entry in own:
                slot = places[entry.run.folder]
                of_slot = [item for item in printed if item.task == slot[0]]
                per_column, whole = options.allowed - {*SHARED}, options.allowed & {*SHARED}
                marks += deviations(entry, slots[slot], per_column, of_slot) + deviations(
                    entry, everyone, whole, of_slot
                )
            by_slot = {places[entry.run.folder]: entry for entry in own}
            rows.append(own_row(columns, by_slot, list(dict.fromkeys(marks))))
    return told_apart(rows, {entry.run.folder: entry for entry in everyone}), older


def _columns(
    layout: Layout, slots: Mapping[Slot, list[Entry]], published: Sequence[PublishedRow]
) -> tuple[TableColumn, ...]:
    """The layout's columns that hold something; a mean only where all that it is of are there."""
    if published:
        return layout.columns
    slotted = [column for column in layout.columns if column.task]
    there = [
        column
        for column in slotted
        if column.slot in slots
        and (column.figure != MASKS or any(masks_report(item.run.folder) for item in slots[column.slot]))
    ]
    with_mean = all(column.slot in slots for column in slotted)
    return tuple(column for column in layout.columns if column in there or (column.figure == MEAN and with_mean))


def _published_row(columns: Sequence[TableColumn], row: PublishedRow) -> Row:
    cells = [
        Cell(row.values.get(column.published), note=row.notes.get(column.published, "")) if column.published else EMPTY
        for column in columns
    ]
    return Row(Label(row.model, row.method, row.shots), "published", tuple(cells))


def _published_table(layout: Layout, published: Sequence[PublishedRow]) -> Table:
    rows = sorted_rows([_published_row(layout.columns, row) for row in published], layout.columns, "")
    return Table(layout, layout.columns, tuple(rows), "published", source=published[0].source, flags=("as published",))


def _objections(layout: Layout, slots: Mapping[Slot, list[Entry]], allowed: frozenset[str]) -> list[str]:
    """Why the paper's rows may not stand beside the runs in ``slots``; nothing where they may."""
    if any(entry.run.is_sample for own in slots.values() for entry in own):
        return ["sample data stand beside nothing else"]
    lines: dict[str, None] = {}
    names: dict[str, None] = {}
    for column in layout.columns:
        printed = published_conditions(column)
        for entry in slots.get(column.slot, ()):
            if not may_stand_together(entry.conditions, printed, allowed):
                lines.update(dict.fromkeys(difference_lines(entry.conditions, printed)))
                names.update(dict.fromkeys(differing(entry.conditions, printed)))
    if not lines:
        return []
    return [f"{'; '.join(lines)}{offer(names, 'puts them beside')}"]


def _flags(slots: Mapping[Slot, list[Entry]], kind: str) -> tuple[str, ...]:
    entries = [entry for own in slots.values() for entry in own]
    return (
        f"protocol {entries[0].conditions.parts['protocol']}",
        *(["SAMPLE DATA"] if kind == "sample" else []),
        *(["PARTIAL"] if any(entry.run.partial for entry in entries) else []),
    )


def _condition_lines(slots: Mapping[Slot, list[Entry]], allowed: frozenset[str]) -> list[str]:
    """How the figures came about: what all share, then a line for each task and split."""
    first = next(iter(next(iter(slots.values()))))
    parts = first.conditions.parts
    said = {"protocol": f"protocol {parts['protocol']}", "sampling": parts["sampling"]}
    lines = [", ".join([f"{first.conditions.kind} data", *(said[name] for name in SHARED if name not in allowed)])]
    alike: dict[str, dict[str, None]] = {}
    for (task, _), entries in slots.items():
        own = entries[0].conditions.parts
        about = [
            f"version {own['version']}",
            f"split {own['split']}",
            *([f"ask {own['ask']}"] if own["ask"] != "-" else []),
        ]
        figures = " / ".join(dict.fromkeys(heading_of(entry.report.headline) for entry in entries))
        counts = " / ".join(dict.fromkeys(str(entry.run.manifest.samples) for entry in entries))
        alike.setdefault(f"{figures}, {', '.join(about)}, {counts} samples", {})[task] = None
    lines += [f"{', '.join(tasks)}: {line}" for line, tasks in alike.items()]
    if allowed:
        lines.append(f"allowed to differ: {', '.join(sorted(allowed))}")
    return lines


def _baselines(rows: Sequence[Row], baseline: str) -> dict[int, Row]:
    """The baseline of the row in each place. Raises :class:`UserError` for a name that several rows have."""
    if not baseline:
        return {}
    if baseline.casefold() == BASE:
        bases = _bases(rows)
        found = ((place, bases.get((row.label.model, row.origin), ())) for place, row in enumerate(rows))
        return {place: own[0] for place, own in found if len(own) == 1 and own[0] is not rows[place]}
    own = {place: row for place, row in enumerate(rows) if row.origin == "own"}
    folder, wanted = Path(baseline).absolute(), baseline.casefold()
    exact = [row for row in own.values() if wanted == row.label.name.casefold()]
    named = [
        row
        for row in own.values()
        if wanted == row.label.model.casefold() or folder in [run.absolute() for run in row.folders]
    ]
    chosen = exact or named
    if len(chosen) > 1:
        raise UserError(
            f"--baseline {baseline!r} may mean {'; '.join(row.label.name for row in chosen)}",
            fix="give one of these names whole, or the folder of its run",
        )
    return {place: chosen[0] for place, row in own.items() if row is not chosen[0]} if chosen else {}


def _bases(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The base rows of each model, of which there are several where it was run in several ways (`--all`, 4 bits)."""
    bases: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.label.method == BASE:
            bases.setdefault((row.label.model, row.origin), []).append(row)
    return bases


def _check_choices(tables: Sequence[Table], options: TableOptions) -> None:
    """Raise :class:`UserError` where --baseline or --sort names nothing in any table."""
    own = [table for table in tables if table.kind != "published"]
    if options.baseline and own and not any(table.baseline for table in own):
        names = _unique(row.label.name for table in own for row in table.rows if row.origin == "own")
        raise UserError(
            f"--baseline {options.baseline!r}: no run of that name has another beside it"
            f"{did_you_mean(options.baseline, names)}",
            fix=f"give base, a run's folder, or one of: {'; '.join(names[:8])}",
        )
    headings = _unique(column.heading for table in tables for column in table.columns)
    if options.sort and options.sort.casefold() not in {heading.casefold() for heading in headings}:
        raise UserError(
            f"--sort {options.sort!r}: there is no such column{did_you_mean(options.sort, headings)}",
            fix=f"choose one of: {', '.join(headings[:20])}",
        )


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))

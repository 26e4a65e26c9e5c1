"""A comparison as sections of tables and lines, for a terminal and for Markdown.

Categories, sample ids and models are others' text: they are shown without anything that acts on a terminal or a page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import typer

from vrft_bench.harness.cli.printing import Column, print_table
from vrft_bench.leaderboards.compare import Comparison, Pair, Row
from vrft_bench.leaderboards.compare_words import conclusions, name_of, warnings
from vrft_bench.leaderboards.text import isolated, markdown_text

_MOST_CATEGORIES = 30
_HEADINGS = {
    "figures": "figures",
    "by_category": "by category",
    "by_size": "by object size",
    "rewards": "mean reward per answer",
    "lengths": "mean length of answers",
    "pass_at_k": "one of k answers is right",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its heading; ``lines`` come after it. Without rows there are only lines."""

    title: str
    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()


def sections(comparison: Comparison, *, list_flips: bool = False) -> Iterator[Section]:
    """Everything that is shown, from what must be known first to what can be concluded."""
    known = warnings(comparison)
    if known:
        yield Section("read this first", lines=known)
    yield _runs(comparison)
    for pair in comparison.pairs:
        yield from _tables(pair, list_flips, comparison.how.level)
    yield Section("what can be concluded, and what cannot", lines=[f"{line}." for line in conclusions(comparison)])
    yield Section("how", lines=_method(comparison))


def print_comparison(comparison: Comparison, *, list_flips: bool = False, plain: bool = False) -> None:
    """On stdout, as tables on a terminal and as aligned columns elsewhere."""
    for section in sections(comparison, list_flips=list_flips):
        if section.rows:
            rows = [[isolated(cell) for cell in row] for row in section.rows]
            print_table(section.columns, rows, plain=plain, title=section.title)
        else:
            typer.echo(section.title)
        for line in section.lines:
            typer.echo(f"- {isolated(line)}" if not section.rows else isolated(line))
        if section.lines:
            typer.echo("")


def markdown(comparison: Comparison, *, list_flips: bool = False) -> str:
    """As Markdown that GitHub renders."""
    parts = []
    for section in sections(comparison, list_flips=list_flips):
        parts.append(f"### {markdown_text(section.title)}")
        if section.rows:
            marks = ["---:" if column.numeric else "---" for column in section.columns]
            table = [[column.name for column in section.columns], *section.rows]
            lines = [f"| {' | '.join(markdown_text(cell) for cell in row)} |" for row in table]
            parts.append("\n".join([lines[0], f"| {' | '.join(marks)} |", *lines[1:]]))
        if section.lines:
            parts.append("\n".join(f"- {markdown_text(line)}" for line in section.lines))
    return "\n\n".join(parts)


def _runs(comparison: Comparison) -> Section:
    rows = [
        [
            f"{run.letter} (baseline)" if run is comparison.baseline else run.letter,
            run.row.manifest.model,
            str(run.completions),
            run.row.folder.name,
        ]
        for run in comparison.runs
    ]
    manifest = comparison.baseline.row.manifest
    samples = len(comparison.shared.ids)
    title = f"{manifest.task}  |  data: {manifest.data}  |  {samples} shared samples of {comparison.images} images"
    return Section(title, [Column("run"), Column("model"), Column("answers each", True), Column("folder")], rows)


def _tables(pair: Pair, list_flips: bool, level: float) -> Iterator[Section]:
    letter = pair.run.letter
    for name, title in _HEADINGS.items():
        rows = pair.tables[name]
        if not rows:
            continue
        shown, lines = _largest_changes(rows) if name == "by_category" else (rows, [])
        if name == "lengths":
            lines = [f"median in characters: {pair.medians[0]:g} and {pair.medians[1]:g}"]
        digits = 1 if name == "lengths" else 3
        if name in ("by_category", "by_size"):
            title = f"{name_of(pair.headline)} {title}"
        yield Section(f"{letter} against A: {title}", *_figures(shown, letter, name, digits, level), lines)
        if name == "figures":
            yield _flips(pair, list_flips, level)
            yield from _statuses(pair)


def _figures(
    rows: Sequence[Row], letter: str, table: str, digits: int, level: float
) -> tuple[list[Column], list[list[str]]]:
    label: Callable[[Row], str] = {"by_category": lambda row: row.key.category}.get(table, name_of)
    counted = any(row.objects is not None for row in rows)
    names = ["A", letter, f"{letter} - A", f"{level:.0%} interval", "p", "p (Holm)"]
    columns = [Column("category" if table == "by_category" else "figure")]
    columns += [Column(name, numeric=True) for name in (["truths"] if counted else []) + names]
    cells = []
    for row in rows:
        found = row.difference
        objects = ["" if row.objects is None else f"{row.objects}"] if counted else []
        numbers = [_number(found.before, digits), _number(found.after, digits), _signed(found.value, digits)]
        between = "" if math.isnan(found.low) else f"[{_signed(found.low, digits)}, {_signed(found.high, digits)}]"
        cells.append([label(row), *objects, *numbers, between, _p(found.p_value), _p(row.p_holm)])
    return columns, cells


def _largest_changes(rows: Sequence[Row]) -> tuple[Sequence[Row], list[str]]:
    if len(rows) <= _MOST_CATEGORIES:
        return rows, []
    by_change = sorted((row for row in rows if row.difference.value), key=lambda row: -abs(row.difference.value))
    kept = {row.key for row in by_change[:_MOST_CATEGORIES]}
    note = f"{len(rows) - len(kept)} more categories changed less; --json has them all"
    return [row for row in rows if row.key in kept], [note]


def _flips(pair: Pair, list_flips: bool, level: float) -> Section:
    letter, right = pair.run.letter, pair.right
    columns, rows = _figures([right], letter, "right", 3, level)
    several = pair.run.completions > 1 or any(flip.before not in (0.0, 1.0) for flip in pair.flips)
    word = "more often right" if several else "right where A is wrong"
    back = "less often right" if several else "wrong where A is right"
    lines = [f"{letter} is {word} on {pair.gained} samples, and {back} on {pair.lost}"]
    if list_flips:
        lines += [f"{flip.id}: {flip.before:.2g} -> {flip.after:.2g}" for flip in pair.flips]
    return Section(f"{letter} against A: answers that are right in whole", columns, [["right", *rows[0][1:]]], lines)


def _statuses(pair: Pair) -> Iterator[Section]:
    """How answers were read; and where runs differ in that, how right the answers are that were read in either way."""
    letter = pair.run.letter
    columns = [Column("read as")]
    columns += [Column(name, numeric=True) for name in ("A", "A right", letter, f"{letter} right")]
    rows = [
        [_read(status), *(f"{value}" for run in (0, 1) for value in (count.answers[run], count.right[run]))]
        for status, count in pair.statuses.items()
    ]
    yield Section(f"{letter} against A: by how answers were read", columns, rows)
    if all(before == after for before, after in pair.moves):
        return
    columns = [Column("in A"), Column(f"in {letter}")]
    columns += [Column(name, numeric=True) for name in ("samples", "A right", f"{letter} right")]
    if pair.run.completions > 1:
        columns[2] = Column("answers", numeric=True)
    rows = [
        [_read(before), _read(after), f"{move.pairs}", f"{move.right_before}", f"{move.right_after}"]
        for (before, after), move in sorted(pair.moves.items(), key=lambda item: -item[1].pairs)
    ]
    yield Section(f"{letter} against A: answers to the same question, by how both were read", columns, rows)


def _read(status: str) -> str:
    return status.replace("_", " ")


def _method(comparison: Comparison) -> list[str]:
    how = comparison.how
    fewest = min(pair.replicates for pair in comparison.pairs)
    drawn = (
        f"{fewest:,} of each" if fewest else "a plugin's metric by a jackknife over groups of images, without a test"
    )
    lines = [
        f"intervals: {how.level:.0%}, paired bootstrap over images; p: random exchanges of the runs' answers image by "
        f"image; {drawn}, seed {how.seed}",
        "where each image has one answer that is right or wrong, p is McNemar's exact test",
        "p (Holm) is corrected for all figures of the table and all runs in it",
    ]
    if any(pair.run.completions != comparison.baseline.completions for pair in comparison.pairs):
        lines.append(
            "of runs with other numbers of answers to a sample, nothing can be exchanged: p is the bootstrap's"
        )
    return lines


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _signed(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:+.{digits}f}"


def _p(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"

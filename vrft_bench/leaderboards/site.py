"""A static leaderboard from run folders: a page per task group, and beside it everything that its figures rest on.

::

    SITE/index.html            what there is, and what was refused, with the reason
    SITE/GROUP.html            the tables of a group, sortable, ranked by paired tests
    SITE/runs/ID/              run.json, metrics.json and samples.jsonl of each run as they are, and its report
    SITE/leaderboard.json      every figure and rank, and the SHA-256 of every file: what `leaderboard verify` checks

Sample data, partial runs and each protocol stand in tables of their own; the first two are fenced off below the others.
A site is built in a folder beside its own and takes its place whole.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from vrft_bench import __version__
from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.models.fingerprint import sha256_file
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.harness.store import MANIFEST, METRICS, SAMPLES, utc_now, write_json
from vrft_bench.leaderboards.layouts import MASKS
from vrft_bench.leaderboards.ranks import ranked
from vrft_bench.leaderboards.runs import SITE_INDEX, FoundRuns, RunRow, UnreadableRun
from vrft_bench.leaderboards.table_build import build_tables
from vrft_bench.leaderboards.table_formats import environment, html_view
from vrft_bench.leaderboards.tables import Row, Table, TableOptions, Tables, sorted_rows
from vrft_bench.leaderboards.text import visible

FORMAT = 1
RUN_FILES = (MANIFEST, METRICS, SAMPLES)
RUNS = "runs"
REPORT = "report.html"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
Report = Callable[[RunRow, Path], None]
"""Writes the report of a run to a path that ends in ``.html``."""


@dataclass(frozen=True)
class Board:
    """One table of a site: the rank of each row in each ranked column, by (row, column)."""

    table: Table
    ranks: Mapping[tuple[int, int], str]
    unranked: tuple[str, ...]

    @property
    def fences(self) -> tuple[str, ...]:
        """Why it may not be read beside the others; nothing where it may."""
        return tuple(flag for flag in self.table.flags if flag in ("SAMPLE DATA", "PARTIAL"))


@dataclass(frozen=True)
class BuiltSite:
    """What was built. ``refused`` are runs that stand in no table, each with its reason."""

    folder: Path
    boards: tuple[Board, ...]
    runs: Mapping[str, RunRow]
    refused: tuple[str, ...]


def build_site(
    found: FoundRuns,
    folder: Path,
    *,
    options: TableOptions | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
) -> BuiltSite:
    """Build the site of the runs that were found in ``folder``, which is new, or a site that is then replaced.

    Without ``report``, there are no reports. Raises :class:`UserError` for a folder that is something else, and where
    no run can stand in a table.
    """
    progress = progress or SilentProgress()
    _refuse_other(folder)
    found = _without_links(found)
    tables = build_tables(found, options or TableOptions())
    rows = {row.folder: row for row in found.rows}
    shown = dict.fromkeys(run for table in tables.tables for row in table.rows for run in row.folders)
    refused = tuple(_refusals(tables))
    if not shown:
        raise UserError(
            "no run can stand on a leaderboard" + "".join(f"; {line}" for line in refused),
            fix="give finished runs; `vrft-bench ls runs` shows what there is",
        )
    names = _names([rows[run] for run in shown])
    boards = tuple(_board(_unmasked(table), rows, progress) for table in tables.tables if table.kind != "published")
    site = BuiltSite(folder, boards, {names[run]: rows[run] for run in shown}, refused)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial") as place:
            made = Path(place) / "site"
            _write(site, names, made, report)
            _take_place(made, folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}", fix="choose another folder") from error
    return site


def read_index(folder: Path) -> dict[str, Any]:
    """``leaderboard.json``. Raises :class:`DataError` where ``folder`` is no site, or one of a newer version."""
    try:
        index = json.loads((folder / SITE_INDEX).read_bytes())
        version = index["format"]
    except OSError:
        raise DataError(
            f"{folder} is no leaderboard: it has no {SITE_INDEX}", fix="give what `leaderboard build` made"
        ) from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{folder / SITE_INDEX} is damaged: {error}", fix="build the site anew") from None
    if version != FORMAT:
        raise DataError(f"{folder} is of format {version!r}, and this version reads {FORMAT}", fix="upgrade vrft-bench")
    return dict(index)


def page_of(table: Table) -> str:
    """The file that a table is on. A task's name may come from anywhere, and names no other file."""
    name = table.layout.name
    if table.layout.table:
        return f"{name}.html"
    safe = _UNSAFE.sub("_", name)[:80]
    return f"task-{safe}.html" if safe == name else f"task-{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.html"


def _refuse_other(folder: Path) -> None:
    """The whole of a folder is replaced: it must hold nothing that was not built."""
    if not folder.exists():
        return
    if not folder.is_dir() or ((others := _others_in(folder)) and not (folder / SITE_INDEX).is_file()):
        raise UserError(
            f"{folder} exists and is no leaderboard", fix="give a new folder, or one that this command made"
        )
    if others:
        raise UserError(
            f"{folder} also holds {others[0]}, which would be lost: the folder is replaced as a whole",
            fix="move it away, or build into a new folder and copy that over",
        )


def _without_links(found: FoundRuns) -> FoundRuns:
    """``found`` without runs whose files are links: a site publishes them, and a link may be to anything."""
    linked = {
        row.folder: f"its {name} is a link"
        for row in found.rows
        for name in RUN_FILES
        if (row.folder / name).is_symlink()
    }
    refused = (UnreadableRun(folder, reason) for folder, reason in linked.items())
    return FoundRuns(tuple(row for row in found.rows if row.folder not in linked), (*found.unreadable, *refused))


def _others_in(folder: Path) -> list[str]:
    """The files in ``folder`` that no build has put there."""
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} - {SITE_INDEX}
    try:
        return sorted(there - read_index(folder)["files"].keys())
    except (DataError, LookupError, AttributeError):
        return sorted(there)


def _refusals(tables: Tables) -> list[str]:
    """The refused runs by task, model and time alone: where they lie says nothing to the readers of a site."""
    lines = []
    for item in tables.left_out:
        short = "/".join(item.folder.parts[-3:])
        lines.append(visible(f"{short}: {item.reason.replace(str(item.folder), short)}"))
    return lines


def _names(rows: Sequence[RunRow]) -> dict[Path, str]:
    """A run's name on the site: the beginning of its fingerprint, with a number where two are of one experiment."""
    names: dict[Path, str] = {}
    for row in rows:
        name = number = row.manifest.fingerprint[:12]
        count = 1
        while number in names.values():
            count += 1
            number = f"{name}-{count}"
        names[row.folder] = number
    return names


def _unmasked(table: Table) -> Table:
    """Without the columns of masks: they are no score of stored completions."""
    kept = [place for place, column in enumerate(table.columns) if column.figure != MASKS]
    rows = tuple(replace(row, cells=tuple(row.cells[place] for place in kept)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[place] for place in kept), rows=rows)


def _board(table: Table, rows: Mapping[Path, RunRow], progress: Progress) -> Board:
    """``table`` with its best rows first, and the ranks of each column that holds a task's headline."""
    first = next((column.heading for column in table.columns), "")
    table = replace(table, rows=tuple(sorted_rows(table.rows, table.columns, first)))
    ranks: dict[tuple[int, int], str] = {}
    unranked = []
    for place, column in enumerate(table.columns):
        if not column.task or column.figure or column.category:
            continue
        runs = {number: run for number, row in enumerate(table.rows) if (run := _ranked_run(row, place)) is not None}
        try:
            found = ranked([rows[run] for run in runs.values()], progress) if len(runs) > 1 else []
        except UserError as error:
            unranked.append(f"{column.heading}: not ranked, for the runs cannot be tested here: {error.message}")
            continue
        ranks |= {(number, place): rank for number, rank in zip(runs, found, strict=False)}
    return Board(table, ranks, tuple(unranked))


def _ranked_run(row: Row, place: int) -> Path | None:
    cell = row.cells[place]
    return cell.run if row.origin == "own" and cell.value is not None else None


def _write(site: BuiltSite, names: Mapping[Path, str], folder: Path, report: Report | None) -> None:
    templates = environment()
    script = (files("vrft_bench.leaderboards") / "templates" / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    for name, row in site.runs.items():
        own = folder / RUNS / name
        own.mkdir(parents=True)
        for file in RUN_FILES:
            shutil.copyfile(row.folder / file, own / file)
        if report is not None:
            report(row, own / REPORT)
    groups: dict[str, list[Board]] = {}
    for board in site.boards:
        groups.setdefault(page_of(board.table), []).append(board)
    about = {
        "script": script,
        "script_hash": f"sha256-{digest}",
        "names": names,
        "tasks": {row.folder: row.manifest.task for row in site.runs.values()},
        "with_reports": report is not None,
        "runs": RUNS,
        "report": REPORT,
        "version": __version__,
    }
    for page, boards in groups.items():
        views = [
            {**html_view(board.table, True), "board": board}
            for board in sorted(boards, key=lambda one: bool(one.fences))
        ]
        title = boards[0].table.layout.title
        text = templates.get_template("leaderboard.html").render(title=title, boards=views, **about)
        (folder / page).write_text(text, encoding="utf-8")
    listed = [{"page": page, "boards": boards} for page, boards in groups.items()]
    text = templates.get_template("index.html").render(groups=listed, refused=site.refused, built=utc_now(), **about)
    (folder / "index.html").write_text(text, encoding="utf-8")
    write_json(folder / SITE_INDEX, _index(site, names, folder))


def _index(site: BuiltSite, names: Mapping[Path, str], folder: Path) -> dict[str, Any]:
    tables = []
    for board in site.boards:
        view = board.table.to_json()
        for number, row in enumerate(view["rows"]):
            for place, cell in enumerate(row["cells"]):
                cell["run"] = names[Path(cell["run"])] if cell["run"] else None
                cell["rank"] = board.ranks.get((number, place))
        for column, said in zip(board.table.columns, view["columns"], strict=True):
            said["figure"] = column.figure
        tables.append({"page": page_of(board.table), **view})
    digests = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    return {"format": FORMAT, "version": __version__, "tables": tables, "refused": list(site.refused), "files": digests}


def _take_place(made: Path, folder: Path) -> None:
    """Put ``made`` where ``folder`` is. The old one is gone only when the new one is there."""
    made.chmod(0o755)
    if not folder.exists():
        made.rename(folder)
        return
    old = made.with_name("old")
    folder.rename(old)
    try:
        made.rename(folder)
    except OSError:
        old.rename(folder)
        raise

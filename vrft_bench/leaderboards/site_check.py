"""What a site's own files can tell of themselves, before any run is scored again.

Nothing is missing, added or changed, and every figure in its tables is of a run in it, a mean of such, or one that was
published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError
from vrft_bench.harness.models.fingerprint import sha256_file
from vrft_bench.leaderboards.layouts import MEAN, paper_layouts
from vrft_bench.leaderboards.published import rows_of
from vrft_bench.leaderboards.runs import SITE_INDEX
from vrft_bench.leaderboards.site import RUNS

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found. ``cells`` are each run's figures, with all that is said of their columns."""

    cells: Mapping[str, Sequence[Json]]
    flaws: tuple[str, ...]


def checked_site(folder: Path, index: Json) -> Checked:
    """What the files of a site tell, whose ``index`` is given. Raises :class:`DataError` where that is damaged."""
    cells: dict[str, list[Json]] = {}
    try:
        for table in index["tables"]:
            for row in table["rows"]:
                for column, cell in zip(table["columns"], row["cells"], strict=True):
                    if cell["run"] is not None:
                        cells.setdefault(cell["run"], []).append({**column, **cell})
        if not cells or any(Path(run).name != run for run in cells):
            raise ValueError("its tables are of no run in it")
        return Checked(cells, (*_changed_files(folder, index["files"]), *_unfounded_figures(folder, index, cells)))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / SITE_INDEX} is damaged: {error!r}", fix="build the site anew") from None


def _own_files(folder: Path) -> set[str]:
    """The files of a site but for its index; what a host keeps in hidden files is none of it."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in paths if not any(part.startswith(".") for part in path.parts)} - {SITE_INDEX}


def _changed_files(folder: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """The files that are missing, changed, or were not there when the site was built."""
    there = _own_files(folder)
    for name, digest in digests.items():
        if name not in there:
            yield f"{name} is missing"
        elif sha256_file(folder / name) != digest:
            yield f"{name} is not as it was built"
    for name in sorted(there - digests.keys()):
        yield f"{name} was not there when it was built"


def _unfounded_figures(folder: Path, index: Json, runs: Mapping[str, object]) -> Iterator[str]:
    """Figures that rest on no run of the site, and runs on which no figure rests."""
    for table in index["tables"]:
        for row in table["rows"]:
            wrong = _not_published(table, row) if row["origin"] == "published" else _of_no_run(table["columns"], row)
            yield from (f"{table['title']}, {row['model']}: {heading} is {why}" for heading, why in wrong)
    for path in sorted((folder / RUNS).glob("*")):
        if path.name not in runs:
            yield f"{RUNS}/{path.name} stands in no table"


def _of_no_run(columns: Sequence[Json], row: Json) -> Iterator[tuple[str, str]]:
    pairs = list(zip(columns, row["cells"], strict=True))
    values = [cell["value"] for column, cell in pairs if column["figure"] != MEAN]
    defined = [value for value in values if value is not None]
    mean = sum(defined) / len(defined) if defined and len(defined) == len(values) else None
    for column, cell in pairs:
        if column["figure"] == MEAN and not _alike(cell["value"], mean):
            yield column["heading"], "not the mean of the other columns"
        elif column["figure"] != MEAN and cell["value"] is not None and cell["run"] is None:
            yield column["heading"], "of no run"


def _not_published(table: Json, row: Json) -> Iterator[tuple[str, str]]:
    label = (row["model"], row["method"], row["shots"])
    printed = [own for own in rows_of(table["table"] or "") if (own.model, own.method, own.shots) == label]
    values = printed[0].values if printed else {}
    layout = next((layout for layout in paper_layouts() if layout.table == table["table"]), None)
    keys = {column.heading: column.published for column in layout.columns} if layout else {}
    for column, cell in zip(table["columns"], row["cells"], strict=True):
        key = keys.get(column["heading"])
        if not _alike(cell["value"], values.get(key) if key else None):
            yield column["heading"], "not what was published"


def _alike(one: float | None, other: float | None) -> bool:
    return one == other if one is None or other is None else isclose(one, other, rel_tol=1e-9)

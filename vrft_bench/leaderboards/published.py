"""The figures that Visual-RFT printed (arXiv 2503.01785v1, tables 2-8), as reference rows that ship with the package.

They were measured by others: they have no intervals, take part in no test, no mean and no ranking, and stand beside own
runs only where what is known of their conditions agrees (see :mod:`vrft_bench.leaderboards.comparability`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

_FILE = "assets/published/visual_rft.csv"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One model's row of a printed table. ``values`` are in percent, by (task, metric, category), as the file says.

    ``shots`` is the paper's own column: training examples per class, 0 for a base model, in T6 the number of training
    images, and ``None`` where the paper gives none. ``notes`` tell what is odd about single cells, by the same keys.
    """

    table: str
    model: str
    method: str
    shots: int | None
    source: str
    values: Mapping[tuple[str, str, str], float] = field(hash=False)
    notes: Mapping[tuple[str, str, str], str] = field(hash=False)


@lru_cache(maxsize=1)
def published_rows() -> tuple[PublishedRow, ...]:
    """Every printed row, in the paper's order."""
    text = (files("vrft_bench") / _FILE).read_text(encoding="utf-8")
    lines: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for line in csv.DictReader(text.splitlines()):
        lines.setdefault(tuple(line[name] for name in ("table", "model", "method", "shots", "source")), []).append(line)
    return tuple(
        PublishedRow(
            table,
            model,
            method,
            int(shots) if shots else None,
            source,
            {_key(line): float(line["value"]) for line in own},
            {_key(line): line["note"] for line in own if line["note"]},
        )
        for (table, model, method, shots, source), own in lines.items()
    )


def rows_of(table: str) -> list[PublishedRow]:
    """The rows of one table, such as ``T3``."""
    return [row for row in published_rows() if row.table == table]


def _key(line: Mapping[str, str]) -> tuple[str, str, str]:
    return line["task"], line["metric"], line["category"]

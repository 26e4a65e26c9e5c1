"""How the verbs print: tables and figures. rich is imported on first use, so that ``--help`` stays instant."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import typer

from vrft_bench.tasks.base import Figure

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading; numbers are set flush right."""

    name: str
    numeric: bool = False


@lru_cache(maxsize=1)
def stderr() -> Console:
    """The console for messages, which are never part of a command's output."""
    from rich.console import Console

    return Console(stderr=True)


def print_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, plain: bool = False, title: str = "", footer: int = 0
) -> None:
    """Print a table; ``plain`` (or an output that is no terminal) prints aligned columns without lines or colours.

    The last ``footer`` rows are set apart.
    """
    if plain or not sys.stdout.isatty():
        _print_plain(columns, rows, title, footer)
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=escape(title) or None, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column.name, justify="right" if column.numeric else "left", overflow="fold")
    for index, row in enumerate(rows):
        if footer and index == len(rows) - footer:
            table.add_section()
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)


def _print_plain(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str, footer: int) -> None:
    widths = [
        max(len(column.name), *(len(row[index]) for row in rows)) if rows else len(column.name)
        for index, column in enumerate(columns)
    ]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        ]
        return "  ".join(padded).rstrip()

    if title:
        typer.echo(title)
    typer.echo(line([column.name for column in columns]))
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    typer.echo(rule)
    for index, row in enumerate(rows):
        if footer and index == len(rows) - footer:
            typer.echo(rule)
        typer.echo(line(row))
    typer.echo("")


def figure_text(figure: Figure | None) -> str:
    """``0.412``, or ``-`` where the figure is not defined."""
    return "-" if figure is None or figure.value is None else f"{figure.value:.3f}"


def interval_text(figure: Figure | None) -> str:
    """``[0.371, 0.455]``, or nothing where there is no interval."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    return f"[{figure.low:.3f}, {figure.high:.3f}]"

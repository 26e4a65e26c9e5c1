"""``vrft-bench report RUN [RUN ...]``: a page to look at, or figures for a paper."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vrft_bench.harness.cli.options import Debug, Plain


class ReportFormat(StrEnum):
    """What is written."""

    HTML = "html"
    PNG = "png"
    PDF = "pdf"


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs of one task; the first is called A.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="An .html file or a folder. Default: report.html, or figures/."),
    ] = None,
    format: Annotated[
        ReportFormat, typer.Option(help="html: the page; png or pdf: a figure per chart, for papers.")
    ] = ReportFormat.HTML,
    training: Annotated[
        list[Path] | None, typer.Option(help="A folder of train or watch whose curves are shown; repeat for more.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="The page's heading. Default: the task.")] = None,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Show runs of one task: figures, charts and every answer on one page that needs no server and no network."""
    from vrft_bench.errors import DataError
    from vrft_bench.harness.progress import make_progress
    from vrft_bench.leaderboards.runs import RunRow, open_runs

    rows: list[RunRow] = []
    for path in runs:
        found = open_runs([path])
        if found.unreadable:
            first = found.unreadable[0]
            raise DataError(f"{first.folder} cannot be reported on: {first.reason}", fix="leave it out, or run it anew")
        rows += [row for row in found.rows if row.folder not in {other.folder for other in rows}]
    folders = training or []
    if format is ReportFormat.HTML:
        from vrft_bench.leaderboards.report import build_report

        progress = make_progress(plain=plain)
        page = build_report(rows, output or Path("report.html"), training=folders, title=title, progress=progress)
        typer.echo(f"{page}")
        return
    from vrft_bench.leaderboards.report.build import FigureFormat
    from vrft_bench.leaderboards.report.figures import draw_figures

    kind: FigureFormat = "pdf" if format is ReportFormat.PDF else "png"
    for path in draw_figures(rows, output or Path("figures"), kind, training=folders):
        typer.echo(f"{path}")

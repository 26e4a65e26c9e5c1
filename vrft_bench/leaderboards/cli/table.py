"""``vrft-bench table``: runs side by side, as the paper lays its tables out, and beside the published rows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.options import Debug, Include
from vrft_bench.leaderboards.cli.options import Labels, Published, Runs, Tasks, chosen_tasks

if TYPE_CHECKING:
    from vrft_bench.leaderboards.tables import Tables


class Format(StrEnum):
    """What a table can be written as."""

    MD = "md"
    CSV = "csv"
    LATEX = "latex"
    HTML = "html"
    JSON = "json"


def table(
    runs: Runs = None,
    task: Tasks = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="How to write it.")] = Format.MD,
    baseline: Annotated[
        str, typer.Option(help="Show gains over this: base (of the same model), a row's name, or a run's folder.")
    ] = "",
    intervals: Annotated[bool, typer.Option("--intervals", help="Show 95 % intervals.")] = False,
    sort: Annotated[str, typer.Option(help="Best first, by the column of this heading.")] = "",
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Let these differ within a column: version,data,split,ask,prompt,sampling,plugins."),
    ] = None,
    label: Labels = None,
    every_run: Annotated[bool, typer.Option("--all", help="Every run of a model, not only the newest.")] = False,
    published: Published = True,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    include: Include = None,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Compare runs in tables that hold only what may be compared, beside the published figures."""
    from vrft_bench.leaderboards.comparability import parse_allow
    from vrft_bench.leaderboards.labels import parse_labels
    from vrft_bench.leaderboards.runs import open_runs
    from vrft_bench.leaderboards.table_build import build_tables
    from vrft_bench.leaderboards.tables import TableOptions
    from vrft_bench.registry import include as include_file

    for file in include or ():
        include_file(file)
    options = TableOptions(
        tasks=chosen_tasks(task),
        allowed=parse_allow(allow or ()),
        labels=parse_labels(label or ()),
        baseline=baseline,
        sort=sort,
        every_run=every_run,
        published=published,
    )
    tables = build_tables(open_runs(runs or ["results"]), options)
    text = _written(tables, form, intervals)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}", fix="give another file as --output") from error
    typer.echo(str(output))


def _written(tables: Tables, form: Format, intervals: bool) -> str:
    from vrft_bench.leaderboards import table_formats as formats

    match form:
        case Format.MD:
            return formats.to_markdown(tables, intervals=intervals)
        case Format.LATEX:
            return formats.to_latex(tables, intervals=intervals)
        case Format.HTML:
            return formats.to_html(tables, intervals=intervals)
        case Format.CSV:
            return formats.to_csv(tables)
        case Format.JSON:
            return formats.to_json(tables)

"""``vrft-bench leaderboard``: a static site from run folders, and the proof that it says what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrft_bench.errors import ExitCode
from vrft_bench.harness.cli.options import AsJson, Debug, Include, Plain
from vrft_bench.leaderboards.cli.options import Labels, Published, Runs, Tasks, chosen_tasks

if TYPE_CHECKING:
    from vrft_bench.harness.progress import Progress
    from vrft_bench.leaderboards.runs import RunRow

app = typer.Typer(no_args_is_help=True, help="A static leaderboard site from run folders.")


@app.command()
def build(
    site: Annotated[Path, typer.Argument(help="Folder of the site: new, or a site that is then replaced.")],
    runs: Runs = None,
    task: Tasks = None,
    label: Labels = None,
    published: Published = True,
    reports: Annotated[bool, typer.Option("--reports/--no-reports", help="Write a report of every run.")] = True,
    include: Include = None,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Build the site: a page per task group, ranked by paired tests, with every run's report and files."""
    from vrft_bench.harness.progress import make_progress
    from vrft_bench.leaderboards.labels import parse_labels
    from vrft_bench.leaderboards.runs import open_runs
    from vrft_bench.leaderboards.site import build_site
    from vrft_bench.leaderboards.tables import TableOptions
    from vrft_bench.leaderboards.text import visible
    from vrft_bench.registry import include as include_file

    for file in include or ():
        include_file(file)
    options = TableOptions(tasks=chosen_tasks(task), labels=parse_labels(label or ()), published=published)
    progress = make_progress(plain=plain)

    def write_report(run: RunRow, path: Path) -> None:
        _write_report(run, path, progress)

    built = build_site(
        open_runs(runs or ["results"]),
        site,
        options=options,
        report=write_report if reports else None,
        progress=progress,
    )
    for board in built.boards:
        fenced = f"  FENCED OFF: {', '.join(board.fences)}" if board.fences else ""
        count = len(board.table.rows)
        typer.echo(f"{visible(board.table.title)}: {count} {'row' if count == 1 else 'rows'}{fenced}")
        for line in board.unranked:
            typer.echo(f"  note: {visible(line)}")
    for line in built.refused:
        typer.echo(f"refused: {line}")
    typer.echo(str(site / "index.html"))


@app.command()
def verify(
    site: Annotated[Path, typer.Argument(help="Folder of a site that `leaderboard build` made.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Root of the real data, in place of the one in each run.json.")
    ] = None,
    include: Include = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Score every run of a site again from its stored completions, and fail on any difference (exit code 1)."""
    from vrft_bench.harness.progress import make_progress
    from vrft_bench.leaderboards.site_verify import verify_site
    from vrft_bench.leaderboards.text import visible
    from vrft_bench.registry import include as include_file

    for file in include or ():
        include_file(file)
    files = [Path(file).expanduser() for file in include or ()]
    verdicts = verify_site(site, data=data, included=files, progress=make_progress(plain=plain))
    if as_json:
        typer.echo(json.dumps([verdict.to_json() for verdict in verdicts], indent=1))
    else:
        for verdict in verdicts:
            typer.echo(
                f"{'ok       ' if not verdict.flaws else 'DIFFERENT'} {verdict.run or '-':14} {visible(verdict.about)}"
            )
            for flaw in verdict.flaws:
                typer.echo(f"  {visible(flaw)}")
    failed = sum(1 for verdict in verdicts if verdict.flaws)
    if failed:
        typer.echo(f"{failed} of {len(verdicts)} did not hold", err=True)
        raise typer.Exit(ExitCode.GATE_FAILED)


def _write_report(run: RunRow, path: Path, progress: Progress) -> None:
    from vrft_bench.leaderboards.report.build import build_report

    build_report([run], path, progress=progress)

"""``vrft-bench compare BASELINE RUN [RUN ...]``: how runs differ, and what follows from it."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vrft_bench.harness.cli.options import AsJson, Debug, Plain


class CompareFormat(StrEnum):
    """What is printed."""

    TEXT = "text"
    MD = "md"
    JSON = "json"


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs of one task; the first is the baseline.")],
    list_flips: Annotated[
        bool, typer.Option("--list-flips", help="Name the samples that one run answers right and the other not.")
    ] = False,
    replicates: Annotated[
        int, typer.Option(min=100, max=100_000, help="Bootstrap replicates, and as many exchanges for the tests.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the replicates and the exchanges.")] = 0,
    format: Annotated[
        CompareFormat, typer.Option(help="text: tables; md: Markdown; json: everything.")
    ] = CompareFormat.TEXT,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Compare runs on the samples they share: every difference with a paired interval and test, and what follows."""
    from vrft_bench.harness.progress import make_progress
    from vrft_bench.leaderboards.compare import compare_runs
    from vrft_bench.leaderboards.compare_metrics import Resampling
    from vrft_bench.leaderboards.compare_show import markdown, print_comparison
    from vrft_bench.leaderboards.compare_words import conclusions, warnings

    as_json = as_json or format is CompareFormat.JSON
    progress = make_progress(plain=plain or as_json)
    found = compare_runs(runs, Resampling(replicates, seed), progress)
    if as_json:
        words = {"warnings": warnings(found), "conclusions": conclusions(found)}
        typer.echo(json.dumps(found.to_json() | words))
    elif format is CompareFormat.MD:
        typer.echo(markdown(found, list_flips=list_flips))
    else:
        print_comparison(found, list_flips=list_flips, plain=plain)

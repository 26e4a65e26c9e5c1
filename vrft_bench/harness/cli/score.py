"""``vrft-bench score RUN``: judge the stored completions of a run again, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def score(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Score although the task's version or the data has changed since.")
    ] = False,
    include: Annotated[list[str] | None, typer.Option("--include", help="A Python file that registers more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="No colours, no lines.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by main
) -> None:
    """Parse and score a run's stored completions again. The raw text is never changed."""
    from vrft_bench.harness.cli.results import print_result, result_json
    from vrft_bench.harness.rescore import rescore
    from vrft_bench.registry import include as include_file

    for file in include or ():
        include_file(file)
    result = rescore(run, allow_changed=allow_changed)
    if as_json:
        typer.echo(json.dumps(result_json(result)))
    else:
        print_result(result, plain=plain)

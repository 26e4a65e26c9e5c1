"""``vrft-bench validate TASK``: whether a task keeps its promises on its data. No model is needed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vrft_bench.errors import ExitCode
from vrft_bench.harness.cli.data_root import HELP_DATA
from vrft_bench.harness.cli.protocols import under_protocols


def validate(
    task: Annotated[str, typer.Argument(help="A task's name.")],
    protocol: Annotated[str, typer.Option(help="strict, paper, or both.")] = "both",
    profile: Annotated[str | None, typer.Option(help="Only this profile; default: every one.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-L", min=1, help="Only the first N samples.")] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help=HELP_DATA)] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data.")] = None,
    categories: Annotated[str | None, typer.Option(help="Only these categories, comma-separated.")] = None,
    annotations: Annotated[
        str | None, typer.Option(metavar="FILE", help="Your own COCO- or LVIS-format annotations.")
    ] = None,
    images: Annotated[str | None, typer.Option(metavar="DIR", help="The image folder of your own data.")] = None,
    include: Annotated[list[str] | None, typer.Option("--include", help="A Python file that registers more.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="No colours, no lines.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by main
) -> None:
    """Check a task without a model: gold scores, the empty completion, coordinates, prompts. Exit code 1 on a flaw."""
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.harness.cli.printing import Column, print_table
    from vrft_bench.harness.config import make_config
    from vrft_bench.registry import PROFILES
    from vrft_bench.registry import include as include_file
    from vrft_bench.tasks.validate import validate as check

    for file in include or ():
        include_file(file)
    flags = {
        "data": data,
        "split": split,
        "categories": categories,
        "annotations": annotations,
        "images": images,
    }
    config = make_config({name: value for name, value in flags.items() if value is not None})
    profiles = [PROFILES.get(name) for name in ([profile] if profile else PROFILES.names())]
    found = {}
    for chosen in under_protocols(task, protocol):
        spec = with_data_root(config, chosen).data_spec()
        found[chosen.protocol] = check(chosen, spec, profiles, limit=limit)
    if as_json:
        typer.echo(json.dumps({name: [item.to_json() for item in checks] for name, checks in found.items()}))
    else:
        for name, checks in found.items():
            rows = [
                [item.name, f"{item.looked_at:,}", "ok" if item.passed else f"FAILED: {item.detail}"] for item in checks
            ]
            columns = [Column("check"), Column("samples", numeric=True), Column("result")]
            print_table(columns, rows, plain=plain, title=f"{task}  |  protocol {name}")
    if not all(item.passed for checks in found.values() for item in checks):
        raise typer.Exit(ExitCode.GATE_FAILED)

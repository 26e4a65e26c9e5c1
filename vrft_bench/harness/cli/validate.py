"""``vrft-bench validate TASK``: whether a task keeps its promises on its data. No model is needed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vrft_bench.errors import ExitCode
from vrft_bench.harness.cli.options import (
    Annotations,
    AsJson,
    Categories,
    Data,
    Debug,
    Images,
    Include,
    Plain,
    Split,
    prepared,
)
from vrft_bench.harness.cli.protocols import under_protocols


def validate(
    task: Annotated[str, typer.Argument(help="A task's name.")],
    protocol: Annotated[str, typer.Option(help="strict, paper, or both.")] = "both",
    profile: Annotated[str | None, typer.Option(help="Only this profile; default: every one.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-L", min=1, help="Only the first N samples.")] = None,
    data: Data = None,
    split: Split = None,
    categories: Categories = None,
    annotations: Annotations = None,
    images: Images = None,
    include: Include = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Check a task without a model: gold scores, the empty completion, coordinates, prompts. Exit code 1 on a flaw."""
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.harness.cli.printing import Column, print_table
    from vrft_bench.registry import PROFILES
    from vrft_bench.tasks.validate import validate as check

    config = prepared(include, data=data, split=split, categories=categories, annotations=annotations, images=images)
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

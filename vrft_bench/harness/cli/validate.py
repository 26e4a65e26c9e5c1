"""``vrft-bench validate TASK``: whether a task keeps its promises on its data. No model is needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

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
from vrft_bench.harness.cli.several import HELP_TASKS, check_each, tasks_named

if TYPE_CHECKING:
    from vrft_bench.tasks.validate import Check


def validate(
    task: Annotated[str, typer.Argument(help=HELP_TASKS)],
    protocol: Annotated[str, typer.Option(help="strict, paper, or both.")] = "both",
    profile: Annotated[str | None, typer.Option(help="Only this profile; default: every one.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-L", min=1, help="Only the first N samples.")] = None,
    pin: Annotated[
        bool, typer.Option("--pin", help="Keep counts and hash of the data in a file that later checks hold them to.")
    ] = False,
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
    """Check a task and its data without a model; exit code 1 on a flaw.

    Looked at are the counts and the hash of the data (whole, whatever --limit and --categories say), gold scores, the
    empty completion, coordinates and prompts.
    """
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.registry import PROFILES
    from vrft_bench.tasks import get_task
    from vrft_bench.tasks.validate import check_data
    from vrft_bench.tasks.validate import validate as check

    config = prepared(include, data=data, split=split, categories=categories, annotations=annotations, images=images)
    profiles = [PROFILES.get(name) for name in ([profile] if profile else PROFILES.names())]

    def passes(name: str) -> bool:
        tasks = list(under_protocols(name, protocol))
        spec = with_data_root(config, get_task(name)).data_spec()
        of_data = check_data(get_task(name), spec, pin=pin)
        found: dict[str, list[Check]] = {
            chosen.protocol: check(chosen, spec, profiles, limit=limit) for chosen in tasks
        }
        if as_json:
            parts = {"data": [of_data], **found}
            listed = {part: [item.to_json() for item in checks] for part, checks in parts.items()}
            typer.echo(json.dumps({"task": name, **listed}))
        else:
            _print_data(name, of_data)
            for chosen_protocol, checks in found.items():
                _print_checks(checks, title=f"{name}  |  protocol {chosen_protocol}", plain=plain)
        return of_data.passed and all(item.passed for checks in found.values() for item in checks)

    check_each(tasks_named(task), passes)


def _print_data(task: str, check: Check) -> None:
    typer.echo(f"{task}  |  data of {check.looked_at:,} questions")
    typer.echo(f"{check.name}: {'ok' if check.passed else 'FAILED'}")
    for line in (check.detail, f"fix: {check.fix}" if check.fix else ""):
        if line:
            typer.echo(f"  {line}")
    typer.echo("")


def _print_checks(checks: Sequence[Check], *, title: str, plain: bool) -> None:
    from vrft_bench.harness.cli.printing import Column, print_table

    rows = [[item.name, f"{item.looked_at:,}", "ok" if item.passed else f"FAILED: {item.detail}"] for item in checks]
    print_table([Column("check"), Column("samples", numeric=True), Column("result")], rows, plain=plain, title=title)

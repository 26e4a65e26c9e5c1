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
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every check, not only what failed and remarks.")
    ] = False,
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
            told: set[Check] = set()
            for chosen_protocol, checks in found.items():
                title = f"{name}  |  protocol {chosen_protocol}"
                if verbose:
                    _print_all(checks, title, plain=plain)
                else:
                    _print_briefly([item for item in checks if item not in told], len(checks), title)
                told |= {item for item in checks if item.passed}
        return of_data.passed and all(item.passed for checks in found.values() for item in checks)

    check_each(tasks_named(task), passes)


def _print_data(task: str, check: Check) -> None:
    title = f"{task}  |  data of {check.looked_at:,} questions"
    if check.passed:
        typer.echo(f"{title}  |  ok: {check.detail}" if check.detail else f"{title}  |  ok")
    else:
        typer.echo(f"{title}  |  FAILED")
        _tell(check)


def _print_briefly(untold: Sequence[Check], count: int, title: str) -> None:
    """A line on all ``count`` checks, and one for each of ``untold`` that failed or has a remark."""
    failed = sum(not item.passed for item in untold)
    typer.echo(f"{title}  |  " + (f"FAILED: {failed} of {count} checks" if failed else f"ok: {count} checks"))
    for item in sorted(untold, key=lambda item: item.passed):
        _tell(item)


def _tell(check: Check) -> None:
    if check.detail:
        typer.echo(f"  {'remark' if check.passed else 'FAILED'}: {check.name}: {check.detail}")
    if check.fix:
        typer.echo(f"    fix: {check.fix}")


def _print_all(checks: Sequence[Check], title: str, *, plain: bool) -> None:
    from vrft_bench.harness.cli.printing import Column, print_table

    def result(item: Check) -> str:
        said = "; ".join(part for part in (item.detail, item.fix) if part)
        return ": ".join(part for part in ("ok" if item.passed else "FAILED", said) if part)

    rows = [[item.name, f"{item.looked_at:,}", result(item)] for item in checks]
    print_table([Column("check"), Column("samples", numeric=True), Column("result")], rows, plain=plain, title=title)

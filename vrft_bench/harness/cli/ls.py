"""``vrft-bench ls``: what there is. Imports nothing heavy; a broken plugin is listed with its reason."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.printing import Column, figure_text, print_table
from vrft_bench.registry import MODELS, PROFILES, TASK_GROUPS, TASKS, TRAINERS, Registry, include


class What(StrEnum):
    """What can be listed."""

    TASKS = "tasks"
    MODELS = "models"
    PROFILES = "profiles"
    TRAINERS = "trainers"
    RUNS = "runs"


_REGISTRIES: dict[What, Registry[Any]] = {
    What.TASKS: TASKS,
    What.MODELS: MODELS,
    What.PROFILES: PROFILES,
    What.TRAINERS: TRAINERS,
}


def ls(
    what: Annotated[What, typer.Argument(help="What to list.")] = What.TASKS,
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Where runs lie (for `ls runs`).")] = Path(
        "results"
    ),
    include_files: Annotated[
        list[str] | None, typer.Option("--include", help="A Python file that registers more; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="No colours, no lines.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by main
) -> None:
    """List tasks, models, profiles, trainers or runs."""
    broken = [row for file in include_files or () if (row := _included(file)) is not None]
    rows = _runs(output_dir) if what is What.RUNS else [*_entries(_REGISTRIES[what]), *broken]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(f"no {what.value} in {output_dir}" if what is What.RUNS else f"no {what.value} yet")
        return
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    print_table([Column(name) for name in columns], [[row[name] for name in columns] for row in rows], plain=plain)
    if what is What.TASKS:
        groups = [[f"{name} =", ", ".join(members)] for name, members in TASK_GROUPS.items()]
        print_table([Column("group"), Column("tasks")], groups, plain=plain)


def _included(file: str) -> dict[str, str] | None:
    """The row of a file that cannot be included; ``None`` for one that can."""
    try:
        include(file)
    except UserError as error:
        return {"name": Path(file).name, "what": f"BROKEN: {error.message}", "from": "--include"}
    return None


def _entries(registry: Registry[Any]) -> list[dict[str, str]]:
    rows = []
    for entry in registry:
        broken = registry.broken(entry)
        rows.append(
            {
                "name": entry.name,
                "what": f"BROKEN: {broken}" if broken else entry.summary,
                "from": entry.source,
            }
        )
    return rows


def _runs(output_dir: Path) -> list[dict[str, str]]:
    from vrft_bench.harness.listing import list_runs

    rows = []
    for run in list_runs(output_dir):
        report = run.report
        rows.append(
            {
                "run": str(run.folder),
                "status": run.status,
                "done": "" if run.completions is None else f"{run.done}/{run.completions}",
                "data": run.data,
                "protocol": run.protocol,
                "headline": f"{report.headline} {figure_text(report.figures[report.headline])}" if report else "",
                "reason": run.reason,
            }
        )
    return rows

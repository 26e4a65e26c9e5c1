"""``vrft-bench ls``: what there is. Imports nothing heavy; a broken plugin is listed with its reason."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vrft_bench.harness.cli.printing import Column, print_table
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
    for file in include_files or ():
        include(file)
    rows = _runs(output_dir) if what is What.RUNS else _entries(_REGISTRIES[what])
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(f"no {what.value} in {output_dir}" if what is What.RUNS else f"no {what.value} yet")
        return
    print_table([Column(name) for name in rows[0]], [list(row.values()) for row in rows], plain=plain)
    if what is What.TASKS:
        groups = [[f"{name} =", ", ".join(members)] for name, members in TASK_GROUPS.items()]
        print_table([Column("group"), Column("tasks")], groups, plain=plain)


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
    rows = []
    for file in sorted(output_dir.glob("*/*/*/run.json")):
        try:
            record = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            rows.append({"run": str(file.parent), "status": f"unreadable: {error}", "data": "", "headline": ""})
            continue
        metrics = file.parent / "metrics.json"
        headline = ""
        if metrics.is_file():
            report = json.loads(metrics.read_text())["report"]
            value = report["figures"][report["headline"]]["value"]
            headline = f"{report['headline']} {value:.3f}" if value is not None else f"{report['headline']} -"
        rows.append(
            {
                "run": str(file.parent),
                "status": str(record.get("status", "")),
                "data": str(record.get("data", "")),
                "headline": headline,
            }
        )
    return rows

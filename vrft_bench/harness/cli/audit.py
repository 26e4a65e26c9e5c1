"""``vrft-bench audit TASK``: how much reward and metric can be had blind or by cheating."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrft_bench.errors import UserError
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
    from vrft_bench.tasks.audit.battery import AuditReport, Result


def audit(
    task: Annotated[str, typer.Argument(help=HELP_TASKS)],
    protocol: Annotated[str, typer.Option(help="strict, paper, or both.")] = "both",
    profile: Annotated[str, typer.Option(help="Whose coordinates to speak (see `ls profiles`).")] = "qwen2-vl",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-L", min=1, help="How many samples each trick is tried on; default: 1000, or all labels."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which samples are drawn.")] = 0,
    data: Data = None,
    split: Split = None,
    categories: Categories = None,
    annotations: Annotations = None,
    images: Images = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels of a classification set in place of data: .csv, .json or lines."),
    ] = None,
    include: Include = None,
    every: Annotated[bool, typer.Option("--all", help="A row for every trick, not the best of each family.")] = False,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Try blind and adversarial completions on a task; exit code 1 where one surely earns more than the task allows."""
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.registry import PROFILES
    from vrft_bench.tasks.audit.battery import LIMIT, audit_labels
    from vrft_bench.tasks.audit.battery import audit as try_battery

    if labels is not None and any(given is not None for given in (data, split, categories, annotations, images)):
        raise UserError(
            "--labels is given together with other data",
            fix="leave out --data, --split, --categories, --annotations and --images",
        )
    config = prepared(include, data=data, split=split, categories=categories, annotations=annotations, images=images)
    speaks = PROFILES.get(profile)
    names = tasks_named(task)
    if labels is not None and len(names) > 1:
        raise UserError(f"--labels are those of one task, and {task!r} names {len(names)}", fix="name one of them")

    def passes(name: str) -> bool:
        reports = []
        for chosen in under_protocols(name, protocol):
            if labels is not None:
                reports.append(audit_labels(chosen, labels, speaks, limit=limit, seed=seed))
            else:
                spec = with_data_root(config, chosen).data_spec()
                reports.append(try_battery(chosen, spec, speaks, limit=limit or LIMIT, seed=seed))
        if as_json:
            typer.echo(json.dumps([report.to_json() for report in reports]))
        else:
            for report in reports:
                _print(report, every=every, plain=plain)
        return all(report.passed for report in reports)

    check_each(names, passes)


def _print(report: AuditReport, *, every: bool, plain: bool) -> None:
    from vrft_bench.harness.cli.printing import Column, print_table

    components = [name for name in report.results[0].means if name != "total"]
    columns = [
        Column("family"),
        Column("best trick"),
        *(Column(name, numeric=True) for name in components),
        Column("total", numeric=True),
        Column(report.headline, numeric=True),
        Column("best", numeric=True),
        Column("on sample"),
        Column("verdict"),
    ]
    rows = []
    for result in report.results if every else report.best_of_families():
        rows.append(
            [
                result.trick.family,
                result.trick.name + ("" if result.trick.blind else " *"),
                *(f"{result.means[name]:.3f}" for name in (*components, "total")),
                "-" if result.metric is None else f"{result.metric:.3f}",
                f"{result.best:.3f}",
                result.best_sample,
                _verdict(result),
            ]
        )
    title = f"{report.task}  |  protocol {report.protocol}  |  profile {report.profile}  |  data: {report.data}"
    print_table(columns, rows, plain=plain, title=title)
    allowed = f"Allowed means: {_listed(report.bounds.samples)}."
    if report.bounds.where_present:
        allowed += f" Over the samples with truth: {_listed(report.bounds.where_present)}."
    typer.echo(f"{report.samples} samples, {report.with_truth} with truth. {allowed}")
    if report.judged < report.samples:
        typer.echo(f"Rewards are means over {report.judged} of them, or fewer where an answer is long: they take time.")
    if (blind := report.best_blind) is not None:
        typer.echo(f"Highest {report.headline} without looking: {blind.metric:.3f}, by {blind.trick.name}.")
    typer.echo("* is given the truth, and puts it where it is no answer.")
    if not report.passed:
        typer.echo("ABOVE THE BOUNDS: what is trained on this can be gamed")
    elif report.unsure:
        typer.echo("within the bounds as far as so few samples tell (--limit): what is above one may be luck")
    else:
        typer.echo("within the bounds")
    typer.echo("")


def _verdict(result: Result) -> str:
    told = []
    if result.verdict.above:
        told.append(f"above: {', '.join(result.verdict.above)}")
    if result.verdict.unsure:
        told.append(f"too few samples to tell: {', '.join(result.verdict.unsure)}")
    if result.not_finite:
        told.append(f"{result.not_finite} rewards not finite")
    return "; ".join(told) or "ok"


def _listed(bounds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in bounds.items())

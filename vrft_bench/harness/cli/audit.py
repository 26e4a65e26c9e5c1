"""``vrft-bench audit TASK``: how much reward and metric can be had blind or by cheating."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from vrft_bench.tasks.audit.battery import AuditReport


def audit(
    task: Annotated[str, typer.Argument(help="A task's name.")],
    protocol: Annotated[str, typer.Option(help="strict, paper, or both.")] = "both",
    profile: Annotated[str, typer.Option(help="Whose coordinates to speak (see `ls profiles`).")] = "qwen2-vl",
    limit: Annotated[int, typer.Option("--limit", "-L", min=1, help="How many samples each trick is tried on.")] = 100,
    seed: Annotated[int, typer.Option(help="Which samples are drawn.")] = 0,
    data: Data = None,
    split: Split = None,
    categories: Categories = None,
    annotations: Annotations = None,
    images: Images = None,
    include: Include = None,
    every: Annotated[bool, typer.Option("--all", help="A row for every trick, not the best of each family.")] = False,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Try blind and adversarial completions on a task; exit code 1 where one earns more than the task allows."""
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.registry import PROFILES
    from vrft_bench.tasks.audit.battery import audit as try_battery

    config = prepared(include, data=data, split=split, categories=categories, annotations=annotations, images=images)
    reports = []
    for chosen in under_protocols(task, protocol):
        spec = with_data_root(config, chosen).data_spec()
        reports.append(try_battery(chosen, spec, PROFILES.get(profile), limit=limit, seed=seed))
    if as_json:
        typer.echo(json.dumps([report.to_json() for report in reports]))
    else:
        for report in reports:
            _print(report, every=every, plain=plain)
    if not all(report.passed for report in reports):
        raise typer.Exit(ExitCode.GATE_FAILED)


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
        verdict = f"above: {', '.join(result.above)}" if result.above else "ok"
        if result.not_finite:
            verdict += f"; {result.not_finite} rewards not finite"
        rows.append(
            [
                result.trick.family,
                result.trick.name + ("" if result.trick.blind else " *"),
                *(f"{result.means[name]:.3f}" for name in (*components, "total")),
                "-" if result.metric is None else f"{result.metric:.3f}",
                f"{result.best:.3f}",
                result.best_sample,
                verdict,
            ]
        )
    kind = "sample" if report.is_sample else "real"
    title = f"{report.task}  |  protocol {report.protocol}  |  profile {report.profile}  |  data: {kind}"
    print_table(columns, rows, plain=plain, title=title)
    bounds = ", ".join(f"{name} {value:.3f}" for name, value in report.bounds.items())
    typer.echo(f"{report.samples} samples, {report.with_truth} with truth. Allowed means: {bounds}.")
    typer.echo("* is given the truth, and puts it where it is no answer.")
    typer.echo("within the bounds" if report.passed else "ABOVE THE BOUNDS: what is trained on this can be gamed")
    typer.echo("")

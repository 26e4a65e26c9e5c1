"""How a run's result is printed: a table per category, how the answers could be read, what to know, and the folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from vrft_bench.harness.cli.printing import Column, figure_text, interval_text, print_table
from vrft_bench.tasks.base import UNPARSABLE, Figure, MetricReport, Status

if TYPE_CHECKING:
    from vrft_bench.harness.models.base import Backend
    from vrft_bench.harness.plan import RunPlan
    from vrft_bench.harness.results import RunResult

_HEADINGS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ar": "AR",
    "images": "asked",
    "ap_r": "AP rare",
    "ap_c": "AP common",
    "ap_f": "AP frequent",
    "ap_areas": "AP over areas",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ap_tie_min": "AP, worst order of ties",
    "ap_tie_mean": "AP, mean over orders of ties",
    "ap_tie_max": "AP, best order of ties",
    "f1": "F1",
    "miou": "mean IoU",
    "acc50": "IoU >= .5",
}


def print_result(result: RunResult, *, plain: bool = False) -> None:
    """The result of one run on stdout. The last line is the run's folder."""
    report, answers = result.report, result.answers
    manifest = result.manifest
    parts = [
        manifest.task,
        manifest.model,
        "thousandths" if manifest.config.protocol == "paper" else f"profile {manifest.identity['profile']['name']}",
        f"protocol {manifest.config.protocol}",
        f"data: {manifest.data}",
    ]
    if manifest.config.limit is not None or manifest.config.sample_id:
        parts.append(f"PARTIAL: {manifest.samples} questions selected")
    title = "  |  ".join(parts)
    _print_tables(report, title, plain)
    for line in _answer_lines(result):
        typer.echo(line)
    for note in (*report.notes, *answers.notes):
        typer.echo(f"note: {note}")
    typer.echo(f"{result.folder}")


def heading(name: str) -> str:
    """What people read in place of a figure's key."""
    if name.startswith("ap_") and name not in _HEADINGS:
        return f"AP {name.removeprefix('ap_').replace('_', ' ')}"
    return _HEADINGS.get(name, name.replace("_", " "))


def print_report(report: MetricReport, title: str, *, plain: bool = False) -> None:
    """Figures that stand alone, with their notes."""
    _print_tables(report, title, plain)
    for note in report.notes:
        typer.echo(f"note: {note}")


def _print_tables(report: MetricReport, title: str, plain: bool) -> None:
    if report.by_category:
        _print_categories(report, title, plain)
        _print_figures(report, "other figures", plain, skip=_columns(report))
    else:
        _print_figures(report, title, plain)


def result_json(result: RunResult) -> dict[str, Any]:
    """What ``--json`` prints of a run."""
    return {**result.to_json(), "status": result.status, "reused": result.reused, "folder": str(result.folder)}


def dry_run_json(plan: RunPlan, backend: Backend) -> dict[str, Any]:
    """What ``--dry-run --json`` prints of a run: the data, the questions, the model, the first prompt, the identity."""
    from vrft_bench.harness.identity import fingerprint

    identity = plan.identity(backend.identity())
    first = next(iter(plan.walk()))
    return {
        "task": plan.task.name,
        "model": plan.config.model,
        "data": plan.data_kind,
        "split": plan.dataset.split,
        "ask": plan.dataset.ask,
        "categories": list(plan.dataset.categories),
        "questions": plan.survey.samples,
        "completions": plan.completions,
        "fingerprint": fingerprint(identity),
        "identity": identity,
        "first_question": {"id": first.id, "prompt": plan.task.prompt(first, plan.profile)},
    }


def dry_run_text(view: dict[str, Any]) -> str:
    """:func:`dry_run_json` for people."""
    identity, first = view["identity"], view["first_question"]
    task, profile, sampling = identity["task"], identity["profile"], identity["sampling"]
    heat = f"temperature {sampling['temperature']}, top-p {sampling['top_p']}" if sampling["temperature"] else "greedy"
    rows = [
        ("task", f"{task['name']} version {task['version']}, protocol {task['protocol']}"),
        ("data", f"{view['data']}, split {view['split']}" + (f", ask {view['ask']}" if view["ask"] else "")),
        ("categories", ", ".join(view["categories"]) or "-"),
        ("questions", f"{view['questions']} x {sampling['n']} completion(s) = {view['completions']}"),
        ("model", f"{view['model']} {json.dumps(identity['model'])[:200]}"),
        ("profile", f"{profile['name']} ({profile['convention']})"),
        ("decoding", f"{heat}, at most {sampling['max_tokens']} tokens, seed {sampling['seed']}"),
        ("fingerprint", view["fingerprint"]),
        ("first question", f"{first['id']}\n{first['prompt']}"),
    ]
    return "\n".join(f"{name:<15}" + text.replace("\n", "\n" + " " * 15) for name, text in rows)


def _columns(report: MetricReport) -> list[str]:
    """The keys that the categories' rows have, in their own order."""
    keys: dict[str, None] = {}
    for row in report.by_category.values():
        keys.update(dict.fromkeys(row))
    return list(keys)


def _print_categories(report: MetricReport, title: str, plain: bool) -> None:
    keys = _columns(report)
    headline = report.headline
    columns = [Column("category")]
    for key in keys:
        columns.append(Column(heading(key), numeric=True))
        if key == headline:
            columns.append(Column("95% interval", numeric=True))
    rows = [[name, *_cells(row, keys, headline)] for name, row in report.by_category.items()]
    totals: dict[str, Figure | int | str] = {}
    for key in keys:
        counts = [value for row in report.by_category.values() if isinstance(value := row.get(key), int)]
        totals[key] = sum(counts) if counts else report.figures.get(key, Figure(None))
    rows.append(["all", *_cells(totals, keys, headline)])
    print_table(columns, rows, plain=plain, title=title, footer=1)


def _cells(row: Any, keys: list[str], headline: str) -> list[str]:
    cells = []
    for key in keys:
        value = row.get(key)
        cells.append(figure_text(value) if value is None or isinstance(value, Figure) else str(value))
        if key == headline:
            cells.append(interval_text(value) if isinstance(value, Figure) else "")
    return cells


def _print_figures(report: MetricReport, title: str, plain: bool, skip: list[str] | None = None) -> None:
    rows = [
        [heading(name), figure_text(figure), interval_text(figure)]
        for name, figure in report.figures.items()
        if name not in (skip or ()) and figure.value is not None
    ]
    if rows:
        columns = [Column("figure"), Column("value", numeric=True), Column("95% interval", numeric=True)]
        print_table(columns, rows, plain=plain, title=title)


def _answer_lines(result: RunResult) -> list[str]:
    answers = result.answers
    shares = [
        f"repaired {answers.share(Status.REPAIRED):.1%}",
        f"unparsable {answers.share(*UNPARSABLE):.1%}",
        f"refused {answers.share(Status.REFUSED):.1%}",
        f"failed {answers.failures / max(answers.completions, 1):.1%}",
        f"boxes out of range {answers.out_of_range_share:.1%}",
    ]
    lines = [f"answers: {answers.completions} ({', '.join(shares)})"]
    if answers.reward is not None:
        parts = ", ".join(f"{name} {value:.3f}" for name, value in answers.components.items())
        lines.append(f"mean reward: {answers.reward:.3f} ({parts})")
    return lines

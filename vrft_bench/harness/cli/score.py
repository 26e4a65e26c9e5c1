"""``vrft-bench score``: judge a run's stored completions again, or a COCO-format results file. No model is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.options import AsJson, Categories, Debug, Include, Plain

if TYPE_CHECKING:
    from vrft_bench.harness.score_predictions import PredictionsScore


def score(
    run: Annotated[Path | None, typer.Argument(help="A run's folder. Leave it out with --predictions.")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A COCO-format results file: image_id, category_id, bbox, score."),
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The COCO- or LVIS-format truth of --predictions.")
    ] = None,
    rules: Annotated[str | None, typer.Option(help="coco or lvis; default: what the annotations are.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="strict (default), or paper: LVIS's AP is averaged over area ranges too.")
    ] = None,
    categories: Categories = None,
    ap_engine: Annotated[str | None, typer.Option("--ap-engine", help="own (default) or pycocotools.")] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Add bootstrap intervals to --predictions; takes seconds.")
    ] = False,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            "--score-threshold",
            help="Least score that counts for precision, recall and F1 of --predictions. Default: all detections, and "
            "once more those above the score of the highest mean F1.",
        ),
    ] = None,
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Score although the task's version or the data has changed since.")
    ] = False,
    include: Include = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Judge a run's stored completions again, or a results file (--predictions FILE --annotations FILE)."""
    if (run is None) == (predictions is None):
        raise UserError(
            "score takes a run's folder or --predictions, and "
            + ("neither is" if run is None else "both are")
            + " given",
            fix="vrft-bench score RUN, or vrft-bench score --predictions results.json --annotations truth.json",
        )
    if predictions is None:
        options = {
            "--annotations": annotations,
            "--rules": rules,
            "--protocol": protocol,
            "--categories": categories,
            "--ap-engine": ap_engine,
            "--intervals": intervals or None,
            "--score-threshold": score_threshold,
        }
        if given := [name for name, value in options.items() if value is not None]:
            raise UserError(
                f"{', '.join(given)} goes with --predictions; a run is scored by what it was made with",
                fix="leave it out, or give --predictions instead of a run",
            )
        assert run is not None
        _score_run(run, allow_changed, include or [], as_json, plain)
        return
    chosen = [name.strip() for name in (categories or "").split(",") if name.strip()]
    if categories is not None and not chosen:
        raise UserError(f"--categories {categories!r} names none", fix="give names, comma-separated, or leave it out")
    if annotations is None:
        raise UserError("--predictions needs the truth to hold it against", fix="give --annotations FILE.json")
    from vrft_bench.harness.score_predictions import score_predictions

    found = score_predictions(
        predictions,
        annotations,
        rules=rules,
        protocol=protocol or "strict",
        categories=chosen,
        engine=ap_engine or "own",
        intervals=intervals,
        score_threshold=score_threshold,
    )
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        _print(found, plain=plain)


def _score_run(run: Path, allow_changed: bool, include: list[str], as_json: bool, plain: bool) -> None:
    """Parse and score a run's stored completions again. The raw text is never changed."""
    from vrft_bench.harness.cli.results import print_result, result_json
    from vrft_bench.harness.rescore import rescore
    from vrft_bench.registry import include as include_file

    for file in include:
        include_file(file)
    result = rescore(run, allow_changed=allow_changed)
    if as_json:
        typer.echo(json.dumps(result_json(result)))
    else:
        print_result(result, plain=plain)


def _print(found: PredictionsScore, *, plain: bool) -> None:
    """A row per category, the means, and what to know."""
    from vrft_bench.harness.cli.printing import Column, figure_text, interval_text, print_table
    from vrft_bench.tasks.base import Figure

    report = found.report
    keys = list(next(iter(report.by_category.values()), {}))
    rows = [
        [name, *(figure_text(item) if isinstance(item, Figure) else str(item) for item in row.values())]
        for name, row in report.by_category.items()
    ]
    title = f"{found.predictions}  |  rules {found.rules}  |  protocol {found.protocol}"
    columns = [Column("category"), *(Column(key.replace("_", " "), numeric=True) for key in keys)]
    print_table(columns, rows, plain=plain, title=title)

    def heading(name: str) -> str:
        return name.replace("_", " ") + (" (headline)" if name == report.headline else "")

    figures = [
        [heading(name), figure_text(figure), interval_text(figure)]
        for name, figure in report.figures.items()
        if figure.value is not None
    ]
    headings = [Column("mean over categories"), Column("value", numeric=True), Column("95% interval", numeric=True)]
    print_table(headings, figures, plain=plain)
    for note in report.notes:
        typer.echo(f"note: {note}")

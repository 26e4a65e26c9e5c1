"""``vrft-bench diagnose RUN``: what is behind a run's headline figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vrft_bench.harness.cli.options import AsJson, Debug, Plain


def diagnose(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    segmenter: Annotated[
        str | None,
        typer.Option(help="Masks for a grounding run: box, ellipse, or sam/PATH_OR_ID (a SAM or SAM 2 checkpoint)."),
    ] = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Explain a detection run (kinds of mistake, LRP, counts, confidences), or judge a grounding run by masks."""
    from vrft_bench.harness.cli.results import print_report
    from vrft_bench.harness.progress import make_progress

    progress = make_progress(plain=plain or as_json)
    if segmenter is None:
        from vrft_bench.harness.diagnose import DIAGNOSIS, diagnose_run

        report, path = diagnose_run(run, progress=progress), run / DIAGNOSIS
    else:
        from vrft_bench.harness.segmentation import segment_run

        segmented = segment_run(run, segmenter, progress=progress)
        report, path = segmented.report, segmented.path
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    print_report(report, f"{run}" + (f"  |  segmenter {segmenter}" if segmenter else ""), plain=plain)
    typer.echo(f"{path}")

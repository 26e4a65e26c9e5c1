"""Builds a report: reads the runs, judges their answers, draws the thumbnails, and writes the page or the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.results import heading
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.harness.records import Key
from vrft_bench.leaderboards.report import summary
from vrft_bench.leaderboards.report.cards import BOX_KINDS, STATUSES, Gallery, make_gallery
from vrft_bench.leaderboards.report.charts import Charts, charts_of, score_range
from vrft_bench.leaderboards.report.joined import JoinedRun, join_run
from vrft_bench.leaderboards.report.page import GENERATOR, render_page, require_libraries
from vrft_bench.leaderboards.report.thumbnails import Thumbnail, draw_thumbnails, unwritable
from vrft_bench.leaderboards.report.training import Training, read_training, training_of
from vrft_bench.leaderboards.report.verdicts import KINDS, Verdict, judge_run
from vrft_bench.leaderboards.runs import RunRow

MOST_INLINE = 1000
"""Up to so many images are part of the page; more lie in a folder beside it, so that it opens at once."""
FigureFormat = Literal["png", "pdf"]


@dataclass(frozen=True)
class Judged:
    """Runs of one task with the verdicts on their answers and what is drawn of them."""

    runs: tuple[JoinedRun, ...]
    verdicts: tuple[Mapping[Key, Verdict], ...]
    charts: tuple[Charts, ...]
    trainings: tuple[Training, ...]


def build_report(
    runs: Sequence[RunRow],
    output: Path,
    *,
    training: Sequence[Path] = (),
    title: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of ``runs``, which are of one task, and return the page's path.

    ``output`` is an ``.html`` file or a folder, which then holds ``index.html``. ``training`` are folders of trainings
    whose curves belong to it; those that the runs' models came from are found by themselves. Raises :class:`UserError`
    for runs of several tasks or of different data, and for an output that exists and is no report.
    """
    require_libraries()
    page, thumbnails = _places(output)
    judged = judge(runs, training)
    components = list(
        dict.fromkeys(name for run in judged.runs if run.row.answers for name in run.row.answers.components)
    )
    gallery = make_gallery(judged.runs, judged.verdicts, components)
    inline = page == output and len(gallery.images) <= MOST_INLINE
    images = draw_thumbnails(gallery.images, None if inline else thumbnails, progress or SilentProgress())
    text = render_page(_view(judged, title), _payload(judged, gallery, images, components), inline=inline)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        partial = page.with_name(f".{page.name}.partial")
        partial.write_bytes(text.encode("utf-8", "replace"))
        partial.replace(page)
    except OSError as error:
        raise unwritable(page, error) from error
    return page


def judge(runs: Sequence[RunRow], training: Sequence[Path] = ()) -> Judged:
    """Read and judge ``runs``. Raises :class:`UserError` where they do not belong into one report."""
    if not runs:
        raise UserError("there is no run to report on", fix="give the folder of a run")
    if len(tasks := sorted({row.manifest.task for row in runs})) > 1:
        raise UserError(
            f"a report is about one task, and these runs are of {', '.join(tasks)}",
            fix="make a report of each task's runs",
        )
    if len({row.manifest.data for row in runs}) > 1:
        raise UserError(
            "some of these runs are on sample data and some on real data: they have no question in common",
            fix="make a report of each",
        )
    joined = tuple(join_run(row) for row in runs)
    for (one, first), (other, second) in combinations(enumerate(joined), 2):
        _refuse_other_truth(one, first, other, second)
    verdicts = tuple(judge_run(run) for run in joined)
    within = score_range(joined)
    charts = tuple(charts_of(run, found, within) for run, found in zip(joined, verdicts, strict=True))
    found = [read_training(folder) for folder in training] or [
        replace(item, run=number) for number, row in enumerate(runs) if (item := training_of(row))
    ]
    return Judged(joined, verdicts, charts, tuple(found))


def _refuse_other_truth(one: int, first: JoinedRun, other: int, second: JoinedRun) -> None:
    for sample_id, sample in first.samples.items():
        if sample_id in second.samples and second.samples[sample_id].target != sample.target:
            raise UserError(
                f"runs {summary.letter(one)} and {summary.letter(other)} are on different data: "
                f"the truth of question {sample_id!r} is not the same",
                fix="make a report of each",
            )


def _places(output: Path) -> tuple[Path, Path]:
    """The page, and the folder of its thumbnails. Raises :class:`UserError` where the page is somebody else's file."""
    if output.suffix.lower() in (".html", ".htm"):
        page, thumbnails = output, output.with_name(f"{output.stem}_thumbnails")
    else:
        page, thumbnails = output / "index.html", output / "thumbnails"
    try:
        begin = page.open("rb").read(4096) if page.exists() else GENERATOR.encode()
    except OSError as error:
        raise unwritable(page, error) from error
    if GENERATOR.encode() not in begin:
        raise UserError(f"{page} exists and is no report", fix="choose another place with --output, or remove it")
    return page, thumbnails


def _view(judged: Judged, title: str | None) -> dict[str, Any]:
    runs = judged.runs
    notes = summary.notes(runs)
    if len(runs) > 1 and not set.intersection(*(set(run.records) for run in runs)):
        notes.insert(0, "These runs have no question in common: they cannot be compared answer by answer")
    return {
        "title": title or runs[0].row.manifest.task,
        "heads": summary.heads(runs),
        "figures": summary.figure_rows(runs),
        "facts": summary.fact_rows(runs),
        "notes": notes,
        "is_sample": any(run.row.is_sample for run in runs),
        "partial": [summary.letter(number) for number, run in enumerate(runs) if run.row.partial],
        "prompt": next((run.prompt for run in runs if run.prompt), ""),
        "cards": sum(len(found) for found in judged.verdicts),
    }


def _payload(
    judged: Judged, gallery: Gallery, images: Sequence[Thumbnail], components: Sequence[str]
) -> dict[str, Any]:
    return {
        "task": judged.runs[0].row.manifest.task,
        "family": judged.runs[0].family,
        "runs": [{"letter": head.letter, "model": head.model} for head in summary.heads(judged.runs)],
        "scores": ["total", *components],
        "statuses": STATUSES,
        "kinds": KINDS,
        "boxKinds": BOX_KINDS,
        "categories": gallery.categories,
        "headline": next((heading(charts.headline) for charts in judged.charts if charts.headline), ""),
        "charts": [charts.to_json() for charts in judged.charts],
        "trainings": [training.to_json() for training in judged.trainings],
        "images": [
            [thumbnail.url, ref.width, ref.height, thumbnail.why]
            for ref, thumbnail in zip(gallery.images, images, strict=True)
        ],
        "cards": gallery.cards,
    }

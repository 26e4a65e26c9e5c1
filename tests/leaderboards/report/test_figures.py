"""Figures for papers: one file per chart, the same from one drawing to the next."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from vrft_bench.harness.cli.app import app
from vrft_bench.leaderboards.report.figures import draw_figures
from vrft_bench.leaderboards.runs import RunRow

MakeRun = Callable[..., RunRow]


def test_every_chart_of_a_detection_run_becomes_a_figure(detection: tuple[RunRow, RunRow], tmp_path: Path) -> None:
    names = ["categories", "gains", "radar", "precision_recall", "calibration", "iou", "mistakes"]
    paths = draw_figures(detection, tmp_path / "a", "png")
    assert [path.stem for path in paths] == names
    for path in paths:
        with Image.open(path) as image:
            assert abs(image.width - 680) <= 1
            assert len(image.convert("L").getcolors(256) or ()) > 20
    again = draw_figures(detection, tmp_path / "b", "png")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]


def test_pdf_figures_hold_text_and_no_type_3_fonts(detection: tuple[RunRow, RunRow], tmp_path: Path) -> None:
    curve = tmp_path / "watch" / "curve.jsonl"
    curve.parent.mkdir()
    rows = [{"step": step, "metric": "ap", "value": step / 100, "low": 0.0, "high": 0.5} for step in (0, 10, 20)]
    curve.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    call = [
        "report",
        str(detection[0].folder),
        "--format",
        "pdf",
        "-o",
        str(tmp_path / "pdf"),
        "--training",
        str(tmp_path),
    ]
    outcome = CliRunner().invoke(app, call)
    assert outcome.exit_code == 0, outcome.output
    paths = [Path(line) for line in outcome.stdout.splitlines()]
    assert [path.name for path in paths][-1] == "training_1.pdf"
    assert "gains.pdf" not in [path.name for path in paths]
    for path in paths:
        assert path.read_bytes().startswith(b"%PDF")
        assert b"/Type3" not in path.read_bytes()


def test_names_with_markup_are_drawn_as_they_are(hostile_run: RunRow, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as of axes that have no room left
        assert draw_figures([hostile_run], tmp_path, "png")[0].name == "categories.png"

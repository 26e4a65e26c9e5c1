"""Runs to report on: mocks on the sample data, and one whose every text is hostile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from vrft_bench.harness.cli.app import app
from vrft_bench.leaderboards.runs import RunRow, open_run

MakeRun = Callable[..., RunRow]
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    '"><img src="http://192.0.2.1/x.png" onerror="window.hacked = 3">',
    "<a href='javascript:window.hacked = 4'>press</a>\u2028\u2029 -->",
    "<!--<script> \x1b[31mred\x1b[0m \u202eright to left\u202c {{ 7 * 7 }} ${7 * 7}",
    '<svg onload="window.hacked = 5"><style>body { display: none }</style>',
)


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory, sample_cache: Path) -> MakeRun:
    """Runs a mock and opens its folder; the same flags give the same run."""
    root = tmp_path_factory.mktemp("runs")

    def make(task: str, model: str = "mock/noisy", *flags: str) -> RunRow:
        outcome = CliRunner().invoke(app, ["run", "-o", str(root), "--json", "-t", task, "-m", model, *flags])
        assert outcome.exit_code == 0, outcome.output
        row = open_run(Path(json.loads(outcome.stdout.splitlines()[-1])["folder"]))
        assert isinstance(row, RunRow)
        return row

    return make


@pytest.fixture(scope="session")
def detection(make_run: MakeRun) -> tuple[RunRow, RunRow]:
    """Two runs of one task that answer differently."""
    return make_run("lvis_fewshot", "mock/noisy", "-L", "120"), make_run(
        "lvis_fewshot", "mock/noisy", "-L", "120", "-M", "jitter=0.3", "-M", "miss=0.2"
    )


@pytest.fixture(scope="session")
def hostile_run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> RunRow:
    """A run whose categories and completions are attacks, with one image missing."""
    folder = tmp_path_factory.mktemp("hostile")
    images = []
    for number in range(len(HOSTILE) + 1):
        name = f"<img onerror=alert({number})>.png".replace("/", "")
        Image.new("RGB", (90, 60), (40 * number % 255, 90, 120)).save(folder / name)
        images.append({"id": number, "file_name": name, "width": 90, "height": 60})
    names = [text.replace("\x1b[31m", "").replace("\x1b[0m", "") for text in HOSTILE]
    boxes = [
        {"id": 1 + number, "image_id": number, "category_id": 1 + number % len(names), "bbox": [10, 10, 40, 30]}
        for number in range(len(images))
    ]
    rows = [{**box, "area": 1200, "iscrowd": 0} for box in boxes]
    annotations = folder / "annotations.json"
    categories = [{"id": 1 + number, "name": name} for number, name in enumerate(names)]
    annotations.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    row = make_run(
        "detection", "mock/gold", "--annotations", str(annotations), "--images", str(folder), "--ask", "present"
    )
    records = read_records(row)
    for number, record in enumerate(records):
        text = HOSTILE[number % len(HOSTILE)]
        record["text"] = f"<think>{text}</think>{text}<answer>{text}</answer>"
    write_records(row, records)
    (folder / images[-1]["file_name"]).unlink()
    opened = open_run(row.folder)
    assert isinstance(opened, RunRow)
    return opened


def read_records(row: RunRow) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (row.folder / "samples.jsonl").read_text().splitlines()]


def write_records(row: RunRow, records: list[dict[str, Any]]) -> None:
    (row.folder / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

"""Training curves from the files that trainings and watches leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vrft_bench.errors import DataError
from vrft_bench.leaderboards.report.training import read_training, training_of
from vrft_bench.leaderboards.runs import RunRow


def write_lines(path: Path, *lines: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_a_log_becomes_series_by_step(tmp_path: Path) -> None:
    lines = [
        {"step": step, "loss": 1 / step, "reward": 0.1 * step, "rewards/iou/mean": 0.5, "x": 1} for step in (1, 2, 3)
    ]
    write_lines(tmp_path / "log.jsonl", *lines, {"step": 3, "train_runtime": 2.0}, {"step": 4, "loss": None})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    training = read_training(tmp_path)
    assert training.series["loss"] == ((1, 1.0), (2, 0.5), (3, 1 / 3))
    assert list(training.series) == ["reward", "loss", "rewards/iou/mean"]
    assert training.evaluated == ()


def test_a_watch_becomes_checkpoints_and_one_made_again_replaces_what_follows(tmp_path: Path) -> None:
    rows = [
        {"step": step, "signature": mark, "metric": "ap", "value": value, "low": 0.1, "high": 0.3, "reward": 1.5}
        for step, mark, value in ((0, "base", 0.1), (10, "a", 0.2), (20, "b", 0.3), (10, "c", 0.25))
    ]
    write_lines(tmp_path / "watch" / "curve.jsonl", *rows)
    training = read_training(tmp_path)
    assert training.metric == "ap"
    assert [(row.step, row.value) for row in training.evaluated] == [(0, 0.1), (10, 0.25)]


def test_a_long_log_is_thinned(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", *({"step": step, "loss": 0.5} for step in range(5000)))
    assert len(read_training(tmp_path).series["loss"]) <= 600


def test_a_folder_without_curves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no training curves"):
        read_training(tmp_path)


def test_the_training_that_a_runs_model_came_from_is_found(detection: tuple[RunRow, RunRow], tmp_path: Path) -> None:
    row = detection[0]
    write_lines(tmp_path / "log.jsonl", {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0})
    (tmp_path / "final").mkdir()
    manifest = row.manifest.model_copy(update={"model": f"hf/{tmp_path}/final"})
    there = RunRow(row.folder, manifest)
    assert training_of(there) is None
    (tmp_path / "train.json").write_text("{}")
    found = training_of(there)
    assert found is not None
    assert found.series["loss"] == ((1, 2.0), (2, 1.0))
    assert training_of(row) is None

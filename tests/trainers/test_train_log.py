"""The log of a training: one line per step, whatever was killed in between."""

from __future__ import annotations

import json
from pathlib import Path

from vrft_bench.trainers.train_log import append_log, keep_log_until, read_log


def test_numbers_come_back_and_what_json_lacks_is_null(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_log(path, {"step": 1, "loss": "0.25", "reward": float("nan"), "best": float("inf"), "note": "begun"})
    assert list(read_log(path)) == [{"step": 1, "loss": 0.25, "reward": None, "best": None, "note": "begun"}]
    json.loads(path.read_text())


def test_steps_that_are_done_again_and_a_torn_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    keep_log_until(path, 3)  # nothing is there yet
    for step in range(5):
        append_log(path, {"step": step})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    keep_log_until(path, 2)
    append_log(path, {"step": 3})
    assert [line["step"] for line in read_log(path)] == [0, 1, 2, 3]


def test_a_training_that_begins_anew_begins_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_log(path, {"step": 0, "eval/AP": 0.1})
    keep_log_until(path, 0)
    assert path.read_text() == ""

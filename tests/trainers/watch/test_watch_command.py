"""What `vrft-bench watch` prints, and how it ends: also a training whose reward is being hacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.trainers.stop import STOP
from vrft_bench.trainers.watch_folder import CURVE

pytestmark = pytest.mark.usefixtures("sample_cache")


def test_the_training_is_asked_to_stop(tmp_path: Path, scripted: Any, cli: Any) -> None:
    for step, answers in ((10, "bare"), (20, "poor"), (30, "gold")):
        scripted.save(tmp_path / "ckpt", step, answers)
    command = (
        "watch", "ckpt", "-t", "coco_fewshot", "--limit", "160", "--reward", "format=1", "--backend", "scripted",
        "--once", "--settle", "0", "--window", "2",
    )  # fmt: skip
    outcome = cli(*command, "--stop-on-hacking")
    assert outcome.code == 1
    assert "REWARD HACKING: ap down, reward up since step 10, beyond chance" in outcome.out
    assert scripted.asked == ["checkpoint-10", "checkpoint-20"]
    said = "at step 20 ap has fallen since step 10, and the reward has risen"
    assert (tmp_path / "ckpt" / STOP).read_text() == f"{said}\n"
    rows = [json.loads(line) for line in (tmp_path / "ckpt" / "watch" / CURVE).read_text().splitlines()]
    assert [row["mark"] for row in rows] == ["fine", "hacking"]
    assert rows[1]["changes"]["metric"]["high"] < 0 < rows[1]["changes"]["reward"]["low"]
    # Without the flag it is told and goes on.
    outcome = cli(*command)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-2].startswith("best: step 10 (ap 1.000)")
    assert scripted.asked[2:] == ["checkpoint-30"]


def test_a_row_per_checkpoint_and_the_folder_last(tmp_path: Path, scripted: Any, cli: Any) -> None:
    scripted.save(tmp_path / "ckpt", 5, "gold")
    state = {"log_history": [{"step": 4, "reward": 1.5}, {"step": 5, "reward": 2.5}]}
    (tmp_path / "ckpt" / "checkpoint-5" / "trainer_state.json").write_text(json.dumps(state))
    base = str(scripted.save(tmp_path, 0, "gold", "base"))
    command = (
        "watch", "ckpt", "-t", "coco_fewshot", "--ask", "present", "-L", "8", "--backend", "scripted", "--once",
        "--settle", "0", "--base", base,
    )  # fmt: skip
    outcome = cli(*command)
    assert outcome.code == 0, outcome.err
    heading, start, row, best, note, folder = outcome.out.splitlines()
    assert heading.split() == ["step", "metric", "95%", "interval", "reward", "in", "training", "unparsable", "tokens"]
    assert start.split()[:3] == ["0", "ap", "1.000"]
    assert row.split()[:3] == ["5", "ap", "1.000"]
    assert row.split()[-4:] == ["3.000", "2.000", "0.0%", "0.0"]
    assert best.startswith("best: step 5 (ap 1.000), kept in ")
    assert note == "note: no checkpoint is better than the base (ap 1.000)"
    assert Path(folder) == tmp_path / "ckpt" / "watch"
    rows = [json.loads(line) for line in cli(*command, "--json").out.splitlines()]
    assert [row["step"] for row in rows] == [0, 5]


def test_a_folder_without_checkpoints_is_told(tmp_path: Path, cli: Any) -> None:
    outcome = cli("watch", ".", "-t", "coco_fewshot", "--once")
    assert outcome.code == 2
    assert "there is no whole checkpoint in" in outcome.err
    assert not (tmp_path / "watch").exists()


def test_a_checkpoint_that_could_not_be_evaluated_makes_the_watch_partial(
    tmp_path: Path, scripted: Any, cli: Any
) -> None:
    scripted.save(tmp_path / "ckpt", 1, "good")
    scripted.save(tmp_path / "ckpt", 2, None)
    outcome = cli(
        "watch", "ckpt", "-t", "coco_fewshot", "--ask", "present", "-L", "8", "--backend", "scripted", "--once",
        "--settle", "0",
    )  # fmt: skip
    assert outcome.code == 5
    assert "not evaluated: step 2:" in outcome.out

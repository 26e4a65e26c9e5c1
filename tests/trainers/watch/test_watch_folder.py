"""What a watch keeps: a line per checkpoint and a copy of the best, whatever ends the watch or deletes the original."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.store import lock_folder
from vrft_bench.trainers import watch as module
from vrft_bench.trainers.folder import WHOLE
from vrft_bench.trainers.watch_folder import BEST, CURVE


def test_the_best_is_a_whole_copy_that_the_trainer_cannot_delete(tmp_path: Path, scripted: Any) -> None:
    for step, answers in ((1, "poor"), (2, "gold"), (3, "good")):
        scripted.save(tmp_path, step, answers)
    found = scripted.watch(tmp_path)
    best = found.folder / BEST
    assert best.resolve() == found.folder / "checkpoint-2"
    assert not (found.folder / "checkpoint-1").exists()
    for checkpoint in tmp_path.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    assert json.loads((best / "config.json").read_text()) == {"step": 2, "answers": "gold"}
    assert json.loads((best / WHOLE).read_text()) == {"step": 2, "ap": 1.0}
    assert all(file.stat().st_nlink == 1 for file in best.iterdir())
    assert scripted.steps(scripted.watch(tmp_path)) == [1, 2, 3]


def test_a_better_one_takes_its_place(tmp_path: Path, scripted: Any) -> None:
    scripted.save(tmp_path, 1, "poor")
    first = scripted.watch(tmp_path)
    assert (first.folder / BEST / "config.json").read_text() == '{"step": 1, "answers": "poor"}'
    scripted.save(tmp_path, 2, "gold")
    scripted.watch(tmp_path)
    assert (first.folder / BEST / "config.json").read_text() == '{"step": 2, "answers": "gold"}'
    assert not (first.folder / "checkpoint-1").exists()


def test_a_copy_left_by_a_watch_that_was_killed_is_taken_up(
    tmp_path: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.save(tmp_path, 1, "good")
    scripted.save(tmp_path, 2, "gold")

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "carry_out", die)
        with pytest.raises(KeyboardInterrupt):
            scripted.watch(tmp_path)
    for checkpoint in tmp_path.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    found = scripted.watch(tmp_path)
    assert scripted.steps(found) == [1, 2]
    assert (found.folder / BEST / "config.json").is_file()


def test_a_watch_killed_before_it_kept_the_best_keeps_it_later(
    tmp_path: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.save(tmp_path, 1, "gold")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vrft_bench.trainers.watch_folder.unlink_files", die)
        with pytest.raises(KeyboardInterrupt):
            scripted.watch(tmp_path)
    assert len((tmp_path / "watch" / CURVE).read_text().splitlines()) == 1
    found = scripted.watch(tmp_path)
    assert scripted.asked == ["checkpoint-1"]
    assert (found.folder / BEST / "config.json").is_file()


def test_a_checkpoint_written_anew_is_evaluated_anew_with_all_after_it(tmp_path: Path, scripted: Any) -> None:
    for step in (1, 2, 3):
        scripted.save(tmp_path, step, "good")
    scripted.watch(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-2")
    scripted.save(tmp_path, 2, "gold")
    found = scripted.watch(tmp_path)
    assert scripted.asked[3:] == ["checkpoint-2"]  # the third is known by its content, and only read again
    assert [(row.step, row.value == 1.0) for row in found.curve] == [(1, False), (2, True), (3, False)]


def test_another_choice_is_refused_before_anything_is_asked(tmp_path: Path, scripted: Any) -> None:
    scripted.save(tmp_path, 1, "good")
    scripted.watch(tmp_path)
    with pytest.raises(UserError, match="limit: 16 there, 8 here"):
        scripted.watch(tmp_path, scripted.config(8))
    with pytest.raises(UserError, match="base"):
        scripted.watch(tmp_path, base=str(scripted.save(tmp_path, 0, "good", "base")))
    assert scripted.asked == ["checkpoint-1"]


def test_two_watches_cannot_write_one_curve(tmp_path: Path, scripted: Any) -> None:
    scripted.save(tmp_path, 1, "good")
    (tmp_path / "watch").mkdir()
    lock_folder(tmp_path / "watch")
    with pytest.raises(UserError, match="is being written by another process"):
        scripted.watch(tmp_path)

"""A training's folder: whose it is, which checkpoints are whole, and what is kept."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import DataError, UserError
from vrft_bench.trainers import folder as module
from vrft_bench.trainers.folder import (
    TrainingFolder,
    TrainingRecord,
    carry_over,
    checkpoints,
    read_record,
    require_space,
)


def record(**identity: Any) -> TrainingRecord:
    return TrainingRecord.of("sft", "coco_fewshot", "tiny", {"seed": 0, **identity}, {"steps": 3})


def saved(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    return checkpoint


def test_a_folder_is_one_trainings_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with TrainingFolder(tmp_path / "out", record()) as first:
        first.begin_session()
        first.finish_checkpoint(saved(first.folder, 7), tmp_path, 7, keep=None)
    with TrainingFolder(tmp_path / "out", record()) as again:
        assert again.record.step == 7
        assert again.record.config == {"steps": 3}
    with pytest.raises(UserError, match=r"holds another training \(seed: 0 there, 1 here\)"):
        TrainingFolder(tmp_path / "out", record(seed=1))


def test_a_session_tells_the_versions_of_what_trains(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    with TrainingFolder(tmp_path, record()) as folder:
        folder.begin_session()
    assert {"trl", "accelerate", "datasets", "torch", "vrft-bench"} <= read_record(tmp_path).sessions[0][
        "versions"
    ].keys()


def test_a_training_that_saved_nothing_gives_way_to_another(tmp_path: Path) -> None:
    with TrainingFolder(tmp_path / "out", record()) as first:
        first.begin_session()
        (first.folder / "completions").mkdir()
        (first.folder / "completions" / "completions_00001.parquet").write_bytes(b"of the first")
    with TrainingFolder(tmp_path / "out", record(seed=1)) as other:
        other.begin_session()
        assert other.record.identity == {"seed": 1}
        assert not (other.folder / "completions").exists()
    assert read_record(tmp_path / "out").identity == {"seed": 1}


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    with TrainingFolder(tmp_path, record()), pytest.raises(UserError, match=f"another process .pid {os.getpid()}"):
        TrainingFolder(tmp_path, record())


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"not empty and is no training's folder \(it holds thesis\.tex\)"):
        TrainingFolder(tmp_path, record())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "thesis.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create"):
        TrainingFolder(tmp_path / "file" / "out", record())


def test_what_comes_before_a_training_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("steps: 3\n")
    (tmp_path / "watch").mkdir()
    TrainingFolder(tmp_path, record()).close()


def test_a_refused_training_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingFolder, "_agreed", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        TrainingFolder(tmp_path / "out", record())
    assert not (tmp_path / "out").exists()


def test_only_marked_checkpoints_count_and_the_others_go(tmp_path: Path) -> None:
    with TrainingFolder(tmp_path / "out", record()) as folder:
        for step in (2, 10, 9):
            folder.finish_checkpoint(saved(folder.folder, step), tmp_path, step, keep=None)
        saved(folder.folder, 11)
        (folder.folder / "checkpoint-12").mkdir()
        (folder.folder / "checkpoint-12" / "checkpoint.json").write_text('{"fingerprint": "of another"}')
        (folder.folder / "checkpoint-best").mkdir()
        assert folder.last_checkpoint() == folder.folder / "checkpoint-10"
        assert [path.name for path in checkpoints(folder.folder)] == ["checkpoint-2", "checkpoint-9", "checkpoint-10"]
        assert (folder.folder / "checkpoint-best").is_dir()


def test_older_checkpoints_go_when_a_newer_one_is_whole_and_not_before(tmp_path: Path) -> None:
    with TrainingFolder(tmp_path / "out", record()) as folder:
        for step in (1, 2):
            folder.finish_checkpoint(saved(folder.folder, step), tmp_path, step, keep=2)
        unfinished = saved(folder.folder, 3)
        assert len(checkpoints(folder.folder)) == 3
        folder.finish_checkpoint(unfinished, tmp_path, 3, keep=2)
        assert [path.name for path in checkpoints(folder.folder)] == ["checkpoint-2", "checkpoint-3"]
        assert folder.record.step == 3


def test_a_checkpoint_gets_the_files_of_its_base_but_not_what_is_its_own(tmp_path: Path) -> None:
    base, checkpoint = tmp_path / "base", tmp_path / "checkpoint"
    for place in (base, checkpoint):
        place.mkdir()
        for name in ("config.json", "tokenizer.json", "trainer_state.json"):
            (place / name).write_text(place.name)
    (base / "chat_template.jinja").write_text("base")
    (base / "model.safetensors").write_text("base")
    carry_over(base, checkpoint)
    there = {path.name: path.read_text() for path in checkpoint.iterdir()}
    assert there == {
        "config.json": "checkpoint", "trainer_state.json": "checkpoint", "tokenizer.json": "base",
        "chat_template.jinja": "base",
    }  # fmt: skip


def test_too_little_disk_is_said_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(0, 0, 10**9))
    require_space(tmp_path / "not" / "yet", 10**9)
    with pytest.raises(UserError, match=r"takes 2\.5 GB of disk for checkpoints, and .* has 1\.0 GB") as caught:
        require_space(tmp_path / "not" / "yet", 2_500_000_000)
    assert "--keep 1" in str(caught.value.fix)


def test_a_record_that_is_absent_or_damaged_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it has no train\.json"):
        read_record(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(DataError, match="is damaged"):
        read_record(tmp_path)

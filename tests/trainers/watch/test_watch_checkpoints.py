"""Checkpoints of any engine: their names, whether they are whole, and copies that outlive them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vrft_bench.trainers.folder import WHOLE
from vrft_bench.trainers.watch_checkpoints import (
    FoundCheckpoint,
    find_checkpoints,
    link_files,
    unlink_files,
    why_unfinished,
)

pytest.importorskip("safetensors")
Make = Callable[..., FoundCheckpoint]


def write_weights(file: Path, value: float = 1.0) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.full(100, value, np.float32)}, file)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A whole checkpoint, as small as can be, of any engine's name and layout."""

    def checkpoint(name: str = "checkpoint-5", place: str = ".") -> FoundCheckpoint:
        model = tmp_path / name / place
        model.mkdir(parents=True)
        write_weights(model / "model.safetensors")
        (model / "config.json").write_text("{}")
        (model / "tokenizer.json").write_text("{}")
        (tmp_path / name / "optimizer.pt").write_bytes(b"0" * 1000)
        (found,) = find_checkpoints(tmp_path)
        return found

    return checkpoint


def why(found: FoundCheckpoint, settle: float = 0.0) -> str | None:
    return why_unfinished(FoundCheckpoint(found.step, found.folder), training=None, settle=settle)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("checkpoint-5", "."),
        ("global_step_5", "actor/huggingface"),
        ("global_step_5", "huggingface"),
        ("global_step5_hf", "."),
    ],
)
def test_checkpoints_of_every_engine_are_found(make: Make, name: str, place: str) -> None:
    found = make(name, place)
    assert found.step == 5
    assert found.model.samefile(found.folder / place)
    assert why(found) is None


def test_other_folders_are_none_and_steps_are_in_order(tmp_path: Path) -> None:
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-best", "checkpoint-", "runs", "step", "global_step5"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-11").write_text("a file")
    assert [item.step for item in find_checkpoints(tmp_path)] == [9, 10]
    assert find_checkpoints(tmp_path / "absent") == []


def test_pieces_of_verl_without_a_model_are_not_whole_and_the_way_out_is_said(make: Make) -> None:
    found = make("global_step_5", "actor/huggingface")
    (found.model / "model.safetensors").unlink()
    (found.folder / "actor" / "model_world_size_8_rank_0.pt").write_bytes(b"0")
    said = why(found)
    assert said is not None
    assert "no weights in global_step_5/actor" in said
    assert "verl.model_merger" in said


def test_shards_that_an_index_names_have_to_be_there(make: Make) -> None:
    found = make()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (found.model / "model.safetensors").rename(found.model / "model-00001-of-00002.safetensors")
    (found.model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert why(found) == "it lacks 1 of its files (model-00002-of-00002.safetensors)"
    write_weights(found.model / "model-00002-of-00002.safetensors")
    assert why(found) is None
    (found.model / "model.safetensors.index.json").write_text(json.dumps(index)[:20])
    assert why(found) == "it lacks 1 of its files (model.safetensors.index.json)"


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_weights_that_are_cut_off_are_not_whole(make: Make, kept: int) -> None:
    found = make()
    file = found.model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert why(found) == "model.safetensors is cut off"


def test_torch_weights_that_are_cut_off_are_not_whole(make: Make) -> None:
    torch = pytest.importorskip("torch")
    found = make()
    (found.model / "model.safetensors").unlink()
    file = found.model / "pytorch_model.bin"
    torch.save({"weight": torch.ones(100)}, file)
    assert why(found) is None
    file.write_bytes(file.read_bytes()[:-100])
    assert why(found) == "pytorch_model.bin is cut off"


def test_a_checkpoint_without_a_config_is_not_whole(make: Make) -> None:
    found = make()
    (found.model / "config.json").unlink()
    assert why(found) == "it has no config.json"
    (found.model / "adapter_config.json").write_text("{}")
    assert why(found) is None
    assert found.is_adapter


def test_a_checkpoint_that_still_changes_is_not_whole(make: Make) -> None:
    found = make()
    assert why(found, settle=3600) == "it was written to within the last 3600 s"
    for file in found.model.iterdir():
        os.utime(file, (1e9, 1e9))
    assert why(found, settle=3600) is None


def test_a_training_of_our_own_says_itself_what_is_whole(make: Make) -> None:
    found = make()
    assert why_unfinished(found, training="abc", settle=0.0) == "it has no mark of being whole"
    (found.folder / WHOLE).write_text(json.dumps({"fingerprint": "abc", "step": 5}))
    assert why_unfinished(found, training="abc", settle=3600) is None
    assert why_unfinished(found, training="another", settle=0.0) == "it has no mark of being whole"


def test_a_copy_outlives_the_checkpoint_and_is_its_own_once_unlinked(make: Make, tmp_path: Path) -> None:
    found = make()
    content = (found.model / "model.safetensors").read_bytes()
    target = tmp_path / "copies" / "checkpoint-5"
    link_files(found, target)
    assert sorted(file.name for file in target.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (target / "model.safetensors").samefile(found.model / "model.safetensors")
    unlink_files(target)
    write_weights(found.model / "model.safetensors", 2.0)
    shutil.rmtree(found.folder)
    assert (target / "model.safetensors").read_bytes() == content
    assert [file.name for file in target.parent.iterdir()] == ["checkpoint-5"]


def test_files_are_copied_where_the_disk_knows_no_links(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    found = make()
    link_files(found, tmp_path / "copies" / "checkpoint-5")
    copy = tmp_path / "copies" / "checkpoint-5" / "model.safetensors"
    assert copy.read_bytes() == (found.model / "model.safetensors").read_bytes()
    assert copy.stat().st_nlink == 1


def test_the_signature_changes_with_the_files(make: Make) -> None:
    found = make()
    before = found.signature()
    assert FoundCheckpoint(5, found.folder).signature() == before
    (found.folder / "optimizer.pt").write_bytes(b"1")
    assert found.signature() == before
    write_weights(found.model / "model.safetensors", 2.0)
    os.utime(found.model / "model.safetensors", (1e9, 1e9))
    assert found.signature() != before

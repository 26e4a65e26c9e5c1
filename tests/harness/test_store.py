from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import DataError, PartialRunError, UserError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.store import (
    Manifest,
    RunStore,
    find_run,
    is_locked,
    model_slug,
    read_manifest,
    run_folder,
    write_json,
)

MakeConfig = Callable[..., RunConfig]


def manifest(config: RunConfig, fingerprint: str = "ab" * 32, **fields: Any) -> Manifest:
    values: dict[str, Any] = {
        "task": "t",
        "model": config.model,
        "fingerprint": fingerprint,
        "identity": {"sampling": {"temperature": 0.0, "seed": 1}, "model": {"name": "m"}},
        "data": "real",
        "samples": 2,
        "completions": 2,
        "created": "now",
        "updated": "now",
        "config": config,
    }
    return Manifest(**{**values, **fields})


@pytest.mark.parametrize(
    ("model", "slug"),
    [
        ("mock/gold", "mock__gold"),
        ("hf/Qwen/Qwen2-VL-2B", "hf__Qwen__Qwen2-VL-2B"),
        ("hf//home/somebody/checkpoints/step-100", "hf__step-100"),
        ("/home/somebody/checkpoints/step-100", "step-100"),
        ("hf/../../etc", "hf__etc"),
        ("mock/constant:<answer>No Objects</answer>", "mock__constant:_answer_No_Objects___answer_"),
        ("mock/replay:/home/somebody/results/20260101T000000Z-abababab", "mock__replay:20260101T000000Z-abababab"),
        ("..", "model"),
    ],
)
def test_a_model_becomes_one_safe_folder_name(model: str, slug: str) -> None:
    assert model_slug(model) == slug


def test_a_run_lies_under_task_model_time_and_fingerprint(config: MakeConfig) -> None:
    folder = run_folder(config(), "t", "0123456789abcdef")
    assert folder.parent == config().output_dir / "t" / "mock__gold"
    stamp, _, mark = folder.name.partition("-")
    assert (len(stamp), stamp[8], stamp[-1], mark) == (16, "T", "Z", "01234567")


def test_two_runs_that_begin_in_one_second_get_two_folders(config: MakeConfig, tmp_path: Path) -> None:
    with (
        RunStore.create(tmp_path / "run", manifest(config())) as one,
        RunStore.create(tmp_path / "run", manifest(config())) as two,
    ):
        assert (one.folder.name, two.folder.name) == ("run", "run-2")


def test_a_folder_that_is_held_refuses_a_second_holder_by_pid_and_is_free_afterwards(
    config: MakeConfig, tmp_path: Path
) -> None:
    with RunStore.create(tmp_path / "run", manifest(config())) as store:
        assert is_locked(store.folder)
        with pytest.raises(UserError, match=rf"another process \(pid {os.getpid()}\)"):
            RunStore(store.folder)
    assert not is_locked(tmp_path / "run")


def test_the_lock_of_a_killed_process_is_free(config: MakeConfig, tmp_path: Path) -> None:
    RunStore.create(tmp_path / "run", manifest(config())).close()
    script = (
        "import sys, time; from pathlib import Path; from vrft_bench.harness.store import RunStore\n"
        "store = RunStore(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"pid {child.pid}"):
            RunStore(tmp_path / "run")
        child.kill()
    RunStore(tmp_path / "run").close()


def test_the_newest_run_of_a_fingerprint_is_found(config: MakeConfig) -> None:
    parent = config().output_dir / "t" / "mock__gold"
    same, other = "ab" * 32, "ab" * 4 + "cd" * 28
    for name, mark in (("20260101T000000Z", same), ("20260102T000000Z", same), ("20260103T000000Z", other)):
        RunStore.create(parent / f"{name}-abababab", manifest(config(), mark)).close()
    (parent / "20260104T000000Z-abababab").mkdir()  # killed before its run.json was there
    assert find_run(config(), "t", same, {}) == parent / "20260102T000000Z-abababab"
    assert find_run(config(), "t", "ef" * 32, {}) is None


def test_a_run_folder_of_another_fingerprint_is_refused_with_what_differs(config: MakeConfig, tmp_path: Path) -> None:
    RunStore.create(tmp_path / "run", manifest(config())).close()
    here = {"sampling": {"temperature": 1.0, "seed": 1}, "model": {"name": "other"}}
    with pytest.raises(UserError) as caught:
        find_run(config(output_dir=tmp_path / "run"), "t", "cd" * 32, here)
    assert "sampling.temperature: 0.0 there, 1.0 here; model.name: 'm' there, 'other' here" in caught.value.message
    assert find_run(config(output_dir=tmp_path / "run"), "t", "ab" * 32, {}) == tmp_path / "run"


def test_run_json_reads_back_and_keeps_every_session(config: MakeConfig, tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run", manifest(config(seed=4))) as store:
        store.begin_session()
        store.update(status="failed", finished=1)
        store.begin_session()
    stored = read_manifest(tmp_path / "run")
    assert (stored.status, stored.finished, len(stored.sessions), stored.config.seed) == ("running", 1, 2, 4)
    assert set(stored.sessions[0].versions) >= {"vrft-bench", "python", "numpy", "platform"}


def test_a_folder_without_or_with_a_damaged_run_json_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run"):
        read_manifest(tmp_path)
    (tmp_path / "run.json").write_text('{"task": 3}')
    with pytest.raises(DataError, match=r"run\.json is damaged or of another version: task"):
        read_manifest(tmp_path)


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"ap": 0.5})
    old = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PartialRunError, match="No space left"):
        write_json(path, {"ap": 0.7})
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_a_place_that_cannot_be_written_is_one_message(config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create"):
        RunStore.create(tmp_path / "file" / "run", manifest(config()))

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import DataError, PartialRunError, UserError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.identity import fingerprint
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
from vrft_bench.tasks.profiles import ABS_ORIGINAL

MakeConfig = Callable[..., RunConfig]


def manifest(config: RunConfig, temperature: float = 0.0, **fields: Any) -> Manifest:
    """One that a run could have written; ``temperature`` tells one run from another."""
    config = config.model_copy(update={"task": ["t"], "temperature": temperature})
    identity = {
        "task": {"name": "t", "version": "1", "protocol": "strict"},
        "data": {"kind": "real", "samples": 2, "sha256": "ab" * 32},
        "profile": ABS_ORIGINAL.to_json(),
        "sampling": config.sampling().to_json(),
        "model": {"name": "m"},
        "include": [],
    }
    values: dict[str, Any] = {
        "task": "t",
        "model": config.model,
        "fingerprint": fingerprint(identity),
        "identity": identity,
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
    same, other = manifest(config()), manifest(config(), temperature=1.0)
    short = same.fingerprint[:8]
    for name, run in (("20260101T000000Z", same), ("20260102T000000Z", same), ("20260103T000000Z", other)):
        RunStore.create(parent / f"{name}-{short}", run).close()  # the last: another run, whose first 8 digits agree
    (parent / f"20260104T000000Z-{short}").mkdir()  # killed before its run.json was there
    assert find_run(config(), "t", same.fingerprint, {}) == parent / f"20260102T000000Z-{short}"
    assert find_run(config(), "t", "ef" * 32, {}) is None


def test_a_run_folder_of_another_fingerprint_is_refused_with_what_differs(config: MakeConfig, tmp_path: Path) -> None:
    there, here = manifest(config()), manifest(config(), temperature=1.0)
    RunStore.create(tmp_path / "run", there).close()
    asked = {**here.identity, "model": {"name": "other"}}
    with pytest.raises(UserError) as caught:
        find_run(config(output_dir=tmp_path / "run"), "t", fingerprint(asked), asked)
    assert "sampling.temperature: 0.0 there, 1.0 here; model.name: 'm' there, 'other' here" in caught.value.message
    assert find_run(config(output_dir=tmp_path / "run"), "t", there.fingerprint, {}) == tmp_path / "run"


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
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").mkdir()
    with pytest.raises(DataError, match=r"run\.json cannot be read: Is a directory"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("task",), None, "task: input should be a valid string"),
        (("identity",), [], "identity: input should be an object"),
        (("config", "limit"), 0, "config.limit: input should be greater than or equal to 1"),
        (("status",), "done", "status: input should be 'running'"),
        (("identity", "data"), {}, "identity.data.kind: field required"),
        (("identity", "profile"), {"name": "x"}, "identity.profile.convention: field required"),
        (("identity", "profile", "think_tags"), ["<t>"], "identity.profile.think_tags.1: field required"),
        (("identity", "profile", "decimals"), -1, "identity.profile: profile 'abs_original': decimals is -1"),
        (("identity", "model", "name"), "better", "by its identity"),
        (("fingerprint",), "ab" * 32, f"fingerprint is '{'ab' * 32}', and "),
        (("config", "temperature"), 1.0, "config.temperature is 1.0, and 0.0 by its identity"),
        (("config", "samples"), 3, "completions is 2, and 6 by its identity; config.n is 3, and 1 by its identity"),
        (("config", "protocol"), "paper", "config.protocol is 'paper', and 'strict' by its identity"),
        (("task",), "other", "task is 'other', and 't' by its identity"),
        (("samples",), 3, "samples is 3, and 2 by its identity"),
    ],
)
def test_a_run_json_that_was_edited_by_hand_is_a_data_error_that_names_the_place(
    config: MakeConfig, tmp_path: Path, where: tuple[str, ...], value: object, said: str
) -> None:
    RunStore.create(tmp_path / "run", manifest(config())).close()
    path = tmp_path / "run" / "run.json"
    written = part = json.loads(path.read_text())
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    path.write_text(json.dumps(written))
    with pytest.raises(DataError) as caught:
        read_manifest(tmp_path / "run")
    assert str(path) in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize("damage", [b'{\n"task"', b"{\n\xff\xfe", b"\n" + b"[" * 9999])
def test_a_run_json_that_is_no_json_is_named_with_its_line(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "run.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"run\.json .* at line 2 column"):
        read_manifest(tmp_path)


def test_looking_at_a_lock_changes_nothing_and_needs_no_right_to_write(config: MakeConfig, tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with RunStore.create(tmp_path / "run", manifest(config())):
        before = (tmp_path / "run" / ".lock").read_bytes()
    assert not is_locked(tmp_path / "run")
    assert (tmp_path / "run" / ".lock").read_bytes() == before
    (tmp_path / "run" / ".lock").unlink()
    (tmp_path / "run" / ".lock").mkdir()
    assert not is_locked(tmp_path / "run"), "a lock that cannot be opened is held by nobody"


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


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object()])
def test_a_value_that_json_cannot_hold_leaves_the_old_file_and_no_part(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "metrics.json", {"ap": 0.5})
    with pytest.raises((TypeError, ValueError)):
        write_json(tmp_path / "metrics.json", {"ap": value})
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"ap": 0.5}


def test_a_run_that_cannot_be_created_leaves_no_folder(config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    folder = tmp_path / "results" / "t" / "mock__gold" / "run"
    with pytest.raises(ValueError):
        RunStore.create(folder, manifest(config(), model="\ud800"))
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        RunStore.create(folder, manifest(config(), samples=3))
    with pytest.raises(UserError, match="cannot create"):
        RunStore.create(folder.with_name("x" * 300), manifest(config()))
    assert list((tmp_path / "results").iterdir()) == []
    RunStore.create(folder, manifest(config())).close()
    with pytest.raises(DataError):
        RunStore.create(folder, manifest(config(), samples=3))
    assert [item.name for item in folder.parent.iterdir()] == ["run"]


def test_a_place_that_cannot_be_written_is_one_message(config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create"):
        RunStore.create(tmp_path / "file" / "run", manifest(config()))

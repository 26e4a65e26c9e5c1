"""The file of answers that are kept across runs: whole after a kill, shared by processes, never somebody else's."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.models.answer_store import FILE, AnswerStore

WRITER = """
import hashlib, sys
from pathlib import Path
from vrft_bench.harness.models.answer_store import AnswerStore

folder, name, count = sys.argv[1:]
store = AnswerStore(Path(folder))
for index in range(int(count)):
    store.put(hashlib.sha256(f"{name}/{index}".encode()).digest(), f"answer {index} " + "x" * (index % 5000))
    print(index, flush=True)
"""


def key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_was_put_is_there_for_whoever_opens_the_folder_next(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there yet"
    with closing(AnswerStore(folder)) as store:
        assert store.get(key("a")) is None
        store.put(key("a"), "first")
        store.put(key("a"), "second")
        store.put(key("b"), "naïve \u2028 text")
    with closing(AnswerStore(folder)) as again:
        assert again.get(key("a")) == "second"
        assert again.get(key("b")) == "naïve \u2028 text"


def test_several_processes_may_begin_and_write_at_once(tmp_path: Path) -> None:
    writers = [writer(tmp_path, str(index), 150) for index in range(4)]
    for process in writers:
        process.communicate(timeout=120)
    assert [process.returncode for process in writers] == [0] * 4
    with closing(AnswerStore(tmp_path)) as store:
        texts = [store.get(key(f"{name}/{index}")) for name in range(4) for index in range(150)]
    assert texts == [f"answer {index} " + "x" * index for _ in range(4) for index in range(150)]


def test_a_killed_writer_loses_nothing_that_it_had_put(tmp_path: Path) -> None:
    for kill_at in (1, 40, 400):
        process = writer(tmp_path, f"killed at {kill_at}", 1_000_000)
        assert process.stdout is not None
        while int(process.stdout.readline()) < kill_at:
            pass
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = process.communicate(timeout=60)
        said = [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        last = int(said[-1]) if said else kill_at
        with closing(AnswerStore(tmp_path)) as store:
            for index in range(last + 1):
                text = store.get(key(f"killed at {kill_at}/{index}"))
                assert text == f"answer {index} " + "x" * (index % 5000)
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("CREATE TABLE notes (text)")
        database.commit()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(UserError, match="is another program's database") as refusal:
        AnswerStore(tmp_path)
    assert str(tmp_path) in str(refusal.value.fix)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    AnswerStore(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(UserError, match="has format 2, and this version of vrft-bench reads 1"):
        AnswerStore(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("these are notes\n" * 1000)
    with pytest.raises(UserError, match=r"is damaged \(file is not a database\)"):
        AnswerStore(tmp_path)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    with closing(AnswerStore(tmp_path)) as store:
        for index in range(100):
            store.put(key(str(index)), "x" * 1000)
    os.truncate(tmp_path / FILE, 3000)
    with pytest.raises(UserError, match="is damaged"):
        AnswerStore(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be used: (Not a directory|File exists)"):
        AnswerStore(tmp_path / "file")

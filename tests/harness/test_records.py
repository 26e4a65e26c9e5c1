from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vrft_bench.errors import DataError, ExitCode, PartialRunError
from vrft_bench.harness.records import Record, RecordIndex, RecordWriter, read_records


def answer(name: str, text: str = "x", n: int = 0) -> Record:
    return {"id": name, "n": n, "text": text, "finish_reason": "stop"}


def write(path: Path, *records: Record) -> None:
    writer = RecordWriter(path)
    for record in records:
        writer.append(record)
    writer.close()


def test_what_is_written_is_read_back_whatever_the_text_holds(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    texts = ["", "two\nlines\r", "\u2028 \x00 \ud800 é 😀", '"quoted" \\']
    written = [answer(str(index), text) for index, text in enumerate(texts)]
    write(path, *written)
    assert list(read_records(path)) == written


def test_no_file_holds_no_records(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "samples.jsonl")) == []


def test_a_tail_torn_at_any_byte_is_ignored_by_readers_and_cut_off_by_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    write(path, answer("a"), answer("b"), answer("c"))
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    third = whole.index(b"\n", second) + 1
    for cut in range(second, len(whole)):
        path.write_bytes(whole[:cut])
        kept = ["a"] if cut < third else ["a", "b"]
        assert [record["id"] for record in read_records(path)] == kept
        write(path, answer("d"))
        assert [record["id"] for record in read_records(path)] == [*kept, "d"]


def test_a_torn_tail_longer_than_one_read_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    write(path, answer("a"))
    with path.open("ab") as file:
        file.write(b"x" * 200_000)
    write(path, answer("b"))
    assert [record["id"] for record in read_records(path)] == ["a", "b"]


@pytest.mark.parametrize(
    "damage", [b"{not json}\n", b"\x00\x00\x00\n", b"[1, 2]\n", b'{"id": "a"}\n', b"\n", b"\xff\n"]
)
def test_a_damaged_line_is_an_error_that_names_its_number(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "samples.jsonl"
    write(path, answer("a"), answer("b"))
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + second)
    with pytest.raises(DataError, match="line 2: damaged"):
        list(read_records(path))


def test_a_failed_record_is_superseded_by_a_later_one(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    first = {"id": "a", "n": 0, "error": "busy"}
    again = {"id": "b", "n": 0, "error": "still busy"}
    write(path, first, {"id": "b", "n": 0, "error": "busy"}, answer("a"), again, answer("a", n=1))
    assert list(read_records(path)) == [answer("a"), again, answer("a", n=1)]
    index = RecordIndex(path)
    assert set(index.answered) == {("a", 0), ("a", 1)}
    assert set(index.failed) == {("b", 0)}
    assert index.read(index.failed["b", 0]) == again
    index.close()


def test_two_answers_for_one_key_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    write(path, answer("a"), answer("b"), answer("a", "other"))
    with pytest.raises(DataError, match="line 3: a second answer for sample 'a', n=0"):
        list(read_records(path))


@pytest.mark.parametrize("accepted", [0, 1, 17])
def test_a_disk_that_fills_up_within_a_line_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: int
) -> None:
    path = tmp_path / "samples.jsonl"
    writer = RecordWriter(path)
    writer.append(answer("a"))
    real_write, budget = os.write, [accepted]

    def nearly_full(descriptor: int, data: bytes) -> int:
        if budget[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = real_write(descriptor, data[: budget[0]])
        budget[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(PartialRunError, match="No space left on device") as caught:
        writer.append(answer("b"))
    assert caught.value.exit_code == ExitCode.PARTIAL == 5
    assert "everything finished so far is kept" in caught.value.message
    assert "repeat the same command" in (caught.value.fix or "")
    monkeypatch.undo()
    assert path.read_bytes().count(b"\n") == 1
    assert path.read_bytes().endswith(b"\n")
    writer.append(answer("c"))
    writer.close()
    assert [record["id"] for record in read_records(path)] == ["a", "c"]

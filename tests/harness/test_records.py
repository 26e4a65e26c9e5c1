from __future__ import annotations

import errno
import json
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


def changed(**fields: object) -> bytes:
    record = {**answer("x"), **fields}
    return json.dumps({key: value for key, value in record.items() if value is not ...}).encode() + b"\n"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"{not json}\n", "it is not JSON"),
        (changed()[:20] + b"\n", "it is not JSON"),
        (b"\x00\x00\x00\n", "it is not JSON"),
        (b"\xff\n", "it is not JSON"),
        (b"\n", "it is not JSON"),
        (b"[" * 100_000 + b"\n", "it is not JSON"),
        (b"[1, 2]\n", "it is no JSON object"),
        (b'{"id": "a"}\n', "it has no 'n'"),
        (changed(id=3), "its 'id' is 3"),
        (changed(n=True), "its 'n' is True"),
        (changed(n=-1), "its 'n' is -1"),
        (changed(text=...), "it has no 'text'"),
        (changed(text=["x"]), r"its 'text' is \['x'\]"),
        (changed(finish_reason=...), "it has no 'finish_reason'"),
        (changed(error=None), "its 'error' is None"),
        (changed(prompt_tokens="9"), "its 'prompt_tokens' is '9'"),
        (changed(seconds=float("nan")), "NaN is no JSON number"),
        (changed(image_sha256=1), "its 'image_sha256' is 1"),
        (changed(processed=3), "its 'processed' is 3"),
        (changed(processed=[3]), r"its 'processed' is \[3\], and no width and height"),
        (changed(processed=[0, 28]), "and no width and height"),
        (changed(processed=[10**400, 28]), "and no width and height"),
        (changed(processed=["28", 28]), "and no width and height"),
        (changed(token_logprobs=None), "its 'token_logprobs' is None"),
        (changed(token_logprobs=[[3, -0.5], [4]]), r"its 'token_logprobs' hold \[4\], and no end and logprob"),
        (changed(token_logprobs=[[3, "-0.5"]]), "and no end and logprob"),
    ],
)
def test_a_damaged_line_is_an_error_that_names_its_number_and_what_is_wrong(
    tmp_path: Path, damage: bytes, said: str
) -> None:
    path = tmp_path / "samples.jsonl"
    write(path, answer("a"), answer("b"))
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + second)
    with pytest.raises(DataError, match=f"line 2: damaged, .*{said}") as caught:
        list(read_records(path))
    assert str(path) in caught.value.message


def test_a_place_without_a_file_of_records_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(read_records(tmp_path))
    with pytest.raises(DataError, match="cannot be written: Is a directory"):
        RecordWriter(tmp_path)


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

"""A file appears whole, once, and is never replaced."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vrft_bench.tasks.data.new_file import write_new


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "made" / "a.json"
    write_new(path, "first")
    with pytest.raises(FileExistsError):
        write_new(path, "second")
    assert path.read_text() == "first"
    assert [item.name for item in path.parent.iterdir()] == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_of_many_writers_one_wins_and_its_text_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    texts = [str(number) * 100_000 for number in range(8)]

    def write(text: str) -> bool:
        try:
            write_new(path, text)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, texts))
    assert sum(won) == 1
    assert path.read_text() == texts[won.index(True)]
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_one_who_was_first_after_all_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("first")
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as it was when this process looked
    with pytest.raises(FileExistsError):
        write_new(path, "second")
    assert path.read_text() == "first"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_file_in_place_of_the_folder_is_no_existing_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotADirectoryError):
        write_new(tmp_path / "taken" / "a.json", "text")


def test_a_file_system_without_hard_links_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    write_new(tmp_path / "a.json", "text")
    assert (tmp_path / "a.json").read_text() == "text"
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "a.json", "other")

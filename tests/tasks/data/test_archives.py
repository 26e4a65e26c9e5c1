"""Archives come out whole, into their folder and nowhere else, or it is said why they do not."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from file_server import zipped

from vrft_bench.errors import DataError
from vrft_bench.tasks.data import archives
from vrft_bench.tasks.data.archives import unpack


def test_what_is_in_the_way_of_an_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(**{"folder/file": b"1"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "folder").write_text("a file where the folder should go")
    with pytest.raises(DataError, match="cannot be put into"):
        unpack(archive, tmp_path / "out")


def test_members_may_begin_with_a_dot_and_a_slash(tmp_path: Path) -> None:
    """As ``tar -C folder .`` writes them."""
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        for name in ("./annotations/test.txt", "./annotations/trimaps.png"):
            packed.addfile(tarfile.TarInfo(name))
    unpack(archive, tmp_path, only="annotations/*.txt")
    assert [path.name for path in (tmp_path / "annotations").iterdir()] == ["test.txt"]


def test_a_zip_that_says_it_holds_more_than_there_is_room_for_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(zeros=bytes(1_000_000)))
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 101 << 20})())
    unpack(archive, tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("Usage", (), {"free": (100 << 20) + 10_000})())
    with pytest.raises(DataError, match=r"unpacking a\.zip needs 0\.0 GB"):
        unpack(archive, tmp_path)


def test_a_zip_may_not_leave_its_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(**{"..__out": b"abc", "____root": b"abc"}))
    unpack(archive, tmp_path / "in")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        "a.zip",
        "in/out",
        "in/root",
    ]


def test_a_tar_archive_may_not_leave_its_folder(tmp_path: Path) -> None:
    def packed(name: str) -> Path:
        path = tmp_path / "a.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        return path

    (tmp_path / "in").mkdir()
    unpack(packed("jpg/image_00001.jpg"), tmp_path / "in")
    assert (tmp_path / "in" / "jpg" / "image_00001.jpg").read_bytes() == b"abc"
    with pytest.raises(DataError, match=r"is damaged: '\.\./out' would be extracted"):
        unpack(packed("../out"), tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    for name, data in (("a.zip", b"PK no zip"), ("a.tar.gz", b"\x1f\x8b no gzip"), ("b.zip", zipped(a=b"1")[:-20])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"{name} is damaged"):
            unpack(tmp_path / name, tmp_path)
    (tmp_path / "c.zip").write_bytes(zipped(a=b"1"))
    with pytest.raises(DataError, match=r"c\.zip holds nothing like b"):
        unpack(tmp_path / "c.zip", tmp_path, only="b")

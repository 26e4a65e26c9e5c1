"""What was fetched is in its place, is held to a checksum, and is fetched by one process at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from file_server import BODY, Server, digest, source, zipped

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.data import fetch
from vrft_bench.tasks.data.fetch import LOCK_FILE, fetch_file, read_lock


def test_a_file_arrives_with_its_checksum_recorded(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    folder = fetch_file(source(server), tmp_path, progress=lambda *step: seen.append(step))
    assert folder == tmp_path / "set"
    assert (folder / "data.bin").read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["data.bin"]
    entry = read_lock(tmp_path)[f"{server.url}/data.bin"]
    assert (entry["sha256"], entry["bytes"]) == (digest(BODY), len(BODY))
    assert seen[0] == ("data.bin", 0, len(BODY))
    assert seen[-1] == ("data.bin", len(BODY), len(BODY))


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"gave a file with the sha256 {digest(BODY)}, and its owner's file has 00"):
        fetch_file(source(server, sha256="00" * 32), tmp_path)
    assert list((tmp_path / "set").iterdir()) == []
    assert read_lock(tmp_path) == {}
    assert len(server.ranges) == 1


def test_an_old_part_that_is_wrong_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 0]
    with pytest.raises(DataError, match="cut"):
        fetch_file(source(server), tmp_path, attempts=1, wait=lambda seconds: None)
    part = tmp_path / "set" / "data.bin.part"
    part.write_bytes(bytes(1_000_000))
    server.cuts = []
    fetch_file(source(server, sha256=digest(BODY)), tmp_path)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY


def test_without_a_known_checksum_later_downloads_are_held_to_the_first(server: Server, tmp_path: Path) -> None:
    fetch_file(source(server), tmp_path)
    path = tmp_path / "set" / "data.bin"
    path.unlink()
    fetch_file(source(server), tmp_path)
    path.unlink()
    server.files["/data.bin"] = b"something else"
    with pytest.raises(DataError, match=rf"and the first download, recorded in .*{LOCK_FILE}, has {digest(BODY)}"):
        fetch_file(source(server), tmp_path)
    assert not path.exists()


def test_a_first_download_that_is_no_archive_does_not_bind_later_ones(server: Server, tmp_path: Path) -> None:
    """What a login page in the way answers, say: deleting the file, as the message advises, has to be enough."""
    server.files["/a.zip"] = b"<html>Please log in</html>"
    with pytest.raises(DataError, match=r"a\.zip is damaged"):
        fetch_file(source(server, "a.zip"), tmp_path)
    assert read_lock(tmp_path) == {}
    (tmp_path / "set" / "a.zip").unlink()
    server.files["/a.zip"] = zipped(a=b"1")
    fetch_file(source(server, "a.zip"), tmp_path)
    assert (tmp_path / "set" / "a").read_bytes() == b"1"
    assert read_lock(tmp_path)[f"{server.url}/a.zip"]["sha256"] == digest(server.files["/a.zip"])


def test_an_archive_that_is_there_already_is_held_to_the_checksum(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.zip").write_bytes(zipped(a=b"1"))
    with pytest.raises(
        DataError, match=rf"a\.zip has the sha256 {digest(zipped(a=b'1'))}, and its owner's file has 00"
    ):
        fetch_file(source(server, "a.zip", sha256="00" * 32), tmp_path)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["a.zip"]
    fetch_file(source(server, "a.zip", sha256=digest(zipped(a=b"1"))), tmp_path)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["a"]
    assert server.ranges == []


def test_a_checksum_that_cannot_be_kept_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".fetch.lock").mkdir()
    with pytest.raises(DataError, match=rf"{LOCK_FILE} cannot be written"):
        fetch_file(source(server), tmp_path)


def test_the_checksums_can_be_read_by_others_who_use_the_data(server: Server, tmp_path: Path) -> None:
    fetch_file(source(server), tmp_path)
    assert (tmp_path / LOCK_FILE).stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the folder .*file/set cannot be made: Not a directory"):
        fetch_file(source(server), tmp_path / "file")


def test_an_archive_is_unpacked_and_goes(server: Server, tmp_path: Path) -> None:
    server.files["/coco.zip"] = zipped(val2017__1=b"one", val2017__2=b"two", captions=b"no")
    (tmp_path / "set" / "val2017").mkdir(parents=True)
    (tmp_path / "set" / "val2017" / "1").write_bytes(b"old")
    fetch_file(source(server, "coco.zip", only="val2017/*"), tmp_path)
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files.pop(".fetch.lock") == b""
    assert LOCK_FILE in files
    files.pop(LOCK_FILE)
    assert files == {"set/val2017/1": b"one", "set/val2017/2": b"two"}


def test_what_a_killed_process_had_unpacked_is_deleted(server: Server, tmp_path: Path) -> None:
    """train2017 has 19 GB: left where it was, each attempt would cost as much again."""
    left = tmp_path / "set" / ".unpack-of-a-killed-process"
    left.mkdir(parents=True)
    (left / "1").write_bytes(b"half")
    server.files["/coco.zip"] = zipped(val2017__1=b"one")
    fetch_file(source(server, "coco.zip"), tmp_path)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["val2017"]


def test_two_processes_do_not_fetch_one_file(server: Server, tmp_path: Path) -> None:
    with (
        fetch._alone(tmp_path),
        pytest.raises(UserError, match="another process is fetching into"),
        fetch._alone(tmp_path),
    ):
        pass


def test_two_processes_that_fetch_into_one_root_both_leave_their_checksums(server: Server, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from vrft_bench.tasks.data.fetch import fetch_file
from vrft_bench.tasks.data.sources import Download

url, root, into = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    fetch_file(Download(f"{url}/{into}{number}", into), Path(root))
"""
    server.files |= {f"/{into}{number}": b"content" for into in ("left", "right") for number in range(50)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, server.url, str(tmp_path), into],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for into in ("left", "right")
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=120)
    assert [child.returncode for child in children] == [0, 0]
    assert {url.removeprefix(server.url) for url in read_lock(tmp_path)} == server.files.keys() - {"/data.bin"}


def test_a_broken_lock_file_is_named(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text(json.dumps(["nothing"]))
    with pytest.raises(DataError, match=r"fetch\.lock\.json is not what"):
        read_lock(tmp_path)

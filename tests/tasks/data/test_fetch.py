"""Downloads from a server on loopback that cuts connections, changes its files and gives wrong ones."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.data import fetch
from vrft_bench.tasks.data.fetch import LOCK_FILE, fetch_file, read_lock, unpack
from vrft_bench.tasks.data.sources import Download

BODY = os.urandom(3_500_000)


@dataclass
class Server:
    """Files by path, and how they are served: ``cuts`` are the bytes after which the next answers break off."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    takes_ranges: bool = True
    chunked: bool = False
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server({"/data.bin": BODY})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.ranges.append(self.headers.get("Range"))
            if state.statuses and (status := state.statuses.pop(0)) != 200:
                self.send_error(status)
                return
            body = state.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            etag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
            start, wanted = 0, self.headers.get("Range")
            if wanted and state.takes_ranges and self.headers.get("If-Range") == etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(206 if start else 200)
            if state.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", etag)
            self.end_headers()
            cut = state.cuts.pop(0) if state.cuts else None
            sent = body[start:] if cut is None else body[start : start + cut]
            if state.chunked:
                sent = b"%x\r\n%s\r\n" % (len(sent), sent) + (b"0\r\n\r\n" if cut is None else b"")
            self.wfile.write(sent)
            self.wfile.flush()
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up is part of the tests."""

    httpd = Quiet(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def source(server: Server, name: str = "data.bin", **options: Any) -> Download:
    return Download(f"{server.url}/{name}", "set", **options)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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


def test_cut_connections_are_taken_up_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 700_000]
    waits: list[float] = []
    fetch_file(source(server, sha256=digest(BODY)), tmp_path, wait=waits.append)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000000-", "bytes=1700000-"]
    assert len(waits) == 2


def test_a_later_call_goes_on_with_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.cuts = [2_000_000, 0, 0]
    with pytest.raises(DataError, match=r"the connection was cut \(2 times in a row\)"):
        fetch_file(source(server), tmp_path, attempts=2, wait=lambda seconds: None)
    assert (tmp_path / "set" / "data.bin.part").stat().st_size == 2_000_000
    fetch_file(source(server), tmp_path)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY
    assert server.ranges[-1] == "bytes=2000000-"


def test_a_part_that_is_whole_already_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    """A process that stopped between the last byte and the checksum leaves such a part."""
    body = server.files["/data.bin"]
    folder = tmp_path / source(server).into
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "data.bin.part"
    part.write_bytes(body)
    part.with_name("data.bin.part.etag").write_text(f'"{digest(body)[:8]}"')
    fetch_file(source(server), tmp_path)
    assert server.ranges == [f"bytes={len(body)}-"]
    assert (folder / "data.bin").read_bytes() == body


def test_what_is_in_the_way_of_an_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(**{"folder/file": b"1"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "folder").write_text("a file where the folder should go")
    with pytest.raises(DataError, match="cannot be put into"):
        unpack(archive, tmp_path / "out")


def test_a_file_that_changed_in_between_is_begun_again(server: Server, tmp_path: Path) -> None:
    server.cuts = [2_000_000, 0]
    with pytest.raises(DataError, match="cut"):
        fetch_file(source(server), tmp_path, attempts=1, wait=lambda seconds: None)
    server.files["/data.bin"] = other = os.urandom(2_500_000)
    server.cuts = []
    fetch_file(source(server), tmp_path)
    assert (tmp_path / "set" / "data.bin").read_bytes() == other


def test_a_server_without_ranges_begins_again(server: Server, tmp_path: Path) -> None:
    server.takes_ranges = False
    server.cuts = [1_000_000]
    fetch_file(source(server, sha256=digest(BODY)), tmp_path, wait=lambda seconds: None)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY


def test_a_cut_is_noticed_where_the_size_is_not_told(server: Server, tmp_path: Path) -> None:
    server.chunked = True
    server.cuts = [1_000_000]
    fetch_file(source(server), tmp_path, wait=lambda seconds: None)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY
    assert len(server.ranges) == 2


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


def test_a_full_disk_is_not_taken_for_a_bad_connection(server: Server, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"data\.bin\.part cannot be written: File too large") as failure:
            fetch_file(source(server), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "make room" in failure.value.fix
    assert len(server.ranges) == 1
    fetch_file(source(server), tmp_path)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY
    assert server.ranges[1] == "bytes=1000000-"


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the folder .*file/set cannot be made: Not a directory"):
        fetch_file(source(server), tmp_path / "file")


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429, 200]
    fetch_file(source(server), tmp_path, wait=lambda seconds: None)
    assert len(server.ranges) == 3
    with pytest.raises(DataError, match="the server says 404 Not Found"):
        fetch_file(source(server, "gone.bin"), tmp_path)
    assert len(server.ranges) == 4


def test_an_unreachable_server_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Connection refused.* \(2 times in a row\)"):
        fetch_file(Download("http://127.0.0.1:9/a", ""), tmp_path, attempts=2, wait=lambda seconds: None)


def test_too_little_room_is_said_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 101 << 20})())
    with pytest.raises(DataError, match=r"data\.bin needs 0\.0 GB in .*, where 0\.1 GB are free"):
        fetch_file(source(server), tmp_path)
    assert list((tmp_path / "set").iterdir()) == []


def zipped(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return packed.getvalue()


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

"""A file arrives whole from a server that cuts connections, or it is said why it does not."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
from file_server import BODY, Server, digest, source

from vrft_bench.errors import DataError
from vrft_bench.tasks.data import archives
from vrft_bench.tasks.data.fetch import fetch_file
from vrft_bench.tasks.data.sources import Download


def test_cut_connections_are_taken_up_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 700_000]
    waits: list[float] = []
    fetch_file(source(server, sha256=digest(BODY)), tmp_path, wait=waits.append)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000000-", "bytes=1700000-"]
    assert len(waits) == 2


def test_only_attempts_that_bring_nothing_are_counted(server: Server, tmp_path: Path) -> None:
    server.cuts = [500_000, 0, 500_000, 0, 500_000, 0]
    fetch_file(source(server, sha256=digest(BODY)), tmp_path, attempts=2, wait=lambda seconds: None)
    assert len(server.ranges) == 7


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


def test_a_part_that_is_more_than_the_file_is_begun_again(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "set" / "data.bin.part"
    part.parent.mkdir()
    part.write_bytes(BODY + b"more")
    part.with_name("data.bin.part.etag").write_text(f'"{digest(BODY)[:8]}"')
    fetch_file(source(server), tmp_path, wait=lambda seconds: None)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY
    assert server.ranges == [f"bytes={len(BODY) + 4}-", None]


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


def test_another_piece_than_the_one_asked_for_is_not_added(server: Server, tmp_path: Path) -> None:
    """A proxy that answers 206 with the file from its beginning would leave that beginning in it twice."""
    server.ignores_start = True
    server.cuts = [1_000_000]
    fetch_file(source(server), tmp_path, wait=lambda seconds: None)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000000-", None]


def test_a_length_that_is_no_number_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.length = "many"
    fetch_file(source(server, sha256=digest(BODY)), tmp_path)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY


def test_a_cut_is_noticed_where_the_size_is_not_told(server: Server, tmp_path: Path) -> None:
    server.chunked = True
    server.cuts = [1_000_000]
    fetch_file(source(server), tmp_path, wait=lambda seconds: None)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000000-"]


@pytest.mark.parametrize(("limit", "chunked"), [(1_000_000, False), (3_300_000, True)])
def test_a_full_disk_is_not_taken_for_a_bad_connection(
    server: Server, tmp_path: Path, limit: int, chunked: bool
) -> None:
    """A limit on the size of files stands for the disk. It may be full within the last piece of a file whose size the
    server does not tell.
    """
    server.chunked = chunked
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
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
    assert server.ranges[1] == f"bytes={limit}-"


@pytest.mark.parametrize("name", ["data.bin.part", "data.bin.part.etag", "data.bin"])
def test_a_place_that_cannot_be_written_is_not_taken_for_a_bad_connection(
    server: Server, tmp_path: Path, name: str
) -> None:
    """A folder stands for what cannot be written: nothing else keeps the superuser out."""
    (tmp_path / "set" / name).mkdir(parents=True)
    waits: list[float] = []
    with pytest.raises(DataError, match=r"/data\.bin.* cannot be written: Is a directory") as failure:
        fetch_file(source(server), tmp_path, wait=waits.append)
    assert "make its folder writable" in failure.value.fix
    assert (len(server.ranges), waits) == (name != "data.bin.part.etag", [])


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 408, 429, 200]
    fetch_file(source(server), tmp_path, wait=lambda seconds: None)
    assert len(server.ranges) == 4
    with pytest.raises(DataError, match="the server says 404 Not Found"):
        fetch_file(source(server, "gone.bin"), tmp_path)
    assert len(server.ranges) == 5


def test_an_answer_without_the_file_is_not_taken_for_an_empty_one(server: Server, tmp_path: Path) -> None:
    server.statuses = [204]
    with pytest.raises(DataError, match="the server says 204 No Content"):
        fetch_file(source(server), tmp_path)
    assert list((tmp_path / "set").iterdir()) == []


def test_an_unreachable_server_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Connection refused.* \(2 times in a row\)"):
        fetch_file(Download("http://127.0.0.1:9/a", ""), tmp_path, attempts=2, wait=lambda seconds: None)


def test_too_little_room_is_said_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 101 << 20})())
    with pytest.raises(DataError, match=r"data\.bin needs 0\.0 GB in .*, where 0\.1 GB are free"):
        fetch_file(source(server), tmp_path)
    assert list((tmp_path / "set").iterdir()) == []


def test_a_page_in_the_way_does_not_cost_what_has_arrived(server: Server, tmp_path: Path) -> None:
    server.cuts = [3_000_000, 0]
    wanted = source(server, size=len(BODY))
    with pytest.raises(DataError, match="cut"):
        fetch_file(wanted, tmp_path, attempts=1, wait=lambda seconds: None)
    server.cuts = []
    server.files["/data.bin"] = b"<html>Please log in</html>"
    with pytest.raises(DataError, match="it is to have 3,500,000 bytes, and the server gives 26"):
        fetch_file(wanted, tmp_path, wait=lambda seconds: None)
    server.files["/data.bin"] = BODY
    fetch_file(wanted, tmp_path)
    assert (tmp_path / "set" / "data.bin").read_bytes() == BODY
    assert server.ranges[-1] == "bytes=3000000-"


def test_an_archive_needs_room_for_what_it_holds_too(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = (100 << 20) + int(1.5 * len(BODY))
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free})())
    server.files["/data.zip"] = BODY
    with pytest.raises(DataError, match=r"data\.zip needs 0\.0 GB"):
        fetch_file(source(server, "data.zip"), tmp_path)
    assert not (tmp_path / "set" / "data.zip.part").exists()
    fetch_file(source(server), tmp_path)


def test_where_the_owner_sends_one_on_is_followed_but_not_to_a_file_here(server: Server, tmp_path: Path) -> None:
    server.redirects = {
        "/moved.bin": "/data.bin",
        "/local.bin": f"file://{tmp_path}/secret",
        "/round.bin": "/round.bin",
    }
    (tmp_path / "secret").write_bytes(b"secret")
    fetch_file(source(server, "moved.bin"), tmp_path)
    assert (tmp_path / "set" / "moved.bin").read_bytes() == BODY
    for name in ("local.bin", "round.bin"):
        with pytest.raises(DataError, match="the server says 302"):
            fetch_file(source(server, name), tmp_path)
        assert not (tmp_path / "set" / name).exists()

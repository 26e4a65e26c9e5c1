"""Datasets of the hub are fetched at one revision and held to it, from a hub on loopback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from file_server import listening

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.data.fetch import fetch_hub, read_lock
from vrft_bench.tasks.data.sources import HubDataset

pytest.importorskip("huggingface_hub")

FIRST, SECOND = "1" * 40, "2" * 40
SOURCE = HubDataset("someone/ViRFT_COCO_base65", "virft/ViRFT_COCO_base65")


@dataclass
class Hub:
    """One dataset: the files of each revision. ``head`` is the newest revision."""

    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = FIRST
    url: str = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub({FIRST: {"README.md": b"a card", "data/train-00000-of-00001.parquet": b"rows"}})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(True)

        def do_HEAD(self) -> None:
            self._answer(False)

        def _answer(self, with_body: bool) -> None:
            path = self.path.split("?")[0]
            api, files = f"/api/datasets/{SOURCE.repo}", f"/datasets/{SOURCE.repo}/resolve/"
            if path.startswith(f"{api}/tree/"):
                rows = state.revisions[path.removeprefix(f"{api}/tree/")]
                tree = [
                    {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                    for name, body in rows.items()
                ]
                self._send(json.dumps(tree).encode(), with_body, {"Content-Type": "application/json"})
            elif path.startswith(api):
                revision = path.partition("/revision/")[2].split("/")[0] or state.head
                revision = state.head if revision == "main" else revision
                names = [{"rfilename": name} for name in state.revisions[revision]]
                value = {"id": SOURCE.repo, "sha": revision, "siblings": names, "tags": [], "private": False}
                self._send(json.dumps(value).encode(), with_body, {"Content-Type": "application/json"})
            elif path.startswith(files):
                revision, _, name = path.removeprefix(files).partition("/")
                body = state.revisions[revision][name]
                etag = f'"{hashlib.sha1(body).hexdigest()}"'
                self._send(body, with_body, {"ETag": etag, "X-Repo-Commit": revision})
            else:
                self.send_error(404)

        def _send(self, body: bytes, with_body: bool, headers: dict[str, str]) -> None:
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with listening(Handler) as state.url:
        yield state


def test_a_dataset_arrives_with_its_revision_recorded(hub: Hub, tmp_path: Path) -> None:
    folder = fetch_hub(SOURCE, tmp_path, endpoint=hub.url)
    assert folder == tmp_path / "virft" / "ViRFT_COCO_base65"
    assert (folder / "data" / "train-00000-of-00001.parquet").read_bytes() == b"rows"
    entry = read_lock(tmp_path)["https://huggingface.co/datasets/someone/ViRFT_COCO_base65"]
    assert entry["revision"] == FIRST
    assert entry["files"]["data/train-00000-of-00001.parquet"] == hashlib.sha256(b"rows").hexdigest()
    assert len(entry["files"]) == 2


def test_a_later_call_keeps_the_revision(hub: Hub, tmp_path: Path) -> None:
    fetch_hub(SOURCE, tmp_path, endpoint=hub.url)
    hub.revisions[SECOND] = {"README.md": b"new", "data/train-00000-of-00001.parquet": b"other rows"}
    hub.head = SECOND
    folder = fetch_hub(SOURCE, tmp_path, endpoint=hub.url)
    assert (folder / "data" / "train-00000-of-00001.parquet").read_bytes() == b"rows"
    assert fetch_hub(SOURCE, tmp_path / "elsewhere", endpoint=hub.url).joinpath("README.md").read_bytes() == b"new"


def test_a_file_that_is_another_one_is_refused(hub: Hub, tmp_path: Path) -> None:
    file = fetch_hub(SOURCE, tmp_path, endpoint=hub.url) / "data" / "train-00000-of-00001.parquet"
    file.unlink()
    hub.revisions[FIRST]["data/train-00000-of-00001.parquet"] = b"wrong rows"
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet is not the file that was fetched first"):
        fetch_hub(SOURCE, tmp_path, endpoint=hub.url)


def test_a_dataset_that_is_not_there_is_said(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"datasets/someone/gone cannot be fetched"):
        fetch_hub(HubDataset("someone/gone", "x"), tmp_path, endpoint=hub.url)


def test_an_unreachable_hub_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch_hub(SOURCE, tmp_path, endpoint="http://127.0.0.1:9")


def test_without_huggingface_hub_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"is not installed(.|\n)*'vrft-bench\[fetch\]'"):
        fetch_hub(SOURCE, tmp_path)

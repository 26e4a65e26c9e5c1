"""A server on loopback that cuts connections, changes its files and says what is not so, for the tests of downloads."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
    ignores_start: bool = False
    redirects: dict[str, str] = field(default_factory=dict)
    length: str | None = None
    chunked: bool = False
    url: str = ""


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address at which ``handler`` answers meanwhile."""
    httpd = _Quiet(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@contextmanager
def serving() -> Iterator[Server]:
    state = Server({"/data.bin": BODY})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.ranges.append(self.headers.get("Range"))
            if state.statuses and (status := state.statuses.pop(0)) != 200:
                self.send_error(status)
                return
            if target := state.redirects.get(self.path):
                self.send_response(302)
                self.send_header("Location", target)
                self.send_header("Content-Length", "0")
                self.end_headers()
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
            if start:
                first = 0 if state.ignores_start else start
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
                start = first
            if state.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", state.length or str(len(body) - start))
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

    with listening(Handler) as state.url:
        yield state


def source(server: Server, name: str = "data.bin", **options: Any) -> Download:
    return Download(f"{server.url}/{name}", "set", **options)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return packed.getvalue()

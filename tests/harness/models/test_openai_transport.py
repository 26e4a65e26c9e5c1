"""One exchange with a server: what is read of its answer is bounded, and a connection that is not safe is none."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from vrft_bench.errors import BackendError
from vrft_bench.harness.models import openai_transport
from vrft_bench.harness.models.openai import OpenAIBackend
from vrft_bench.harness.models.openai_faults import Answer, Fault, Kind
from vrft_bench.harness.models.openai_options import ApiKey
from vrft_bench.harness.models.openai_transport import Transport


async def _exchange(
    body: bytes, *, compressed: bool = False, scheme: str = "http", served_with: ssl.SSLContext | None = None
) -> Answer | Fault:
    async def answer(_: web.Request) -> web.Response:
        response = web.Response(body=body, content_type="application/json")
        if compressed:
            response.enable_compression(web.ContentCoding.gzip)
        return response

    app = web.Application()
    app.router.add_get("/v1/models", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=served_with)
        await site.start()
        host, port = runner.addresses[0]
        transport = Transport(f"{scheme}://{host}:{port}/v1", ApiKey(), 30.0)
        try:
            return await transport.get("/models")
        finally:
            await transport.close()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("compressed", [False, True])
def test_an_answer_that_is_too_long_is_not_read_to_its_end_also_where_it_came_compressed(
    monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    monkeypatch.setattr(openai_transport, "LONGEST_ANSWER", 1 << 20)
    long = asyncio.run(_exchange(b'"' + b" " * (2 << 20) + b'"', compressed=compressed))
    assert isinstance(long, Fault)
    assert (long.kind, long.reason) == (Kind.BROKEN, "the server's answer is longer than 1 MiB")
    short = asyncio.run(_exchange(b'{"data": []}', compressed=compressed))
    assert isinstance(short, Answer)
    assert short.value == {"data": []}


def test_a_certificate_of_an_unknown_authority_is_not_taken(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command, to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = [openssl, "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    found = asyncio.run(_exchange(b"{}", scheme="https", served_with=context))
    assert isinstance(found, Fault)
    assert (found.kind, found.in_tls) == (Kind.UNREACHABLE, True)
    assert found.reason.startswith("no TLS connection: ")
    assert "certificate" in found.reason


def test_https_that_is_not_spoken_is_told_from_a_server_that_is_not_there(serve: Any) -> None:
    address = serve(lambda asked: "text").url.replace("http://", "https://")
    backend = OpenAIBackend("served", {"base_url": address})
    with pytest.raises(BackendError, match="does not answer: no TLS connection: ") as caught:
        backend.identity()
    backend.close()
    assert "write http:// in --base-url" in (caught.value.fix or "")
    assert "SSL_CERT_FILE" in (caught.value.fix or "")

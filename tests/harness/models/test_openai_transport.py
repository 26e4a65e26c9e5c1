"""One exchange with a server: what is read of its answer is bounded, however it is packed."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from vrft_bench.harness.models import openai_transport
from vrft_bench.harness.models.openai_faults import Answer, Fault, Kind
from vrft_bench.harness.models.openai_options import ApiKey
from vrft_bench.harness.models.openai_transport import Transport


async def _exchange(body: bytes, *, compressed: bool) -> Answer | Fault:
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
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        transport = Transport(f"http://{host}:{port}/v1", ApiKey(), 30.0)
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

"""``vllm/NAME`` with ``--spawn``: vLLM's own server in a child process, asked through the openai backend.

The server listens on a free port of the loopback interface, under a name that no other server would know. It lives
from the first question until the backend is closed.
"""

from __future__ import annotations

import itertools
import json
import secrets
import tempfile
import urllib.request
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vrft_bench.errors import BackendError
from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.harness.models.openai import OpenAIBackend
from vrft_bench.harness.models.rehearsal import PLAIN_CHAT
from vrft_bench.harness.models.server_process import ServerProcess, free_port
from vrft_bench.harness.models.vllm_checkpoint import VLLMCheckpoint
from vrft_bench.harness.models.vllm_options import VLLMOptions, as_flags
from vrft_bench.tasks.coordinates import ModelProfile

MODULE = "vllm.entrypoints.openai.api_server"
"""Not the ``vllm`` command, which the build for CPUs installs without what it needs."""

KEY_VARIABLE = "VLLM_API_KEY"
"""It makes a server ask for a key, which the one for this run alone has no use for: we would be locked out."""

_SECONDS = 5.0  # for one answer to "are you there?"


class VLLMServerBackend(VLLMCheckpoint):
    """``vllm/NAME`` behind a server of its own. Implements ``Backend``. ``starts`` counts how often it was started."""

    def __init__(self, name: str, options: VLLMOptions) -> None:
        super().__init__(name, options)
        self.starts = 0
        self._server: _Server | None = None

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer every request once, in the order in which the server does."""
        stream = iter(requests)
        first = next(stream, None)
        if first is None:
            return
        if self._server is None:
            self._server = _Server(self, first.profile)
            self.starts += 1
        refused: deque[Completion] = deque()
        asked = self._asked(itertools.chain([first], stream), refused)
        try:
            for completion in self._server.client.generate(asked):
                yield completion
                while refused:
                    yield refused.popleft()
        except BackendError:
            server, self._server = self._server, None  # a server that failed is of no use to the next task
            try:
                server.process.require_running()
                raise
            finally:
                server.close()
        yield from refused

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _asked(self, requests: Iterable[Request], refused: deque[Completion]) -> Iterator[Request]:
        """Those of ``requests`` that can be asked; the others fail as they would without a server."""
        for request in requests:
            try:
                self.prompt(request)
            except ValueError as error:
                refused.append(Completion(request.sample.id, request.n, "", "error", error=str(error)))
            else:
                yield request


class _Server:
    """A running server and its client."""

    def __init__(self, checkpoint: VLLMCheckpoint, profile: ModelProfile) -> None:
        extra = {"stop_token_ids": checkpoint.stop_tokens}
        name = f"vrft-bench-{secrets.token_hex(8)}"
        address = f"http://127.0.0.1:{free_port()}"
        with tempfile.TemporaryDirectory(prefix="vrft-bench-") as folder:
            template = Path(folder) / "chat_template.jinja"
            template.write_text(checkpoint.processor.chat_template, encoding="utf-8")
            arguments = checkpoint.engine_arguments(profile) | {
                "served_model_name": name,
                "host": "127.0.0.1",
                "port": int(address.rpartition(":")[2]),
                "chat_template": str(template),
                "chat_template_content_format": "openai",
                "disable_uvicorn_access_log": True,
            }
            self.process = ServerProcess(MODULE, as_flags(arguments), without=(KEY_VARIABLE,))
            try:
                self.process.wait_until(lambda: _serves(address, name), checkpoint.options.start_timeout)
                self.client = OpenAIBackend(name, self._client_options(checkpoint, profile, address, extra))
            except BaseException:
                self.process.stop()
                raise

    def close(self) -> None:
        try:
            self.client.close()
        finally:
            self.process.stop()

    @staticmethod
    def _client_options(
        checkpoint: VLLMCheckpoint, profile: ModelProfile, address: str, extra: dict[str, Any]
    ) -> dict[str, Any]:
        options = checkpoint.options
        return {
            "base_url": f"{address}/v1",
            "max_concurrent": options.max_concurrent,
            "think_begun": checkpoint.render(PLAIN_CHAT).rstrip().endswith(profile.think_tags[0]),
            "structured": options.structured,
            "logprobs": options.logprobs,
            "extra_body": extra,
        }


def _serves(address: str, name: str) -> bool:
    """Whether the server at ``address`` is well and serves a model called ``name``: it is ours, and ready."""
    # Without the proxies that the environment may name: this is no address for others.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with (
            opener.open(f"{address}/health", timeout=_SECONDS),
            opener.open(f"{address}/v1/models", timeout=_SECONDS) as said,
        ):
            return any(card.get("id") == name for card in json.load(said)["data"])
    except (OSError, ValueError, LookupError):
        return False

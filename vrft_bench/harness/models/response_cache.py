"""``--cache DIR``: a question that a model has answered before is not asked again, in this run or any later one.

An answer is known by the content of everything that it depends on, and by nothing else: the image file, the chat, the
profile, the sampling, the model's identity. So the same question of two tasks is asked once, an edited prompt is asked
anew, and a change of parser, reward or truth costs no model. Answers that failed are not kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vrft_bench.errors import UserError
from vrft_bench.harness.identity import fingerprint
from vrft_bench.harness.models.answer_store import AnswerStore
from vrft_bench.harness.models.base import (
    Anticipates,
    Backend,
    Completion,
    LimitsPixels,
    ReadsTruth,
    Request,
    Workload,
)
from vrft_bench.harness.models.fingerprint import sha256_file
from vrft_bench.tasks.base import ImageRef
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.data.survey import canonical

HELD = 1024
"""How many known answers may wait while the model works on questions that are new to it."""

_NOT_KEPT = frozenset({"sample_id", "n", "seconds", "error"})
"""What is the request's, and not the answer's; and how long it took, which another run will not take."""

_COMPLETION = TypeAdapter(Completion)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _LookedUp:
    """A request, the key of its answer (``None``: its image cannot be read), and the answer where it is known."""

    request: Request
    key: bytes | None
    known: Completion | None


class CachedBackend:
    """``inner`` with a memory in ``folder``. A run's records are the same with it and without it, but for their timing.

    ``address`` is that of a server that answers. Where its model is not known by content, its answers are no other
    server's: two that serve different weights may say the same of themselves.

    Raises :class:`UserError` for a folder that cannot serve (see :class:`AnswerStore`) and for an ``inner`` that
    :class:`ReadsTruth`. Where the file fails later (a full disk), the run goes on without it and says so once.
    """

    def __init__(self, inner: Backend, folder: Path, *, address: str | None = None) -> None:
        if isinstance(inner, ReadsTruth) and inner.reads_truth:
            raise UserError(
                "--cache keeps the answers of models, and this one reads the truth, which is no part of a question",
                fix="leave out --cache: a mock answers at once",
            )
        self.cached = 0
        self._inner = inner
        self._address = address
        self._store: AnswerStore | None = AnswerStore(folder)

    def identity(self) -> Mapping[str, Any]:
        return self._inner.identity()

    def profile(self) -> ModelProfile | None:
        return self._inner.profile()

    def with_pixel_limits(self, profile: ModelProfile) -> ModelProfile:
        return self._inner.with_pixel_limits(profile) if isinstance(self._inner, LimitsPixels) else profile

    def anticipate(self, workload: Workload) -> None:
        if isinstance(self._inner, Anticipates):
            self._inner.anticipate(workload)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._inner.close()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Known answers at once, the others from the model, which is not touched before the first new question."""
        self.cached = 0
        stream = self._looked_up(requests)
        for item in stream:
            if item.known is None:
                yield from self._ask(item, stream)
            else:
                self.cached += 1
                yield item.known

    def _ask(self, first: _LookedUp, stream: Iterator[_LookedUp]) -> Iterator[Completion]:
        """Let the model answer what is new in ``stream``, from ``first`` on.

        It reads at its own pace and passes over known answers, which wait until it speaks. Once ``HELD`` of them wait
        its stream ends here, so that they can be passed on; it is started again for the next question that is new.
        """
        waiting: deque[Completion] = deque()
        keys: dict[tuple[str, int], bytes | None] = {}

        def new_questions() -> Iterator[Request]:
            item: _LookedUp | None = first
            while item is not None:
                if item.known is None:
                    keys[item.request.sample.id, item.request.n] = item.key
                    yield item.request
                else:
                    waiting.append(item.known)
                item = next(stream, None) if len(waiting) < HELD else None

        completions = self._inner.generate(new_questions())
        with closing(completions) if isinstance(completions, Generator) else nullcontext():
            for completion in completions:
                self._keep(keys.pop((completion.sample_id, completion.n), None), completion)
                yield completion
                yield from self._passed_on(waiting)
        yield from self._passed_on(waiting)

    def _passed_on(self, waiting: deque[Completion]) -> Iterator[Completion]:
        while waiting:
            self.cached += 1
            yield waiting.popleft()

    def _looked_up(self, requests: Iterable[Request]) -> Iterator[_LookedUp]:
        identity = self._inner.identity()
        if self._address is not None and "files" not in identity:
            identity = {**identity, "address": self._address.rstrip("/")}
        model = fingerprint(identity)
        for request in requests:
            key = request_key(request, model) if self._store is not None else None
            yield _LookedUp(request, key, self._known(key, request))

    def _known(self, key: bytes | None, request: Request) -> Completion | None:
        if key is None or self._store is None:
            return None
        try:
            text = self._store.get(key)
            return None if text is None else _restored(text, request)
        except sqlite3.Error as error:
            self._do_without(error)
        except (ValueError, TypeError):  # an answer that somebody edited is asked anew
            pass
        return None

    def _keep(self, key: bytes | None, completion: Completion) -> None:
        if key is None or self._store is None or completion.error is not None:
            return
        kept = {name: value for name, value in asdict(completion).items() if name not in _NOT_KEPT}
        try:
            self._store.put(key, json.dumps(kept))
        except sqlite3.Error as error:
            self._do_without(error)

    def _do_without(self, error: sqlite3.Error) -> None:
        if self._store is None:
            return
        logger.warning("%s cannot be used any more (%s): going on without the cache", self._store.path, error)
        self._store.close()
        self._store = None


def request_key(request: Request, model: str) -> bytes | None:
    """SHA-256 of everything that the answer of ``model`` (a fingerprint) depends on; ``None`` without a readable image.

    The task's family and protocol are in it for engines that hold an answer to its format. The seed and the sample's id
    are in it where the answer is drawn: they choose its random stream (see :class:`Sampling`).
    """
    image = request.sample.image
    digest = _digest(image)
    if digest is None:
        return None
    sampling = request.sampling
    parts = {
        "model": model,
        "profile": request.profile.to_json(),
        "image": [digest, image.width, image.height],
        "messages": request.messages,
        "format": [request.task.family, request.task.protocol],
        "sampling": [sampling.temperature, sampling.top_p, sampling.max_tokens],
        "n": request.n,
        "stream": [sampling.seed, request.sample.id] if sampling.temperature > 0.0 else None,
    }
    return hashlib.sha256(canonical(parts).encode()).digest()


def _digest(image: ImageRef) -> str | None:
    """SHA-256 of the encoded image; ``None`` where it cannot be read or is not the one that was meant."""
    try:
        if image.data is not None:
            found = hashlib.sha256(image.data).hexdigest()
        elif image.path is not None:
            status = image.path.stat()
            found = _file_digest(image.path, status.st_mtime_ns, status.st_size)
        else:
            return None
    except OSError:
        return None
    return found if image.sha256 in (None, found) else None


@lru_cache(maxsize=1024)
def _file_digest(path: Path, changed: int, size: int) -> str:  # noqa: ARG001 - a file that was changed is read anew
    """An image is asked about up to 80 times in a row, and read once."""
    return sha256_file(path)


def _restored(text: str, request: Request) -> Completion:
    """Raises ``ValueError`` or ``TypeError`` for a text that no answer was kept as."""
    return _COMPLETION.validate_python({**json.loads(text), "sample_id": request.sample.id, "n": request.n})

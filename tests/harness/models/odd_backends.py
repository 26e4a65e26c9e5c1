"""Backends that die, disagree and look at images: a file to ``--include``. Most answer as ``mock/gold``."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.images import ImageError, load_image
from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.harness.models.mock import gold
from vrft_bench.registry import MODELS
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.profiles import ABS_ORIGINAL

Answer = Callable[[str, Request], Completion]


def answer(request: Request, text: str | None = None, **fields: Any) -> Completion:
    return Completion(request.sample.id, request.n, gold(request) if text is None else text, **fields)


class Odd:
    """``KIND/REST``: each request is answered by ``behave(REST, request)``."""

    def __init__(self, behave: Answer, name: str, identity: Callable[[], Mapping[str, Any]]) -> None:
        self._behave = behave
        self._name = name
        self._identity = identity

    def identity(self) -> Mapping[str, Any]:
        return self._identity()

    def profile(self) -> ModelProfile | None:
        return ABS_ORIGINAL

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            yield self._behave(self._name, request)

    def close(self) -> None: ...


def slow(name: str, request: Request) -> Completion:
    time.sleep(float(name))
    return answer(request)


def process(name: str, request: Request) -> Completion:
    """The number of the process that answers."""
    time.sleep(0.005)
    return answer(request, str(os.getpid()))


def poisoned(name: str, request: Request) -> Completion:
    """Dies of the sample called ``name``."""
    if request.sample.id == name:
        os._exit(1)
    return answer(request)


def fragile(name: str, request: Request) -> Completion:
    """Dies of anything as long as there is a file ``name``."""
    if Path(name).exists():
        os._exit(1)
    return answer(request)


@cache
def won(file: Path) -> bool:
    """Whether this process was the first to ask."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def lonely(name: str, request: Request) -> Completion:
    """Dies in every process but one; ``name`` is a file that tells them apart."""
    if not won(Path(name)):
        os._exit(1)
    time.sleep(0.01)
    return answer(request)


def sees(name: str, request: Request) -> Completion:
    """Says which image file it saw."""
    try:
        return answer(request, image_sha256=load_image(request.sample.image).sha256)
    except ImageError as error:
        return answer(request, "", finish_reason="error", error=str(error))


def refuses(name: str, request: Request) -> Completion:
    raise UserError("the engine takes no such profile", fix="choose another")


def loses_gpu(name: str, request: Request) -> Completion:
    """Its GPU is lost with the sample called ``name``."""
    if request.sample.id == name:
        raise BackendError("the GPU is lost", fix="repeat the command")
    return answer(request)


def defective(name: str, request: Request) -> Completion:
    raise ZeroDivisionError("a defect of a plugin")


def warns(name: str, request: Request) -> Completion:
    logging.getLogger("vrft_bench.some_backend").warning("going on with batch_size %d", 8)
    return answer(request)


def register(behave: Answer, identity: Callable[[], Mapping[str, Any]] | None = None) -> None:
    kind = behave.__name__
    MODELS.register(kind, lambda name, args: Odd(behave, name, identity or (lambda: {"name": kind})))


for behave in (slow, process, poisoned, fragile, lonely, sees, refuses, loses_gpu, defective, warns):
    register(behave)


def fickle(name: str, request: Request) -> Completion:
    return answer(request)


register(fickle, identity=lambda: {"name": "fickle", "process": os.getpid()})

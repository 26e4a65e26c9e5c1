"""A model that speaks one way, whatever it is asked, and the doctor's own questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from vrft_bench.harness.doctor.squares import Question, questions
from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.registry import MODELS
from vrft_bench.tasks.coordinates import Frame, ModelProfile


class Speaker:
    """Finds every square and says so in ``tongue``; it claims to speak ``claims``.

    Some questions it fails on, and after ``longest`` characters it is cut off. If it is ``narrow``, it is at a loss
    with questions that ask for other coordinates than it speaks.
    """

    def __init__(
        self,
        tongue: ModelProfile,
        claims: ModelProfile | None,
        fails: Callable[[str], bool] = lambda name: False,
        longest: int = 1000,
        narrow: bool = False,
    ) -> None:
        self._tongue = tongue
        self._claims = claims
        self._fails = fails
        self._longest = longest
        self._narrow = narrow

    def identity(self) -> Mapping[str, Any]:
        return {"name": "speaker", "tongue": self._tongue.to_json()}

    def profile(self) -> ModelProfile | None:
        return self._claims

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            sample = request.sample
            if self._fails(sample.id):
                yield Completion(sample.id, request.n, "", "error", error="it is tired")
            else:
                frame = Frame(self._tongue, sample.image.width, sample.image.height)
                lost = self._narrow and request.profile.convention != self._tongue.convention
                text = "<think>Well.</think>" if lost else request.task.gold(sample, frame)
                ended: Any = "stop" if len(text) <= self._longest else "length"
                yield Completion(sample.id, request.n, text[: self._longest], ended)

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Registers a :class:`Speaker` as the backend ``speaker``."""

    def register(*args: Any, **options: Any) -> None:
        MODELS.names()
        monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
        MODELS.register("speaker", lambda name, given: Speaker(*args, **options))

    return register


@pytest.fixture(scope="session")
def asked() -> list[Question]:
    """Eight images of each size."""
    return list(questions(8))

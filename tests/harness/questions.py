"""A detection task on generated questions, and a backend that can be told to fail.

The prompt, parser, rewards and metric are the real ones; there are no files to draw. Shared by the tests in this folder
(see conftest.py) and by the processes that they start and kill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.harness.models.mock import gold
from vrft_bench.tasks.base import BoxTarget, Dataset, DataSpec, ImageRef, Sample
from vrft_bench.tasks.coordinates import Box, ModelProfile
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.profiles import ABS_ORIGINAL

CATEGORIES = ("cat", "dog")


def question(index: int) -> Sample:
    """Question ``index``: image index // 2 and one of two categories; every third one has no object."""
    boxes: tuple[Box, ...] = ()
    if index % 3:
        left, top = float(index % 40), float(index % 30)
        boxes = ((left, top, left + 20.0, top + 30.0), (60.0, 50.0, 90.0, 75.0))[: 1 + index % 2]
    image, category = str(index // 2), CATEGORIES[index % 2]
    fields = {"category": category, "image_id": image}
    return Sample(f"{image}:{category}", ImageRef(100, 80, path=Path(f"{image}.png")), fields, BoxTarget(boxes))


@dataclass(frozen=True)
class Questions(DetectionTask):
    """``size`` questions, and ``extra`` more whose truth nobody asks for."""

    size: int = 60
    extra: int = 0
    rules: Literal["coco", "lvis"] = "coco"
    frequency: Mapping[str, str] = field(default_factory=dict, hash=False)
    is_sample: bool = False

    def load(self, spec: DataSpec) -> Dataset:
        return Dataset(
            split=spec.split or "val",
            categories=CATEGORIES,
            samples=lambda: (question(index) for index in range(self.size)),
            unasked=lambda: (question(index) for index in range(self.size, self.size + self.extra)),
            is_sample=self.is_sample,
            rules=self.rules,
            frequency=self.frequency,
            ask=spec.ask or "all",
        )


class Answers:
    """A backend that answers right, but for what ``replies`` says: a text, a Completion field map, or an exception."""

    def __init__(
        self,
        replies: Mapping[tuple[str, int], str | BaseException | dict[str, Any]] | None = None,
        *,
        name: str = "answers",
        shape: Callable[[Iterable[Completion]], Iterator[Completion]] = iter,
        profile: ModelProfile | None = ABS_ORIGINAL,
    ) -> None:
        self.replies = dict(replies or {})
        self.asked: list[tuple[str, int]] = []
        self._name = name
        self._shape = shape
        self._profile = profile

    def identity(self) -> Mapping[str, Any]:
        return {"name": self._name}

    def profile(self) -> ModelProfile | None:
        return self._profile

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        return self._shape(self._answer(request) for request in requests)

    def _answer(self, request: Request) -> Completion:
        key = (request.sample.id, request.n)
        self.asked.append(key)
        match self.replies.get(key):
            case BaseException() as error:
                raise error
            case str(text):
                return Completion(*key, text)
            case dict(fields):
                return Completion(*key, **{"text": gold(request), **fields})
        return Completion(*key, gold(request), prompt_tokens=10, completion_tokens=5)

    def close(self) -> None:
        """Nothing is held."""

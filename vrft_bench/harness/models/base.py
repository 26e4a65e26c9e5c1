"""What a model backend is: one method that turns requests into completions.

Batching, concurrency and retries are the backend's own business. It reads requests lazily, keeps a bounded number of
them in memory, and yields completions in any order. A request that fails is yielded as a completion with ``error``
set; only a backend that cannot go on at all raises :class:`~vrft_bench.errors.BackendError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from vrft_bench.harness.models.token_logprobs import TokenLogprobs
from vrft_bench.tasks.base import Message, Sample, Task
from vrft_bench.tasks.coordinates import Frame, ModelProfile


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. ``temperature`` 0 is greedy; ``n`` completions are drawn per sample.

    ``seed`` is the run's; completion ``n`` of a sample uses its own stream derived from (seed, sample id, n).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    n: int = 1
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Request:
    """One question. Real backends read ``messages``, ``sample.image`` and ``sampling``; mocks also the truth."""

    task: Task
    sample: Sample
    n: int
    messages: list[Message]
    profile: ModelProfile
    sampling: Sampling

    @property
    def frame(self) -> Frame:
        """The coordinate frame by the profile's own resize rule."""
        return Frame(self.profile, self.sample.image.width, self.sample.image.height)


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back for request (``sample_id``, ``n``).

    ``processed`` is the (width, height) that the processor really used, where the backend knows it. ``error`` says why
    there is no text. ``token_logprobs`` has (end, logprob) of every token that is part of the text: how many characters
    of it there are up to and including the token, and the natural logarithm of the probability that the model itself
    gave it, before temperature and top-p. ``None`` where they were not asked for, or do not fit the text.
    """

    sample_id: str
    n: int
    text: str
    finish_reason: Literal["stop", "length", "error"] = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    processed: tuple[int, int] | None = None
    image_sha256: str | None = None
    seconds: float | None = None
    error: str | None = None
    token_logprobs: TokenLogprobs | None = None


class Backend(Protocol):
    """A model that answers. Built by ``factory(name, args)``, where ``name`` is what follows ``backend/``.

    ``args`` are the ``--model-args`` as strings or JSON values; an unknown one is a :class:`UserError`.
    """

    def identity(self) -> Mapping[str, Any]:
        """Everything about the model that can change a completion: name, weight hashes, precision, arguments."""

    def profile(self) -> ModelProfile | None:
        """The profile that the checkpoint's own config selects; ``None`` where it tells nothing."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer every request exactly once, in any order, lazily and in bounded memory."""

    def close(self) -> None:
        """Free what the backend holds."""


@runtime_checkable
class LimitsPixels(Protocol):
    """A backend whose own arguments may change how large the images are that its model sees."""

    def with_pixel_limits(self, profile: ModelProfile) -> ModelProfile:
        """``profile`` with the limits of the arguments, as the run records it and every request carries it."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The most that one question of a command asks for.

    ``question_bytes`` are those of its text in UTF-8, which are never fewer than its tokens. ``image_tokens`` is
    ``None`` where the profile does not say into how many an image is cut.
    """

    question_bytes: int
    image_tokens: int | None
    max_tokens: int


@runtime_checkable
class Anticipates(Protocol):
    """A backend that starts better if it knows what will come. It is told once, before the first ``generate``."""

    def anticipate(self, workload: Workload) -> None:
        """``workload`` is the most that any question of all tasks asks for."""


@runtime_checkable
class RendersPrompts(Protocol):
    """A backend that knows the text that its model reads."""

    def rendered(self, request: Request) -> str:
        """The question by the checkpoint's chat template, control tokens included."""


@runtime_checkable
class ReadsTruth(Protocol):
    """A backend whose answers depend on more than the question: on the truth, or on which sample it is (the mocks)."""

    reads_truth: bool


@runtime_checkable
class GivesCached(Protocol):
    """A backend that may give answers of earlier runs; ``cached`` counts those of the last :meth:`Backend.generate`."""

    cached: int

"""The one place that imports vLLM: an asynchronous engine that draws tokens for a prompt and an image.

The engine is a process of its own (several with ``dp``), so that questions are made ready while others are answered.
"""

from __future__ import annotations

import gc
import itertools
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from vrft_bench.errors import BackendError, UserError, did_you_mean
from vrft_bench.harness.models.base import Sampling
from vrft_bench.harness.models.failures import ANY_FAILURE
from vrft_bench.harness.models.orphan_guard import OrphanGuard
from vrft_bench.registry import failure_reason

if TYPE_CHECKING:
    from PIL.Image import Image

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",  # INFO is some sixty lines per start
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is the harness's
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM is told through the environment, where the user has not told it otherwise. None of it changes an answer."""

CLOSING = 15.0
"""Seconds that the engine's processes have to end by themselves before they are killed."""

_POLL = 0.1

_GAVE_UP = frozenset({"abort", "error"})


@dataclass(frozen=True, slots=True)
class Question:
    """A rendered prompt with its image. Images of one ``image_key`` are the same, and are encoded once."""

    text: str
    image: Image
    image_key: str


@dataclass(frozen=True, slots=True)
class Draw:
    """How many completions of a question are drawn, and how. Seeds count up from ``seed``; greedy has none.

    ``logprobs`` asks for the log-probability of every token.
    """

    sampling: Sampling
    count: int = 1
    seed: int | None = None
    regex: str | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """The tokens of a question as the engine read it, with those of the image in it, and of each completion.

    ``logprobs`` has, per completion, what its tokens' are; nothing where they were not asked for.
    """

    question: Sequence[int]
    answers: Sequence[Sequence[int]]
    logprobs: Sequence[Sequence[float] | None]
    seconds: float


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the engine gives no answer to one question, and goes on with others."""

    reason: str


class Engine:
    """A running vLLM engine. It is made in the thread that waits for it, and then used in one event loop."""

    def __init__(self, model: str, arguments: Mapping[str, Any], stops: Sequence[int]) -> None:
        """Start the engine for ``model``, as messages call it; a completion ends at a token of ``stops``.

        Raises :class:`BackendError` where it does not start, and :class:`UserError` for an argument that vLLM lacks.
        """
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # a fork would copy our threads' locks, and bear no mark
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._model = model
        self._numbers = itertools.count()
        self._parameters = lru_cache(1024)(lambda draw: _sampling_parameters(draw, stops))
        self._guard = OrphanGuard()
        try:
            self._engine = _start_in_thread(arguments, self._guard)
        except BaseException as error:
            self._guard.close()
            if isinstance(error, UserError) or not isinstance(error, Exception):
                raise
            raise BackendError(
                f"{model}: vLLM does not start: {failure_reason(error)}",
                fix="its own message is above. Memory: -M max_model_len=N, gpu_memory_utilization=0.8, or --tp N; all "
                "that vLLM has to say: export VLLM_LOGGING_LEVEL=INFO",
            ) from error

    @property
    def places(self) -> int:
        """How many completions it draws at once."""
        config = self._engine.vllm_config
        return int(config.scheduler_config.max_num_seqs) * int(config.parallel_config.data_parallel_size)

    async def draw(self, question: Question, draw: Draw) -> Drawn | Refused:
        """Raises :class:`BackendError` where the engine cannot go on at all."""
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        started = time.perf_counter()
        prompt = {
            "prompt": question.text,
            "multi_modal_data": {"image": question.image},
            "multi_modal_uuids": {"image": [question.image_key]},
        }
        stream = self._engine.generate(prompt, self._parameters(draw), str(next(self._numbers)))
        try:
            outputs = [output async for output in stream]
        except EngineDeadError as error:
            raise BackendError(
                f"{self._model}: the vLLM engine died",
                fix="its own message is above; repeat the command: it resumes where this one stopped",
            ) from error
        except EngineGenerateError as error:
            return Refused(f"vLLM fails on it: {failure_reason(error.__cause__ or error)}")
        except ANY_FAILURE as error:
            return Refused(f"vLLM refuses it: {failure_reason(error)}")
        if not outputs or any(answer.finish_reason in _GAVE_UP for answer in outputs[-1].outputs):
            return Refused("vLLM gave up on it")
        drawn = sorted(outputs[-1].outputs, key=lambda answer: answer.index)
        return Drawn(
            outputs[-1].prompt_token_ids,
            [answer.token_ids for answer in drawn],
            [_logprobs(answer) if draw.logprobs else None for answer in drawn],
            time.perf_counter() - started,
        )

    def close(self) -> None:
        """Stop the engine's processes."""
        try:
            self._engine.shutdown(timeout=CLOSING)
        finally:
            self._guard.close()
            del self._engine
            gc.collect()  # it is part of a cycle, and complains if it is collected as Python ends


def _start_in_thread(arguments: Mapping[str, Any], guard: OrphanGuard) -> Any:
    """As :func:`_start`, but an interrupt ends it: vLLM itself takes KeyboardInterrupt for the end of a wait.

    The thread keeps nothing of the engine. Libraries that keep an exception keep all frames of the thread that raised
    it, and an engine that lives as long as Python complains when it is collected.
    """
    outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def start() -> None:
        try:
            outcome.put((_start(arguments), None))
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            outcome.put((None, error))

    thread = threading.Thread(target=start, name="vllm-start", daemon=True)
    is_here = False
    with guard.marking():
        thread.start()
        try:
            engine, error = outcome.get()
            is_here = True
        finally:
            while thread.is_alive():  # interrupted: it ends once it misses its processes
                if not is_here and outcome.empty():
                    guard.end()
                thread.join(_POLL)
    if error is not None:
        raise error
    return engine


def _start(arguments: Mapping[str, Any]) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    known = [item.name for item in fields(AsyncEngineArgs)]
    for name in arguments:
        if name not in known:
            raise UserError(
                f"engine_args sets {name!r}, which this vLLM does not have{did_you_mean(name, known)}",
                fix="use the names of vLLM's EngineArgs",
            )
    return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))


def _sampling_parameters(draw: Draw, stops: Sequence[int]) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    sampling = draw.sampling
    return SamplingParams(
        n=draw.count,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=draw.seed,
        stop_token_ids=list(stops),
        logprobs=0 if draw.logprobs else None,  # of what was drawn, and of no other token
        structured_outputs=None if draw.regex is None else StructuredOutputsParams(regex=draw.regex),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _logprobs(answer: Any) -> list[float]:
    return [step[token].logprob for token, step in zip(answer.token_ids, answer.logprobs, strict=True)]

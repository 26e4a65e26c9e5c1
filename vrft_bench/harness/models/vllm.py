"""``vllm/NAME``: a checkpoint in a vLLM engine, in this process's care or, with ``--spawn``, behind a server.

The engine starts once, at the first question of the first task, and serves all tasks. It is fed as it answers: as many
completions are in flight as it draws at once, and a few that wait, whatever the length of the run.

As with ``hf``, the *run* decides how text is drawn, and images are resized by us: the model sees the same pixels.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.images import ImageCache, ImageError
from vrft_bench.harness.models.background_loop import BackgroundLoop
from vrft_bench.harness.models.base import Backend, Completion, Request, Sampling
from vrft_bench.harness.models.failures import ANY_FAILURE
from vrft_bench.harness.models.groups import Group, in_groups
from vrft_bench.harness.models.rehearsal import PLAIN_CHAT, grey_image
from vrft_bench.harness.models.vllm_checkpoint import Prompt, VLLMCheckpoint
from vrft_bench.harness.models.vllm_engine import Draw, Drawn, Engine, Question, Refused
from vrft_bench.harness.models.vllm_images import ImageLoader, Size, sizes
from vrft_bench.harness.models.vllm_options import VLLMOptions
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.structured import answer_regex

WAITING = 16
"""Completions that wait in the engine, beyond those that it draws: no place is empty for want of a question."""


def vllm_backend(name: str, args: Mapping[str, object] | None = None) -> Backend:
    """The backend for ``vllm/NAME``: an engine, or with ``spawn`` a server. ``args``: see :class:`VLLMOptions`."""
    options = VLLMOptions.parse(args or {})
    if options.spawn:
        from vrft_bench.harness.models.vllm_server import VLLMServerBackend

        return VLLMServerBackend(name, options)
    return VLLMBackend(name, options)


class VLLMBackend(VLLMCheckpoint):
    """``vllm/NAME`` in an engine of this process's own. Implements ``Backend``.

    ``starts`` counts how often the engine was started.
    """

    def __init__(self, name: str, options: VLLMOptions) -> None:
        super().__init__(name, options)
        self.images = ImageCache()
        self.starts = 0
        self._running: _Running | None = None

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer every request once, in the order in which the engine does."""
        stream = iter(requests)
        first = next(stream, None)
        if first is None:
            return
        if self._running is None:
            self._running = _Running(self, self.images, first.profile)
            self.starts += 1
        try:
            yield from self._running.answers(itertools.chain([first], stream), first.sampling.n)
        except BackendError:
            self.close()  # an engine that died is of no use to the next task
            raise

    def close(self) -> None:
        """Stop the engine and free the images."""
        if self._running is not None:
            self._running.close()
            self._running = None
        self.images = ImageCache()


class _Running:
    """A started engine, with the event loop and the threads that feed it. It has answered a plain question."""

    def __init__(self, checkpoint: VLLMCheckpoint, images: ImageCache, profile: ModelProfile) -> None:
        stops = checkpoint.stop_tokens  # first: what lacks a tokenizer or a processor is not worth starting
        self._checkpoint = checkpoint
        self._engine = Engine(str(checkpoint), checkpoint.engine_arguments(profile), stops)
        self._loop = BackgroundLoop("vllm")
        self._images = ImageLoader(images)
        self._limited = lru_cache(checkpoint.with_pixel_limits)
        self._seen: set[Size] = set()
        try:
            self._rehearse()
        except BaseException:
            self.close()
            raise

    def answers(self, requests: Iterable[Request], n: int) -> Iterator[Completion]:
        in_flight = self._checkpoint.options.max_concurrent or self._engine.places + WAITING
        room = max(1, in_flight // n)
        yield from self._loop.map(self._answer, in_groups(requests, together=True), lambda: room)

    def close(self) -> None:
        self._images.close()
        self._loop.run(_end_tasks())
        self._engine.close()
        self._loop.close()

    def _rehearse(self) -> None:
        question = Question(self._checkpoint.render(PLAIN_CHAT), grey_image(), "rehearsal")
        outcome = self._loop.run(self._engine.draw(question, Draw(Sampling(max_tokens=1))))
        if isinstance(outcome, Refused):
            raise BackendError(
                f"{self._checkpoint} cannot answer even a plain question about a small image: {outcome.reason}",
                fix="check that processor, tokenizer and config.json belong to these weights",
            )

    async def _answer(self, group: Group) -> list[Completion]:
        request = group.first
        ref = request.sample.image
        try:
            prompt = self._checkpoint.prompt(request)
            profile = self._limited(request.profile)
            size, processed = sizes(ref.width, ref.height, profile)
            image = await self._images.load(ref, size)
        except (ImageError, ValueError) as error:
            return group.failed(str(error))
        except UserError:
            raise
        except ANY_FAILURE as error:
            return group.failed(f"the prompt cannot be encoded: {str(error) or type(error).__name__}")
        question = Question(prompt.text, image.image, f"{image.sha256}-{image.image.width}x{image.image.height}")
        outcome = await self._engine.draw(question, self._draw(group, prompt))
        if isinstance(outcome, Refused):
            return group.failed(outcome.reason)
        self._check_size(outcome, processed, profile)
        return self._completions(group, prompt, outcome, processed, image.sha256)

    def _draw(self, group: Group, prompt: Prompt) -> Draw:
        request = group.first
        regex = None
        if self._checkpoint.options.structured:
            regex = answer_regex(
                request.task,
                request.sample,
                request.frame,
                max_tokens=request.sampling.max_tokens,
                begun=bool(prompt.begun),
            )
        seed = group.seed if request.sampling.temperature > 0.0 else None
        return Draw(request.sampling, len(group.requests), seed, regex, self._checkpoint.options.logprobs)

    def _check_size(self, outcome: Drawn, processed: Size | None, profile: ModelProfile) -> None:
        """Hold the size that boxes are converted by against the number of tokens that the image was cut into.

        Raises :class:`BackendError` where they differ: every box would be wrong.
        """
        token = self._checkpoint.image_token
        if processed is None or profile.factor is None or token is None or processed in self._seen:
            return
        found = outcome.question.count(token)
        expected = (processed[0] // profile.factor) * (processed[1] // profile.factor)
        if found != expected:
            raise BackendError(
                f"{self._checkpoint} cuts an image into {found} tokens where profile {profile.name!r} says {expected} "
                f"({processed[0]}x{processed[1]} pixels in squares of {profile.factor})",
                fix="choose the profile of this model with --profile (see `vrft-bench ls profiles`)",
            )
        self._seen.add(processed)

    def _completions(
        self, group: Group, prompt: Prompt, outcome: Drawn, processed: Size | None, sha256: str
    ) -> list[Completion]:
        completions = []
        for request, tokens, logprobs in zip(group.requests, outcome.answers, outcome.logprobs, strict=True):
            answer = self._checkpoint.answer(tokens, request.profile, prompt.begun, logprobs)
            completions.append(
                Completion(
                    sample_id=request.sample.id,
                    n=request.n,
                    text=answer.text,
                    finish_reason="stop" if answer.ended else "length",
                    prompt_tokens=len(outcome.question),
                    completion_tokens=answer.spent,
                    processed=processed,
                    image_sha256=sha256,
                    seconds=outcome.seconds / len(group.requests),
                    token_logprobs=answer.token_logprobs,
                )
            )
        return completions


async def _end_tasks() -> None:
    """End what vLLM leaves running in the loop; asyncio complains of tasks that nobody waited for."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

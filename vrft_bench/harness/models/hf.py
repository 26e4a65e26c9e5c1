"""The transformers backend: any image-text-to-text checkpoint, on CPU or CUDA, in batches.

Requests are read a window at a time, sorted by length inside it, left-padded and decoded together. Greedy unless the
run samples. The *run* decides how text is drawn: sampling parameters that a checkpoint ships in its
``generation_config.json`` (temperature, top-k, repetition penalty, ...) are all reset to neutral, because a repetition
penalty silently rewrites coordinates; only the stop tokens are taken from it.

Tested with Qwen2-VL, Qwen2.5-VL and Qwen3-VL; nothing here asks for them by name.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from vrft_bench.errors import UserError
from vrft_bench.harness.images import ImageCache, ImageError, LoadedImage
from vrft_bench.harness.models.answer_tokens import AnswerReader
from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.harness.models.checkpoint import Checkpoint, find_checkpoint, select_profile
from vrft_bench.harness.models.failures import ANY_FAILURE, Failure, is_out_of_memory, judge_failure
from vrft_bench.harness.models.gumbel import GumbelNoise, row_seed
from vrft_bench.harness.models.hf_options import HFOptions, device_type, resolve_device
from vrft_bench.harness.models.pixel_limits import limit_pixels, set_pixel_limits
from vrft_bench.harness.models.processor import build_processor
from vrft_bench.harness.models.rehearsal import rehearse_answer
from vrft_bench.harness.models.token_logprobs import ChoiceRecorder
from vrft_bench.harness.models.weights import NEUTRAL, load_model
from vrft_bench.registry import failure_reason
from vrft_bench.tasks.coordinates import ModelProfile

WINDOW_BATCHES = 8
"""How many batches of requests are read ahead to be sorted by length."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A request with its chat rendered to text. ``length`` estimates its tokens, for sorting.

    ``begun`` is the opening thinking tag where the chat template has written it already: the completion begins with it
    all the same, so that it is read as one whose template leaves the tag to the model.
    """

    request: Request
    text: str
    length: int
    begun: str = ""


@dataclass(frozen=True, slots=True)
class _Question:
    """A prompt whose image is loaded."""

    prompt: _Prompt
    image: LoadedImage


class HFBackend:
    """``hf/NAME``: a checkpoint folder, a hub id, or ``tiny`` (bundled). Implements ``Backend``.

    ``args`` are described at :class:`HFOptions`. Nothing is loaded before it is needed; weights only by ``generate``.
    """

    def __init__(self, name: str, args: Mapping[str, object] | None = None) -> None:
        self.options = HFOptions.parse(args or {})
        _require_libraries()
        self.checkpoint: Checkpoint = find_checkpoint(name, self.options.revision)
        self._images = ImageCache()
        self._told_of_single_encoding = False
        self._training: dict[str, Any] = {}

    @classmethod
    def of_loaded(cls, checkpoint: Checkpoint, model: Any, processor: Any, *, training: str, step: int) -> Self:
        """A backend around a model in memory: ``checkpoint`` after ``step`` steps of the training so fingerprinted."""
        backend = cls(checkpoint.name if not checkpoint.is_folder else checkpoint.source)
        backend.checkpoint = checkpoint
        backend._training = {"training": training, "trained_steps": step}
        backend.__dict__ |= {"model": model, "processor": processor, "device": str(model.device)}
        return backend

    def identity(self) -> Mapping[str, Any]:
        """Content of the checkpoint, precision, and every option that can change a completion (batch size cannot)."""
        return {
            "backend": "hf",
            **self.checkpoint.fingerprint,
            **self._training,
            "model_type": self.checkpoint.model_type,
            "dtype": self.dtype,
            "device": device_type(self.device),
            "attn_implementation": self.options.attn_implementation or "default",
            "trust_remote_code": self.options.trust_remote_code,
            "min_pixels": self.options.min_pixels,
            "max_pixels": self.options.max_pixels,
            "generation_config": dict(NEUTRAL),
            **({"logprobs": True} if self.options.logprobs else {}),
        }

    def profile(self) -> ModelProfile | None:
        """The registered profile of the checkpoint's ``model_type``, with the pixel limits of the options."""
        profile = select_profile(self.checkpoint.model_type)
        return None if profile is None else self.with_pixel_limits(profile)

    def with_pixel_limits(self, profile: ModelProfile) -> ModelProfile:
        """``profile`` with the limits of the options; the ones that images are resized by, and the run records."""
        return limit_pixels(profile, self.options.min_pixels, self.options.max_pixels)

    @cached_property
    def device(self) -> str:
        """Where the model runs: ``cpu``, ``cuda``, ``cuda:1``, ..., or ``auto`` for all GPUs."""
        return resolve_device(self.options.device)

    @property
    def dtype(self) -> str:
        return self.options.dtype or ("float32" if device_type(self.device) == "cpu" else "bfloat16")

    @cached_property
    def batch_size(self) -> int:
        return self.options.batch_size or (16 if device_type(self.device) == "cpu" else 64)

    @cached_property
    def processor(self) -> Any:
        """The processor, with the checkpoint's own pixel limits until a request brings those of its profile."""
        return build_processor(
            self.checkpoint.source,
            self.checkpoint.model_type,
            trust_remote_code=self.options.trust_remote_code,
            revision=self.checkpoint.revision,
        )

    @cached_property
    def _reader(self) -> AnswerReader:
        return AnswerReader(self.processor)

    @cached_property
    def model(self) -> Any:
        """The weights on the device, with a neutral generation config; they have begun to answer a plain question."""
        processor = self.processor  # first: it is quick to build, and what lacks a processor is not worth loading
        model = load_model(self.checkpoint, self.options, self.dtype, self.device, processor.tokenizer)
        rehearse_answer(model, processor, self.checkpoint.name)
        return model

    def close(self) -> None:
        """Free the model and the decoded images."""
        import torch

        self.__dict__.pop("model", None)
        self.__dict__.pop("processor", None)
        self.__dict__.pop("_reader", None)
        self._images = ImageCache()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer every request once, shortest prompts first inside each window of ``WINDOW_BATCHES`` batches."""
        stream = iter(requests)
        while window := list(itertools.islice(stream, self.batch_size * WINDOW_BATCHES)):
            prompts: list[_Prompt] = []
            for request in window:
                rendered = self._render(request)
                if isinstance(rendered, _Prompt):
                    prompts.append(rendered)
                else:
                    yield rendered
            prompts.sort(key=lambda prompt: (_batch_key(prompt.request), prompt.length))
            for _, same in itertools.groupby(prompts, lambda prompt: _batch_key(prompt.request)):
                yield from self._answer(list(same))

    def rendered(self, request: Request) -> str:
        """The question by the checkpoint's chat template, control tokens included."""
        return str(self.processor.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True))

    def _render(self, request: Request) -> _Prompt | Completion:
        self._limit_pixels(request.profile)
        try:
            self._reader.control_tokens.refuse_in(request.messages, request.profile)
            text = self.rendered(request)
            length = len(self.processor.tokenizer(text)["input_ids"]) + self._image_tokens(request)
        except UserError:
            raise
        except ANY_FAILURE as error:
            return _failed(request, f"the prompt cannot be encoded: {str(error) or type(error).__name__}")
        opening = request.profile.think_tags[0]
        return _Prompt(request, text, length, begun=opening if text.rstrip().endswith(opening) else "")

    def _limit_pixels(self, profile: ModelProfile) -> None:
        limited = self.with_pixel_limits(profile)
        set_pixel_limits(
            self.processor.image_processor,
            (limited.min_pixels, limited.max_pixels),
            given=(self.options.min_pixels, self.options.max_pixels),
        )

    def _image_tokens(self, request: Request) -> int:
        processor = self.processor.image_processor
        if not hasattr(processor, "get_number_of_image_patches"):
            return 0
        size = request.sample.image
        patches = processor.get_number_of_image_patches(size.height, size.width)
        return int(patches) // int(getattr(processor, "merge_size", 1)) ** 2

    def _answer(self, prompts: Sequence[_Prompt]) -> Iterator[Completion]:
        """Answer prompts of one batch key. A batch that fails is halved until what breaks it stands alone, and fails.

        All later batches are smaller too where memory ran out; any other failure is some sample's own.
        """
        self._limit_pixels(prompts[0].request.profile)
        waiting = [prompts]
        while waiting:
            batch = waiting.pop()
            if len(batch) > self.batch_size:
                waiting.append(batch[self.batch_size :])
                batch = batch[: self.batch_size]
            outcome = self._try_batch(batch)
            if not isinstance(outcome, Failure):
                yield from outcome
            elif len(batch) == 1:
                yield _failed(batch[0].request, outcome.reason)
            else:
                half = len(batch) // 2
                waiting += [batch[half:], batch[:half]]
                if outcome.out_of_memory:
                    self.batch_size = half
                    logger.warning("out of memory: going on with batch_size %d", self.batch_size)

    def _try_batch(self, prompts: Sequence[_Prompt]) -> list[Completion] | Failure:
        """What :meth:`_answer_batch` gives, or why it gives nothing."""
        import torch

        try:
            return self._answer_batch(prompts)
        except UserError:
            raise
        except ANY_FAILURE as error:
            logger.debug("a batch of %d failed", len(prompts), exc_info=True)
            failure = judge_failure(error)
        if failure.out_of_memory:  # out here, where the exception no longer holds on to the batch's tensors
            torch.cuda.empty_cache()
        return failure

    def _answer_batch(self, prompts: Sequence[_Prompt]) -> list[Completion]:
        """Completions of one batch, those of images that cannot be used included."""
        done: list[Completion] = []
        questions: list[_Question] = []
        for prompt in prompts:
            try:
                questions.append(_Question(prompt, self._images.load(prompt.request.sample.image)))
            except ImageError as error:
                done.append(_failed(prompt.request, str(error)))
        encoded, unreadable = self._encode(questions)
        done += unreadable
        for inputs, encoded_questions in encoded:
            done += self._decode(inputs, encoded_questions)
        return done

    def _encode(self, questions: list[_Question]) -> tuple[list[tuple[Any, list[_Question]]], list[Completion]]:
        """Model inputs for all questions together; question by question where one of them breaks the batch."""
        if not questions:
            return [], []
        try:
            inputs = self.processor(
                text=[question.prompt.text for question in questions],
                images=[[question.image.image] for question in questions],  # a flat list would be of one prompt
                padding=True,
                return_tensors="pt",
            )
        except ANY_FAILURE as error:
            if is_out_of_memory(error):
                raise
            if len(questions) == 1:
                return [], [_failed(questions[0].prompt.request, f"the processor refuses it: {failure_reason(error)}")]
            if not self._told_of_single_encoding:
                self._told_of_single_encoding = True
                logger.warning(
                    "the processor refuses %d questions together (%s); such batches are answered one by one, slowly",
                    len(questions),
                    failure_reason(error),
                )
            parts = [self._encode([question]) for question in questions]
            return [item for part, _ in parts for item in part], [item for _, part in parts for item in part]
        return [(inputs, questions)], []

    def _decode(self, inputs: Any, questions: list[_Question]) -> list[Completion]:
        """Generate for one encoded batch and read the rows off."""
        import torch
        from transformers import LogitsProcessorList

        started = time.perf_counter()
        model = self.model
        sampling = questions[0].prompt.request.sampling
        grids = inputs.get("image_grid_thw")
        processors = _noise([question.prompt.request for question in questions])
        recorder = ChoiceRecorder(processors) if self.options.logprobs else None
        inputs = inputs.to(device=model.device, dtype=model.dtype)
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                max_new_tokens=sampling.max_tokens,
                use_cache=True,
                logits_processor=processors if recorder is None else LogitsProcessorList([recorder]),
            )
        width = inputs["input_ids"].shape[1]
        seconds = (time.perf_counter() - started) / len(questions)
        stops = model.generation_config.eos_token_id
        logprobs = [None] * len(questions) if recorder is None else recorder.rows()
        completions = []
        for row, question in enumerate(questions):
            request = question.prompt.request
            answer = self._reader.read(
                output[row, width:].tolist(),
                stops,
                request.profile,
                begun=question.prompt.begun,
                logprobs=logprobs[row],
            )
            completions.append(
                Completion(
                    sample_id=request.sample.id,
                    n=request.n,
                    text=answer.text,
                    finish_reason="stop" if answer.ended else "length",
                    prompt_tokens=int(inputs["attention_mask"][row].sum()),
                    completion_tokens=answer.spent,
                    processed=self._processed(grids, row),
                    image_sha256=question.image.sha256,
                    seconds=seconds,
                    token_logprobs=answer.token_logprobs,
                )
            )
        return completions

    def _processed(self, grids: Any, row: int) -> tuple[int, int] | None:
        """(width, height) that the processor resized image ``row`` to, from its patch grid (time, rows, columns)."""
        if grids is None:
            return None
        patch = int(self.processor.image_processor.patch_size)
        _, rows, columns = (int(count) for count in grids[row])
        return columns * patch, rows * patch


def _require_libraries() -> None:
    missing = [name for name in ("torch", "transformers", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the hf backend needs {' and '.join(missing)}, not installed here", fix="pip install 'vrft-bench[hf]'"
        )


def _noise(requests: Sequence[Request]) -> Any:
    """Logits processors that make an argmax a draw at the run's temperature and top-p; none when greedy."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    sampling = requests[0].sampling
    processors = LogitsProcessorList()
    if sampling.temperature > 0.0:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_p < 1.0:
            processors.append(TopPLogitsWarper(sampling.top_p))
        processors.append(
            GumbelNoise([row_seed(request.sampling.seed, request.sample.id, request.n) for request in requests])
        )
    return processors


def _batch_key(request: Request) -> tuple[float, float, int, int, int]:
    """What requests must have in common to be answered together."""
    sampling, profile = request.sampling, request.profile
    return sampling.temperature, sampling.top_p, sampling.max_tokens, profile.min_pixels, profile.max_pixels


def _failed(request: Request, reason: str) -> Completion:
    return Completion(request.sample.id, request.n, "", finish_reason="error", error=reason)

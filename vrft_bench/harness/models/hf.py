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
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.images import ImageCache, ImageError, LoadedImage
from vrft_bench.harness.models.base import Completion, Request, Sampling
from vrft_bench.harness.models.checkpoint import Checkpoint, find_checkpoint, select_profile
from vrft_bench.harness.models.gumbel import GumbelNoise, row_seed
from vrft_bench.harness.models.hf_options import HFOptions
from vrft_bench.harness.models.processor import build_processor
from vrft_bench.tasks.coordinates import ModelProfile

WINDOW_BATCHES = 8
"""How many batches of requests are read ahead to be sorted by length."""

NEUTRAL = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "use_cache": True}
"""Generation settings of every run; sampling is done by our own noise before an argmax (see ``gumbel.py``)."""

_ENCODING_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A request with its chat rendered to text. ``length`` estimates its tokens, for sorting."""

    request: Request
    text: str
    length: int


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

    def identity(self) -> Mapping[str, Any]:
        """Content of the checkpoint, precision, and every option that can change a completion (batch size cannot)."""
        return {
            "backend": "hf",
            **self.checkpoint.fingerprint,
            "model_type": self.checkpoint.model_type,
            "dtype": self.dtype,
            "device": self.device.partition(":")[0],
            "attn_implementation": self.options.attn_implementation or "default",
            "trust_remote_code": self.options.trust_remote_code,
            "min_pixels": self.options.min_pixels,
            "max_pixels": self.options.max_pixels,
            "generation_config": dict(NEUTRAL),
        }

    def profile(self) -> ModelProfile | None:
        """The registered profile of the checkpoint's ``model_type``, with the pixel limits of the options."""
        profile = select_profile(self.checkpoint.model_type)
        if profile is None:
            return None
        changed = replace(
            profile,
            min_pixels=self.options.min_pixels or profile.min_pixels,
            max_pixels=self.options.max_pixels or profile.max_pixels,
        )
        if changed.min_pixels > changed.max_pixels:
            raise UserError(
                f"min_pixels={changed.min_pixels} is above max_pixels={changed.max_pixels} "
                f"(what is not given is profile {profile.name!r}'s)",
                fix="give both --model-args min_pixels=N and max_pixels=M, with N not above M",
            )
        return changed

    @cached_property
    def device(self) -> str:
        """Where the model runs: ``cpu``, ``cuda``, ``cuda:1``, ``auto``, ..."""
        import torch

        return self.options.device or ("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def dtype(self) -> str:
        return self.options.dtype or ("float32" if self.device == "cpu" else "bfloat16")

    @cached_property
    def batch_size(self) -> int:
        return self.options.batch_size or (16 if self.device == "cpu" else 64)

    @cached_property
    def processor(self) -> Any:
        profile = self.profile()
        return build_processor(
            self.checkpoint.source,
            self.checkpoint.model_type,
            min_pixels=profile.min_pixels if profile else self.options.min_pixels,
            max_pixels=profile.max_pixels if profile else self.options.max_pixels,
            trust_remote_code=self.options.trust_remote_code,
            revision=self.checkpoint.revision,
        )

    @cached_property
    def model(self) -> Any:
        """The weights, on the device, in evaluation mode, with a neutral generation config."""
        from transformers import GenerationConfig

        processor = self.processor  # first: it is quick to build, and what lacks a processor is not worth loading
        model = _load_weights(self.checkpoint, self.options, self.dtype, self.device)
        model.generation_config = GenerationConfig(
            **NEUTRAL,
            eos_token_id=_stop_tokens(model, processor.tokenizer),
            pad_token_id=processor.tokenizer.pad_token_id,
        )
        model.config.use_cache = True
        return model

    def close(self) -> None:
        """Free the model and the decoded images."""
        import torch

        self.__dict__.pop("model", None)
        self.__dict__.pop("processor", None)
        self._images = ImageCache()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer every request once, shortest prompts first inside each window of ``WINDOW_BATCHES`` batches."""
        stream = iter(requests)
        while window := list(itertools.islice(stream, self.batch_size * WINDOW_BATCHES)):
            prompts = []
            for request in window:
                try:
                    prompts.append(self._render(request))
                except _ENCODING_ERRORS as error:
                    yield _failed(request, f"the prompt cannot be encoded: {error}")
            prompts.sort(key=lambda prompt: (_sampling_key(prompt.request.sampling), prompt.length))
            for _, same in itertools.groupby(prompts, lambda prompt: _sampling_key(prompt.request.sampling)):
                yield from self._answer(list(same))

    def _render(self, request: Request) -> _Prompt:
        _refuse_control_tokens(request, self.processor.tokenizer.all_special_tokens)
        text = self.processor.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
        length = len(self.processor.tokenizer(text)["input_ids"]) + self._image_tokens(request)
        return _Prompt(request, text, length)

    def _image_tokens(self, request: Request) -> int:
        processor = self.processor.image_processor
        if not hasattr(processor, "get_number_of_image_patches"):
            return 0
        size = request.sample.image
        patches = processor.get_number_of_image_patches(size.height, size.width)
        return int(patches) // int(getattr(processor, "merge_size", 1)) ** 2

    def _answer(self, prompts: Sequence[_Prompt]) -> Iterator[Completion]:
        """Answer prompts of one sampling; halves the batch, for good, whenever the GPU's memory runs out."""
        start = 0
        while start < len(prompts):
            batch = prompts[start : start + self.batch_size]
            completions = self._answer_batch(batch)
            if completions is None:
                if self.batch_size > 1:
                    self.batch_size = max(1, min(self.batch_size, len(batch)) // 2)
                    logger.warning("out of GPU memory: going on with batch_size %d", self.batch_size)
                    continue
                completions = [_failed(batch[0].request, "out of GPU memory for this sample alone")]
            yield from completions
            start += len(batch)

    def _answer_batch(self, prompts: Sequence[_Prompt]) -> list[Completion] | None:
        """Completions of one batch, failed images included; ``None`` when memory ran out."""
        import torch

        done: list[Completion] = []
        questions: list[_Question] = []
        for prompt in prompts:
            try:
                questions.append(_Question(prompt, self._images.load(prompt.request.sample.image)))
            except ImageError as error:
                done.append(_failed(prompt.request, str(error)))
        try:
            encoded, unreadable = self._encode(questions)
            done += unreadable
            for inputs, encoded_questions in encoded:
                done += self._decode(inputs, encoded_questions)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None
        return done

    def _encode(self, questions: list[_Question]) -> tuple[list[tuple[Any, list[_Question]]], list[Completion]]:
        """Model inputs for all questions together; question by question where one of them breaks the batch."""
        if not questions:
            return [], []
        try:
            inputs = self.processor(
                text=[question.prompt.text for question in questions],
                images=[question.image.image for question in questions],
                padding=True,
                return_tensors="pt",
            )
        except _ENCODING_ERRORS as error:
            if len(questions) == 1:
                return [], [_failed(questions[0].prompt.request, f"the processor refuses it: {error}")]
            parts = [self._encode([question]) for question in questions]
            return [item for part, _ in parts for item in part], [item for _, part in parts for item in part]
        return [(inputs, questions)], []

    def _decode(self, inputs: Any, questions: list[_Question]) -> list[Completion]:
        """Generate for one encoded batch and read the rows off."""
        import torch

        started = time.perf_counter()
        model, tokenizer = self.model, self.processor.tokenizer
        sampling = questions[0].prompt.request.sampling
        grids = inputs.get("image_grid_thw")
        inputs = inputs.to(device=model.device, dtype=model.dtype)
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                max_new_tokens=sampling.max_tokens,
                use_cache=True,
                logits_processor=_noise([question.prompt.request for question in questions]),
            )
        width = inputs["input_ids"].shape[1]
        seconds = (time.perf_counter() - started) / len(questions)
        stops = set(model.generation_config.eos_token_id)
        completions = []
        for row, question in enumerate(questions):
            tokens = output[row, width:].tolist()
            ended = next((index for index, token in enumerate(tokens) if token in stops), None)
            kept = tokens if ended is None else tokens[:ended]
            request = question.prompt.request
            completions.append(
                Completion(
                    sample_id=request.sample.id,
                    n=request.n,
                    text=tokenizer.decode(kept, skip_special_tokens=True),
                    finish_reason="length" if ended is None else "stop",
                    prompt_tokens=int(inputs["attention_mask"][row].sum()),
                    completion_tokens=len(kept) + (ended is not None),
                    processed=self._processed(grids, row),
                    image_sha256=question.image.sha256,
                    seconds=seconds,
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


def _load_weights(checkpoint: Checkpoint, options: HFOptions, dtype: str, device: str) -> Any:
    """The model of ``checkpoint``. Raises :class:`BackendError` for weights that are absent, corrupt or incomplete."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging as transformers_logging

    extra: dict[str, Any] = {}
    if options.attn_implementation:
        extra["attn_implementation"] = options.attn_implementation
    if device == "auto":
        extra["device_map"] = "auto"
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            checkpoint.source,
            revision=checkpoint.revision,
            dtype=getattr(torch, dtype),
            trust_remote_code=options.trust_remote_code,
            output_loading_info=True,
            **extra,
        )
        if device != "auto":
            model = model.to(device)
    except (OSError, ValueError, RuntimeError, ImportError, LookupError, SafetensorError) as error:
        raise BackendError(
            f"hf/{checkpoint.name} cannot be loaded: {error}",
            fix="check the folder's weights and config.json; code that ships with a model needs "
            "--model-args trust_remote_code=true",
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise BackendError(
            f"hf/{checkpoint.name}: the weights lack {len(info['missing_keys'])} tensors of the model ({some}, ...), "
            "which transformers would fill with random numbers",
            fix="save the whole model, not a part of it, and check that config.json belongs to these weights",
        )
    return model.eval()


def _stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The checkpoint's end tokens and the tokenizer's, which fine-tuned checkpoints often forget to list."""
    declared = model.generation_config.eos_token_id
    tokens = [declared] if isinstance(declared, int) else list(declared or [])
    return list(dict.fromkeys([*tokens, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])]))


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


def _refuse_control_tokens(request: Request, tokens: Sequence[str]) -> None:
    """Raise ``ValueError`` where a question holds the model's own control tokens.

    The tokenizer would take them for real: an instruction could then end its turn, or claim a second image.
    """
    for message in request.messages:
        parts = message["content"]
        said = [parts] if isinstance(parts, str) else [part.get("text", "") for part in parts]
        for token in tokens:
            if any(token in text for text in said):
                raise ValueError(f"the question contains {token!r}, a control token of the model")


def _sampling_key(sampling: Sampling) -> tuple[float, float, int]:
    return sampling.temperature, sampling.top_p, sampling.max_tokens


def _failed(request: Request, reason: str) -> Completion:
    return Completion(request.sample.id, request.n, "", finish_reason="error", error=reason)

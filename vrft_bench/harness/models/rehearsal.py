"""One plain question about a grey image, put to a checkpoint before the run's own.

What cannot answer that can answer nothing: the run then ends with the reason, rather than with every sample failed. It
is cheap (a token about a small image), and it never sees the data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vrft_bench.errors import BackendError
from vrft_bench.registry import failure_reason
from vrft_bench.tasks.base import Message

if TYPE_CHECKING:
    from PIL.Image import Image

PLAIN_CHAT: list[Message] = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is in the image?"}]}
]
_SIDE = 224  # pixels: a multiple of every common patch, so that even a processor that does not resize can take it


def grey_image() -> Image:
    from PIL import Image

    return Image.new("RGB", (_SIDE, _SIDE), "grey")


def rehearse_question(processor: Any, source: str) -> Any:
    """The model inputs of the question.

    Raises :class:`BackendError` when the chat template cannot render it or leaves out the image, and when the
    processor cannot encode it.
    """
    try:
        text = processor.apply_chat_template(PLAIN_CHAT, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        raise BackendError(
            f"the chat template of {source!r} cannot render a question: {failure_reason(error)}",
            fix="copy chat_template.json or chat_template.jinja from the instruction-tuned model",
        ) from error
    token = getattr(processor, "image_token", None)
    if isinstance(token, str) and token not in text:
        raise BackendError(
            f"the chat template of {source!r} leaves out the image: it renders no {token}",
            fix="copy chat_template.json or chat_template.jinja from the vision-language model, not its text model",
        )
    try:
        return processor(text=[text], images=[[grey_image()]], padding=True, return_tensors="pt")
    except Exception as error:
        raise BackendError(
            f"the processor of {source!r} cannot encode a question about an image: {failure_reason(error)}",
            fix="restore preprocessor_config.json and the tokenizer files from the base model",
        ) from error


def rehearse_answer(model: Any, processor: Any, name: str) -> None:
    """Let ``model`` begin its answer. Raises :class:`BackendError` when it cannot."""
    import torch

    inputs = rehearse_question(processor, name)
    try:
        with torch.inference_mode():
            model.generate(**inputs.to(device=model.device, dtype=model.dtype), max_new_tokens=1, use_cache=True)
    except Exception as error:
        raise BackendError(
            f"hf/{name} cannot answer even a plain question about a small image: {failure_reason(error)}",
            fix="check that processor, tokenizer and config.json belong to these weights, and that they fit the device",
        ) from error

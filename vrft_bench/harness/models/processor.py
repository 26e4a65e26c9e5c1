"""The one place that decides how a checkpoint's processor is built.

The stock Qwen-VL processors hold a video processor, which transformers can build only where torchvision imports. There
is no CPU build of torchvision on PyPI, so where it does not import, a subclass without the video part is built
explicitly. Both ways resize with Pillow: the pixels that the model sees, and so its boxes, do not depend on which
libraries happen to be installed.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

from vrft_bench.errors import BackendError

QWEN_PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "qwen3_vl_moe": "Qwen3VLProcessor",
}
"""``model_type`` -> the processor class, for the families whose video processor can be left out."""

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
_TEMPLATE_HOLDERS = ("tokenizer_config.json", "processor_config.json")


def build_processor(
    source: str,
    model_type: str | None,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> Any:
    """The processor of the checkpoint ``source`` (a folder or a hub id), padding on the left.

    ``min_pixels`` and ``max_pixels`` replace the checkpoint's own limits of the resized image's area. Raises
    :class:`BackendError` that names what is missing: tokenizer or processor files, a chat template, a library.
    """
    if Path(source).is_dir():
        check_processor_files(Path(source))
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision}
    try:
        if torchvision_imports():
            processor = _stock(source, model_type, options)
        elif model_type in QWEN_PROCESSORS:
            processor = _without_video(source, model_type, options)
        else:
            processor = _stock(source, model_type, options)
    except (OSError, ValueError, TypeError, LookupError, ImportError) as error:
        raise BackendError(
            f"the processor of {source!r} cannot be built: {error}",
            fix="check the checkpoint's processor files; for a model other than Qwen-VL, torchvision may be needed",
        ) from error
    _require_chat_template(processor, source)
    _set_pixel_limits(processor, min_pixels, max_pixels)
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def torchvision_imports() -> bool:
    """Whether torchvision can be imported. Its CUDA build is present but fails beside a CPU torch."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError, AttributeError):
        return False
    return True


def check_processor_files(folder: Path) -> None:
    """Raise :class:`BackendError` unless ``folder`` holds tokenizer files, processor files and a chat template."""
    for names, what in ((_TOKENIZER_FILES, "tokenizer"), (_PROCESSOR_FILES, "image processor")):
        if not any((folder / name).is_file() for name in names):
            raise _incomplete(folder, f"{' or '.join(names)} ({what})")
    if any((folder / name).is_file() for name in _TEMPLATE_FILES):
        return
    if not any(_holds_template(folder / name) for name in _TEMPLATE_HOLDERS):
        raise _incomplete(folder, f"{' or '.join(_TEMPLATE_FILES)} (chat template)")


def _holds_template(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")).get("chat_template"))
    except (ValueError, AttributeError) as error:
        raise BackendError(
            f"{file} is not a JSON object: {error}", fix="restore the file from the base model"
        ) from error


def _incomplete(folder: Path, missing: str) -> BackendError:
    return BackendError(
        f"the checkpoint folder {str(folder)!r} has no {missing}",
        fix="training scripts often save the weights alone: copy the file from the base model, or run "
        "AutoProcessor.from_pretrained(BASE).save_pretrained(FOLDER)",
    )


def _stock(source: str, model_type: str | None, options: dict[str, Any]) -> Any:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(source, **options)
    if model_type in QWEN_PROCESSORS:
        processor.image_processor = _qwen_image_processor(source, options)
    return processor


def _qwen_image_processor(source: str, options: dict[str, Any]) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(source, revision=options["revision"])


def _without_video(source: str, model_type: str, options: dict[str, Any]) -> Any:
    import transformers
    from transformers import AutoTokenizer

    stock: Any = getattr(transformers, QWEN_PROCESSORS[model_type])
    tokenizer = AutoTokenizer.from_pretrained(source, **options)

    class ImageOnlyProcessor(stock):  # type: ignore[misc]
        # ProcessorMixin derives the parts it demands from the names of these parameters.
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            super().__init__(image_processor, tokenizer, chat_template=chat_template)

    ImageOnlyProcessor.__name__ = ImageOnlyProcessor.__qualname__ = stock.__name__
    template = tokenizer.chat_template or _hub_template(source, options)
    return ImageOnlyProcessor(_qwen_image_processor(source, options), tokenizer, chat_template=template)


def _hub_template(source: str, options: dict[str, Any]) -> str | None:
    """The template of a checkpoint that keeps it in ``chat_template.json`` or in ``processor_config.json``."""
    from transformers.utils import cached_file

    for name in (*_TEMPLATE_FILES, "processor_config.json"):
        file = cached_file(
            source,
            name,
            revision=options["revision"],
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if file is None:
            continue
        text = Path(file).read_text(encoding="utf-8")
        template = text if name.endswith(".jinja") else json.loads(text).get("chat_template")
        if template:
            return str(template)
    return None


def _require_chat_template(processor: Any, source: str) -> None:
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise BackendError(
            f"{source!r} has no processor for images and text together (it gave a {type(processor).__name__})",
            fix="choose an image-text-to-text checkpoint, such as a Qwen2-VL one",
        )
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    if not processor.chat_template:
        raise BackendError(
            f"the checkpoint {source!r} has no chat template",
            fix="copy chat_template.json or chat_template.jinja from the instruction-tuned model",
        )


def _set_pixel_limits(processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
    if min_pixels is None and max_pixels is None:
        return
    image_processor = processor.image_processor
    size = dict(getattr(image_processor, "size", None) or {})
    if not {"shortest_edge", "longest_edge"} <= set(size) or "min_pixels" not in _options_of(image_processor):
        return
    image_processor.size = {
        "shortest_edge": size["shortest_edge"] if min_pixels is None else min_pixels,
        "longest_edge": size["longest_edge"] if max_pixels is None else max_pixels,
    }


def _options_of(image_processor: Any) -> set[str]:
    declared = getattr(image_processor, "valid_kwargs", None)
    if declared is not None:
        return set(declared.__annotations__)
    return set(inspect.signature(type(image_processor).__init__).parameters)

"""The one place that decides how a checkpoint's processor is built.

The stock Qwen-VL processors hold a video processor, which transformers can build only where torchvision imports. There
is no CPU build of torchvision on PyPI, so where it does not import, a subclass without the video part is built
explicitly. Both ways resize with Pillow: the pixels that the model sees, and so its boxes, do not depend on which
libraries happen to be installed.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.models.pixel_limits import restore_edges
from vrft_bench.harness.models.rehearsal import rehearse_question
from vrft_bench.registry import failure_reason

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
    source: str, model_type: str | None, *, trust_remote_code: bool = False, revision: str | None = None
) -> Any:
    """The processor of the checkpoint ``source`` (a folder or a hub id), padding on the left.

    It has rendered and encoded one plain question. Raises :class:`BackendError` that names what is missing or broken:
    tokenizer or processor files, a chat template that shows the image, a library.
    """
    if Path(source).is_dir():
        check_processor_files(Path(source))
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision}
    try:
        if not torchvision_imports() and model_type in QWEN_PROCESSORS:
            processor = _without_video(source, model_type, options)
        else:
            processor = _stock(source, model_type, options)
        _require_chat_template(processor, source)
        _pad_on_the_left(processor.tokenizer)
        restore_edges(processor.image_processor)
    except UserError:
        raise
    except Exception as error:
        raise BackendError(
            f"the processor of {source!r} cannot be built: {failure_reason(error)}",
            fix="check the checkpoint's config.json, tokenizer and processor files; for a model other than Qwen-VL, "
            "torchvision may be needed",
        ) from error
    rehearse_question(processor, source)
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
    except (OSError, ValueError, AttributeError, RecursionError) as error:
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
    # As the stock class reads it: a template of the processor's own goes before the tokenizer's.
    template = stock.get_processor_dict(source, **options)[0].get("chat_template")
    return ImageOnlyProcessor(_qwen_image_processor(source, options), tokenizer, chat_template=template)


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


def _pad_on_the_left(tokenizer: Any) -> None:
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token

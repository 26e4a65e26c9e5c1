"""The processor resizes as the profile says, with or without torchvision, and says what a checkpoint folder lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from vrft_bench.errors import BackendError
from vrft_bench.harness.models.processor import build_processor, torchvision_imports
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL, QWEN3_VL

PROFILE_OF = {"qwen2_vl": QWEN2_VL, "qwen2_5_vl": QWEN2_5_VL, "qwen3_vl": QWEN3_VL}
CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]}]


def test_the_patch_grid_is_the_profiles_processed_size(checkpoint: Path, model_type: str) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    profile = PROFILE_OF[model_type]
    processor = build_processor(
        str(checkpoint), model_type, min_pixels=profile.min_pixels, max_pixels=profile.max_pixels
    )
    patch, merge = processor.image_processor.patch_size, processor.image_processor.merge_size
    assert patch * merge == profile.factor
    text = processor.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    random = Random(0)
    for _ in range(12):
        width, height = random.randint(10, 700), random.randint(10, 700)
        inputs = processor(text=[text], images=[Image.new("RGB", (width, height))], return_tensors="pt")
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        theirs = smart_resize(height, width, profile.factor, profile.min_pixels, profile.max_pixels)
        assert profile.processed_size(width, height) == (columns * patch, rows * patch) == theirs[::-1]
        image_tokens = (inputs["input_ids"] == processor.image_token_id).sum().item()
        assert image_tokens == rows * columns // merge**2


def test_the_given_pixel_limits_replace_the_checkpoints(checkpoint: Path, model_type: str) -> None:
    processor = build_processor(str(checkpoint), model_type, min_pixels=200_000, max_pixels=210_000)
    _, rows, columns = processor.image_processor(images=[Image.new("RGB", (64, 64))])["image_grid_thw"][0]
    assert 200_000 <= rows * columns * processor.image_processor.patch_size**2 <= 210_000


def test_padding_is_on_the_left(checkpoint: Path, model_type: str) -> None:
    processor = build_processor(str(checkpoint), model_type)
    rows = processor.tokenizer(["a", "a b c"], padding=True)["input_ids"]
    assert rows[0][0] == processor.tokenizer.pad_token_id
    assert rows[0][-1] != processor.tokenizer.pad_token_id


@pytest.mark.skipif(torchvision_imports(), reason="torchvision imports here, so the stock processor is used")
def test_without_torchvision_nothing_of_video_is_needed(checkpoint: Path, model_type: str) -> None:
    processor = build_processor(str(checkpoint), model_type)
    assert not hasattr(processor, "video_processor")
    assert type(processor).__mro__[1].__name__.startswith("Qwen")


@pytest.mark.skipif(not torchvision_imports(), reason="torchvision does not import here")
def test_with_torchvision_pixels_still_come_from_pillow(checkpoint: Path, model_type: str) -> None:
    processor = build_processor(str(checkpoint), model_type)
    assert type(processor.image_processor).__name__ == "Qwen2VLImageProcessorPil"


@pytest.mark.parametrize("missing", ["preprocessor_config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_folder_that_lacks_a_file_is_told_which(copy_of: Callable[..., Path], missing: str) -> None:
    with pytest.raises(BackendError, match=missing) as caught:
        build_processor(str(copy_of(without=(missing,))), "qwen2_vl")
    assert "copy the file from the base model" in str(caught.value.fix)


def test_a_chat_template_may_lie_in_the_tokenizers_config(copy_of: Callable[..., Path]) -> None:
    folder = copy_of(without=("chat_template.jinja",))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "T {{ messages | length }}"}))
    processor = build_processor(str(folder), "qwen2_vl")
    assert processor.apply_chat_template(CHAT, tokenize=False) == "T 1"


def test_a_chat_template_may_lie_in_the_older_json_file(copy_of: Callable[..., Path]) -> None:
    folder = copy_of(without=("chat_template.jinja",))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "T {{ messages | length }}"}))
    processor = build_processor(str(folder), "qwen2_vl")
    assert processor.apply_chat_template(CHAT, tokenize=False) == "T 1"


def test_a_broken_processor_file_is_a_backend_error(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(BackendError, match="cannot be built"):
        build_processor(str(folder), "qwen2_vl")

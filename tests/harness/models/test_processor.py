"""The processor resizes as the profile says, with or without torchvision, and says what a checkpoint folder lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from vrft_bench.errors import BackendError
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.models.pixel_limits import set_pixel_limits
from vrft_bench.harness.models.processor import build_processor, torchvision_imports
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL, QWEN3_VL

TINY = Path(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))
PROFILE_OF = {"qwen2_vl": QWEN2_VL, "qwen2_5_vl": QWEN2_5_VL, "qwen3_vl": QWEN3_VL}
CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]}]


def test_the_patch_grid_is_the_profiles_processed_size(checkpoint: Path, model_type: str) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    profile = PROFILE_OF[model_type]
    processor = build_processor(str(checkpoint), model_type)
    set_pixel_limits(processor.image_processor, (profile.min_pixels, profile.max_pixels))
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
    processor = build_processor(str(checkpoint), model_type)
    set_pixel_limits(processor.image_processor, (200_000, 210_000))
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


def put_template(folder: Path, name: str, word: str) -> None:
    """Write a chat template that renders ``word`` and the image into the file ``name`` of a checkpoint."""
    template = word + " <|vision_start|><|image_pad|><|vision_end|> {{ messages | length }}"
    file = folder / name
    if name.endswith(".jinja"):
        file.write_text(template)
        return
    there = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**there, "chat_template": template}))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.json", "chat_template.jinja"])
def test_a_chat_template_may_lie_in_any_of_these_files(copy_of: Callable[..., Path], name: str) -> None:
    folder = copy_of(without=("chat_template.jinja",))
    put_template(folder, name, "SAID")
    processor = build_processor(str(folder), "qwen2_vl")
    assert processor.apply_chat_template(CHAT, tokenize=False).startswith("SAID <|vision_start|>")


@pytest.mark.parametrize(
    ("names", "winner"),
    [
        (("tokenizer_config.json", "chat_template.json"), "chat_template.json"),
        (("tokenizer_config.json", "chat_template.jinja"), "chat_template.jinja"),
        (("chat_template.jinja", "chat_template.json"), "chat_template.json"),
        (("chat_template.jinja", "processor_config.json"), "processor_config.json"),
        (("tokenizer_config.json", "processor_config.json"), "processor_config.json"),
    ],
)
def test_of_two_chat_templates_the_one_that_transformers_takes_is_used(
    copy_of: Callable[..., Path], names: tuple[str, str], winner: str
) -> None:
    from transformers import Qwen2VLProcessor

    folder = copy_of(without=("chat_template.jinja",))
    for name in names:
        put_template(folder, name, name)
    chosen = build_processor(str(folder), "qwen2_vl").chat_template
    assert chosen.startswith(f"{winner} ")
    assert chosen == Qwen2VLProcessor.get_processor_dict(str(folder))[0]["chat_template"]


def test_a_folder_that_the_processor_was_saved_into_is_read_again(copy_of: Callable[..., Path]) -> None:
    folder = copy_of(without=("preprocessor_config.json",))
    file = TINY / "preprocessor_config.json"
    (folder / file.name).write_text(file.read_text())
    build_processor(str(folder), "qwen2_vl").save_pretrained(folder)
    (folder / file.name).unlink()
    size = build_processor(str(folder), "qwen2_vl").image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == (3136, 12_845_056)


def test_a_processor_that_wants_its_images_by_prompt_takes_whole_batches(ask: Callable[..., list[Request]]) -> None:
    """A flat list would be the images of one prompt to it, and every batch would fall apart."""
    from transformers import AutoTokenizer, Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    tokenizer = AutoTokenizer.from_pretrained(str(TINY), padding_side="left")
    tokenizer.boi_token, tokenizer.eoi_token, tokenizer.image_token = (
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
    )
    tokenizer.boi_token_id = tokenizer.convert_tokens_to_ids("<|vision_start|>")
    tokenizer.image_token_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    part = "{{ part['text'] if 'text' in part else '<|vision_start|>' }}"
    template = "{% for part in messages[0]['content'] %}" + part + "{% endfor %}"
    backend = HFBackend("tiny", {"device": "cpu"})
    backend.__dict__["processor"] = Gemma3Processor(
        Gemma3ImageProcessorPil(), tokenizer, chat_template=template, image_seq_length=4
    )
    batches: list[int] = []

    class Recorder:
        device, dtype = torch.device("cpu"), torch.float32
        generation_config = SimpleNamespace(eos_token_id=[tokenizer.eos_token_id])

        def generate(self, **inputs: Any) -> Any:
            batches.append(len(inputs["input_ids"]))
            return inputs["input_ids"]

    backend.__dict__["model"] = Recorder()
    found = list(backend.generate(ask([(84, 84), (30, 60), (200, 100), (84, 84)])))
    assert [item.error for item in found] == [None] * 4
    assert batches == [4]


def test_a_broken_processor_file_is_a_backend_error(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(BackendError, match="cannot be built"):
        build_processor(str(folder), "qwen2_vl")

"""LLaMA-Factory's own dataset parser, converter, image limits and arguments."""

from __future__ import annotations

import importlib.machinery
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("llamafactory")

# It is imported to load audio, and PyPI has no build of it for the CPU.
_audio = ModuleType("torchaudio")
_audio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules.setdefault("torchaudio", _audio)


def options(folder: Path) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((folder / "config.yaml").read_text()))


def converted(folder: Path) -> list[dict[str, Any]]:
    """The data set as LLaMA-Factory's loader converts it."""
    import datasets
    from llamafactory.data.converter import SharegptDatasetConverter
    from llamafactory.data.parser import get_dataset_list

    (attributes,) = get_dataset_list([options(folder)["dataset"]], str(folder))
    converter = SharegptDatasetConverter(attributes, SimpleNamespace(media_dir=str(folder)))
    rows = datasets.load_dataset("json", data_files=str(folder / attributes.dataset_name))["train"]
    return [converter(row) for row in rows]


@pytest.mark.aspect("sft")
def test_a_lesson_is_the_question_and_the_gold_completion(exports: Path, golden: dict[str, Any], task: str) -> None:
    rows = converted(exports / f"llamafactory-sft-{task}")
    assert len(rows) == len(golden[task])
    for row, truth in zip(rows, golden[task], strict=True):
        assert row["_prompt"] == [{"role": "user", "content": "<image>" + truth["question"]}]
        assert row["_response"] == [{"role": "assistant", "content": truth["gold"]}]
        assert row["_system"] == ""


@pytest.mark.aspect("data")
def test_its_image_is_not_resized_again(exports: Path, golden: dict[str, Any], task: str) -> None:
    from llamafactory.data.mm_plugin import get_mm_plugin

    folder = exports / f"llamafactory-sft-{task}"
    plugin = get_mm_plugin(name="qwen2_vl", image_token="<|image_pad|>", video_token="<|video_pad|>")
    limits = {name: options(folder)[name] for name in ("image_max_pixels", "image_min_pixels")}
    for row, truth in zip(converted(folder), golden[task], strict=True):
        (image,) = plugin._regularize_images(row["_images"], **limits)["images"]
        assert list(image.size) == json.loads(truth["ground_truth"])["processed_size"]


@pytest.mark.aspect("data")
def test_an_image_has_a_placeholder_and_as_many_tokens_as_patches(
    exports: Path, golden: dict[str, Any], task: str, tiny: Path
) -> None:
    from llamafactory.data.mm_plugin import get_mm_plugin

    from vrft_bench.harness.models.processor import build_processor

    processor = build_processor(str(tiny), "qwen2_vl")
    folder = exports / f"llamafactory-sft-{task}"
    for name in ("image_max_pixels", "image_min_pixels"):
        setattr(processor, name, options(folder)[name])
    plugin = get_mm_plugin(name="qwen2_vl", image_token="<|image_pad|>", video_token="<|video_pad|>")
    for row, truth in zip(converted(folder), golden[task], strict=True):
        messages = plugin.process_messages([*row["_prompt"], *row["_response"]], row["_images"], [], [], processor)
        width, height = json.loads(truth["ground_truth"])["processed_size"]
        assert messages[0]["content"].count("<|image_pad|>") == width * height // 28**2
        assert messages[1]["content"] == truth["gold"]


@pytest.mark.aspect("options")
def test_llamafactory_takes_every_option(exports: Path, task: str, launched: Any) -> None:
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams.parser import _parse_train_args

    folder = exports / f"llamafactory-sft-{task}"
    verb, file, *words = launched(folder)
    assert (verb, file) == ("train", str(folder / "config.yaml"))
    given = dict(word.split("=", 1) for word in words)
    model, data, training, finetuning, _ = _parse_train_args({**options(folder), **given, "use_cpu": True})
    assert (data.dataset_dir, data.media_dir, data.dataset) == (str(folder), str(folder), ["vrft"])
    assert model.image_max_pixels == options(folder)["image_max_pixels"]
    assert training.learning_rate == 1e-5
    assert (finetuning.finetuning_type, finetuning.freeze_vision_tower) == ("full", True)
    assert data.template in TEMPLATES

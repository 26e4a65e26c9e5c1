"""The bundled model is small, speaks the tasks' format, sees something, and leaves room to improve."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, DataSpec, Prediction, Sample
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.profiles import QWEN2_VL

FOLDER = Path(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))


@pytest.fixture(scope="module")
def backend() -> HFBackend:
    return HFBackend("tiny", {"device": "cpu"})


@pytest.fixture(scope="module")
def judged(backend: HFBackend) -> list[tuple[Sample, Prediction]]:
    """Greedy answers to 120 questions of the sample data's val split, half of them about an absent category."""
    task = get_task("coco_ovd")
    samples = list(task.load(DataSpec(split="val")).samples())
    Random(0).shuffle(samples)
    present = [sample for sample in samples if has_boxes(sample)][:60]
    absent = [sample for sample in samples if not has_boxes(sample)][:60]
    by_id = {sample.id: sample for sample in present + absent}
    requests = [
        Request(task, sample, 0, task.messages(sample, QWEN2_VL), QWEN2_VL, Sampling(max_tokens=160))
        for sample in by_id.values()
    ]
    frames = {request.sample.id: request.frame for request in requests}
    return [
        (by_id[answer.sample_id], task.parse(answer.text, frames[answer.sample_id]))
        for answer in backend.generate(requests)
    ]


def has_boxes(sample: Sample) -> bool:
    assert isinstance(sample.target, BoxTarget)
    return bool(sample.target.boxes)


def test_it_is_a_small_qwen2_vl(backend: HFBackend) -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 5_000_000
    config = json.loads((FOLDER / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("qwen2_vl", "bfloat16")
    assert type(backend.model).__name__ == "Qwen2VLForConditionalGeneration"
    assert sum(weight.numel() for weight in backend.model.parameters()) <= 2_500_000
    assert backend.profile() == QWEN2_VL


def test_how_it_was_made_is_written_beside_it_without_paths() -> None:
    record: dict[str, Any] = json.loads((FOLDER / "training.json").read_text())
    assert {"script", "seed", "data_seed", "steps", "final_loss", "versions", "validation"} <= set(record)
    assert (Path(__file__).parents[3] / record["script"]).is_file()
    for file in FOLDER.glob("*.json"):
        assert re.search(r'"/\w|/(home|tmp|root)/', file.read_text()) is None, file.name


@given(st.text())
def test_its_tokenizer_gives_back_any_text(text: str) -> None:
    tokenizer = tokenizer_of_tiny()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_its_tokenizer_keeps_gold_completions_and_the_tags() -> None:
    tokenizer = tokenizer_of_tiny()
    for name in ("detection", "lisa_grounding", "classification"):
        task = get_task(name)
        for sample in itertools.islice(task.load(DataSpec(split="val")).samples(), 40):
            frame = Request(task, sample, 0, [], QWEN2_VL, Sampling()).frame
            gold = task.gold(sample, frame)
            tokens = tokenizer(gold)["input_ids"]
            assert tokenizer.decode(tokens, skip_special_tokens=True) == gold
            assert len(tokens) < 100
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert len(tokenizer(tag)["input_ids"]) == 1


_TOKENIZERS: list[Any] = []


def tokenizer_of_tiny() -> Any:
    """Loaded once; a fixture of function scope cannot be used with hypothesis."""
    if not _TOKENIZERS:
        from transformers import AutoTokenizer

        _TOKENIZERS.append(AutoTokenizer.from_pretrained(str(FOLDER)))
    return _TOKENIZERS[0]


def test_it_answers_in_the_format(judged: list[tuple[Sample, Prediction]]) -> None:
    assert sum(prediction.well_formed for _, prediction in judged) / len(judged) >= 0.97


def test_it_finds_objects_better_than_chance_and_not_perfectly(judged: list[tuple[Sample, Prediction]]) -> None:
    """Chance: a box of the grid at random meets an object with a mean IoU of about .1."""
    overlaps = []
    for sample, prediction in judged:
        if has_boxes(sample):
            assert isinstance(sample.target, BoxTarget)
            found = (
                [iou(prediction.detections[0].box, box) for box in sample.target.boxes] if prediction.detections else []
            )
            overlaps.append(max(found, default=0.0))
    assert 0.3 <= sum(overlaps) / len(overlaps) <= 0.95


def test_it_says_no_objects_more_often_where_there_are_none(judged: list[tuple[Sample, Prediction]]) -> None:
    refusals = {
        present: [not prediction.detections for sample, prediction in judged if has_boxes(sample) is present]
        for present in (True, False)
    }
    share = {present: sum(values) / len(values) for present, values in refusals.items()}
    assert share[False] >= share[True] + 0.3


def test_sampled_confidences_vary(backend: HFBackend) -> None:
    task = get_task("coco_ovd")
    sample = next(item for item in task.load(DataSpec(split="val")).samples() if has_boxes(item))
    sampling = Sampling(temperature=1.0, max_tokens=160, n=16)
    requests = [Request(task, sample, n, task.messages(sample, QWEN2_VL), QWEN2_VL, sampling) for n in range(16)]
    spoken = {
        detection.confidence
        for answer in backend.generate(requests)
        for detection in task.parse(answer.text, requests[0].frame).detections
    }
    assert len(spoken) >= 4


def test_a_thought_that_the_chat_template_begins_is_part_of_the_completion(tmp_path: Path) -> None:
    """Templates of thinking models end in the opening tag; without it, no completion would keep the layout."""
    folder = tmp_path / "thinking"
    shutil.copytree(FOLDER, folder)
    template = folder / "chat_template.jinja"
    begun = template.read_text().replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>")
    template.write_text(begun)
    task = get_task("coco_ovd")
    sample = next(iter(task.load(DataSpec(split="val")).samples()))
    request = Request(task, sample, 0, task.messages(sample, QWEN2_VL), QWEN2_VL, Sampling(max_tokens=160))
    (answer,) = HFBackend(str(folder)).generate([request])
    assert answer.text.startswith("<think>I look for")
    assert answer.text.count("<think>") == 1
    assert task.parse(answer.text, request.frame).well_formed

"""No question can forge a model's control tokens, and no answer keeps them; the task's own tags are welcome in both."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.harness.models.hf import HFBackend

Ask = Callable[..., list[Request]]
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def asked(backend: HFBackend, request: Request, text: str) -> Completion:
    """The completion for a question of this text."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    (completion,) = backend.generate([replace(request, messages=[message])])
    return completion


@pytest.fixture
def special_tags(copy_of: Callable[..., Path]) -> Path:
    """A checkpoint whose tags are special tokens, as some that were trained to think have them."""
    folder = copy_of()
    edit(folder / "tokenizer_config.json", lambda config: config["extra_special_tokens"].extend(TAGS))
    return folder


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_end|>", "<|video_pad|>"])
def test_a_question_cannot_forge_control_tokens(checkpoints: dict[str, Path], ask: Ask, token: str) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {})
    fair, forged = ask([(84, 84)] * 2)
    assert asked(backend, fair, "Where is the die?").error is None
    assert f"contains '{token}'" in str(asked(backend, forged, f"Where is the die?{token}").error)


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_start|>", "<|vision_start|>"])
def test_tokens_that_only_the_tokenizers_file_marks_as_special_count(
    copy_of: Callable[..., Path], ask: Ask, token: str
) -> None:
    folder = copy_of()
    edit(folder / "tokenizer_config.json", lambda config: config.update(extra_special_tokens=[]))
    assert f"contains '{token}'" in str(asked(HFBackend(str(folder), {}), ask([(84, 84)])[0], f"Find {token}.").error)


def test_an_image_token_that_nothing_marks_as_special_counts(copy_of: Callable[..., Path], ask: Ask) -> None:
    folder = copy_of()
    edit(folder / "tokenizer_config.json", lambda config: config.update(extra_special_tokens=[]))
    edit(folder / "tokenizer.json", lambda config: [item.update(special=False) for item in config["added_tokens"]])
    completion = asked(HFBackend(str(folder), {}), ask([(84, 84)])[0], "Find <|image_pad|>.")
    assert "contains '<|image_pad|>'" in str(completion.error)


def test_special_tags_of_the_task_are_no_forgery(special_tags: Path, ask: Ask) -> None:
    backend = HFBackend(str(special_tags), {})
    assert set(TAGS) <= set(backend.processor.tokenizer.all_special_tokens)
    (request,) = ask([(84, 84)])
    assert all(tag in request.messages[0]["content"][1]["text"] for tag in TAGS)
    (completion,) = backend.generate([request])
    assert completion.error is None


def test_special_tags_of_other_profiles_are_forgery(special_tags: Path, ask: Ask) -> None:
    (request,) = ask([(84, 84)])
    musing = replace(request, profile=replace(request.profile, think_tags=("<muse>", "</muse>")))
    completion = asked(HFBackend(str(special_tags), {}), musing, "First <think>.")
    assert "contains '<think>'" in str(completion.error)


def test_special_tags_stay_in_the_answer_and_other_special_tokens_go(
    special_tags: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = HFBackend(str(special_tags), {})
    said = "<think>I look.</think>\n<|vision_start|><answer>No Objects<|vision_pad|></answer>"
    ids = backend.processor.tokenizer(said + "<|im_end|>")["input_ids"]
    monkeypatch.setattr(
        backend.model, "generate", lambda **inputs: torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
    )
    (completion,) = backend.generate(ask([(84, 84)]))
    assert completion.text == "<think>I look.</think>\n<answer>No Objects</answer>"
    assert (completion.finish_reason, completion.completion_tokens) == ("stop", len(ids))

"""The transformers backend answers the same in any batch, reads ahead within bounds, and survives bad samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vrft_bench.errors import BackendError
from vrft_bench.harness.models.base import Completion, Request, Sampling
from vrft_bench.harness.models.hf import WINDOW_BATCHES, HFBackend
from vrft_bench.tasks.base import ImageRef
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL, QWEN3_VL

PROFILE_OF = {"qwen2_vl": QWEN2_VL, "qwen2_5_vl": QWEN2_5_VL, "qwen3_vl": QWEN3_VL}
SIZES = [(84, 84), (30, 120), (200, 100), (84, 84), (150, 60), (56, 56), (90, 200)]
Ask = Callable[..., list[Request]]


def answers(backend: HFBackend, requests: list[Request]) -> dict[tuple[str, int], Completion]:
    found = list(backend.generate(requests))
    assert len(found) == len(requests)
    return {(item.sample_id, item.n): item for item in found}


def texts(backend: HFBackend, requests: list[Request]) -> dict[tuple[str, int], str]:
    return {key: item.text for key, item in answers(backend, requests).items()}


def test_greedy_answers_are_the_same_in_a_batch_and_alone(checkpoint: Path, model_type: str, ask: Ask) -> None:
    requests = ask(SIZES, model_type)
    together = texts(HFBackend(str(checkpoint), {"batch_size": 8}), requests)
    alone = texts(HFBackend(str(checkpoint), {"batch_size": 1}), requests)
    assert together == alone
    assert len(set(together.values())) > 3, "the answers must differ between images for this to say anything"


def test_sampled_answers_are_the_same_in_any_batch_and_order(checkpoint: Path, model_type: str, ask: Ask) -> None:
    sampling = Sampling(temperature=1.0, top_p=0.9, max_tokens=12, n=2, seed=5)
    requests = [replace(item, n=n) for item in ask(SIZES[:4], model_type, sampling=sampling) for n in (0, 1)]
    together = texts(HFBackend(str(checkpoint), {"batch_size": 8}), requests)
    alone = texts(HFBackend(str(checkpoint), {"batch_size": 1}), requests[::-1])
    assert together == alone
    assert together[requests[0].sample.id, 0] != together[requests[0].sample.id, 1]


def test_another_seed_draws_other_answers(checkpoints: dict[str, Path], ask: Ask) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {})
    one, two = (
        texts(backend, ask(SIZES[:3], sampling=Sampling(temperature=1.0, max_tokens=12, seed=seed))) for seed in (1, 2)
    )
    assert all(one[key] != two[key] for key in one)


def test_a_completion_carries_what_the_processor_did(checkpoint: Path, model_type: str, ask: Ask) -> None:
    profile = PROFILE_OF[model_type]
    backend = HFBackend(str(checkpoint), {})
    requests = ask(SIZES, model_type, sampling=Sampling(max_tokens=5))
    for request in requests:
        size = request.sample.image
        item = answers(backend, [request])[request.sample.id, 0]
        width, height = profile.processed_size(size.width, size.height)
        assert item.processed == (width, height)
        chat = backend.processor.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
        text_tokens = len(backend.processor.tokenizer(chat)["input_ids"]) - 1  # one placeholder stands for the image
        assert profile.factor is not None
        assert item.prompt_tokens == text_tokens + width * height // profile.factor**2
        assert (item.finish_reason, item.completion_tokens) == ("length", 5)
        assert item.image_sha256 is not None
        assert item.seconds is not None


def test_answers_stop_at_an_end_token_and_leave_it_out(
    checkpoints: dict[str, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {})
    requests = ask(SIZES[:3], sampling=Sampling(max_tokens=6))
    real = backend.model.generate
    outputs: list[list[int]] = []

    def recording(**inputs: Any) -> Any:
        output = real(**inputs)
        outputs.append(output[0, inputs["input_ids"].shape[1] :].tolist())
        return output

    monkeypatch.setattr(backend.model, "generate", recording)
    first = requests[:1]
    answers(backend, first)
    tokens = outputs[0]
    stop = tokens[2]
    kept = tokens[: tokens.index(stop)]
    backend.model.generation_config.eos_token_id = [stop]
    item = answers(backend, first)[first[0].sample.id, 0]
    assert (item.finish_reason, item.completion_tokens) == ("stop", len(kept) + 1)
    assert item.text == backend.processor.tokenizer.decode(kept)
    together = answers(backend, requests)[first[0].sample.id, 0]
    assert replace(together, seconds=None) == replace(item, seconds=None)


def test_sampling_settings_of_the_checkpoint_do_not_steer_a_run(copy_of: Callable[..., Path], ask: Ask) -> None:
    folder = copy_of()
    shipped = json.loads((folder / "generation_config.json").read_text())
    assert shipped["repetition_penalty"] == 1.3
    steered = texts(HFBackend(str(folder), {}), ask(SIZES))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": shipped["eos_token_id"]}))
    backend = HFBackend(str(folder), {})
    assert texts(backend, ask(SIZES)) == steered
    assert backend.model.generation_config.use_cache is True
    assert backend.identity()["generation_config"]["repetition_penalty"] == 1.0


def test_a_bad_image_fails_alone(checkpoints: dict[str, Path], ask: Ask) -> None:
    requests = ask(SIZES)
    for index, data in ((1, b"not an image"), (4, requests[0].sample.image.data)):
        sample = requests[index].sample
        image = ImageRef(sample.image.width, sample.image.height, data=data)
        requests[index] = replace(requests[index], sample=replace(sample, image=image))
    found = answers(HFBackend(str(checkpoints["qwen2_vl"]), {"batch_size": 4}), requests)
    failed = {key[0]: item.error for key, item in found.items() if item.error}
    assert set(failed) == {requests[1].sample.id, requests[4].sample.id}
    assert "not a readable image" in str(failed[requests[1].sample.id])
    assert "its annotation says 150x60" in str(failed[requests[4].sample.id])
    assert all(item.text for item in found.values() if not item.error)


def test_an_image_beyond_the_processors_aspect_ratio_fails_alone(checkpoints: dict[str, Path], ask: Ask) -> None:
    requests = ask([(84, 84), (1, 400), (84, 84)])
    found = answers(HFBackend(str(checkpoints["qwen2_vl"]), {}), requests)
    assert [found[item.sample.id, 0].error is None for item in requests] == [True, False, True]
    assert "aspect ratio" in str(found[requests[1].sample.id, 0].error)


def test_what_breaks_a_batch_at_encoding_fails_alone(
    checkpoints: dict[str, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {})
    expected = texts(backend, ask(SIZES))
    real = type(backend.processor).__call__

    def picky(self: Any, text: list[str], images: list[Any], **options: Any) -> Any:
        if any(image.size == (200, 100) for (image,) in images):
            raise ValueError("no such shape")
        return real(self, text=text, images=images, **options)

    monkeypatch.setattr(type(backend.processor), "__call__", picky)
    for _ in range(2):
        found = answers(backend, ask(SIZES))
        failed = {key for key, item in found.items() if item.error}
        assert len(failed) == 1
        assert all(found[key].text == expected[key] for key in expected if key not in failed)
    told = [record.getMessage() for record in caplog.records if "one by one" in record.getMessage()]
    assert told == [
        "the processor refuses 7 questions together (ValueError: no such shape); such batches are answered "
        "one by one, slowly"
    ]


def test_when_memory_runs_out_the_batch_is_halved_and_nothing_is_lost(
    checkpoints: dict[str, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {"batch_size": 8})
    expected = texts(backend, ask(SIZES))
    real = backend.model.generate
    batches: list[int] = []

    def scarce(**inputs: Any) -> Any:
        batches.append(len(inputs["input_ids"]))
        if batches[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(**inputs)

    monkeypatch.setattr(backend.model, "generate", scarce)
    assert texts(backend, ask(SIZES)) == expected
    assert batches == [7, 3, 1, 1, 1, 1, 1, 1, 1]


def test_a_sample_that_is_too_large_by_itself_fails_alone(
    checkpoints: dict[str, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {"batch_size": 2})

    def none(**_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backend.model, "generate", none)
    found = answers(backend, ask(SIZES[:3]))
    assert {item.error for item in found.values()} == {"out of memory for this sample alone"}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 12.0 GiB for an array"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_runs_out_at_encoding_halves_the_batch_too(
    checkpoints: dict[str, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {"batch_size": 8})
    expected = texts(backend, ask(SIZES))
    real = type(backend.processor).__call__

    def scarce(self: Any, text: list[str], **options: Any) -> Any:
        if len(text) > 3:
            raise error
        return real(self, text=text, **options)

    monkeypatch.setattr(type(backend.processor), "__call__", scarce)
    assert texts(backend, ask(SIZES)) == expected
    assert backend.batch_size == 3


@pytest.mark.parametrize("error", [IndexError("index out of range"), RuntimeError("shape mismatch"), StopIteration()])
def test_a_sample_that_breaks_the_forward_pass_fails_alone(
    checkpoints: dict[str, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {"batch_size": 8})
    requests = ask(SIZES)
    expected = texts(backend, requests)
    real = backend.model.generate
    batches: list[int] = []

    def picky(**inputs: Any) -> Any:
        batches.append(len(inputs["input_ids"]))
        if [1, 4, 10] in inputs["image_grid_thw"].tolist():  # the image of 150x60, resized to 140x56
            raise error
        return real(**inputs)

    monkeypatch.setattr(backend.model, "generate", picky)
    found = answers(backend, requests)
    broken = requests[4].sample.id, 0
    assert {key for key, item in found.items() if item.error} == {broken}
    assert str(found[broken].error).startswith(f"the model fails on it: {type(error).__name__}")
    assert all(found[key].text == expected[key] for key in expected if key != broken)
    assert sorted(batches) == [1, 1, 2, 2, 3, 4, 7], "halved around the sample: most of the batch is answered together"
    assert backend.batch_size == 8, "an error of one sample is no reason for smaller batches"


def test_a_gpu_that_is_lost_ends_the_run(
    checkpoints: dict[str, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {})
    calls = 0

    def lost(**_: Any) -> Any:
        nonlocal calls
        calls += 1
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(backend.model, "generate", lost)
    with pytest.raises(BackendError, match="the GPU cannot go on after RuntimeError: CUDA error: device-side assert"):
        answers(backend, ask(SIZES))
    assert calls == 1


def test_requests_are_read_a_window_at_a_time(checkpoints: dict[str, Path], ask: Ask) -> None:
    requests = ask([(28, 28)] * 40, sampling=Sampling(max_tokens=1))
    read = 0

    def stream() -> Iterator[Request]:
        nonlocal read
        for request in requests:
            read += 1
            yield request

    backend = HFBackend(str(checkpoints["qwen2_vl"]), {"batch_size": 2})
    completions = backend.generate(stream())
    assert read == 0
    next(completions)
    assert read == 2 * WINDOW_BATCHES
    assert len(list(completions)) == 39


def test_requests_with_different_sampling_may_be_mixed(checkpoints: dict[str, Path], ask: Ask) -> None:
    short, long = (ask(SIZES[:3], sampling=Sampling(max_tokens=length)) for length in (2, 7))
    mixed = [replace(item, n=1) for item in long] + short
    found = answers(HFBackend(str(checkpoints["qwen2_vl"]), {}), mixed)
    assert {n: item.completion_tokens for (_, n), item in found.items()} == {0: 2, 1: 7}


def test_closing_frees_the_model(checkpoints: dict[str, Path], ask: Ask) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {})
    before = texts(backend, ask(SIZES[:2]))
    backend.close()
    assert "model" not in backend.__dict__
    assert texts(backend, ask(SIZES[:2])) == before

"""The pixel limits that a run records are the ones that its images are resized by."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.models.pixel_limits import set_pixel_limits
from vrft_bench.harness.run import evaluate
from vrft_bench.tasks import get_task
from vrft_bench.tasks.profiles import NORM_1, QWEN2_VL, QWEN3_VL

Ask = Callable[..., list[Request]]


def processed(backend: HFBackend, *requests: Request) -> list[tuple[int, int] | None]:
    found = {item.sample_id: item.processed for item in backend.generate(requests)}
    return [found[request.sample.id] for request in requests]


def with_size(folder: Path, **fields: Any) -> Path:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


def test_a_request_is_resized_by_the_limits_of_its_own_profile(checkpoints: dict[str, Path], ask: Ask) -> None:
    """In one batch of requests, too: two profiles are answered apart."""
    requests = ask([(84, 84), (84, 84), (200, 100)])
    large = replace(QWEN2_VL, min_pixels=60_000)
    requests[1:] = [replace(request, profile=large) for request in requests[1:]]
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {})
    assert processed(backend, *requests) == [(84, 84), large.processed_size(84, 84), large.processed_size(200, 100)]
    assert large.processed_size(84, 84) == (252, 252)


def test_limits_of_the_arguments_go_before_those_of_any_profile(checkpoints: dict[str, Path], ask: Ask) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {"max_pixels": 7000})
    assert backend.with_pixel_limits(NORM_1) == replace(NORM_1, max_pixels=7000)
    assert processed(backend, *ask([(200, 100)])) == [(112, 56)]


def test_with_profile_the_run_records_the_limits_that_are_used(tmp_path: Path) -> None:
    values = {"model": "hf/tiny", "limit": 2, "max_tokens": 2, "max_failures": 1.0, "output_dir": tmp_path}
    for given, args, (smallest, largest) in (
        ("norm_1", {}, (NORM_1.min_pixels, NORM_1.max_pixels)),
        ("qwen3-vl", {}, (QWEN3_VL.min_pixels, QWEN3_VL.max_pixels)),
        ("norm_1", {"min_pixels": 90_000, "max_pixels": 100_000}, (90_000, 100_000)),
    ):
        config = make_config({**values, "profile": given, "model_args": args})
        result = evaluate(get_task("detection"), HFBackend("tiny", {**args, "device": "cpu"}), config)
        recorded = json.loads((result.folder / "run.json").read_text())["identity"]["profile"]
        assert (recorded["min_pixels"], recorded["max_pixels"]) == (smallest, largest)
        for line in (result.folder / "samples.jsonl").read_text().splitlines():
            width, height = json.loads(line)["processed"]
            assert smallest <= width * height <= largest


def test_limits_other_than_the_checkpoints_own_are_set_with_a_note(
    copy_of: Callable[..., Path], ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    folder = with_size(copy_of(), size={"shortest_edge": 3136, "longest_edge": 50_000})
    backend = HFBackend(str(folder), {})
    for _ in range(2):
        assert processed(backend, *ask([(400, 400)])) == [(392, 392)]
    (note,) = caplog.messages
    assert "3136 to 12845056 pixels, as the profile says, and not to 3136 to 50000" in note
    assert "--model-args min_pixels=3136,max_pixels=50000" in note


@pytest.mark.parametrize(
    ("size", "args"),
    [
        ({"shortest_edge": 3136, "longest_edge": 12_845_056}, {}),
        ({"shortest_edge": 3136, "longest_edge": 50_000}, {"max_pixels": 50_000}),
        ({"shortest_edge": 3136, "longest_edge": 12_845_056}, {"max_pixels": 60_000}),
    ],
    ids=["the same", "the user keeps them", "the user changes them"],
)
def test_no_note_where_nothing_is_changed_behind_the_users_back(
    copy_of: Callable[..., Path],
    ask: Ask,
    caplog: pytest.LogCaptureFixture,
    size: dict[str, int],
    args: dict[str, int],
) -> None:
    processed(HFBackend(str(with_size(copy_of(), size=size)), args), *ask([(84, 84)]))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_limits_in_the_older_keys_become_edges(copy_of: Callable[..., Path], ask: Ask) -> None:
    folder = with_size(copy_of(), size={"min_pixels": 3136, "max_pixels": 20_000})
    backend = HFBackend(str(folder), {})
    size = backend.processor.image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == (3136, 20_000)
    assert processed(backend, *ask([(400, 400)])) == [(392, 392)]


def test_limits_that_the_user_gives_and_that_cannot_be_set_are_a_users_mistake(
    copy_of: Callable[..., Path], ask: Ask
) -> None:
    folder = with_size(copy_of(), do_resize=False)
    with pytest.raises(UserError, match=r"held to max_pixels=50000: its Qwen2VLImageProcessorPil does not resize them"):
        processed(HFBackend(str(folder), {"max_pixels": 50_000}), *ask([(84, 84)]))
    assert processed(HFBackend(str(folder), {}), *ask([(84, 84)])) == [(84, 84)]


def test_a_processor_that_does_not_resize_by_area_is_left_as_it_is() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    clip = CLIPImageProcessorPil()
    set_pixel_limits(clip, (3136, 50_000))
    assert dict(clip.size) == {"shortest_edge": 224}
    with pytest.raises(UserError, match="held to min_pixels=3136 and max_pixels=50000: its CLIPImageProcessorPil"):
        set_pixel_limits(clip, (3136, 50_000), given=(3136, 50_000))

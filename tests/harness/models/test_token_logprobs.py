"""Log-probabilities of tokens are the model's own, change no answer, and say where in the text each token ends."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper

from vrft_bench.errors import UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.base import Completion, Request, Sampling
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.models.response_cache import CachedBackend
from vrft_bench.harness.models.token_logprobs import ChoiceRecorder, along
from vrft_bench.harness.plan import make_plan
from vrft_bench.harness.records import read_records
from vrft_bench.harness.rescore import rescore
from vrft_bench.harness.run import carry_out
from vrft_bench.tasks import get_task
from vrft_bench.tasks.profiles import QWEN2_VL

SIZES = [(84, 84), (30, 120), (200, 100), (84, 84), (150, 60)]
GREEDY = Sampling(max_tokens=60)
DRAWN = Sampling(temperature=1.3, top_p=0.9, max_tokens=60, n=2, seed=3)
Ask = Callable[..., list[Request]]


@pytest.fixture(scope="module")
def plain() -> HFBackend:
    return HFBackend("tiny", {"device": "cpu"})


@pytest.fixture(scope="module")
def telling() -> HFBackend:
    return HFBackend("tiny", {"device": "cpu", "logprobs": "true"})


def answers(backend: HFBackend | CachedBackend, requests: list[Request]) -> dict[tuple[str, int], Completion]:
    return {(one.sample_id, one.n): replace(one, seconds=None) for one in backend.generate(requests)}


def all_of(requests: list[Request]) -> list[Request]:
    return [replace(request, n=n) for request in requests for n in range(request.sampling.n)]


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_answers_are_the_same_with_and_without_them(
    plain: HFBackend, telling: HFBackend, ask: Ask, sampling: Sampling
) -> None:
    requests = all_of(ask(SIZES, sampling=sampling))
    without, within = answers(plain, requests), answers(telling, requests)
    assert {key: replace(one, token_logprobs=None) for key, one in within.items()} == without
    assert all(one.token_logprobs for one in within.values())
    assert {one.token_logprobs for one in without.values()} == {None}


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_they_are_those_of_a_plain_forward_pass_at_any_temperature(
    telling: HFBackend, ask: Ask, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    real, tokenizer = telling.model.generate, telling.processor.tokenizer
    seen: list[tuple[dict[str, Any], torch.Tensor]] = []

    def recording(**inputs: Any) -> torch.Tensor:
        output: torch.Tensor = real(**inputs)
        seen.append((inputs, output))
        return output

    monkeypatch.setattr(telling.model, "generate", recording)
    found = list(telling.generate(all_of(ask(SIZES, sampling=sampling))))
    ((inputs, output),) = seen  # one batch, in whose order completions come
    width = inputs["input_ids"].shape[1]
    more = output.shape[1] - width
    longer = {
        name: torch.nn.functional.pad(inputs[name], (0, more), value=value)
        for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0))
        if name in inputs
    }
    images = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
    with torch.inference_mode():
        logits = telling.model(input_ids=output, **longer, **images).logits[:, width - 1 : -1].float()
    expected = logits.log_softmax(-1).gather(-1, output[:, width:, None])[..., 0]
    stops = set(telling.model.generation_config.eos_token_id)
    compared = 0
    for one, tokens, wanted in zip(found, output[:, width:].tolist(), expected.tolist(), strict=True):
        assert one.token_logprobs is not None
        kept = tokens[: next((place for place, token in enumerate(tokens) if token in stops), None)]
        places = [place for place, token in enumerate(kept) if token not in tokenizer.all_special_ids]
        assert len(one.token_logprobs) == len(places)
        for place, (end, logprob) in zip(places, one.token_logprobs, strict=True):
            assert abs(logprob - wanted[place]) < 1e-4
            assert end == len(tokenizer.decode(kept[: place + 1], skip_special_tokens=True))
            compared += 1
    assert compared > 100


def test_a_tag_that_the_chat_template_wrote_lies_before_the_first_token(telling: HFBackend, tmp_path: Path) -> None:
    folder = tmp_path / "thinking"
    shutil.copytree(telling.checkpoint.source, folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>"))
    task = get_task("coco_ovd")
    sample = next(iter(task.load(make_config({"task": ["coco_ovd"], "model": "hf/tiny"}).data_spec()).samples()))
    request = Request(task, sample, 0, task.messages(sample, QWEN2_VL), QWEN2_VL, Sampling(max_tokens=160))
    (one,) = HFBackend(str(folder), {"logprobs": True}).generate([request])
    assert one.token_logprobs is not None
    first, *_, (last, _) = one.token_logprobs
    assert one.text[: first[0]].startswith("<think>I")
    assert first[0] > len("<think>")
    assert last == len(one.text)


def test_tokens_that_leave_no_text_are_left_out(telling: HFBackend, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "<think>I look.</think>\n<|vision_start|><answer>No Objects<|vision_pad|></answer>"
    tokenizer = telling.processor.tokenizer
    ids = tokenizer(said + "<|im_end|>")["input_ids"]

    def generate(*, input_ids: torch.Tensor, logits_processor: Any, **_: Any) -> torch.Tensor:
        for token in ids:  # a vocabulary whose token `ids[k]` has probability 1/2 at step k, and all others the rest
            scores = torch.zeros(1, len(tokenizer))
            scores[0, token] = math.log(len(tokenizer) - 1)
            logits_processor(input_ids, scores)
        return torch.cat([input_ids, torch.tensor([ids])], dim=1)

    monkeypatch.setattr(telling.model, "generate", generate)
    (one,) = telling.generate(ask([(84, 84)]))
    assert one.text == "<think>I look.</think>\n<answer>No Objects</answer>"
    assert one.token_logprobs is not None
    assert len(one.token_logprobs) == len(ids) - 3
    assert [logprob for _, logprob in one.token_logprobs] == pytest.approx([math.log(0.5)] * (len(ids) - 3), abs=1e-6)
    pieces = [one.text[start:end] for start, end in pairwise((0, *(end for end, _ in one.token_logprobs)))]
    assert pieces == [tokenizer.decode([token]) for token in ids if token not in tokenizer.all_special_ids]


def test_they_are_part_of_the_identity_only_where_they_are_asked_for(plain: HFBackend, telling: HFBackend) -> None:
    assert "logprobs" not in plain.identity()
    assert "logprobs" not in HFBackend("tiny", {"device": "cpu", "logprobs": "false"}).identity()
    assert telling.identity() == {**plain.identity(), "logprobs": True}
    with pytest.raises(UserError, match="logprobs='often' is neither true nor false") as refused:
        HFBackend("tiny", {"logprobs": "often"})
    assert "logprobs=true" in str(refused.value)


def test_a_record_holds_them_to_four_places_and_a_cached_answer_and_a_new_scoring_keep_them(
    tmp_path: Path, telling: HFBackend
) -> None:
    def run(folder: str, cache: Path | None) -> list[dict[str, Any]]:
        config = make_config(
            {
                "task": ["lvis_fewshot"],
                "model": "hf/tiny",
                "limit": 6,
                "output_dir": tmp_path / folder,
                "max_tokens": 80,
            }
        )
        backend = telling if cache is None else CachedBackend(telling, cache)
        result = carry_out(make_plan(get_task("lvis_fewshot"), QWEN2_VL, config), backend)
        written = (result.folder / "samples.jsonl").read_bytes()
        rescore(result.folder)
        assert (result.folder / "samples.jsonl").read_bytes() == written
        records = sorted(read_records(result.folder / "samples.jsonl"), key=lambda record: str(record["id"]))
        return [{key: value for key, value in record.items() if key != "seconds"} for record in records]

    first = run("plain", None)
    assert len(first) == 6
    for record in first:
        ends = [end for end, _ in record["token_logprobs"]]
        assert ends == sorted(ends)
        assert ends[-1] == len(record["text"])
        assert all(logprob == round(logprob, 4) <= 0.0 for _, logprob in record["token_logprobs"])
        assert "-0.0]" not in json.dumps(record)
    assert run("asked", tmp_path / "cache") == first
    assert run("remembered", tmp_path / "cache") == first


def test_of_each_step_one_number_per_row_is_kept_and_never_the_vocabulary() -> None:
    torch.manual_seed(0)
    sharpened = LogitsProcessorList([TemperatureLogitsWarper(0.5)])
    recorder, begun = ChoiceRecorder(sharpened), torch.zeros(2, 1, dtype=torch.long)
    expected = []
    for scores in torch.randn(3, 2, 50_000):
        assert torch.equal(recorder(begun, scores), scores / 0.5)
        expected.append(scores.log_softmax(-1).max(-1).values)
    assert sum(step.untyped_storage().nbytes() for step in recorder._steps) == 3 * 2 * 4
    torch.testing.assert_close(torch.tensor(recorder.rows()), torch.stack(expected, dim=1))


def test_what_the_pieces_do_not_make_has_none() -> None:
    assert along("ab", ["a", "b"], [-1.0, -2.0]) == ((1, -1.0), (2, -2.0))
    assert along("ab", ["a", "c"], [-1.0, -2.0]) is None
    assert along("abc", ["a", "b"], [-1.0, -2.0]) is None
    assert along("", [], []) == ()
    assert along("ab", ["a", "b", "<eos>"], [-1.0, -2.0, -3.0]) == ((1, -1.0), (2, -2.0))


@pytest.mark.parametrize("logprob", [math.nan, -math.inf, 0.5])
def test_a_number_that_is_no_log_probability_leaves_none(logprob: float) -> None:
    assert along("ab", ["a", "b"], [-1.0, logprob]) is None
    assert along("ab", ["a", "b"], [-1.0, 1e-7]) == ((1, -1.0), (2, 0.0))


def test_a_character_of_several_tokens_is_the_last_ones() -> None:
    assert along("a😀b", ["a", "�", "�", "�", "b"], [-1.0, -2.0, -3.0, -4.0, -5.0]) == (
        (1, -1.0),
        (1, -2.0),
        (1, -3.0),
        (2, -4.0),
        (3, -5.0),
    )
    assert along("a😀", ["a", "", "😀"], [-1.0, -2.0, -3.0]) == ((1, -1.0), (1, -2.0), (2, -3.0))
    assert along("a �", ["a", " �", ""], [-1.0, -2.0, -3.0]) == ((1, -1.0), (2, -2.0), (3, -3.0))

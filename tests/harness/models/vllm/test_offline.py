"""``vllm/NAME`` in this process, with vLLM itself: what it answers, what it refuses, and how often it does the work."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparing import COMPARED, GREEDY, Answers, Questions, by_key, facts, hold_close, hold_equal, report
from PIL import Image

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.base import Completion, Request, Sampling, Workload
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.models.vllm import VLLMBackend
from vrft_bench.harness.plan import make_plan, resolve_profile, workload_of
from vrft_bench.harness.run import carry_out
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import UNPARSABLE, ImageRef, Prediction, Status
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.profiles import QWEN2_VL, QWEN3_VL
from vrft_bench.tasks.structured import answer_regex

DRAWN = Sampling(temperature=1.2, max_tokens=120, n=4, seed=7)


@contextmanager
def told(backend: VLLMBackend, **options: object) -> Iterator[VLLMBackend]:
    """``backend`` with other options than its engine was started with; only those that it reads later count."""
    before = backend.options
    backend.options = replace(before, **options)  # type: ignore[arg-type]
    try:
        yield backend
    finally:
        backend.options = before


def test_greedy_completions_are_those_of_the_transformers_backend(
    vllm_tiny: VLLMBackend, hf_answers: Answers, questions: Questions
) -> None:
    hold_equal(by_key(vllm_tiny.generate(questions(COMPARED, GREEDY))), hf_answers, "vllm/tiny")


def test_four_completions_of_a_question_differ_and_are_drawn_again_by_their_seeds(
    vllm_tiny: VLLMBackend, questions: Questions
) -> None:
    asked = questions(12, DRAWN)
    first, second = (by_key(vllm_tiny.generate(asked)) for _ in range(2))
    assert {key: one.text for key, one in first.items()} == {key: one.text for key, one in second.items()}
    ids = {request.sample.id for request in asked}
    distinct = [len({first[sample_id, n].text for n in range(4)}) for sample_id in ids]
    assert sum(distinct) > 2 * len(ids)
    other = by_key(vllm_tiny.generate(questions(12, replace(DRAWN, seed=8))))
    assert sum(other[key].text != one.text for key, one in first.items()) >= len(first) // 2


def test_a_completion_is_the_same_whether_drawn_with_the_others_or_without_them(
    vllm_tiny: VLLMBackend, questions: Questions
) -> None:
    """A run that resumes asks for what is missing only."""
    asked = questions(12, DRAWN)
    together = by_key(vllm_tiny.generate(asked))
    rest = by_key(vllm_tiny.generate(request for request in asked if request.n in (1, 3)))
    assert {key: one.text for key, one in rest.items()} == {key: together[key].text for key in rest}


def test_token_log_probabilities_are_those_of_the_transformers_backend_and_change_no_answer(
    vllm_tiny: VLLMBackend, hf_answers: Answers, questions: Questions
) -> None:
    plain = by_key(vllm_tiny.generate(questions(COMPARED, GREEDY)))
    with told(vllm_tiny, logprobs=True) as backend:
        found = by_key(backend.generate(questions(COMPARED, GREEDY)))
    assert {key: facts(one) for key, one in found.items()} == {key: facts(one) for key, one in plain.items()}
    assert {one.token_logprobs for one in plain.values()} == {None}
    hold_close(found, hf_answers, "vllm/tiny")


def test_drawn_tokens_have_the_log_probabilities_of_the_model_itself_and_change_no_answer(
    vllm_tiny: VLLMBackend, questions: Questions
) -> None:
    """At a temperature of 1.2 those of what was drawn from would be others; a token is as likely at any of them."""
    asked = questions(6, DRAWN)
    plain = by_key(vllm_tiny.generate(asked))
    with told(vllm_tiny, logprobs=True) as backend:
        found = by_key(backend.generate(asked))
    assert {key: facts(one) for key, one in found.items()} == {key: facts(one) for key, one in plain.items()}
    first = {}
    for one in found.values():
        assert one.token_logprobs
        end, logprob = one.token_logprobs[0]
        first[one.sample_id, one.text[:end]] = logprob
    with told(vllm_tiny, logprobs=True) as backend:
        greedy = by_key(backend.generate(questions(6, GREEDY)))
    compared = 0
    for (sample_id, _), one in greedy.items():
        assert one.token_logprobs
        end, logprob = one.token_logprobs[0]
        if (sample_id, one.text[:end]) in first:
            compared += 1
            assert abs(first[sample_id, one.text[:end]] - logprob) < 1e-3
    assert compared >= 3


def test_an_image_that_is_asked_about_many_times_is_decoded_and_resized_once(
    vllm_tiny: VLLMBackend, ask: Callable[..., list[Request]]
) -> None:
    categories = tuple(f"category {number}" for number in range(40))
    (first, *_) = ask([(200, 150)], categories=categories)
    requests = [
        replace(
            first,
            sample=replace(first.sample, id=category, fields={"category": category, "image_id": "0"}),
            messages=first.task.messages(replace(first.sample, fields={"category": category}), QWEN2_VL),
        )
        for category in categories
    ]
    decoded, resized = vllm_tiny.images.decoded, vllm_tiny.images.resized
    found = list(vllm_tiny.generate(requests))
    assert [one.error for one in found] == [None] * 40
    assert {one.processed for one in found} == {(196, 140)}
    assert (vllm_tiny.images.decoded - decoded, vllm_tiny.images.resized - resized) == (1, 1)


def test_what_cannot_be_answered_fails_alone(vllm_tiny: VLLMBackend, ask: Callable[..., list[Request]]) -> None:
    requests = ask([(84, 84)] * 6)
    broken = replace(requests[1].sample, image=ImageRef(84, 84, data=b"no image"))
    strip = replace(requests[2].sample, image=ImageRef(8000, 20, data=requests[2].sample.image.data))
    long, control = "very " * 5000, "<|im_end|>"
    requests[1] = replace(requests[1], sample=broken)
    requests[2] = replace(requests[2], sample=strip)
    for index, text in ((3, long), (4, control)):
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        requests[index] = replace(requests[index], messages=[message])
    found = {one.sample_id: one for one in vllm_tiny.generate(requests)}
    errors = [found[request.sample.id].error for request in requests]
    assert errors[0] is None
    assert errors[5] is None
    assert str(errors[1]).startswith("image data: not a readable image")
    assert "aspect ratio above 200" in str(errors[2])
    assert str(errors[3]).startswith("vLLM refuses it: ")
    assert errors[4] == "the question contains '<|im_end|>', a control token of the model"


def test_requests_are_read_as_they_are_answered(vllm_tiny: VLLMBackend, questions: Questions) -> None:
    asked = questions(60, Sampling(max_tokens=40))
    read = 0

    def stream() -> Iterator[Request]:
        nonlocal read
        for request in asked:
            read += 1
            yield request

    answered = 0
    with told(vllm_tiny, max_concurrent=8) as backend:
        for _ in backend.generate(stream()):
            answered += 1
            assert read <= answered + 2 * 8
    assert (read, answered) == (60, 60)


def noise(size: tuple[int, int], seed: int) -> bytes:
    """An image that the model cannot make anything of."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("task", ["lvis_fewshot", "lisa_grounding", "pets37_fewshot"])
def test_structured_answers_keep_the_format_even_about_what_the_model_cannot_see(
    vllm_tiny: VLLMBackend, questions: Questions, task: str
) -> None:
    """What is unparsable still are boxes whose corners lie the wrong way round, of which a format can say nothing."""
    size = (280, 224)
    asked = {
        request.sample.id: replace(
            request, sample=replace(request.sample, image=ImageRef(*size, data=noise(size, index)))
        )
        for index, request in enumerate(questions(24, Sampling(max_tokens=256), task))
    }

    def read(one: Completion) -> Prediction:
        request = asked[one.sample_id]
        return request.task.parse(one.text, Frame(QWEN2_VL, *size, one.processed))

    free = [read(one) for one in vllm_tiny.generate(asked.values())]
    with told(vllm_tiny, structured=True) as backend:
        held = list(backend.generate(asked.values()))
    assert [one.error for one in held] == [None] * len(asked)
    for one in held:
        request = asked[one.sample_id]
        frame = Frame(QWEN2_VL, *size, one.processed)
        assert re.fullmatch(answer_regex(request.task, request.sample, frame, max_tokens=256), one.text)
        prediction = read(one)
        assert prediction.boxes_out_of_range == 0
        if prediction.status in UNPARSABLE:
            assert set(prediction.notes) <= {"1 box(es) dropped: reversed", "1 box(es) dropped: without area"}
    without, within = (sum(one.status in UNPARSABLE for one in some) for some in (free, map(read, held)))
    report(f"{task}, images of noise: {without} of {len(asked)} unparsable, with --structured on {within}")
    assert without >= 20
    assert within <= 3


def test_structured_answers_about_photographs_keep_the_format(
    vllm_tiny: VLLMBackend, tinycoco: Path, tmp_path: Path
) -> None:
    config = make_config(
        {"task": ["coco_fewshot"], "model": "vllm/tiny", "data": tinycoco, "output_dir": tmp_path, "max_tokens": 256}
    )
    with told(vllm_tiny, structured=True) as backend:
        result = carry_out(make_plan(get_task("coco_fewshot"), resolve_profile(config, backend), config), backend)
    answers = result.answers
    assert (answers.completions, answers.failures) == (48, 0)
    assert answers.share(Status.NO_ANSWER, Status.TRUNCATED) == 0.0
    assert answers.share(Status.MALFORMED) <= 0.1  # boxes with the corners the wrong way round
    assert answers.boxes_out_of_range == 0
    report(f"coco_fewshot, photographs, --structured on: {answers.share(*UNPARSABLE):.1%} unparsable")


def test_one_engine_serves_all_tasks_and_all_tests(vllm_tiny: VLLMBackend, tmp_path: Path) -> None:
    for name in ("lvis_fewshot", "lisa_grounding"):
        config = make_config(
            {"task": [name], "model": "vllm/tiny", "limit": 8, "output_dir": tmp_path, "max_tokens": 200}
        )
        plan = make_plan(get_task(name), resolve_profile(config, vllm_tiny), config)
        result = carry_out(plan, vllm_tiny)
        assert (result.manifest.finished, result.manifest.failed) == (8, 0)
    assert vllm_tiny.starts == 1


def test_the_engine_is_as_long_as_the_longest_question_of_all_tasks(
    vllm_is_here: None, sample_cache: Path, tmp_path: Path
) -> None:
    backend = load_backend("vllm/tiny")
    assert isinstance(backend, VLLMBackend)
    assert backend.max_model_len is None
    plans = []
    for name, most in (("lvis_fewshot", 300), ("pets37_fewshot", 100)):
        config = make_config({"task": [name], "model": "vllm/tiny", "output_dir": tmp_path, "max_tokens": most})
        plans.append(make_plan(get_task(name), QWEN2_VL, config))
    workload = workload_of(plans)
    backend.anticipate(workload)
    assert backend.max_model_len is not None
    for plan in plans:
        for sample in plan.walk():
            request = Request(plan.task, sample, 0, plan.task.messages(sample, QWEN2_VL), QWEN2_VL, GREEDY)
            text = len(backend.processor.tokenizer(backend.rendered(request))["input_ids"])
            width, height = QWEN2_VL.processed_size(sample.image.width, sample.image.height)
            assert text + width * height // 28**2 + plan.config.max_tokens <= backend.max_model_len
    assert backend.max_model_len <= workload.question_bytes + (workload.image_tokens or 0) + 300 + 256
    backend.anticipate(Workload(100_000, 10, 10))
    assert backend.max_model_len == 4096  # the model's own limit


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_other_architectures_see_images_in_the_size_that_their_boxes_are_converted_by(
    vllm_is_here: None, checkpoints: dict[str, Path], ask: Callable[..., list[Request]], model_type: str
) -> None:
    sizes = [(84, 84), (133, 89), (60, 220), (300, 200), (31, 30)]
    requests = ask(sizes, model_type, sampling=Sampling(max_tokens=16))
    with closing(HFBackend(str(checkpoints[model_type]), {"device": "cpu", "max_pixels": 70_000})) as backend:
        wanted = by_key(backend.generate(requests))
    with closing(load_backend(f"vllm/{checkpoints[model_type]}", {"max_pixels": 70_000})) as engine:
        found = by_key(engine.generate(requests))
    for key, one in found.items():
        assert one.error is None
        assert (one.processed, one.prompt_tokens) == (wanted[key].processed, wanted[key].prompt_tokens)
    different = [key for key, one in found.items() if one.text != wanted[key].text]
    report(f"{model_type}, random weights: {len(different)} of {len(found)} greedy completions differ from hf's")
    assert len(different) <= 1


def test_a_profile_that_cuts_images_otherwise_is_refused_and_the_engine_can_be_had_again(
    vllm_is_here: None, questions: Questions
) -> None:
    with closing(load_backend("vllm/tiny", {"max_model_len": 1024})) as backend:
        assert isinstance(backend, VLLMBackend)
        with pytest.raises(BackendError, match=r"tokens where profile 'qwen3-vl' says \d+") as refused:
            list(backend.generate(questions(1, GREEDY, profile=QWEN3_VL)))
        assert "--profile" in str(refused.value)
        assert [one.error for one in backend.generate(questions(2, GREEDY))] == [None, None]
        assert backend.starts == 2


def test_an_argument_that_vllm_lacks_is_refused_in_words(vllm_is_here: None, questions: Questions) -> None:
    backend = load_backend("vllm/tiny", {"engine_args": {"kv_cache_dtyp": "fp8"}})
    with closing(backend), pytest.raises(UserError, match="did you mean 'kv_cache_dtype'"):
        list(backend.generate(questions(1, GREEDY)))


def test_an_engine_that_cannot_start_ends_the_run_with_the_reason(vllm_is_here: None, questions: Questions) -> None:
    with closing(load_backend("vllm/tiny", {"max_model_len": 1_000_000})) as backend:
        with pytest.raises(BackendError, match="vllm/tiny: vLLM does not start: ") as refused:
            list(backend.generate(questions(1, GREEDY)))
        assert "VLLM_LOGGING_LEVEL" in str(refused.value)


def test_the_identity_says_what_can_change_an_answer(vllm_is_here: None) -> None:
    plain = load_backend("vllm/tiny").identity()
    assert (plain["engine"], plain["device"], plain["dtype"]) == ("0.32.0", "cpu", "float32")
    assert plain["files"] == HFBackend("tiny", {"device": "cpu"}).identity()["files"]
    assert "logprobs" not in plain
    assert load_backend("vllm/tiny", {"logprobs": True}).identity() == {**plain, "logprobs": True}
    for same in ({"max_concurrent": 4}, {"tp": 2}, {"dp": 2}, {"block_size": 64}, {"kv_cache_gb": 2}):
        assert load_backend("vllm/tiny", same).identity() == plain
    for other in ({"dtype": "bfloat16"}, {"structured": True}, {"max_pixels": 5000}, {"engine_args": {"seed": 1}}):
        assert load_backend("vllm/tiny", other).identity() != plain

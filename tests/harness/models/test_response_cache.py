"""``--cache``: the same records as without it, and no question asked twice."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.errors import UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models import open_backend, response_cache
from vrft_bench.harness.models.answer_store import FILE
from vrft_bench.harness.models.base import (
    Anticipates,
    Backend,
    Completion,
    LimitsPixels,
    Request,
    Sampling,
    Workload,
)
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.models.mock import mock_backend
from vrft_bench.harness.models.response_cache import CachedBackend, request_key
from vrft_bench.harness.run import evaluate
from vrft_bench.harness.store import SAMPLES
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ImageRef, Sample
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL

DETECTION = get_task("detection")
GREEDY = Sampling(max_tokens=24)


def question(name: str = "0", *, image: bytes = b"an image", sampling: Sampling = GREEDY, n: int = 0) -> Request:
    fields = {"category": f"thing {name}", "image_id": name}
    sample = Sample(name, ImageRef(40, 30, data=image), fields, BoxTarget(()))
    return Request(DETECTION, sample, n, DETECTION.messages(sample, QWEN2_VL), QWEN2_VL, sampling)


class Reader:
    """A backend that answers what it is asked, ``ahead`` questions at a time, in reverse."""

    def __init__(self, ahead: int = 1, fail: frozenset[str] = frozenset()) -> None:
        self.asked: list[tuple[str, int]] = []
        self.sessions = 0
        self._ahead = ahead
        self._fail = fail

    def identity(self) -> Mapping[str, Any]:
        return {"name": "reader"}

    def profile(self) -> ModelProfile | None:
        return None

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        self.sessions += 1
        stream = iter(requests)
        while window := list(islice(stream, self._ahead)):
            for request in reversed(window):
                self.asked.append((request.sample.id, request.n))
                yield self._answer(request)

    def _answer(self, request: Request) -> Completion:
        if request.sample.id in self._fail:
            return Completion(request.sample.id, request.n, "", "error", error="it fails")
        text = f"{request.messages[0]['content'][1]['text']} n={request.n} seed={request.sampling.seed}"
        return Completion(request.sample.id, request.n, text, "length", 7, 3, (28, 56), "0" * 64, seconds=0.5)

    def close(self) -> None:
        """Nothing is held."""


def answers(backend: Backend, requests: Iterable[Request]) -> dict[tuple[str, int], Completion]:
    """By key; raises where one key comes twice."""
    found: dict[tuple[str, int], Completion] = {}
    for completion in backend.generate(requests):
        assert (completion.sample_id, completion.n) not in found
        found[completion.sample_id, completion.n] = completion
    return found


def untimed(found: Mapping[tuple[str, int], Completion]) -> dict[tuple[str, int], dict[str, Any]]:
    return {key: asdict(replace(completion, seconds=None)) for key, completion in found.items()}


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    requests = [question(str(index), n=n) for index in range(20) for n in range(2)]
    plain = answers(Reader(4), requests)
    with closing(CachedBackend(first := Reader(4), tmp_path)) as backend:
        assert untimed(answers(backend, requests)) == untimed(plain)
        assert (backend.cached, len(first.asked)) == (0, 40)
    with closing(CachedBackend(second := Reader(4), tmp_path)) as backend:
        assert untimed(answers(backend, [*requests, question("new")])) == untimed(
            {
                **plain,
                **answers(Reader(), [question("new")]),
            }
        )
        assert backend.cached == 40
        assert second.asked == [("new", 0)]


def test_two_servers_share_answers_only_where_the_model_is_known_by_content(tmp_path: Path) -> None:
    class Served(Reader):
        def __init__(self, **identity: Any) -> None:
            super().__init__()
            self._identity = identity

        def identity(self) -> Mapping[str, Any]:
            return {"name": "served", **self._identity}

    def asked(address: str, **identity: Any) -> int:
        with closing(CachedBackend(inner := Served(**identity), tmp_path, address=address)) as backend:
            assert len(answers(backend, [question()])) == 1
        return len(inner.asked)

    assert asked("http://a:8000/v1", revision="server") == 1
    assert asked("http://b:8000/v1", revision="server") == 1
    assert asked("http://a:8000/v1/", revision="server") == 0
    assert asked("http://a:8000/v1", files={"model.safetensors": "0"}) == 1
    assert asked("http://b:8000/v1", files={"model.safetensors": "0"}) == 0


def test_the_model_is_not_touched_where_every_answer_is_known(tmp_path: Path) -> None:
    """Its weights would take minutes to load."""
    sample = next(iter(get_task("lvis_fewshot").load(make_config({}).data_spec()).samples()))
    request = Request(DETECTION, sample, 0, DETECTION.messages(sample, QWEN2_VL), QWEN2_VL, GREEDY)
    with closing(CachedBackend(HFBackend("tiny", {"device": "cpu"}), tmp_path)) as backend:
        (first,) = backend.generate([request])
    with closing(CachedBackend(inner := HFBackend("tiny", {"device": "cpu"}), tmp_path)) as backend:
        (second,) = backend.generate([request])
        assert {"model", "processor"} & set(vars(inner)) == set()
    assert (second.text, second.processed, second.image_sha256) == (first.text, (84, 84), first.image_sha256)
    assert (second.prompt_tokens, second.completion_tokens) == (first.prompt_tokens, first.completion_tokens)


@given(known=st.sets(st.integers(0, 59)), ahead=st.integers(1, 50), held=st.integers(1, 20), total=st.integers(0, 60))
def test_every_question_is_answered_once_whatever_is_known(known: set[int], ahead: int, held: int, total: int) -> None:
    requests = [question(str(index)) for index in range(total)]
    before = [request for index, request in enumerate(requests) if index in known]
    with TemporaryDirectory() as folder, mock.patch.object(response_cache, "HELD", held):
        with closing(CachedBackend(Reader(), Path(folder))) as backend:
            answers(backend, before)
        with closing(CachedBackend(inner := Reader(ahead), Path(folder))) as backend:
            found = answers(backend, iter(requests))
            assert untimed(found) == untimed(answers(Reader(), requests))
            assert backend.cached == len(before)
            assert len(inner.asked) == total - len(before)


def test_known_answers_are_passed_on_while_the_model_reads_ahead(tmp_path: Path) -> None:
    """A million known answers between two new questions must not pile up, nor must the model wait for them."""
    with closing(CachedBackend(Reader(), tmp_path)) as backend, mock.patch.object(response_cache, "HELD", 8):
        requests = [question(str(index)) for index in range(100)]
        answers(backend, requests[1:99])
        pulled = 0

        def counted() -> Iterator[Request]:
            nonlocal pulled
            for request in requests:
                pulled += 1
                yield request

        backend._inner = reader = Reader(ahead=50)
        lead = [pulled - given for given, _ in enumerate(backend.generate(counted()))]
        assert max(lead) <= 10
        assert reader.sessions == 2
        assert backend.cached == 98


WORDS = st.text(max_size=8)
CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "model": WORDS,
    "image": st.binary(max_size=8),
    "width": st.integers(1, 3),
    "text": WORDS,
    "profile": st.sampled_from([QWEN2_VL, QWEN2_5_VL, replace(QWEN2_VL, max_pixels=7056)]),
    "task": st.sampled_from([DETECTION, get_task("grounding"), get_task("detection", "paper")]),
    "temperature": st.sampled_from([0.0, 0.5, 1.0]),
    "top_p": st.sampled_from([0.9, 1.0]),
    "max_tokens": st.integers(1, 3),
    "n": st.integers(0, 2),
    "seed": st.integers(0, 2),
    "id": WORDS,
}


def key_of(parts: Mapping[str, Any]) -> bytes | None:
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": parts["text"]}]}]
    sampling = Sampling(parts["temperature"], parts["top_p"], parts["max_tokens"], 3, parts["seed"])
    sample = Sample(parts["id"], ImageRef(parts["width"], 5, data=parts["image"]), {}, BoxTarget(()))
    return request_key(
        Request(parts["task"], sample, parts["n"], messages, parts["profile"], sampling), str(parts["model"])
    )


@given(one=st.fixed_dictionaries(CHOICES), other=st.fixed_dictionaries(CHOICES), data=st.data())
def test_two_questions_share_a_key_only_where_all_is_the_same_that_an_answer_depends_on(
    one: dict[str, Any], other: dict[str, Any], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(CHOICES)))
    changed = {**one, name: other[name]}
    counts = one["temperature"] > 0.0 or name not in ("seed", "id")
    assert (key_of(changed) == key_of(one)) is (changed == one or not counts)


def test_the_truth_is_no_part_of_the_question() -> None:
    request = question()
    relabelled = replace(request.sample, target=BoxTarget(((1.0, 2.0, 3.0, 4.0),)), id="renamed")
    assert request_key(replace(request, sample=relabelled), "m") == request_key(request, "m")


def test_an_image_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(b"an image")
    request = question()
    by_path = replace(request, sample=replace(request.sample, image=ImageRef(40, 30, path=file)))
    assert request_key(by_path, "m") == request_key(request, "m")
    file.write_bytes(b"another one")
    assert request_key(by_path, "m") != request_key(request, "m")


def test_a_question_whose_image_cannot_be_used_is_left_to_the_model(tmp_path: Path) -> None:
    """It fails there with its reason, whatever was answered before."""
    request = question()
    gone = replace(request, sample=replace(request.sample, image=ImageRef(40, 30, path=tmp_path / "gone.png")))
    other = replace(request, sample=replace(request.sample, image=replace(request.sample.image, sha256="0" * 64)))
    assert request_key(gone, "m") is None
    assert request_key(other, "m") is None
    with closing(CachedBackend(inner := Reader(), tmp_path)) as backend:
        for _ in range(2):
            answers(backend, [gone])
    assert len(inner.asked) == 2


def test_failed_answers_are_not_kept(tmp_path: Path) -> None:
    with closing(CachedBackend(Reader(fail=frozenset({"1"})), tmp_path)) as backend:
        assert answers(backend, [question("0"), question("1")])["1", 0].error == "it fails"
    with closing(CachedBackend(inner := Reader(), tmp_path)) as backend:
        assert answers(backend, [question("0"), question("1")])["1", 0].error is None
    assert inner.asked == [("1", 0)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"text": null}', "null", '{"text": "x", "processed": [1]}'])
def test_an_answer_that_was_edited_by_hand_is_asked_anew(tmp_path: Path, text: str) -> None:
    with closing(CachedBackend(Reader(), tmp_path)) as backend:
        true = answers(backend, [question()])
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute("UPDATE answers SET completion = ?", (text,))
        database.commit()
    for asked_again in (1, 0):
        with closing(CachedBackend(inner := Reader(), tmp_path)) as backend:
            assert untimed(answers(backend, [question()])) == untimed(true)
        assert len(inner.asked) == asked_again


def test_where_the_file_fails_the_run_goes_on_without_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(CachedBackend(inner := Reader(), tmp_path)) as backend:
        answers(backend, [question("0")])
        assert backend._store is not None
        backend._store.close()
        for _ in range(2):
            assert len(answers(backend, [question("0"), question("1")])) == 2
    assert len(inner.asked) == 5
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith("going on without the cache")


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_response_cache import Reader, answers, question
from vrft_bench.harness.models.response_cache import CachedBackend

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
backend = CachedBackend(Reader(), Path(sys.argv[2]))
assert len(answers(backend, [question(str(index)) for index in range(300)])) == 300
backend.close()
"""


def test_a_full_disk_costs_the_cache_and_not_the_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "going on without the cache" in done.stderr
    with closing(CachedBackend(inner := Reader(), tmp_path)) as backend:
        answers(backend, [question(str(index)) for index in range(300)])
        assert 0 < backend.cached < 300
        assert len(inner.asked) == 300 - backend.cached


@pytest.mark.parametrize("name", ["gold", "noisy", "constant:No Objects"])
def test_what_reads_the_truth_is_not_cached(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="this one reads the truth"):
        CachedBackend(mock_backend(name, {}), tmp_path)
    with pytest.raises(UserError, match="this one reads the truth"):
        open_backend(make_config({"model": f"mock/{name}", "cache": tmp_path}))


def test_a_backend_that_says_it_does_not_read_the_truth_is_cached(tmp_path: Path) -> None:
    inner = Reader()
    inner.reads_truth = False  # type: ignore[attr-defined] - as the Ray executor says of its replicas
    with closing(CachedBackend(inner, tmp_path)) as backend:
        assert len(answers(backend, [question()])) == 1


def test_what_the_model_is_told_to_expect_is_passed_through(tmp_path: Path) -> None:
    told: list[Workload] = []
    inner = Reader()
    inner.anticipate = told.append  # type: ignore[attr-defined]
    for each in (inner, Reader()):
        with closing(CachedBackend(each, tmp_path)) as backend:
            assert isinstance(backend, Anticipates)
            backend.anticipate(Workload(10, 20, 30))
    assert told == [Workload(10, 20, 30)]


def test_the_models_own_pixel_limits_are_passed_through(tmp_path: Path) -> None:
    limited = CachedBackend(HFBackend("tiny", {"max_pixels": 7056}), tmp_path)
    plain = CachedBackend(Reader(), tmp_path)
    assert isinstance(limited, LimitsPixels)
    assert limited.with_pixel_limits(QWEN2_VL).max_pixels == 7056
    assert plain.with_pixel_limits(QWEN2_VL) == QWEN2_VL
    limited.close()
    plain.close()


def test_a_run_has_the_same_records_with_the_cache_and_without(tmp_path: Path, sample_cache: Path) -> None:
    def run(name: str, **more: Any) -> tuple[list[Any], Any]:
        fields = {"model": "hf/tiny", "limit": 12, "max_tokens": 120, "output_dir": tmp_path / name, **more}
        config = make_config(fields)
        with closing(open_backend(config)) as backend:
            result = evaluate(get_task("lvis_fewshot"), backend, config)
        records = [json.loads(line) for line in (result.folder / SAMPLES).read_text().splitlines()]
        for record in records:
            record.pop("seconds", None)
        return sorted(records, key=lambda record: (record["id"], record["n"])), result

    for more in ({}, {"temperature": 1.0, "samples": 2, "seed": 3}):
        plain, without = run(f"plain{len(more)}", **more)
        filled, filling = run(f"first{len(more)}", cache=tmp_path / "cache", **more)
        cached, with_it = run(f"second{len(more)}", cache=tmp_path / "cache", **more)
        assert plain == filled == cached
        assert without.manifest.fingerprint == with_it.manifest.fingerprint
        assert without.report == with_it.report
        sessions = [result.manifest.sessions[0].cached for result in (without, filling, with_it)]
        assert sessions == [None, 0, len(plain)]

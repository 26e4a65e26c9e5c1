"""Sharding without any process: whatever dies, each request is answered once, and only what kills fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.harness.models.base import Completion, Request, Sampling
from vrft_bench.harness.models.shards import TOGETHER, Session, Shards
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ImageRef, Sample
from vrft_bench.tasks.profiles import QWEN2_VL

TASK = get_task("detection")


def request(name: int, *, image: int | None = None, n: int = 0) -> Request:
    """About an image of its own, unless ``image`` says which."""
    path = Path(str(name if image is None else image))
    sample = Sample(str(name), ImageRef(40, 30, path=path), {"category": "thing"}, BoxTarget(()))
    return Request(TASK, sample, n, [], QWEN2_VL, Sampling())


def begun(shards: Shards) -> Session:
    session = shards.begin(trusted=True)
    assert session is not None
    return session


def answer(session: Session, requests: list[Request]) -> list[str]:
    for item in requests:
        session.answered(Completion(item.sample.id, item.n, ""))
    return [item.sample.id for item in requests]


def test_sessions_share_the_stream_and_read_it_one_ahead() -> None:
    read: list[int] = []

    def stream() -> Iterator[Request]:
        for name in range(100):
            read.append(name)
            yield request(name)

    shards = Shards(stream())
    one, two = begun(shards), begun(shards)
    assert len(read) == 1
    assert [item.sample.id for item in one.take(2) + two.take(2) + one.take(1)] == ["0", "1", "2", "3", "4"]
    assert len(read) <= 6
    assert not one.exhausted
    assert len(two.take(1000)) == 95
    assert two.exhausted
    assert one.take(1) == []
    assert one.exhausted
    assert not shards.finished
    one.end()
    two.end()
    assert shards.finished


def test_what_is_about_one_image_stays_together_up_to_a_limit() -> None:
    session = begun(Shards(request(name, image=name // 80) for name in range(400)))
    assert [len(session.take(32)) for _ in range(5)] == [80] * 5
    session = begun(Shards(request(name, image=0) for name in range(400)))
    assert [len(session.take(32)) for _ in range(2)] == [32 + TOGETHER] * 2


def test_the_completions_of_one_sample_always_stay_together() -> None:
    session = begun(Shards(request(name, image=0, n=n) for name in range(2) for n in range(500)))
    assert [len(session.take(32)) for _ in range(2)] == [500, 500]


def test_what_a_dead_replica_left_is_asked_in_halves_apart_from_the_stream() -> None:
    shards = Shards(map(request, range(10)))
    session = begun(shards)
    answer(session, session.take(6)[:1])
    assert session.lost("killed") == []
    halves = [begun(shards), begun(shards)]
    assert [[item.sample.id for item in half.take(9)] for half in halves] == [["1", "2", "3"], ["4", "5"]]
    assert [item.sample.id for item in begun(shards).take(9)] == ["6", "7", "8", "9"]


def test_only_a_trusted_replica_is_asked_what_a_dead_one_left() -> None:
    shards = Shards(map(request, range(2)))
    session = begun(shards)
    session.take(1)
    session.lost("killed")
    stream = shards.begin(trusted=False)
    assert stream is not None
    assert [item.sample.id for item in stream.take(9)] == ["1"]
    assert shards.begin(trusted=False) is None
    assert [item.sample.id for item in begun(shards).take(9)] == ["0"]


def test_a_single_request_fails_at_its_second_death_with_the_reason() -> None:
    shards = Shards([request(7)])
    for death in range(2):
        session = begun(shards)
        session.take(5)
        failed = session.lost("killed by signal 9")
        assert len(failed) == death
    assert (failed[0].sample_id, failed[0].n, failed[0].finish_reason) == ("7", 0, "error")
    assert failed[0].error == "the model's process dies of it: killed by signal 9"
    assert shards.finished


def test_what_a_backend_leaves_without_an_answer_is_not_asked_again() -> None:
    shards = Shards(map(request, range(3)))
    session = begun(shards)
    session.take(5)
    session.end()
    assert shards.finished


def outlive(
    shards: Shards, dies: Callable[[list[Request]], bool], random: Random, window: int
) -> tuple[list[str], list[str], int]:
    """Ids answered, ids failed, and how many replicas died, where each answers or dies of a window at a time."""
    answered: list[str] = []
    failed: list[str] = []
    deaths = 0
    sessions: list[Session] = []
    while not shards.finished:
        if len(sessions) < 3 and (new := shards.begin(trusted=True)) is not None:
            sessions.append(new)
        session = random.choice(sessions)
        taken = session.take(window)
        if taken and dies(taken):
            deaths += 1
            failed += [completion.sample_id for completion in session.lost("killed")]
            sessions.remove(session)
            continue
        answered += answer(session, taken)
        if session.exhausted:
            session.end()
            sessions.remove(session)
    return answered, failed, deaths


@given(
    total=st.integers(0, 200),
    poison=st.sets(st.integers(0, 199), max_size=4),
    window=st.integers(1, 64),
    random=st.randoms(use_true_random=False),
)
def test_poison_fails_alone_and_everything_else_is_answered_once(
    total: int, poison: set[int], window: int, random: Random
) -> None:
    there = {str(name) for name in poison if name < total}

    def dies(taken: list[Request]) -> bool:
        return any(item.sample.id in there for item in taken)

    answered, failed, deaths = outlive(Shards(map(request, range(total))), dies, random, window)
    assert Counter(failed) == Counter(there)
    assert Counter(answered + failed) == Counter(map(str, range(total)))
    assert deaths <= len(there) * (window.bit_length() + 2)


def test_deaths_by_chance_fail_next_to_nothing() -> None:
    random = Random(0)
    shards = Shards(map(request, range(20_000)))
    answered, failed, deaths = outlive(shards, lambda taken: random.random() < 0.1, random, 32)
    assert Counter(answered + failed) == Counter(map(str, range(20_000)))
    assert deaths > 50
    assert len(failed) <= 2

"""The actor's side without Ray: what it takes in, when it reports, and what of it reaches the user."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import vrft_bench
from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.models.base import Completion, Request, Sampling, Workload
from vrft_bench.harness.models.replica import (
    READ_AHEAD,
    IncludedFile,
    Opened,
    Parcel,
    Question,
    Refused,
    Replica,
    Report,
)
from vrft_bench.registry import PROFILES, include
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ImageRef, Sample
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.profiles import ABS_ORIGINAL, QWEN2_VL

TASK = get_task("detection")


class Scripted:
    """Answers with the sample's id, once ``gate`` is open; ``window`` requests are read before any is answered."""

    def __init__(self, window: int = 1, raises: Exception | None = None) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.read: list[str] = []
        self.closed = False
        self._window = window
        self._raises = raises

    def identity(self) -> Mapping[str, Any]:
        return {"name": "scripted"}

    def profile(self) -> ModelProfile | None:
        return ABS_ORIGINAL

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        held: list[Request] = []
        for request in requests:
            self.read.append(request.sample.id)
            held.append(request)
            if len(held) == self._window:
                yield from self._answers(held)
        yield from self._answers(held)

    def _answers(self, held: list[Request]) -> Iterator[Completion]:
        self.gate.wait()
        while held:
            if self._raises is not None:
                raise self._raises
            request = held.pop(0)
            yield Completion(request.sample.id, request.n, f"answer to {request.sample.id}")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scripted], Replica]:
    def make(backend: Scripted) -> Replica:
        monkeypatch.setattr("vrft_bench.harness.models.load_backend", lambda model, args: backend)
        replica = Replica("scripted/x", {}, [], "/nowhere", on_gpu=True)
        assert isinstance(replica.open(), Opened)
        return replica

    return make


def questions(*names: int, path: Path | None = None, settled: bool = False) -> list[Question]:
    return [
        Question(
            Request(
                TASK,
                Sample(str(name), ImageRef(40, 30, path=path), {"category": "thing"}, BoxTarget(())),
                0,
                [],
                QWEN2_VL,
                Sampling(),
            ),
            settled=settled,
        )
        for name in names
    ]


def until_end(replica: Replica, number: int) -> list[Report]:
    reports = []
    while not reports or not reports[-1].ended:
        reports.append(replica.exchange(Parcel(number, (), last=True)))
    return reports


def texts(reports: Iterable[Report]) -> list[str]:
    return [completion.text for report in reports for completion in report.completions]


def test_it_says_what_its_backend_is(opened: Callable[[Scripted], Replica]) -> None:
    said = Replica("mock/gold", {}, [], "/nowhere", on_gpu=True).open()
    assert isinstance(said, Opened)
    assert said.identity == {"name": "mock/gold"}
    assert said.profile == ABS_ORIGINAL
    assert said.reads_truth
    assert said.version == vrft_bench.__version__


def test_a_users_mistake_is_an_answer_that_keeps_its_fix() -> None:
    said = Replica("mock/gold", {"wrong": 1}, [], "/nowhere", on_gpu=True).open()
    assert isinstance(said, Refused)
    assert said.error.message == "unknown model argument 'wrong'"
    assert said.error.fix == "valid here: none"


def test_a_session_goes_through_parcels_to_its_end(opened: Callable[[Scripted], Replica]) -> None:
    replica = opened(Scripted())
    first = replica.exchange(Parcel(1, questions(0, 1, 2), last=False))
    reports = [first, *until_end(replica, 1)]
    assert texts(reports) == ["answer to 0", "answer to 1", "answer to 2"]
    assert [report.ended for report in reports[:-1]] == [False] * (len(reports) - 1)
    assert reports[-1].unread == 0


@pytest.mark.timeout(60)
def test_it_asks_for_more_as_soon_as_half_of_what_waits_is_read(
    opened: Callable[[Scripted], Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrft_bench.harness.models.replica.PATIENCE", 3600.0)
    backend = Scripted(window=READ_AHEAD)
    replica = opened(backend)
    report = replica.exchange(Parcel(1, questions(*range(READ_AHEAD - 1)), last=False))
    assert report.unread <= READ_AHEAD // 2
    assert report.completions == []
    assert not report.ended


@pytest.mark.timeout(60)
def test_it_reports_now_and_then_while_its_backend_is_busy(
    opened: Callable[[Scripted], Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrft_bench.harness.models.replica.PATIENCE", 0.01)
    backend = Scripted()
    backend.gate.clear()
    replica = opened(backend)
    report = replica.exchange(Parcel(1, questions(*range(READ_AHEAD)), last=False))
    assert (report.unread, report.ended, list(report.completions)) == (READ_AHEAD - 1, False, [])
    backend.gate.set()
    assert len(texts(until_end(replica, 1))) == READ_AHEAD


def test_a_backend_that_reads_a_window_larger_than_what_waits_is_fed_until_it_answers(
    opened: Callable[[Scripted], Replica],
) -> None:
    replica = opened(Scripted(window=100))
    reports, sent = [replica.exchange(Parcel(1, questions(*range(READ_AHEAD)), last=False))], READ_AHEAD
    while not texts(reports):
        more = READ_AHEAD - reports[-1].unread
        assert more > 0
        reports.append(replica.exchange(Parcel(1, questions(*range(sent, sent + more)), last=False)))
        sent += more
    assert sent <= 100 + 2 * READ_AHEAD
    assert len(texts([*reports, *until_end(replica, 1)])) == sent


def test_questions_whose_file_is_not_here_are_sent_back_and_the_session_stays_open(
    opened: Callable[[Scripted], Replica], tmp_path: Path
) -> None:
    backend = Scripted()
    replica = opened(backend)
    away = tmp_path / "away.png"
    report = replica.exchange(Parcel(1, questions(0, path=Path(__file__)) + questions(1, 2, path=away), last=True))
    assert report.unseen == [("1", 0), ("2", 0)]
    assert not report.ended
    report = replica.exchange(Parcel(1, questions(1, 2, path=away, settled=True), last=True))
    assert report.unseen == []
    assert sorted(backend.read) == ["0", "1", "2"]


def test_a_new_session_ends_the_one_before_and_hears_nothing_of_it(opened: Callable[[Scripted], Replica]) -> None:
    backend = Scripted()
    replica = opened(backend)
    backend.gate.clear()
    replica.exchange(Parcel(1, questions(0, 1, 2), last=False))
    replica.leave()
    backend.gate.set()
    report = replica.exchange(Parcel(2, questions(8, 9), last=True))
    reports = [report] if report.ended else [report, *until_end(replica, 2)]
    assert texts(reports) == ["answer to 8", "answer to 9"]


def test_what_stops_a_backend_is_told(opened: Callable[[Scripted], Replica]) -> None:
    replica = opened(Scripted(raises=BackendError("the GPU is lost", fix="buy another")))
    report = replica.exchange(Parcel(1, questions(0), last=True))
    assert report.ended
    assert isinstance(report.failure, BackendError)
    assert str(report.failure) == str(UserError("the GPU is lost", fix="buy another"))


def test_a_defect_of_a_backend_is_raised(opened: Callable[[Scripted], Replica]) -> None:
    replica = opened(Scripted(raises=ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        replica.exchange(Parcel(1, questions(0), last=True))


def test_a_backend_that_wants_to_know_is_told_what_will_come(opened: Callable[[Scripted], Replica]) -> None:
    class Planning(Scripted):
        told: Workload | None = None

        def anticipate(self, workload: Workload) -> None:
            assert not self.read
            self.told = workload

    backend = Planning()
    replica = opened(backend)
    replica.anticipate(Workload(100, None, 24))
    replica.exchange(Parcel(1, questions(0), last=True))
    assert backend.told == Workload(100, None, 24)
    assert backend.read == ["0"]


def test_closing_it_closes_the_backend(opened: Callable[[Scripted], Replica]) -> None:
    backend = Scripted()
    opened(backend).close()
    assert backend.closed


def test_an_included_file_is_run_as_the_module_of_its_path_where_only_a_copy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(PROFILES, "_entries", dict(PROFILES._entries))
    path = tmp_path / "elsewhere" / "plugin_of_another_machine.py"
    code = b"from vrft_bench.registry import PROFILES\nclass Mark: pass\nPROFILES.register('marked', 'x:y')\n"
    said = Replica("mock/gold", {}, [IncludedFile(str(path), code)], "/nowhere", on_gpu=True).open()
    assert isinstance(said, Opened)
    assert "marked" in PROFILES
    (module,) = [name for name in sys.modules if name.startswith("vrft_bench_include_plugin_of_another_machine_")]
    path.parent.mkdir()
    path.write_bytes(code)
    include(path)  # the same module: it is not run again, which would be a clash of names
    assert sys.modules[module].Mark.__module__ == module

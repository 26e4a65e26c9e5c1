"""What runs in the other process: one backend, fed with requests and emptied of completions in small parcels.

A session is one call of the backend's ``generate``, in a thread of its own. The backend reads on at its own pace, so an
engine that batches continuously never drains between two parcels, and how far it reads ahead is its own rule, as in a
local run. Only a few requests wait here for it.
"""

from __future__ import annotations

import logging
import os
import platform
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vrft_bench
from vrft_bench.errors import UserError
from vrft_bench.harness.models.base import (
    Anticipates,
    Backend,
    Completion,
    LimitsPixels,
    ReadsTruth,
    Request,
    Workload,
)
from vrft_bench.harness.models.shards import Key, key_of
from vrft_bench.harness.models.shared_images import with_file
from vrft_bench.registry import include
from vrft_bench.tasks.coordinates import ModelProfile

READ_AHEAD = 32
"""Requests that wait for the backend; it is given more once half of them are read."""

FULL = 64
"""Completions that are sent back at once; fewer wait ``GATHER`` seconds for others, so that they travel together."""

GATHER = 0.1
PATIENCE = 1.0
"""Seconds after which a replica that has nothing to say answers all the same."""

CLOSING = 5.0
"""Seconds that :meth:`Replica.close` gives a backend to come to the end of what it computes."""


@dataclass(frozen=True, slots=True)
class IncludedFile:
    """A ``--include`` file, by its whole path where the run was started, and its content."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """What a replica is: its backend's own statements, and where it runs."""

    identity: Mapping[str, Any]
    profile: ModelProfile | None
    reads_truth: bool
    version: str
    node: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The user's mistake for which there is no backend on ``node``."""

    error: UserError
    node: str


@dataclass(frozen=True, slots=True)
class Question:
    """A request; ``image`` is the reference of its encoded image in the object store, where it does not go by path.

    ``settled``: the file of an image that goes by path need not be looked for first.
    """

    request: Request
    image: Any = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class Parcel:
    """Questions for a session, which begins with its first parcel. ``last``: none will follow."""

    session: int
    questions: Sequence[Question]
    last: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a session since the last report.

    ``unread`` requests wait for the backend. Those of ``unseen`` were not taken in: their image's file is not on this
    machine. ``ended``: the backend is through, or stopped by ``failure``.
    """

    completions: Sequence[Completion]
    unread: int
    unseen: Sequence[Key]
    warnings: Sequence[str]
    ended: bool
    failure: UserError | None


class Replica:
    """The class of the actors. Its methods return a user's mistake instead of raising it, so that it arrives whole."""

    def __init__(
        self, model: str, args: Mapping[str, Any], files: Sequence[IncludedFile], folder: str, *, on_gpu: bool
    ) -> None:
        if not on_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._model = model
        self._args = args
        self._files = files
        self._folder = folder
        self._backend: Backend | None = None
        self._session: _Session | None = None
        self._number = 0
        self._workload: Workload | None = None
        self._warnings = _Warnings()

    def open(self) -> Opened | Refused:
        """Build the backend, in the folder that the run was started in where this machine has it. Loads no weights."""
        from vrft_bench.harness.models import load_backend

        logging.getLogger("vrft_bench").addHandler(self._warnings)
        if Path(self._folder).is_dir():
            os.chdir(self._folder)
        try:
            for file in self._files:
                _include(file)
            backend = load_backend(self._model, self._args)
            opened = Opened(
                identity=dict(backend.identity()),
                profile=backend.profile(),
                reads_truth=isinstance(backend, ReadsTruth) and backend.reads_truth,
                version=vrft_bench.__version__,
                node=platform.node(),
            )
        except UserError as error:
            return Refused(error, platform.node())
        self._backend = backend
        return opened

    def with_pixel_limits(self, profile: ModelProfile) -> ModelProfile | UserError:
        """``profile`` with the limits of the backend's arguments, where it has such."""
        try:
            return self._backend.with_pixel_limits(profile) if isinstance(self._backend, LimitsPixels) else profile
        except UserError as error:
            return error

    def anticipate(self, workload: Workload) -> None:
        """What the backend is to be told before its first question, if it wants to know."""
        self._workload = workload

    def exchange(self, parcel: Parcel) -> Report:
        """Take in ``parcel``, wait until there is something to say, and say it.

        Raises what the backend raised, unless that is a user's mistake.
        """
        session = self._session
        if session is None or parcel.session != self._number:
            session = self._begin(parcel.session)
        return session.report(session.add(parcel), self._warnings)

    def leave(self) -> None:
        """Nobody waits for the session's answers any more."""
        if self._session is not None:
            self._session.leave()

    def close(self) -> None:
        """Free what the backend holds."""
        if self._session is not None:
            self._session.leave()
            self._session.thread.join(CLOSING)
        if self._backend is not None:
            self._backend.close()

    def _begin(self, number: int) -> _Session:
        if self._backend is None:
            raise RuntimeError("exchange before open")
        if self._session is not None:
            self._session.leave()
            self._session.thread.join()  # a backend answers one generate at a time
        self._session, self._number = _Session(self._backend, self._workload), number
        self._workload = None
        return self._session


class _Session:
    """A ``generate`` under way in a thread, with what waits on both sides of it."""

    def __init__(self, backend: Backend, workload: Workload | None) -> None:
        self._changed = threading.Condition()
        self._unread: deque[Request] = deque()
        self._answers: list[Completion] = []
        self._complete = self._left = self._ended = False
        self._failure: BaseException | None = None
        self.thread = threading.Thread(target=self._answer, args=(backend, workload), daemon=True)
        self.thread.start()

    def add(self, parcel: Parcel) -> list[Key]:
        """Take the questions in, but for those whose image is not here; gives the keys of these."""
        here = [question for question in parcel.questions if question.settled or _is_here(question)]
        unseen = {key_of(question.request) for question in parcel.questions} - {
            key_of(question.request) for question in here
        }
        requests = _with_images(here)
        with self._changed:
            self._unread.extend(requests)
            self._complete = parcel.last and not unseen
            self._changed.notify_all()
        return sorted(unseen)

    def report(self, unseen: Sequence[Key], warnings: _Warnings) -> Report:
        with self._changed:
            if not unseen:
                self._changed.wait_for(lambda: self._answers or self._due(), PATIENCE)
                self._changed.wait_for(self._due, GATHER)
            if self._ended and self._failure is not None and not isinstance(self._failure, UserError):
                raise self._failure
            answers, self._answers = self._answers, []
            failure = self._failure if isinstance(self._failure, UserError) else None
            return Report(answers, len(self._unread), unseen, warnings.taken(), self._ended, failure)

    def leave(self) -> None:
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def _due(self) -> bool:
        hungry = not self._complete and len(self._unread) <= READ_AHEAD // 2
        return self._ended or hungry or len(self._answers) >= FULL

    def _requests(self) -> Iterator[Request]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unread or self._complete or self._left)
                if self._left or not self._unread:
                    return
                request = self._unread.popleft()
                if self._due():
                    self._changed.notify_all()
            yield request

    def _answer(self, backend: Backend, workload: Workload | None) -> None:
        try:
            if workload is not None and isinstance(backend, Anticipates):
                backend.anticipate(workload)
            completions = backend.generate(self._requests())
            with closing(completions) if isinstance(completions, Generator) else nullcontext():
                for completion in completions:
                    with self._changed:
                        self._answers.append(completion)
                        if len(self._answers) in (1, FULL):
                            self._changed.notify_all()
                        if self._left:
                            return
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody listens
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


class _Warnings(logging.Handler):
    """The last warnings that were logged here, to be told where the user looks."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: deque[str] = deque(maxlen=20)

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())

    def taken(self) -> list[str]:
        return [self._texts.popleft() for _ in range(len(self._texts))]


def _include(file: IncludedFile) -> None:
    """Run the file where it lies if this machine has it, else a copy of it, in any case as the module of its path."""
    here = Path(file.path)
    if here.is_file() and here.read_bytes() == file.content:
        include(here)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / here.name
        copy.write_bytes(file.content)
        include(here, copy=copy)


def _is_here(question: Question) -> bool:
    path = question.request.sample.image.path
    try:
        return question.image is not None or path is None or path.is_file()
    except OSError:
        return False


def _with_images(questions: Sequence[Question]) -> list[Request]:
    """The requests, with the images that came through the object store in them; each is fetched once."""
    references = list(dict.fromkeys(question.image for question in questions if question.image is not None))
    if not references:
        return [question.request for question in questions]
    import ray

    files = dict(zip(references, ray.get(references), strict=True))
    return [
        question.request if question.image is None else with_file(question.request, files[question.image])
        for question in questions
    ]

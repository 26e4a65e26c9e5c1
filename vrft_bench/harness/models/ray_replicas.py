"""``--executor ray``: the samples of a run sharded over replicas of a model on a Ray cluster.

Each replica is an actor that holds one backend; scheduling, processes and the object store are Ray's. Requests go to
replicas in small parcels, as fast as their backends read them, and completions come back as they are made. A replica
that dies is replaced, and what it had not answered is asked again (see :class:`Shards`).

The identity of a run is that of the model, which the replicas state themselves and must agree on: the process that
drives them may have no GPU and no copy of the checkpoint. So a run has the fingerprint and the records of a local one.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vrft_bench
from vrft_bench.errors import BackendError, DataError, UserError
from vrft_bench.harness.identity import differences
from vrft_bench.harness.models.base import Completion, Request, Workload
from vrft_bench.harness.models.ray_cluster import Cluster
from vrft_bench.harness.models.replica import READ_AHEAD, IncludedFile, Opened, Parcel, Question, Refused, Report
from vrft_bench.harness.models.shards import Session, Shards
from vrft_bench.harness.models.shared_images import SharedImages, without_file
from vrft_bench.tasks.coordinates import ModelProfile

GATHERING = 20.0
"""Seconds that the first replica waits for the others before it begins: what it reads ahead, they do not get."""

SPARE_DEATHS = 4
"""How many deaths in a row without an answer end a run, beyond one of each replica."""

DEATHS_OF_A_SEAT = 3
"""How many replicas that never answered anything may die in one seat, before others do its work."""

TOLD_EVERY = 60.0
"""Seconds between two notes that replicas have no place on the cluster."""

CLOSING = 10.0
"""Seconds that replicas have to close, which stops what their backends started, before they are killed."""

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Seat:
    """A place for a replica. ``pending`` is the answer of its actor that is waited for.

    ``by_path``: images go by path, as long as its machine has the files; ``unseen`` are requests whose file it lacks.
    ``proven``: this actor has answered something; ``vain`` counts those before it that had not.
    """

    actor: Any
    pending: Any
    opened: Opened | None = None
    session: Session | None = None
    number: int = 0
    unread: int = 0
    by_path: bool = True
    unseen: list[Request] = field(default_factory=list)
    proven: bool = False
    vain: int = 0

    @property
    def node(self) -> str:
        return self.opened.node if self.opened is not None else ""


class RayBackend:
    """``replicas`` of ``model`` on a Ray cluster. Implements ``Backend``.

    Nothing is started before it is needed: one replica to say what the model is, the others to answer. ``include`` are
    the ``--include`` files, which every replica runs before it builds its backend by ``load_backend(model, args)``.
    """

    def __init__(
        self,
        model: str,
        args: Mapping[str, Any],
        *,
        address: str | None = None,
        replicas: int = 1,
        gpus_per_replica: float = 0.0,
        include: Sequence[str] = (),
    ) -> None:
        files = (Path(path).expanduser().resolve() for path in include)
        self._model = (model, dict(args), [IncludedFile(str(file), file.read_bytes()) for file in files])
        self._replicas = replicas
        self._place = (address, replicas, gpus_per_replica)
        self._cluster: Cluster | None = None
        self._seats: list[_Seat] = []
        self._opened: Opened | None = None
        self._workload: Workload | None = None
        self._images = SharedImages()
        self._numbers = itertools.count(1)
        self._gathering_ends: float | None = None
        self._has_answered = False
        self._deaths = 0
        self._tell_at = time.monotonic() + TOLD_EVERY

    @property
    def reads_truth(self) -> bool:
        return self._first().reads_truth

    def identity(self) -> Mapping[str, Any]:
        """What the first replica's backend states; the others are held to it."""
        return self._first().identity

    def profile(self) -> ModelProfile | None:
        return self._first().profile

    def with_pixel_limits(self, profile: ModelProfile) -> ModelProfile:
        import ray

        self._first()
        seat = next(seat for seat in self._seats if seat.opened is not None)
        limited: ModelProfile | UserError = ray.get(seat.actor.with_pixel_limits.remote(profile))
        if isinstance(limited, UserError):
            raise limited
        return limited

    def anticipate(self, workload: Workload) -> None:
        """Every replica's backend is told of ``workload``, if it wants to know."""
        self._workload = workload
        for seat in self._seats:
            seat.actor.anticipate.remote(workload)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer every request once. Raises :class:`BackendError` where replicas die one after another."""
        shards = Shards(requests)
        self._first()
        self._seats += [self._seat() for _ in range(self._replicas - len(self._seats))]
        if self._gathering_ends is None:
            self._gathering_ends = time.monotonic() + GATHERING
        try:
            while True:
                if self._gathered(self._gathering_ends):
                    self._begin_sessions(shards)
                    if shards.finished:
                        return
                for seat in self._answering():
                    yield from self._hear(seat)
        finally:
            self._leave_sessions()

    def close(self) -> None:
        """End the replicas, and the cluster if it was started for them."""
        if self._cluster is None:
            return
        import ray

        try:
            closing = [seat.actor.close.remote() for seat in self._seats if seat.opened is not None]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=CLOSING)
        finally:
            for seat in self._seats:
                ray.kill(seat.actor)
            self._cluster.leave()
            self._seats, self._cluster = [], None

    def _first(self) -> Opened:
        """What the first replica that opened is."""
        if self._opened is None and not self._seats:
            self._seats.append(self._seat())
        while self._opened is None:
            for seat in self._answering():
                self._hear(seat)
        return self._opened

    def _seat(self) -> _Seat:
        if self._cluster is None:
            self._cluster = Cluster(*self._place)
        actor = self._cluster.actor(*self._model)
        if self._workload is not None:
            actor.anticipate.remote(self._workload)
        return _Seat(actor, actor.open.remote())

    def _answering(self) -> list[_Seat]:
        """The seats whose replica has answered; none where a second has passed without."""
        import ray

        waiting = {seat.pending: seat for seat in self._seats if seat.pending is not None}
        ready, others = ray.wait(list(waiting), num_returns=1, timeout=1.0)
        if ready and others:
            ready += ray.wait(others, num_returns=len(others), timeout=0.0)[0]
        waits = not any(seat.opened for seat in self._seats)
        if waits and time.monotonic() > self._tell_at and self._cluster is not None:
            self._tell_at = time.monotonic() + TOLD_EVERY
            logger.warning("no replica has started yet: %s", self._cluster.room())
        return [waiting[reference] for reference in ready]

    def _gathered(self, end: float) -> bool:
        """Whether the replicas are there that will be waited for."""
        missing = sum(seat.opened is None for seat in self._seats)
        if missing and time.monotonic() < end:
            return False
        if missing and end and self._cluster is not None:
            started = len(self._seats) - missing
            logger.warning("going on with %d of %d replicas: %s", started, len(self._seats), self._cluster.room())
        self._gathering_ends = 0.0  # one that is replaced later is not waited for
        return True

    def _begin_sessions(self, shards: Shards) -> None:
        """Give every free replica something to do, in turns, so that a small run is spread as well."""
        any_proven = any(seat.proven for seat in self._seats)
        for seat in self._seats:
            if seat.opened is not None and seat.session is None:
                seat.session = shards.begin(trusted=seat.proven or not any_proven)
                if seat.session is not None:
                    seat.number, seat.unread, seat.unseen = next(self._numbers), 0, []
                    self._send(seat, seat.session)

    def _send(self, seat: _Seat, session: Session) -> None:
        """What the replica has room for. An empty parcel only asks it for a report."""
        questions = [self._question(request, by_path=False) for request in seat.unseen]
        taken = session.take(READ_AHEAD - seat.unread - len(questions))
        questions += [self._question(request, by_path=seat.by_path) for request in taken]
        seat.unseen = []
        seat.pending = seat.actor.exchange.remote(Parcel(seat.number, questions, last=session.exhausted))

    def _question(self, request: Request, *, by_path: bool) -> Question:
        image = request.sample.image
        if by_path and image.data is None:
            return Question(request)
        return Question(without_file(request), self._images.reference(image), settled=True)

    def _hear(self, seat: _Seat) -> list[Completion]:
        """Take in what the replica of ``seat`` answered, and send it more. Gives the completions in it."""
        import ray

        try:
            said: Opened | Refused | Report = ray.get(seat.pending)
        except ray.exceptions.RayTaskError:  # a defect of the backend, with its traceback
            raise
        except ray.exceptions.RayError as error:
            if "creation task" in str(error):
                raise BackendError(
                    f"a machine of the cluster cannot run vrft-bench: {str(error).strip().splitlines()[-1]}",
                    fix="install it with the same extras on every machine of the cluster",
                ) from error
            return self._bury(seat, _reason(error))
        seat.pending = None
        if isinstance(said, Refused):
            raise self._located(said.error, said.node)
        if isinstance(said, Opened):
            self._open(seat, said)
            return []
        return self._take_in(seat, said)

    def _open(self, seat: _Seat, opened: Opened) -> None:
        if opened.version != vrft_bench.__version__:
            raise BackendError(
                f"{opened.node} has vrft-bench {opened.version}, this process {vrft_bench.__version__}",
                fix="install one version on all machines of the cluster",
            )
        first = self._opened
        if first is not None and first.identity != opened.identity:
            what = "; ".join(differences(first.identity, opened.identity))
            raise BackendError(
                f"the model of {opened.node} is not that of {first.node} (there): {what}",
                fix="bring the same checkpoint to all machines, and say -M dtype=... where they choose differently",
            )
        seat.opened = opened
        self._opened = first or opened

    def _take_in(self, seat: _Seat, report: Report) -> list[Completion]:
        session = seat.session
        if session is None:
            return []
        for text in report.warnings:
            logger.warning("%s%s", self._where(seat.node), text)
        for completion in report.completions:
            session.answered(completion)
        completions = list(report.completions)
        if completions:
            seat.proven = self._has_answered = True
            seat.vain = self._deaths = 0
        if report.failure is not None:
            if not isinstance(report.failure, BackendError) or not self._has_answered:
                raise self._located(report.failure, seat.node)
            return completions + self._bury(seat, report.failure.message)
        if report.ended:
            session.end()
            seat.session = None
            return completions
        seat.unread = report.unread
        if report.unseen:
            seat.by_path = False
            seat.unseen = [session.unanswered[key] for key in report.unseen]
        self._send(seat, session)
        return completions

    def _bury(self, seat: _Seat, reason: str) -> list[Completion]:
        """Put a new replica in the place of one that died. Gives the completions of requests that fail by that."""
        import ray

        ray.kill(seat.actor)
        self._seats.remove(seat)
        lost = seat.session.unanswered if seat.session is not None else ()
        logger.warning("%sa replica died (%s); %d questions are asked again", self._where(seat.node), reason, len(lost))
        failed = seat.session.lost(reason) if seat.session is not None else []
        self._deaths += 1
        if self._deaths >= SPARE_DEATHS + self._replicas:
            raise BackendError(
                f"{self._deaths} replicas died one after another without an answer: {reason}",
                fix="if their memory ran out, ask for fewer replicas or smaller batches; Ray's logs "
                "(/tmp/ray/session_latest/logs on each machine) say more. Repeat the command: it resumes",
            )
        blameless = seat.session is not None and not seat.session.shared
        vain = seat.vain + (not seat.proven and not blameless)
        if vain < DEATHS_OF_A_SEAT or not self._seats:
            successor = self._seat()
            successor.vain = vain
            self._seats.append(successor)
        else:
            logger.warning("%d replicas in a row died before they answered anything: going on with one fewer", vain)
        return failed

    def _leave_sessions(self) -> None:
        """Let replicas drop what they were asked: nobody waits for it any more."""
        for seat in self._seats:
            if seat.session is not None:
                seat.actor.leave.remote()
                seat.session = seat.pending = None

    def _where(self, node: str) -> str:
        """``HOST: `` on a cluster of several machines; nothing on this one."""
        return f"{node}: " if node and self._cluster is not None and not self._cluster.is_local else ""

    def _located(self, error: UserError, node: str) -> UserError:
        """``error`` with what a user of several machines has to know about it."""
        where = self._where(node)
        error.message = where + error.message
        if where and isinstance(error, BackendError | DataError):
            hint = "what a command names by its path, such as a checkpoint, has to be on every machine of the cluster"
            error.fix = f"{error.fix}; {hint}" if error.fix else hint
        return error


def _reason(error: Exception) -> str:
    """Why a replica died, in a line of Ray's own words."""
    text = " ".join(str(error).split())
    found = re.search(r"exit detail: (.*?)(?: Some common causes|$)|The actor is dead because (.*)", text)
    return (next(filter(None, found.groups()), text) if found else text)[:200].rstrip(" .")

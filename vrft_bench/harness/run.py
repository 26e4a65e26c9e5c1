"""The run loop: samples -> requests -> completions -> scored records -> metrics.

The data is walked twice, to identify the run and to ask; a resumed run is walked a third time, to count what earlier
sessions left. Nothing is kept of a sample but what its metric keeps, so memory does not grow with the run.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections import Counter
from collections.abc import Container, Generator, Iterator, Mapping
from types import FrameType
from typing import Any

from vrft_bench.errors import BackendError, PartialRunError, RunInterrupted, UserError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.identity import fingerprint
from vrft_bench.harness.models.base import Backend, Completion, GivesCached, Request
from vrft_bench.harness.plan import RunPlan, make_plan, resolve_profile
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.harness.provenance import trainings_of
from vrft_bench.harness.records import Key
from vrft_bench.harness.results import RunResult, read_result
from vrft_bench.harness.scoring import Scorer
from vrft_bench.harness.store import (
    MANIFEST,
    Manifest,
    RunStatus,
    RunStore,
    find_run,
    read_manifest,
    run_folder,
    utc_now,
)
from vrft_bench.tasks.base import Sample, Task


def evaluate(task: Task, backend: Backend, config: RunConfig, *, progress: Progress | None = None) -> RunResult:
    """Plan ``task`` and carry it out (see :func:`carry_out`)."""
    return carry_out(make_plan(task, resolve_profile(config, backend), config), backend, progress=progress)


def carry_out(plan: RunPlan, backend: Backend, *, progress: Progress | None = None) -> RunResult:
    """Run ``plan`` on ``backend``, or take up the run where an earlier process left it, or return its stored result.

    The caller closes the backend, which may serve several tasks. Raises

    * :class:`PartialRunError` when more than ``config.max_failures`` of the completions failed, or the disk is full;
    * :class:`BackendError` when the model cannot go on;
    * :class:`RunInterrupted` on Ctrl-C and SIGTERM.

    Whatever is raised, everything finished is on disk, and the same call goes on from there.
    """
    progress = progress or SilentProgress()
    config = plan.config
    identity = plan.identity(backend.identity())
    print_of_run = fingerprint(identity)
    if config.fresh and (config.output_dir / MANIFEST).is_file():
        raise UserError(
            f"--fresh starts a new run, and {config.output_dir} is the folder of one",
            fix="give the folder above it as --output-dir, or leave out --fresh",
        )
    folder = None if config.fresh else find_run(config, plan.task.name, print_of_run, identity)
    if folder is not None and (manifest := read_manifest(folder)).status == "complete":
        failed = f" ({manifest.failed} of its completions failed)" if manifest.failed else ""
        known = "; another --base-url is another run: nothing else names the model" if _by_address(identity) else ""
        progress.note(f"finished already{failed}, shown from {folder}; --fresh runs it anew{known}")
        return read_result(folder, manifest, reused=True)
    if folder is None:
        manifest = _new_manifest(plan, identity, print_of_run)
        store = RunStore.create(run_folder(config, plan.task.name, print_of_run), manifest)
    else:
        store = RunStore(folder)
    with store, _sigterm_interrupts():
        return _Run(plan, backend, store, progress).work()


def _by_address(identity: Mapping[str, Any]) -> bool:
    """Whether it takes a server's address to say which model this is."""
    model = identity["model"]
    return isinstance(model, Mapping) and "address" in model


class _Run:
    """One session of a run: what is in flight, and what is counted."""

    def __init__(self, plan: RunPlan, backend: Backend, store: RunStore, progress: Progress) -> None:
        self._plan = plan
        self._backend = backend
        self._store = store
        self._progress = progress
        self._scorer = Scorer(plan)
        self._answered: Container[Key] = ()
        self._done = 0
        self._cached: int | None = None
        self._in_flight: dict[Key, Sample] = {}
        self._reasons = _Reasons()

    def work(self) -> RunResult:
        """Ask what is not answered yet, and compute the figures."""
        store = self._store
        try:
            if store.manifest.sessions:
                self._take_up()
            store.begin_session()
            self._progress.begin(self._plan.task.name, self._plan.completions, self._done)
            self._ask()
            self._progress.end()
            if self._cached is not None:
                self._progress.note(f"from the cache {self._plan.config.cache}: {self._cached:,} answers")
            report, answers = self._scorer.finish(self._plan.unasked())
            result = RunResult(store.folder, store.manifest, report, answers)
            store.write_metrics(result.to_json())
            self._set_status("complete")
            return RunResult(store.folder, store.manifest, report, answers)
        except KeyboardInterrupt:
            self._stop("interrupted")
            raise RunInterrupted(
                f"interrupted with {self._done} of {self._plan.completions} completions done, kept in {store.folder}",
                fix="repeat the same command: it resumes where this one stopped",
            ) from None
        except BaseException:
            self._stop("failed")
            raise

    def _take_up(self) -> None:
        """Count what earlier sessions finished. Failed completions are asked again."""
        index = self._store.index()
        with contextlib.closing(index):
            self._answered, self._done = index.answered, len(index.answered)
            again = f", {len(index.failed)} failed ones are asked again" if index.failed else ""
            self._progress.note(
                f"resuming {self._store.folder}: {self._done} of {self._plan.completions} completions are there{again}"
            )
            for sample in self._plan.walk() if index.answered else ():
                for n in range(self._plan.config.samples):
                    if (offset := index.answered.get((sample.id, n))) is not None:
                        self._scorer.replay(sample, index.read(offset))

    def _requests(self) -> Iterator[Request]:
        plan = self._plan
        sampling = plan.config.sampling()
        for sample in plan.walk():
            todo = [n for n in range(sampling.n) if (sample.id, n) not in self._answered]
            messages = plan.task.messages(sample, plan.profile) if todo else []
            for n in todo:
                self._in_flight[sample.id, n] = sample
                yield Request(plan.task, sample, n, messages, plan.profile, sampling)

    def _ask(self) -> None:
        completions = self._backend.generate(self._requests())
        try:
            with contextlib.closing(completions) if isinstance(completions, Generator) else contextlib.nullcontext():
                self._receive(completions)
        finally:
            if isinstance(self._backend, GivesCached):
                self._cached = self._backend.cached
        for (_, n), sample in list(self._in_flight.items()):
            self._fail(sample, n, "the backend gave no answer")

    def _receive(self, completions: Iterator[Completion]) -> None:
        for completion in completions:
            sample = self._in_flight.pop((completion.sample_id, completion.n), None)
            if sample is None:
                raise BackendError(
                    f"the backend answered sample {completion.sample_id!r}, n={completion.n}, unasked or twice",
                    fix="this is a defect of the backend: every request is answered exactly once",
                )
            if completion.error is not None:
                self._fail(sample, completion.n, completion.error)
            else:
                self._finish(sample, completion)

    def _finish(self, sample: Sample, completion: Completion) -> None:
        record, reward = self._scorer.complete(sample, completion)
        self._store.append(record)
        self._done += 1
        self._progress.advance(reward)

    def _fail(self, sample: Sample, n: int, reason: str) -> None:
        self._scorer.fail(sample, n)
        self._store.append({"id": sample.id, "n": n, "error": reason})
        self._progress.advance(None)
        self._reasons.add(reason)
        failures, total = self._scorer.tally.failures, self._plan.completions
        if failures > self._plan.config.max_failures * total:
            raise PartialRunError(
                f"stopped: {failures} of {total} completions failed, more than --max-failures "
                f"{self._plan.config.max_failures:g} allows; {self._reasons.most_common()}; "
                f"{self._done} finished ones are kept in {self._store.folder}",
                fix="mend the cause and repeat the command: it asks the failed ones again (or raise --max-failures)",
            )

    def _set_status(self, status: RunStatus) -> None:
        if self._cached is not None:
            self._store.manifest.sessions[-1].cached = self._cached
        self._store.update(status=status, finished=self._done, failed=self._scorer.tally.failures)

    def _stop(self, status: RunStatus) -> None:
        """Record how the session ended. On a full disk not even that is possible: the run stays resumable as it is."""
        self._progress.end()
        with contextlib.suppress(PartialRunError):
            self._set_status(status)


class _Reasons:
    """Counts why completions failed, taking reasons that differ only in names, paths and numbers as one."""

    _VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\d+")
    _KINDS = 1000

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str) -> None:
        kind = self._VARYING.sub("_", reason)
        if kind in self._counts or len(self._counts) < self._KINDS:
            self._counts[kind] += 1
            self._examples.setdefault(kind, reason)

    def most_common(self) -> str:
        """``most common reason (12 times): ...``, with one real example."""
        kind, count = self._counts.most_common(1)[0]
        return f"most common reason ({count} times): {self._examples[kind]}"


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM stops a run as cleanly as Ctrl-C does. Only the main thread may set signal handlers."""

    def interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


def _new_manifest(plan: RunPlan, identity: dict[str, object], print_of_run: str) -> Manifest:
    now, config = utc_now(), plan.config
    return Manifest(
        task=plan.task.name,
        model=config.model,
        fingerprint=print_of_run,
        identity=identity,
        data="sample" if plan.dataset.is_sample else "real",
        samples=plan.survey.samples,
        completions=plan.completions,
        content=dict(plan.survey.content),
        trainings=trainings_of(config.model),
        created=now,
        updated=now,
        # --fresh is an order for one moment: the recorded config describes the run, and may be run again from anywhere
        config=config.with_absolute_paths().model_copy(update={"task": [plan.task.name], "fresh": False}),
    )

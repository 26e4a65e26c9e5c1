"""The answers of a finished run, read again: what every stage after the run (masks, diagnosis) is fed with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vrft_bench.errors import UserError
from vrft_bench.harness.plan import RunPlan, choose_task, make_plan
from vrft_bench.harness.progress import Progress
from vrft_bench.harness.records import Record, RecordIndex
from vrft_bench.harness.scoring import Scorer
from vrft_bench.harness.store import Manifest
from vrft_bench.registry import include
from vrft_bench.tasks.base import NO_PREDICTION, Prediction, Sample
from vrft_bench.tasks.coordinates import ModelProfile


def plan_of_run(folder: Path, manifest: Manifest) -> RunPlan:
    """The run's plan over the data as they are now. Raises :class:`UserError` where they are not the run's."""
    for file in manifest.config.include:
        include(file)
    task = choose_task(manifest.task, manifest.config)
    plan = make_plan(task, ModelProfile.from_json(manifest.identity["profile"]), manifest.config)
    if plan.survey.sha256 != manifest.identity["data"]["sha256"]:
        raise UserError(
            f"{folder} was made with other data than what is there now",
            fix="put back the data, or run again with what is there now",
        )
    return plan


class StoredAnswers:
    """Iterates over (sample, n, prediction) for every stored completion; ``NO_PREDICTION`` for one that failed.

    ``missing`` counts, once it is through, the completions of the plan that are not there.
    """

    def __init__(self, plan: RunPlan, index: RecordIndex, progress: Progress, doing: str) -> None:
        self._plan, self._index, self._progress, self._doing = plan, index, progress, doing
        self.missing = 0

    def __iter__(self) -> Iterator[tuple[Sample, int, Prediction]]:
        return ((sample, n, prediction) for sample, n, prediction, _ in self.with_records())

    def with_records(self) -> Iterator[tuple[Sample, int, Prediction, Record | None]]:
        """The same, each with its record; ``None`` for a completion that failed."""
        plan, index = self._plan, self._index
        scorer = Scorer(plan)
        self.missing = 0
        self._progress.begin(f"{self._doing} {plan.task.name}", len(index.answered) + len(index.failed))
        try:
            for sample in plan.walk():
                for n in range(plan.config.samples):
                    if (offset := index.answered.get((sample.id, n))) is not None:
                        record = index.read(offset)
                        prediction, score = scorer.read(sample, record)
                        yield sample, n, prediction, record
                        self._progress.advance(score.total)
                    elif (sample.id, n) in index.failed:
                        yield sample, n, NO_PREDICTION, None
                        self._progress.advance(None)
                    else:
                        self.missing += 1
        finally:
            self._progress.end()

    def note(self) -> tuple[str, ...]:
        """What a reader of the figures must know of what is missing; nothing where nothing is."""
        if not self.missing:
            return ()
        of = self._plan.completions
        return (f"partial: {self.missing} of {of} completions are not there, and count for nothing",)

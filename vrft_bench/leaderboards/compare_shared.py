"""What several runs share: the samples with the same id and the same truth that every one of them has answered.

Opens runs for comparison and refuses those that have nothing to compare: other tasks, sample data beside real data, no
truth on this machine, no common sample.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.plan import RunPlan
from vrft_bench.harness.records import Record, RecordIndex
from vrft_bench.harness.scoring import Scorer
from vrft_bench.harness.store import SAMPLES
from vrft_bench.harness.stored_answers import plan_of_run
from vrft_bench.leaderboards.comparability import Conditions, conditions_of, differing, said
from vrft_bench.leaderboards.runs import RunRow, open_runs
from vrft_bench.tasks.base import NO_PREDICTION, Prediction, Sample, Score, target_to_json
from vrft_bench.tasks.data.survey import canonical
from vrft_bench.tasks.profiles import ABS_ORIGINAL


@dataclass(frozen=True, slots=True)
class Answer:
    """One stored completion, read anew. ``record`` is ``None`` for one that failed: it has no text."""

    sample: Sample
    n: int
    prediction: Prediction
    score: Score
    record: Record | None

    @property
    def image(self) -> str:
        """What is resampled as one: the image, or the sample where it has one of its own."""
        return self.sample.fields.get("image_id", self.sample.id)


@dataclass(frozen=True)
class ComparedRun:
    """A run that takes part, under the ``letter`` that tables call it by."""

    letter: str
    row: RunRow
    plan: RunPlan
    conditions: Conditions

    @property
    def completions(self) -> int:
        """How many answers it has to a sample."""
        return self.plan.config.samples

    def answers(self, shared: Shared) -> Iterator[Answer]:
        """The answers to the shared samples, in the data's order."""
        scorer = Scorer(self.plan)
        with contextlib.closing(RecordIndex(self.row.folder / SAMPLES)) as index:
            for sample in self.plan.walk():
                if sample.id not in shared.ids:
                    continue
                for n in range(self.completions):
                    if (offset := index.answered.get((sample.id, n))) is not None:
                        record = index.read(offset)
                        yield Answer(sample, n, *scorer.read(sample, record), record)
                    else:
                        score = self.plan.task.judge(NO_PREDICTION, sample.target)
                        yield Answer(sample, n, NO_PREDICTION, score, None)

    def missed(self, shared: Shared) -> Iterator[Sample]:
        """Questions that nobody asked and whose truth counts as missed in every run."""
        return (sample for sample in self.plan.unasked() if sample.id in shared.unasked)


@dataclass(frozen=True, slots=True)
class Shared:
    """The ids of what all runs share, asked and not asked, and in words what they do not share.

    ``other_prompts`` are the letters of runs that were asked some of it in other words than the baseline.
    """

    ids: frozenset[str]
    unasked: frozenset[str]
    left_out: tuple[str, ...]
    other_prompts: frozenset[str]


def open_compared(paths: Sequence[str | Path]) -> list[ComparedRun]:
    """The runs that ``paths`` name, the first of which is the baseline.

    Raises :class:`UserError` for fewer than two runs, for other tasks or sample data beside real data, and for a run
    that cannot be read or whose truth is not here.
    """
    rows: list[RunRow] = []
    for path in paths:
        found = open_runs([path])
        for unreadable in found.unreadable:
            raise DataError(f"{unreadable.folder} cannot be compared: {unreadable.reason}", fix="leave it out")
        rows += found.rows
    distinct = {row.folder.resolve(): row for row in rows}
    if len(distinct) < 2:
        raise UserError(
            f"compare takes two runs or more, and {len(distinct)} is given",
            fix="vrft-bench compare BASELINE RUN [RUN ...]; `vrft-bench ls runs` shows what there is",
        )
    if len(distinct) > len(ascii_uppercase):
        raise UserError(
            f"{len(distinct)} runs are too many to compare at once", fix="vrft-bench table is for many runs"
        )
    chosen = list(distinct.values())
    conditions = conditions_of([row.manifest for row in chosen])
    for row, own in zip(chosen, conditions, strict=True):
        _refuse_other_kinds(chosen[0], conditions[0], row, own)
    return [
        ComparedRun(letter, row, _plan(row), own)
        for letter, row, own in zip(ascii_uppercase, chosen, conditions, strict=False)
    ]


def find_shared(runs: Sequence[ComparedRun]) -> Shared:
    """What ``runs`` share. Raises :class:`UserError` where that is nothing."""
    contents = [_Contents.of(run) for run in runs]
    first = contents[0]
    common = {
        name: {key for key in getattr(first, name) if all(_agree(first, other, name, key) for other in contents[1:])}
        for name in ("asked", "unasked")
    }
    ids = {key for key in common["asked"] if all(key in content.answered for content in contents)}
    left_out = [
        line
        for run, content in zip(runs, contents, strict=True)
        for line in _left_out(run.letter, content, contents, ids)
    ]
    if not ids:
        raise UserError(
            f"the runs share no answered sample: {'; '.join(left_out)}",
            fix="compare runs on the same data and split; with --limit, on the same samples",
        )
    worded_otherwise = frozenset(
        run.letter
        for run, content in zip(runs, contents, strict=True)
        if any(content.prompts[key] != first.prompts[key] for key in ids)
    )
    return Shared(frozenset(ids), frozenset(common["unasked"]), tuple(left_out), worded_otherwise)


def differences(runs: Sequence[ComparedRun], shared: Shared) -> list[str]:
    """In which conditions the runs differ from the baseline, a line each. Data and prompts count on shared samples."""
    first = runs[0].conditions
    lines = []
    for run in runs[1:]:
        lines += [
            f"{name}: {said(first, name)} in A, {said(run.conditions, name)} in {run.letter}"
            for name in differing(run.conditions, first)
            if name not in ("data", "prompt")
        ]
        if run.letter in shared.other_prompts:
            lines.append(f"prompt: the questions of {run.letter} are worded otherwise than those of A")
    return lines


@dataclass(frozen=True, slots=True)
class _Contents:
    """What one run asked, as id -> hash of the truth; and which samples have all their answers.

    ``prompts`` are hashes of the questions as a model would be asked that speaks pixels, whatever the run's profile.
    """

    asked: Mapping[str, bytes]
    prompts: Mapping[str, bytes]
    unasked: Mapping[str, bytes]
    answered: frozenset[str]

    @classmethod
    def of(cls, run: ComparedRun) -> _Contents:
        asked, prompts = {}, {}
        for sample in run.plan.walk():
            asked[sample.id] = _truth(sample)
            prompts[sample.id] = _hash(run.plan.task.messages(sample, ABS_ORIGINAL))
        with contextlib.closing(RecordIndex(run.row.folder / SAMPLES)) as index:
            there = index.answered.keys() | index.failed.keys()
        complete = (key for key in asked if all((key, n) in there for n in range(run.completions)))
        unasked = {sample.id: _truth(sample) for sample in run.plan.unasked()}
        return cls(asked, prompts, unasked, frozenset(complete))


def _truth(sample: Sample) -> bytes:
    return _hash([target_to_json(sample.target), sample.image.width, sample.image.height])


def _hash(content: object) -> bytes:
    return hashlib.blake2b(canonical(content).encode(), digest_size=16).digest()


def _agree(one: _Contents, other: _Contents, name: str, key: str) -> bool:
    mine, theirs = getattr(one, name).get(key), getattr(other, name).get(key)
    return mine is not None and bool(mine == theirs)


def _left_out(letter: str, own: _Contents, contents: Sequence[_Contents], ids: set[str]) -> list[str]:
    """Why samples of one run are not compared: counted under the first reason that holds."""
    unanswered = {key for key in own.asked if key not in own.answered}
    rest = own.asked.keys() - ids - unanswered
    absent = {key for key in rest if any(key not in content.asked for content in contents)}
    other = {key for key in rest - absent if any(own.asked[key] != content.asked[key] for content in contents)}
    waiting = rest - absent - other
    reasons = {
        "have no answer yet": unanswered,
        "are not in every run": absent,
        "have another truth elsewhere": other,
        "are not answered in every run": waiting,
    }
    return [f"{len(keys)} samples of {letter} {reason}" for reason, keys in reasons.items() if keys]


def _refuse_other_kinds(first: RunRow, baseline: Conditions, row: RunRow, own: Conditions) -> None:
    names = differing(own, baseline)
    if "task" in names:
        raise UserError(
            f"{first.folder} is a run of {first.manifest.task}, and {row.folder} of {row.manifest.task}",
            fix="compare runs of one task",
        )
    if "sample data" in names:
        raise UserError(
            f"of {first.folder} and {row.folder}, one ran on the sample data and one on real data",
            fix="compare runs on the same data",
        )


def _plan(row: RunRow) -> RunPlan:
    if not (row.folder / SAMPLES).is_file():
        raise DataError(f"{row.folder} has lost its {SAMPLES}: there are no answers to compare", fix="leave it out")
    try:
        return plan_of_run(row.folder, row.manifest)
    except DataError as error:
        raise DataError(
            f"runs keep answers and no truth, and that of {row.folder} is not on this machine: {error.message}",
            fix=f"put the data where the run had them ({row.manifest.config.data or 'see run.json'}), "
            "or compare where they are",
        ) from None

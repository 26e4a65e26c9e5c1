"""A baseline and other runs on the samples that they share: every difference with its interval and its p-value.

Every table is a family of tests of its own: its p-values are corrected by Holm's method over all its figures and all
runs in it. The headline figure alone is a question asked beforehand; what is concluded from it is corrected for the
number of runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.leaderboards.compare_answers import Flip, Move, PairedAnswers, StatusCount
from vrft_bench.leaderboards.compare_metrics import Resampling
from vrft_bench.leaderboards.compare_shared import ComparedRun, Shared, differences, find_shared, open_compared
from vrft_bench.tasks.metrics.paired import Difference, FigureKey
from vrft_bench.tasks.metrics.significance import clusters_needed, detectable_difference, holm

TABLES = ("figures", "by_category", "by_size", "rewards", "lengths", "pass_at_k")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of two runs. ``p_holm`` is corrected over its table; ``objects`` are true ones behind it."""

    key: FigureKey
    difference: Difference
    p_holm: float | None
    objects: int | None = None

    def to_json(self, level: float) -> dict[str, Any]:
        found = self.difference
        error = found.standard_error
        needed = clusters_needed(found.clusters, error, found.value, level) if _is_number(error, found.value) else None
        value = {
            "figure": self.key.figure,
            "category": self.key.category or None,
            "size": self.key.size or None,
            "objects": self.objects,
            "baseline": found.before,
            "run": found.after,
            "difference": found.value,
            "low": found.low,
            "high": found.high,
            "p_value": found.p_value,
            "p_holm": self.p_holm,
            "standard_error": error,
            "detectable_difference": detectable_difference(error, level),
            "images_needed": needed,
        }
        return {name: None if isinstance(item, float) and math.isnan(item) else item for name, item in value.items()}


@dataclass(frozen=True)
class Pair:
    """One run against the baseline. ``tables`` are by the names of :data:`TABLES`; ``headline`` is a row of figures.

    ``right`` is the share of answers that are right, and ``headline_p`` the headline's p-value corrected for the number
    of runs. ``medians`` are of the lengths in characters.
    """

    run: ComparedRun
    tables: Mapping[str, Sequence[Row]]
    headline: Row
    headline_p: float | None
    right: Row
    flips: Sequence[Flip]
    statuses: Mapping[str, StatusCount]
    moves: Mapping[tuple[str, str], Move]
    medians: tuple[float, float]
    same_rewards: bool
    replicates: int

    @property
    def gained(self) -> int:
        """Samples that the run answers right more often than the baseline."""
        return sum(flip.after > flip.before for flip in self.flips)

    @property
    def lost(self) -> int:
        return len(self.flips) - self.gained

    def to_json(self, level: float) -> dict[str, Any]:
        return {
            "run": self.run.letter,
            "headline": self.headline.to_json(level) | {"p_holm": self.headline_p},
            **{name: [row.to_json(level) for row in self.tables[name]] for name in TABLES},
            "right": self.right.to_json(level),
            "flips": {
                "gained": self.gained,
                "lost": self.lost,
                "samples": [{"id": flip.id, "baseline": flip.before, "run": flip.after} for flip in self.flips],
            },
            "statuses": {
                name: {"answers": count.answers, "right": count.right} for name, count in self.statuses.items()
            },
            "status_changes": [
                {"baseline": before, "run": after, **asdict(move)} for (before, after), move in self.moves.items()
            ],
            "median_characters": list(self.medians),
            "replicates": self.replicates,
        }


@dataclass(frozen=True)
class Comparison:
    """Runs, what they share, and each run against the first. ``images`` are the clusters that are resampled."""

    runs: Sequence[ComparedRun]
    shared: Shared
    images: int
    pairs: Sequence[Pair]
    how: Resampling
    differing: Sequence[str]

    @property
    def baseline(self) -> ComparedRun:
        return self.runs[0]

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints, but for what is concluded."""
        level = self.how.level
        return {
            "task": self.baseline.row.manifest.task,
            "data": self.baseline.row.manifest.data,
            "runs": [
                {
                    "run": run.letter,
                    "model": run.row.manifest.model,
                    "fingerprint": run.row.manifest.fingerprint,
                    "folder": str(run.row.folder),
                    "completions_per_sample": run.completions,
                }
                for run in self.runs
            ],
            "differing": list(self.differing),
            "shared": {"samples": len(self.shared.ids), "images": self.images, "left_out": list(self.shared.left_out)},
            "seed": self.how.seed,
            "level": level,
            "pairs": [pair.to_json(level) for pair in self.pairs],
        }


def compare_runs(
    paths: Sequence[str | Path], how: Resampling | None = None, progress: Progress | None = None
) -> Comparison:
    """Compare the runs that ``paths`` name, the first of which is the baseline, on the samples that they share.

    Raises :class:`~vrft_bench.errors.UserError` for runs of which nothing can be compared.
    """
    how, progress = how or Resampling(), progress or SilentProgress()
    runs = open_compared(paths)
    shared = find_shared(runs)
    completions = sum(runs[0].completions + run.completions for run in runs[1:])
    progress.begin("reading answers", len(shared.ids) * completions)
    counted = []
    try:
        for run in runs[1:]:
            counted.append(_Counted.of(PairedAnswers(runs[0], run, shared, progress), how))
    finally:
        progress.end()
    headlines = holm([item.tables["figures"][item.headline].p_value for item in counted])
    corrected = {name: _corrected([item.tables[name] for item in counted]) for name in TABLES}
    right = holm([item.right.p_value for item in counted])
    pairs = []
    for number, (run, item) in enumerate(zip(runs[1:], counted, strict=True)):
        answers = item.answers
        tables = {name: item.rows(corrected[name][number]) for name in TABLES}
        pairs.append(
            Pair(
                run=run,
                tables=tables,
                headline=next(row for row in tables["figures"] if row.key == item.headline),
                headline_p=headlines[number],
                right=Row(FigureKey("right"), item.right, right[number]),
                flips=answers.flips(),
                statuses=answers.statuses,
                moves=answers.moves,
                medians=(_median(answers.lengths[0]), _median(answers.lengths[1])),
                same_rewards=answers.same_rewards,
                replicates=item.replicates,
            )
        )
    return Comparison(runs, shared, counted[0].answers.images, pairs, how, differences(runs, shared))


@dataclass(frozen=True)
class _Counted:
    """One pair's differences by table, before they are corrected for each other."""

    answers: PairedAnswers
    headline: FigureKey
    tables: Mapping[str, Mapping[FigureKey, Difference]]
    right: Difference
    replicates: int

    @classmethod
    def of(cls, answers: PairedAnswers, how: Resampling) -> _Counted:
        metric = answers.metric(how)
        figures = metric.figures.items()
        tables = {
            "figures": {key: item for key, item in figures if not key.category and not key.size},
            "by_category": {key: item for key, item in figures if key.category},
            "by_size": {key: item for key, item in figures if key.size},
            "rewards": answers.rewards(how),
            "lengths": answers.mean_lengths(how),
            "pass_at_k": answers.pass_at_k(how),
        }
        return cls(answers, metric.headline, tables, answers.right(how), metric.replicates)

    def rows(self, corrected: Mapping[FigureKey, tuple[Difference, float | None]]) -> list[Row]:
        """In the order of the tables; figures that neither run defines are left out."""
        found = []
        for key, (difference, p_holm) in corrected.items():
            objects = self.answers.objects.get(FigureKey("", key.category, key.size))
            if key == self.headline or not (math.isnan(difference.before) and math.isnan(difference.after)):
                found.append(Row(key, difference, p_holm, objects))
        return found


def _corrected(
    tables: Sequence[Mapping[FigureKey, Difference]],
) -> list[dict[FigureKey, tuple[Difference, float | None]]]:
    """Holm's correction over one table of all runs."""
    p_values = iter(holm([item.p_value for table in tables for item in table.values()]))
    return [{key: (item, next(p_values)) for key, item in table.items()} for table in tables]


def _median(lengths: Sequence[int]) -> float:
    return float(median(lengths)) if lengths else 0.0


def _is_number(*values: float) -> bool:
    return not any(math.isnan(value) for value in values)

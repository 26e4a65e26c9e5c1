"""Ranks that hold only what a paired test can tell: models that it cannot tell apart share one.

Every two models are compared on the questions that all of them answered, by the test that `compare` makes of a headline
figure, at 5 % and corrected by Holm's method over all pairs of a column. A thousand random exchanges cannot say how far
below one in a hundred a p-value is, and the correction asks for that: there it is the normal distribution's, with the
bootstrap's standard error. McNemar's p-values are exact, and stay as they are.

Ranks are the groups of models of which no two can be told apart (the compact letter display of Piepho 2004, with
numbers): two models share a rank exactly where the test cannot tell them apart. A model in several groups
has several ranks, such as 1-2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from vrft_bench.errors import UserError
from vrft_bench.harness.progress import Progress
from vrft_bench.harness.stored_answers import plan_of_run
from vrft_bench.leaderboards.comparability import conditions_of
from vrft_bench.leaderboards.compare_metrics import Resampling, paired_metric
from vrft_bench.leaderboards.compare_shared import ComparedRun, Shared, find_shared
from vrft_bench.leaderboards.runs import RunRow
from vrft_bench.tasks.metrics.detection import FEW_IMAGES
from vrft_bench.tasks.metrics.paired import Difference
from vrft_bench.tasks.metrics.significance import holm

LEVEL = 0.05
FEWEST_EXTREME = 10
"""A p-value is taken from exchanges where at least so many of them were as extreme as what was observed."""
HOW = Resampling(replicates=1000)
Pair = tuple[int, int]


def ranked(runs: Sequence[RunRow], progress: Progress) -> list[str]:
    """The rank of each run of one task, which may be compared. Raises :class:`UserError` where the data are absent."""
    compared = [
        ComparedRun("", row, plan_of_run(row.folder, row.manifest), conditions)
        for row, conditions in zip(runs, conditions_of([row.manifest for row in runs]), strict=True)
    ]
    shared = find_shared(compared)
    values = [_headline(row) for row in runs]
    pairs = list(combinations(range(len(runs)), 2))
    progress.begin(f"testing {runs[0].manifest.task}", len(pairs), scored=False)
    found: dict[Pair, Difference] = {}
    try:
        for one, other in pairs:
            found[one, other] = _difference(compared[one], compared[other], shared)
            progress.advance(0.0)
    finally:
        progress.end()
    return rank_names(values, told_apart(found))


def told_apart(found: Mapping[Pair, Difference]) -> set[Pair]:
    """The pairs whose difference is beyond chance; by its interval where the metric allows no test."""
    corrected = holm([difference.p_value for difference in found.values()])
    return {
        pair
        for (pair, difference), p_value in zip(found.items(), corrected, strict=True)
        if (difference.is_clear if p_value is None else p_value < LEVEL)
    }


def tail_p_value(difference: Difference, replicates: int) -> float | None:
    """The p-value of ``difference``, also where it is smaller than so many ``replicates`` can tell."""
    p_value, error = difference.p_value, difference.standard_error
    too_few = difference.clusters < FEW_IMAGES or math.isnan(error)
    if p_value is None or difference.exact or too_few or p_value * (replicates + 1) >= FEWEST_EXTREME:
        return p_value
    if error == 0:
        return p_value if difference.value == 0 else 0.0
    return min(p_value, math.erfc(abs(difference.value) / error / math.sqrt(2)))


def rank_names(values: Sequence[float], apart: set[Pair]) -> list[str]:
    """Each model's ranks: ``2``, ``1-2``, ``1, 3``. ``values`` are the figures, of which more is better."""
    groups = [frozenset(range(len(values)))]
    for one, other in sorted(apart):
        split = [
            part
            for group in groups
            for part in ((group - {one}, group - {other}) if {one, other} <= group else (group,))
        ]
        groups = [group for group in dict.fromkeys(split) if not any(group < larger for larger in split)]
    groups.sort(key=lambda group: sorted(-values[member] for member in group))
    ranks = [[rank for rank, group in enumerate(groups, 1) if member in group] for member in range(len(values))]
    return [_name(own) for own in ranks]


def _name(ranks: Sequence[int]) -> str:
    """``1-3`` for ranks that follow each other."""
    in_a_row = len(ranks) > 1 and ranks[-1] - ranks[0] == len(ranks) - 1
    return f"{ranks[0]}-{ranks[-1]}" if in_a_row else ", ".join(map(str, ranks))


def _headline(row: RunRow) -> float:
    report = row.result().report
    value = report.figures[report.headline].value
    return float("-inf") if value is None else value


def _difference(first: ComparedRun, second: ComparedRun, shared: Shared) -> Difference:
    metric = paired_metric(first)
    for number, run in enumerate((first, second)):
        for answer in run.answers(shared):
            metric.add(number, answer)
        for sample in run.missed(shared):
            for n in range(run.completions):
                metric.miss(number, sample, n)
    found = metric.differences(HOW)
    if found.headline not in found.figures:
        raise UserError(
            f"{first.row.manifest.task}: the runs share nothing that its headline is defined on",
            fix="rank runs on the same data",
        )
    difference = found.figures[found.headline]
    return replace(difference, p_value=tail_p_value(difference, found.replicates))

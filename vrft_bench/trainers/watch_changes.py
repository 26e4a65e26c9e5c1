"""How two checkpoints differ on the same questions, with intervals that take them in pairs.

The mean reward is compared question by question, its interval takes images for clusters. The metric is no mean, so its
interval is by the delete-a-group jackknife of :mod:`vrft_bench.tasks.metrics.paired`, which any metric allows. Fewer
than 20 images give no interval. A training's own log has no pairs: means over its steps are compared by Welch's
interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import NormalDist, fmean, variance

from vrft_bench.harness.plan import RunPlan
from vrft_bench.harness.records import RecordIndex
from vrft_bench.harness.scoring import Scorer
from vrft_bench.harness.store import SAMPLES
from vrft_bench.tasks.base import NO_PREDICTION, UNASKED, Figure, Prediction, Sample
from vrft_bench.tasks.metrics.paired import JACKKNIFE_GROUPS, jackknife_intervals
from vrft_bench.tasks.metrics.statistics import student_quantile

_FEW_STEPS = 5
"""Fewer logged steps than this before a checkpoint give the training's reward no interval."""


def paired_change(plan: RunPlan, before: Path, now: Path, level: float = 0.95) -> tuple[Figure, Figure]:
    """How the headline figure and the mean total reward changed between two runs of ``plan``, with their intervals."""
    runs = [_Answers(plan, run) for run in (before, now)]
    clusters = sorted(runs[0].totals)
    rewards = [(sum(runs[1].totals[c]) - sum(runs[0].totals[c]), len(runs[0].totals[c])) for c in clusters]
    count = sum(n for _, n in rewards)
    mean = sum(change for change, _ in rewards) / count
    found = jackknife_intervals(clusters, lambda without: {"headline": _difference(runs, without)}, level)["headline"]
    if len(clusters) < JACKKNIFE_GROUPS or found.value is None:
        return found, Figure(mean)
    spread = math.sqrt(sum((change - mean * n) ** 2 for change, n in rewards) * len(clusters) / (len(clusters) - 1))
    error = NormalDist().inv_cdf(0.5 + level / 2) * spread / count
    return found, Figure(mean, mean - error, mean + error)


def mean_change(before: Sequence[float], now: Sequence[float], level: float = 0.95) -> Figure:
    """How a mean changed between two series, with Welch's interval where both are long enough."""
    if not before or not now:
        return Figure(None)
    change = fmean(now) - fmean(before)
    if min(len(before), len(now)) < _FEW_STEPS:
        return Figure(change)
    parts = [variance(series) / len(series) for series in (before, now)]
    if not any(parts):
        return Figure(change, change, change)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(series) - 1) for part, series in zip(parts, (before, now), strict=True)
    )
    error = student_quantile(0.5 + level / 2, freedom) * math.sqrt(sum(parts))
    return Figure(change, change - error, change + error)


class _Answers:
    """The stored answers of one run, and their total rewards by image."""

    def __init__(self, plan: RunPlan, run: Path) -> None:
        self._plan = plan
        self._given: list[tuple[str, Sample, Prediction]] = []
        self.totals: dict[str, list[float]] = {}
        scorer = Scorer(plan)
        with closing(RecordIndex(run / SAMPLES)) as index:
            for sample in plan.walk():
                offset = index.answered.get((sample.id, 0))
                if offset is None:
                    prediction = NO_PREDICTION
                    score = plan.task.judge(prediction, sample.target)
                else:
                    prediction, score = scorer.read(sample, index.read(offset))
                cluster = sample.fields.get("image_id", sample.id)
                self._given.append((cluster, sample, prediction))
                self.totals.setdefault(cluster, []).append(score.total)
        self._given += [(item.fields.get("image_id", item.id), item, UNASKED) for item in plan.unasked()]

    def headline(self, without: frozenset[str]) -> float | None:
        """The figure over all images but those in ``without``."""
        metric = self._plan.task.metric(self._plan.dataset)
        for cluster, sample, prediction in self._given:
            if cluster not in without:
                metric.update(sample, prediction)
        report = metric.compute()
        return report.figures[report.headline].value


def _difference(runs: Sequence[_Answers], without: frozenset[str]) -> float | None:
    before, now = (run.headline(without) for run in runs)
    return None if before is None or now is None else now - before

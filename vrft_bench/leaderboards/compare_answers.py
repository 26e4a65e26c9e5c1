"""The answers of two runs to the samples that they share, counted for everything that a comparison shows.

Answers stream by once and their texts are not kept. An answer is right if it names the true class, if its box has an
IoU of .5 or more, or, in detection, if every object is found at IoU .5 and no box is wrong. By a plugin's metric it is
right if the task's first reward is .95 or more. What could not be read is never right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import comb, isnan

from vrft_bench.harness.progress import Progress
from vrft_bench.leaderboards.compare_metrics import (
    RIGHT_IOU,
    MetricDifferences,
    PairedMetric,
    Resampling,
    paired_metric,
    sizes_of,
)
from vrft_bench.leaderboards.compare_shared import Answer, ComparedRun, Shared
from vrft_bench.tasks.base import UNPARSABLE, BoxTarget, ClassTarget, Target
from vrft_bench.tasks.metrics.accuracy import AccuracyMetric
from vrft_bench.tasks.metrics.detection import DetectionMetric
from vrft_bench.tasks.metrics.grounding import GroundingMetric
from vrft_bench.tasks.metrics.outcomes import COCO_RULES, LVIS_RULES, outcome_of
from vrft_bench.tasks.metrics.paired import Difference, FigureKey, paired_differences
from vrft_bench.tasks.metrics.paired_figures import PairedMeans
from vrft_bench.tasks.paper.metrics import PaperGroundingMetric

RIGHT, CHARACTERS, TOKENS, TOTAL = (FigureKey(name) for name in ("right", "characters", "tokens", "total"))
FAILED = "failed"
"""The status of a completion that never came."""
_NEARLY_PERFECT = 0.95


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample that one run answered right more often than the other; ``before`` and ``after`` are shares."""

    id: str
    before: float
    after: float


@dataclass(slots=True)
class Tally:
    """How often one run answered a sample right, of how many times it was asked."""

    image: str
    right: int = 0
    asked: int = 0

    def pass_at(self, k: int) -> float:
        """The chance that one of k answers is right, without bias from the ``asked`` ones (Chen et al. 2021)."""
        return 1.0 - comb(self.asked - self.right, k) / comb(self.asked, k)


@dataclass(slots=True)
class StatusCount:
    """How many answers of the baseline and of the other run were read in one way, and how many of these were right."""

    answers: list[int] = field(default_factory=lambda: [0, 0])
    right: list[int] = field(default_factory=lambda: [0, 0])


@dataclass(slots=True)
class Move:
    """How many pairs of answers were read in two given ways, and how many answers of each run among them were right."""

    pairs: int = 0
    right_before: int = 0
    right_after: int = 0


class PairedAnswers:
    """Everything counted about a baseline (run 0) and another run (1).

    ``moves`` counts pairs of answers to one question by how both were read; ``objects`` the true objects by category
    and by size; ``lengths`` are in characters, of every answer that came. Rewards are compared where both runs have the
    same ones by the same rules (``same_rewards``).
    """

    def __init__(self, first: ComparedRun, second: ComparedRun, shared: Shared, progress: Progress) -> None:
        self.runs = (first, second)
        self.statuses: dict[str, StatusCount] = {}
        self.moves: dict[tuple[str, str], Move] = {}
        self.objects: Counter[FigureKey] = Counter()
        self.lengths: tuple[list[int], list[int]] = ([], [])
        self.tallies: tuple[dict[str, Tally], dict[str, Tally]] = ({}, {})
        self.same_rewards = _rewards_of(first) == _rewards_of(second)
        self._rewards, self._right, self._characters, self._tokens = (PairedMeans() for _ in range(4))
        self._metric: PairedMetric = paired_metric(first)
        self._first_read: dict[tuple[str, int], tuple[str, bool]] = {}
        is_right = _judge(first)
        for number, run in enumerate(self.runs):
            for answer in run.answers(shared):
                self._count(number, answer, is_right(answer))
                progress.advance(answer.score.total)
            for sample in run.missed(shared):
                for n in range(run.completions):
                    self._metric.miss(number, sample, n)
        for sample in first.plan.walk():
            if sample.id in shared.ids:
                self._count_objects(sample.target, sample.fields.get("category", ""))

    @property
    def images(self) -> int:
        """How many clusters there are: images, or samples that have one of their own."""
        return len({tally.image for tally in self.tallies[0].values()})

    def flips(self) -> list[Flip]:
        """The samples that one run answered right more often, in the data's order."""
        before, after = self.tallies
        shares = (Flip(key, own.right / own.asked, after[key].right / after[key].asked) for key, own in before.items())
        return [flip for flip in shares if flip.before != flip.after]

    def metric(self, how: Resampling) -> MetricDifferences:
        """The task's own figures, in all, by category and by size."""
        return self._metric.differences(how)

    def right(self, how: Resampling) -> Difference:
        """The share of answers that are right."""
        return _compared(self._right, how)[RIGHT]

    def rewards(self, how: Resampling) -> dict[FigureKey, Difference]:
        """Mean rewards: every component, and the weighted total; nothing where the runs' rewards are not the same."""
        return _compared(self._rewards, how)

    def mean_lengths(self, how: Resampling) -> dict[FigureKey, Difference]:
        """The mean length of answers, in characters and, where both backends said so, in tokens."""
        found = _compared(self._characters, how) | _compared(self._tokens, how)
        return {key: item for key, item in found.items() if not isnan(item.value)}

    def pass_at_k(self, how: Resampling) -> dict[FigureKey, Difference]:
        """pass@k for k = 1, 2, 4, ... and all answers; nothing where both runs have one answer to a sample.

        A run with fewer answers than k has no figure.
        """
        completions = {run.completions for run in self.runs}
        if completions == {1}:
            return {}
        figures = PairedMeans(exchangeable=len(completions) == 1)
        for k in sorted(completions | {1 << power for power in range(max(completions).bit_length())}):
            for run, tallies in enumerate(self.tallies):
                for tally in tallies.values():
                    if tally.asked >= k:
                        figures.add(run, tally.image, FigureKey(f"pass@{k}"), tally.pass_at(k))
        return _compared(figures, how)

    def _count(self, run: int, answer: Answer, is_right: bool) -> None:
        tally = self.tallies[run].setdefault(answer.sample.id, Tally(answer.image))
        tally.asked += 1
        tally.right += is_right
        self._metric.add(run, answer)
        self._right.add(run, answer.image, RIGHT, float(is_right))
        if self.same_rewards:
            for name, value in (*answer.score.components.items(), (TOTAL.figure, answer.score.total)):
                self._rewards.add(run, answer.image, FigureKey(name), value)
        status = FAILED if answer.record is None else answer.prediction.status.value
        count = self.statuses.setdefault(status, StatusCount())
        count.answers[run] += 1
        count.right[run] += is_right
        place = (answer.sample.id, answer.n)
        if run == 0:
            self._first_read[place] = status, is_right
        elif (earlier := self._first_read.get(place)) is not None:
            move = self.moves.setdefault((earlier[0], status), Move())
            move.pairs += 1
            move.right_before += earlier[1]
            move.right_after += is_right
        if answer.record is None:
            return
        length = len(answer.record["text"])
        self.lengths[run].append(length)
        self._characters.add(run, answer.image, CHARACTERS, length)
        if (tokens := answer.record.get("completion_tokens")) is not None:
            self._tokens.add(run, answer.image, TOKENS, tokens)

    def _count_objects(self, target: Target, category: str) -> None:
        if isinstance(target, ClassTarget):
            self.objects[FigureKey("", category=target.label)] += 1
            return
        for size in sizes_of(target):
            self.objects[FigureKey("", size=size)] += 1
            if category:
                self.objects[FigureKey("", category=category)] += 1


def _judge(first: ComparedRun) -> Callable[[Answer], bool]:
    """Whether an answer is right, by the kind of the baseline's metric."""
    metric = first.plan.task.metric(first.plan.dataset)
    rules = LVIS_RULES if first.plan.dataset.rules == "lvis" else COCO_RULES

    def judged(answer: Answer) -> bool:
        sample, prediction = answer.sample, answer.prediction
        if answer.record is None or prediction.status in UNPARSABLE:
            return False
        if isinstance(metric, AccuracyMetric):
            return metric.value(sample, prediction) >= 1.0
        if isinstance(metric, GroundingMetric | PaperGroundingMetric):
            return metric.value(sample, prediction) >= RIGHT_IOU
        if isinstance(metric, DetectionMetric) and isinstance(sample.target, BoxTarget):
            outcome = outcome_of(sample.target, prediction.detections, rules)
            return outcome.hits == outcome.truths[0] and outcome.extras == 0
        return next(iter(answer.score.components.values())) >= _NEARLY_PERFECT

    return judged


def _rewards_of(run: ComparedRun) -> tuple[object, ...]:
    """What a reward's value depends on beside the answer."""
    task = run.plan.task
    return task.protocol, [reward.name for reward in task.rewards], dict(task.weights)


def _compared(figures: PairedMeans, how: Resampling) -> dict[FigureKey, Difference]:
    if not figures.keys:
        return {}
    return paired_differences(figures, level=how.level, replicates=how.replicates, seed=how.seed)

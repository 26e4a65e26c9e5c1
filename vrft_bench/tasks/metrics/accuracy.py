"""Accuracy: top-1, balanced over the classes, and centred on chance.

* ``accuracy`` is the mean of a correctness rule over all answers, with Wilson's interval.
* ``balanced_accuracy`` is the mean over the true classes of the accuracy within each (mean per-class recall), so that
  a frequent class weighs no more than a rare one. Its interval joins the classes' Wilson intervals by the method of
  variance estimates recovery (Zou and Donner 2008): half-widths add up as independent errors do.
* ``chance_centred_accuracy`` is (accuracy - 1/k) / (1 - 1/k) for k classes to choose from: 0 for guessing, 1 for all
  right, below 0 for worse than guessing. Not defined for a single class.

Whether an answer names the true class is the accuracy reward's business, so this metric is given that function: reward
and metric cannot drift apart.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable

from vrft_bench.tasks.base import ClassTarget, Dataset, Figure, MetricReport, Prediction, Sample
from vrft_bench.tasks.metrics.statistics import wilson_interval


class AccuracyMetric:
    """Accuracy over the samples of ``dataset``, and per true class. All classes of the dataset can be chosen.

    ``correct`` is the accuracy reward, a value in [0, 1]. The interval counts a sample once, however often asked:
    several answers to one question are not independent trials.
    """

    def __init__(
        self, dataset: Dataset, correct: Callable[[Prediction, ClassTarget], float], *, confidence_level: float = 0.95
    ) -> None:
        self._correct = correct
        self._level = confidence_level
        self._classes = dataset.categories
        self._values: dict[str, array[float]] = {}
        self._asked: dict[str, dict[int, int]] = {}

    def value(self, sample: Sample, prediction: Prediction) -> float:
        """How right one answer is, in [0, 1]: accuracy is the mean of this."""
        assert isinstance(sample.target, ClassTarget)
        return self._correct(prediction, sample.target)

    def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:
        """Count one answer."""
        assert isinstance(sample.target, ClassTarget)
        label = sample.target.label
        if label not in self._values:
            self._values[label], self._asked[label] = array("d"), {}
        self._values[label].append(self.value(sample, prediction))
        self._asked[label][n] = self._asked[label].get(n, 0) + 1

    def compute(self) -> MetricReport:
        """Accuracy, overall and for each true class that was asked."""
        unknown = sorted(set(self._values) - set(self._classes))
        labels = [label for label in (*self._classes, *unknown) if label in self._values]
        # fsum is exact, so the figure does not depend on the order of updates.
        sums = {label: math.fsum(self._values[label]) for label in labels}
        samples = {label: max(self._asked[label].values()) for label in labels}
        answers = sum(len(self._values[label]) for label in labels)
        accuracy = self._figure(math.fsum(sums.values()), answers, sum(samples.values()))
        by_class = {label: self._figure(sums[label], len(self._values[label]), samples[label]) for label in labels}
        return MetricReport(
            headline="accuracy",
            figures={
                "accuracy": accuracy,
                "balanced_accuracy": _mean(list(by_class.values())),
                "chance_centred_accuracy": _centred(accuracy, len(self._classes)),
            },
            by_category={label: {"n": samples[label], "accuracy": by_class[label]} for label in labels},
        )

    def _figure(self, total: float, answers: int, samples: int) -> Figure:
        if not answers:
            return Figure(None)
        return Figure(total / answers, *wilson_interval(total / answers, samples, self._level))


def _mean(parts: list[Figure]) -> Figure:
    """The mean of independent figures, with the interval that theirs make together."""
    if not parts:
        return Figure(None)
    # Every part is defined and has an interval: a class is listed only where it was asked.
    values, lows, highs = (
        [item or 0.0 for item in column] for column in zip(*((p.value, p.low, p.high) for p in parts), strict=True)
    )
    value = math.fsum(values) / len(parts)
    below = math.sqrt(math.fsum((v - low) ** 2 for v, low in zip(values, lows, strict=True))) / len(parts)
    above = math.sqrt(math.fsum((high - v) ** 2 for v, high in zip(values, highs, strict=True))) / len(parts)
    return Figure(value, max(0.0, value - below), min(1.0, value + above))


def _centred(accuracy: Figure, classes: int) -> Figure:
    """``accuracy`` with chance at 0. A linear map, so the ends of the interval go through it too."""
    if accuracy.value is None or classes < 2:
        return Figure(None)
    chance = 1.0 / classes
    ends = (accuracy.value, accuracy.low, accuracy.high)
    return Figure(*(None if end is None else (end - chance) / (1.0 - chance) for end in ends))

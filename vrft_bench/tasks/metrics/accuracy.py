"""Top-1 accuracy: the mean of a correctness rule over all answers, with Wilson's interval.

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
    """Accuracy over the samples of ``dataset``, and per true class.

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

    def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:
        """Count one answer."""
        target = sample.target
        assert isinstance(target, ClassTarget)
        label = target.label
        if label not in self._values:
            self._values[label], self._asked[label] = array("d"), {}
        self._values[label].append(self._correct(prediction, target))
        self._asked[label][n] = self._asked[label].get(n, 0) + 1

    def compute(self) -> MetricReport:
        """Accuracy, overall and for each true class that was asked."""
        unknown = sorted(set(self._values) - set(self._classes))
        labels = [label for label in (*self._classes, *unknown) if label in self._values]
        # fsum is exact, so the figure does not depend on the order of updates.
        sums = {label: math.fsum(self._values[label]) for label in labels}
        samples = {label: max(self._asked[label].values()) for label in labels}
        answers = sum(len(self._values[label]) for label in labels)
        return MetricReport(
            headline="accuracy",
            figures={"accuracy": self._figure(math.fsum(sums.values()), answers, sum(samples.values()))},
            by_category={
                label: {
                    "n": samples[label],
                    "accuracy": self._figure(sums[label], len(self._values[label]), samples[label]),
                }
                for label in labels
            },
        )

    def _figure(self, total: float, answers: int, samples: int) -> Figure:
        if not answers:
            return Figure(None)
        return Figure(total / answers, *wilson_interval(total / answers, samples, self._level))

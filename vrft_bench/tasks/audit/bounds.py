"""What a task may give away, and whether what a trick earned is more than that, or only may be.

A trick earns its figure on the samples that were drawn; on others it would have earned another. It exceeds a bound
where the whole of its 95 % interval does: of a metric the metric's own (bootstrap over images), of a reward's mean
Student's, in which samples with and without truth are two strata, since they are drawn so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vrft_bench.errors import UserError
from vrft_bench.tasks.audit.labels import largest_share
from vrft_bench.tasks.audit.tricks import answer
from vrft_bench.tasks.base import BoxTarget, Sample, Task
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.metrics.statistics import student_quantile

TOLERANCE = 1e-9
_PROBABILITY = 0.975
"""Of being below the upper end of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Earned:
    """A mean or a metric, and the lower end of its 95 % interval; ``None`` where there are too few samples for one."""

    value: float
    low: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which bounds are exceeded (``above``), and which may be: there were too few samples to tell (``unsure``)."""

    above: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """The highest allowed means by component, and the highest headline metric (``metric``), over all ``samples``.

    ``where_present`` are those over the samples that have truth: refusals earn so much where there is none that they
    would hide what can be had where there is. It is empty where all samples have truth.
    """

    samples: Mapping[str, float]
    where_present: Mapping[str, float]

    def verdict(self, earned: Mapping[str, Earned], where_present: Mapping[str, Earned]) -> Verdict:
        """What exceeds its bound, by name; over the samples with truth it is called ``NAME where present``."""
        compared = [(name, earned.get(name), bound) for name, bound in self.samples.items()]
        compared += [
            (f"{name} where present", where_present.get(name), bound) for name, bound in self.where_present.items()
        ]
        above: list[str] = []
        unsure: list[str] = []
        for name, figure, bound in compared:
            if figure is None or figure.value <= bound + TOLERANCE:
                continue
            sure = figure.low is not None and figure.low > bound + TOLERANCE
            (above if sure else unsure).append(name)
        return Verdict(tuple(above), tuple(unsure))


def bounds_of(task: Task, samples: Sequence[Sample], profile: ModelProfile) -> Bounds:
    """What tricks may have on ``samples``.

    What the best honest constant earns (the most common class; right refusals, where the protocol pays for them) is
    nobody's trick; ``Task.blind_bounds`` is what the task allows beyond it, over a draw half of which has truth. So
    over the samples with truth it is twice as much.

    Raises :class:`UserError` where the honest constant earns all that there is, so that no trick could earn more.
    """
    allowed = task.blind_bounds
    honest: dict[str, float] = {}
    if isinstance(task, ClassificationTask):
        share = largest_share(samples)
        if share == 1.0:
            raise UserError(
                f"nothing can be told of task {task.name!r} from {len(samples)} samples of one class: its name is "
                "always right",
                fix="raise --limit, or give data of several classes",
            )
        honest = dict.fromkeys(allowed, share)
    elif isinstance(task, DetectionTask):
        for sample in samples:
            if has_truth(sample):
                continue
            frame = Frame(profile, sample.image.width, sample.image.height)
            score = task.judge(task.parse(answer("No Objects"), frame), sample.target)
            for name, value in score.components.items():
                honest[name] = honest.get(name, 0.0) + value / len(samples)
    absent = not all(map(has_truth, samples))
    return Bounds(
        samples={name: extra + honest.get(name, 0.0) for name, extra in allowed.items()},
        where_present={name: 2.0 * extra for name, extra in allowed.items() if absent and name != "metric"},
    )


def has_truth(sample: Sample) -> bool:
    """Whether anything but a refusal can be right."""
    return not isinstance(sample.target, BoxTarget) or bool(sample.target.findable)


def mean_earned(present: Iterable[float], absent: Iterable[float] = ()) -> Earned:
    """The mean of all values (at least one), which were drawn from two strata.

    A stratum of a single value has no variance of its own: then all are taken as one. Values that are all equal leave
    no doubt.
    """
    strata = [values for values in (list(present), list(absent)) if values]
    together = [value for values in strata for value in values]
    mean = sum(together) / len(together)
    if len(together) < 2:
        return Earned(mean, None)
    if any(len(values) < 2 for values in strata):
        strata = [together]
    variance = sum(_sum_of_squares(values) / (len(values) - 1) * len(values) for values in strata)
    error = math.sqrt(variance) / len(together)
    return Earned(mean, mean - student_quantile(_PROBABILITY, len(together) - len(strata)) * error)


def _sum_of_squares(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) * (value - mean) for value in values)  # a power of a huge float would raise

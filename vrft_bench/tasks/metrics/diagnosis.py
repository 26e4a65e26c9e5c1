"""What explains a detection AP, and what needs no confidence at all.

* ``olrp`` (headline, an error: 0 is best) with its parts ``olrp_loc``, ``olrp_fp``, ``olrp_fn``, and ``lrp`` with all
  boxes kept: means over the categories with truth (see :mod:`~vrft_bench.tasks.metrics.lrp`).
* ``count_error`` is the mean absolute difference between the numbers of boxes given and of objects, over the questions
  that have objects; ``count_error_absent`` over those that have none. Questions whose truth is incomplete (crowd
  regions, categories that are not exhaustively annotated or not verified) are left out.
* ``ap50`` and ``lost_KIND``: what AP at IoU .5 gains if one kind of mistake alone is mended, in the manner of TIDE (see
  :mod:`~vrft_bench.tasks.metrics.error_breakdown`). The gains overlap and do not add up to 1 - AP.
* ``ap_lost_unparsable`` and ``ap_lost_unanswered``: what AP gains if the questions whose answers could not be read, or
  never came, are left out with their truth.
* ``ap_boxes_right`` and ``ap_labels_right``: AP with every box put on an object of the right category, as many as there
  are, and with every box asked under the name of the object that it stands on.
* ``ap_POLICY``: AP by each of the scoring policies (:mod:`~vrft_bench.tasks.metrics.scoring_policies`);
  ``ap_agreement`` only where samples were asked several times, ``ap_logprob`` only where the likelihoods of boxes are
  known; a box of which it is not comes last.

All AP follow the rules of the metric itself (COCO or LVIS), over IoU .50:.95 but for ``ap50``. Figures are means over
completion indices, and have no intervals: they explain, they do not rank models.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import nan

import numpy as np
from numpy.typing import NDArray

from vrft_bench.tasks.base import BoxTarget, Dataset, Detection, Figure, MetricReport, Prediction, Sample
from vrft_bench.tasks.metrics import counterfactuals
from vrft_bench.tasks.metrics.answer_columns import AnswerColumns, Question, answered
from vrft_bench.tasks.metrics.average_precision import Floats, mean_defined
from vrft_bench.tasks.metrics.category_figures import mean_over_runs
from vrft_bench.tasks.metrics.error_breakdown import ERRORS, WRONG, ImageErrors, counted_truths, image_errors
from vrft_bench.tasks.metrics.lrp import optimal_lrp
from vrft_bench.tasks.metrics.outcome_table import ImageIds, OutcomeTable
from vrft_bench.tasks.metrics.outcomes import COCO_RULES, LVIS_RULES, Outcome, Rules, outcome_of
from vrft_bench.tasks.metrics.scoring_policies import POLICIES, Answer, Policy

_SCENARIOS: dict[str, Callable[[Sequence[Question]], list[Question]]] = {
    "without_unparsable": counterfactuals.readable,
    "without_unanswered": counterfactuals.answered,
    "boxes_right": counterfactuals.boxes_right,
}
_LRP_PARTS = ("olrp", "loc", "fp", "fn", "lrp", "threshold")


class DiagnosisMetric:
    """The companions of AP over the samples of ``dataset``, each of which asks for one category in one image.

    As for ``DetectionMetric``, every question must be counted, also those that nobody asked (with ``UNASKED``),
    once for each completion index. Memory: 48 bytes per predicted and 40 per true box, and about 200 per predicted box
    while computing.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._categories = dataset.categories
        self._index = {name: number for number, name in enumerate(dataset.categories)}
        self._rules = LVIS_RULES if dataset.rules == "lvis" else COCO_RULES
        self._columns = AnswerColumns()
        self._runs: set[int] = set()
        self._boxes = self._likely = 0
        self._wants_likelihoods = False
        # (without, with objects) x (questions, sum of their counting errors) x categories
        self._counted = np.zeros((2, 2, len(self._categories)), dtype=np.int64)

    def update(
        self, sample: Sample, prediction: Prediction, n: int = 0, likelihoods: Sequence[float | None] | None = None
    ) -> None:
        """Count the answer to one question. ``likelihoods`` has an item per box, where the run was to keep them."""
        target = sample.target
        assert isinstance(target, BoxTarget)
        category = self._index[sample.fields["category"]]
        self._runs.add(n)
        likely = () if likelihoods is None else tuple([nan if value is None else value for value in likelihoods])
        self._wants_likelihoods |= likelihoods is not None
        self._boxes += len(prediction.detections)
        self._likely += sum([value == value for value in likely])
        question = Question(n, category, target, prediction.detections, answered(prediction), likely)
        self._columns.add(sample.fields["image_id"], question)
        if target.verified and target.exhaustive and not target.crowd:
            error = abs(len(prediction.detections) - len(target.boxes))
            self._counted[int(bool(target.boxes)), :, category] += (1, error)

    def compute(self) -> MetricReport:
        """The figures over everything counted so far."""
        absent_policies = {"agreement"} if len(self._runs) < 2 else set()
        absent_policies |= set() if self._likely else {"logprob"}
        policies = {name: policy for name, policy in POLICIES.items() if name not in absent_policies}
        runs = {n: _Run(self._rules, len(self._categories), policies) for n in sorted(self._runs) or [0]}
        for image, questions in enumerate(self._columns.images()):
            for n, own in _by_run(questions):
                runs[n].add_image(str(image), own)
            for name, changed in _by_policy(questions, policies, len(runs)):
                for n, own in _by_run(changed):
                    runs[n].add_answers(str(image), name, own)
        found = [run.values() for run in runs.values()]
        values = {name: mean_over_runs([item[name] for item in found]) for name in found[0]}
        mistakes = {kind: np.sum([run.mistakes[kind] for run in runs.values()], axis=0) for kind in ERRORS}
        means = {name: mean_defined(item) for name, item in values.items()}
        figures = {name: means[name] for name in ("olrp", "olrp_loc", "olrp_fp", "olrp_fn", "lrp")}
        absent, present = self._counted.sum(axis=2)
        figures |= {"count_error": _ratio(present), "count_error_absent": _ratio(absent), "ap50": means["ap50"]}
        figures |= {f"lost_{kind}": _gain(means[kind], means["ap50"]) for kind in ERRORS}
        ap = means["self_reported"]
        figures |= {f"ap_lost_{name}": _gain(means[f"without_{name}"], ap) for name in ("unparsable", "unanswered")}
        figures |= {f"ap_{name}": means[name] for name in ("boxes_right", "labels_right", *POLICIES) if name in means}
        return MetricReport(
            headline="olrp",
            figures={name: Figure(value) for name, value in figures.items()},
            by_category={
                name: {
                    **{key: Figure(_defined(values[key][index])) for key in values if key.startswith("olrp")},
                    "count_error": Figure(_ratio(self._counted[1, :, index])),
                    **{f"{kind}_boxes": int(mistakes[kind][index]) for kind in ERRORS},
                }
                for index, name in enumerate(self._categories)
            },
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        if not self._wants_likelihoods or self._likely == self._boxes:
            return ()
        unknown = f"of {self._boxes:,} boxes, how likely the model found {self._boxes - self._likely:,} is not known"
        return (f"{unknown}: {'they come last in AP logprob' if self._likely else 'there is no AP logprob'}",)


class _Run:
    """One completion index: outcomes by scenario, and what LRP and the breakdown count."""

    def __init__(self, rules: Rules, categories: int, policies: Iterable[str]) -> None:
        self._rules = rules
        self._categories = categories
        self._ids = ImageIds()
        names = ("ap50", *ERRORS, *_SCENARIOS, "labels_right", *policies)
        self._tables = {name: OutcomeTable(self._ids) for name in names}
        self._outcomes: dict[tuple[int, tuple[Detection, ...]], Outcome] = {}
        self._boxes = [(array("d"), array("d")) for _ in range(categories)]
        self._truths = np.zeros(categories, dtype=np.int64)
        self.mistakes = {kind: np.zeros(categories, dtype=np.int64) for kind in ERRORS}

    def add_image(self, image: str, questions: list[Question]) -> None:
        """Count the answers about one image, as they are and as they might have been."""
        self._outcomes.clear()
        errors = image_errors(questions, self._rules)
        self._count(questions, errors)
        for name in ("ap50", *ERRORS):
            for category, outcome in counterfactuals.mended_outcomes(questions, errors, name, self._rules):
                self._tables[name].add(image, category, outcome)
        for name, scenario in _SCENARIOS.items():
            self.add_answers(image, name, scenario(questions))
        self.add_answers(image, "labels_right", counterfactuals.labels_right(questions, errors))

    def add_answers(self, image: str, name: str, questions: Sequence[Question]) -> None:
        """Count answers about the last image for the AP that is called ``name``."""
        for item in questions:
            key = (item.category, item.detections)
            outcome = self._outcomes.get(key)
            if outcome is None:  # most scenarios leave most answers as they are
                outcome = self._outcomes[key] = outcome_of(item.target, item.detections, self._rules)
            self._tables[name].add(image, item.category, outcome)

    def values(self) -> dict[str, Floats]:
        """Every figure, with an item per category; NaN where it is not defined."""
        parts = [
            optimal_lrp(np.asarray(scores), np.asarray(ious), int(truths))
            for (scores, ious), truths in zip(self._boxes, self._truths, strict=True)
        ]
        columns = {name: np.array([getattr(item, name) for item in parts]) for name in _LRP_PARTS}
        values = {name if name.endswith("lrp") else f"olrp_{name}": column for name, column in columns.items()}
        for name, table in self._tables.items():
            at_50 = name in ("ap50", *ERRORS)  # these are cut to the limit per image already
            limit = None if at_50 else self._rules.limit_per_image
            ap = counterfactuals.average_precision(table, self._ids, self._categories, limit)
            values[name] = ap[0] if at_50 else ap.mean(axis=0)
        return values

    def _count(self, questions: list[Question], errors: ImageErrors) -> None:
        for item in questions:
            self._truths[item.category] += len(counted_truths(item.target, self._rules))
        for box in errors.judged:
            if box.truth >= WRONG:
                scores, ious = self._boxes[questions[box.question].category]
                scores.append(box.score)
                ious.append(box.iou if box.truth >= 0 else np.nan)
        for mistake in errors.mistakes:
            self.mistakes[mistake.kind][questions[errors.judged[mistake.judged].question].category] += 1
        for number, _ in errors.missed:
            self.mistakes["missed"][questions[number].category] += 1


def _by_run(questions: Sequence[Question]) -> Iterator[tuple[int, list[Question]]]:
    """The questions, which come by completion index, of each index."""
    return ((n, list(own)) for n, own in groupby(questions, key=lambda item: item.n))


def _by_policy(
    questions: Sequence[Question], policies: Mapping[str, Policy], runs: int
) -> Iterator[tuple[str, list[Question]]]:
    """The questions about one image with their boxes ranked by each scoring policy."""
    by_category: dict[int, list[Question]] = {}
    for item in questions:
        by_category.setdefault(item.category, []).append(item)
    for name, policy in policies.items():
        changed = []
        for own in by_category.values():
            # Answers without a box, where there is no truth either, are not among the columns.
            answers = [Answer(item.detections, item.likelihoods) for item in own] + [Answer(())] * (runs - len(own))
            changed += [
                item._replace(detections=tuple(scored)) for item, scored in zip(own, policy(answers), strict=False)
            ]
        yield name, sorted(changed, key=lambda item: item.n)


def _gain(better: float | None, value: float | None) -> float | None:
    return None if better is None or value is None else better - value


def _ratio(counted: NDArray[np.int64]) -> float | None:
    """The mean of (number, sum)."""
    number, total = counted.tolist()
    return total / number if number else None


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

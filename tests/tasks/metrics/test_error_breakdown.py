"""Every kind of mistake by hand, and the whole breakdown against a plain one written from the paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vrft_bench.tasks.base import BoxTarget, Detection
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.answer_columns import Question
from vrft_bench.tasks.metrics.diagnosis import DiagnosisMetric
from vrft_bench.tasks.metrics.error_breakdown import ERRORS, IGNORED, WRONG, ImageErrors, claim, image_errors
from vrft_bench.tasks.metrics.outcomes import COCO_RULES, LVIS_RULES, outcome_of

A, B, FAR = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (100.0, 100.0, 110.0, 110.0)
HALF_A = (0.0, 0.0, 10.0, 4.0)
"""IoU .4 with A."""


def _question(category: int, truths: tuple[Box, ...], *found: tuple[Box, float], **target: Any) -> Question:
    return Question(0, category, BoxTarget(truths, **target), tuple(Detection(*item) for item in found))


def _kinds(errors: ImageErrors) -> list[str]:
    return [mistake.kind for mistake in errors.mistakes]


def test_each_kind_by_hand():
    errors = image_errors(
        [
            _question(0, (A,), (A, 0.9), (A, 0.8), (HALF_A, 0.7), (FAR, 0.6), (B, 0.5), ((20.0, 0.0, 30.0, 4.0), 0.4)),
            _question(1, (B, FAR)),
        ],
        COCO_RULES,
    )
    assert [(box.score, box.truth) for box in errors.judged] == [
        (0.9, 0), (0.8, WRONG), (0.7, WRONG), (0.6, WRONG), (0.5, WRONG), (0.4, WRONG),
    ]  # fmt: skip
    assert _kinds(errors) == ["duplicate", "localisation", "classification", "classification", "both"]
    # The truth that the poorly placed box wants is claimed; the two under the wrong name would find theirs.
    assert [(mistake.wanted, mistake.mends) for mistake in errors.mistakes] == [
        (None, False), ((0, 0), False), ((1, 1), True), ((1, 0), True), (None, False),
    ]  # fmt: skip
    assert errors.missed == []


def test_a_box_far_from_all_truth_is_background_and_unclaimed_truth_is_missed():
    errors = image_errors([_question(0, (A,), (FAR, 0.9)), _question(1, (B,))], COCO_RULES)
    assert _kinds(errors) == ["background"]
    assert errors.missed == [(0, 0), (1, 0)]
    assert _kinds(image_errors([_question(0, (), (FAR, 0.9))], COCO_RULES)) == ["background"]


def test_of_several_boxes_that_nearly_find_one_truth_the_most_confident_mends_it():
    errors = image_errors([_question(0, (A,), (HALF_A, 0.3), ((0.0, 0.0, 10.0, 3.0), 0.6))], COCO_RULES)
    assert [(errors.judged[item.judged].score, item.mends) for item in errors.mistakes] == [(0.6, True), (0.3, False)]
    assert errors.missed == []


def test_overlaps_on_the_bounds_are_of_localisation():
    """Exactly .1 and, where a better box has the truth, exactly .5."""
    tenth, half = (0.0, 0.0, 10.0, 1.0), (0.0, 0.0, 10.0, 5.0)
    assert _kinds(image_errors([_question(0, (A,), (tenth, 0.9))], COCO_RULES)) == ["localisation"]
    assert _kinds(image_errors([_question(0, (A,), ((0.0, 0.0, 10.0, 0.9), 0.9))], COCO_RULES)) == ["background"]
    assert _kinds(image_errors([_question(0, (A,), (A, 0.9), (half, 0.5))], COCO_RULES)) == ["localisation"]
    assert _kinds(image_errors([_question(0, (A,), (A, 0.9), ((0.0, 0.0, 10.0, 5.1), 0.5))], COCO_RULES)) == [
        "duplicate"
    ]


def test_of_an_lvis_image_the_300_most_confident_boxes_are_judged_over_all_categories():
    sure = _question(0, (), *[(FAR, 0.9)] * 200)
    unsure = _question(1, (A,), *[(FAR, 0.5)] * 150, (A, 0.1))
    errors = image_errors([sure, unsure], LVIS_RULES)
    assert Counter(box.question for box in errors.judged) == {0: 200, 1: 100}
    assert errors.missed == [(1, 0)]
    assert len(image_errors([sure, unsure], COCO_RULES).judged) == 200  # 100 of each


def test_ignored_boxes_are_no_mistakes():
    crowd = _question(0, (A,), (B, 0.9), (FAR, 0.5), crowd=(B,))
    assert _kinds(image_errors([crowd], COCO_RULES)) == ["background"]
    incomplete = _question(0, (A,), (FAR, 0.9), exhaustive=False)
    assert image_errors([incomplete], LVIS_RULES).mistakes == []
    unverified = _question(0, (), (FAR, 0.9), verified=False)
    assert image_errors([unverified], LVIS_RULES).judged[0].truth == IGNORED


@pytest.mark.parametrize("options", [{}, {"crowds": True}, {"lvis": True, "crowds": True}, {"many": 120}])
def test_claims_are_those_that_ap_counts(random_world: Callable[..., Any], options: dict[str, Any]):
    checked = Counter()
    for seed in range(15):
        rules = LVIS_RULES if options.get("lvis") else COCO_RULES
        for sample, prediction in random_world(seed, **options).pairs():
            ranked = sorted(prediction.detections, key=lambda item: -item.confidence)[: rules.limit]
            outcome = outcome_of(sample.target, ranked, rules)
            expected = [
                1 if true & 1 else WRONG if counted & 1 else IGNORED
                for true, counted in zip(outcome.true, outcome.counted, strict=True)
            ]
            claims = claim(sample.target, ranked, rules)
            assert [1 if truth >= 0 else truth for truth, _ in claims] == expected
            taken = [truth for truth, _ in claims if truth >= 0]
            assert len(taken) == len(set(taken))
            for (truth, overlap), item in zip(claims, ranked, strict=True):
                if truth >= 0:
                    assert overlap == iou(item.box, sample.target.boxes[truth]) >= 0.5
            checked.update(expected)
    assert checked[1] > 100
    assert checked[WRONG] > 100
    assert checked[IGNORED] > 20 or not options.get("crowds")


def _confused(world: Any, seed: int) -> None:
    """Gives each box a score of its own and moves four in ten to another category; the last category gets truth."""
    rng = np.random.default_rng(seed)
    answers: dict[Any, list[Detection]] = {}
    for (image, name), found in world.answers.items():
        for item in found:
            other = name if rng.random() < 0.6 else world.categories[rng.integers(len(world.categories))]
            answers.setdefault((image, other), []).append(Detection(item.box, float(rng.random())))
    last = world.categories[-1]
    for number, image in enumerate(world.images):
        world.targets[image, last] = BoxTarget((A,))
        if number % 2:
            answers.setdefault((image, last), []).append(Detection(A, float(rng.random())))
    world.answers = {key: tuple(found) for key, found in answers.items()}


def _plain_ap(points: list[tuple[float, bool]], truths: int) -> float:
    hits, curve = 0, []
    for rank, (_, right) in enumerate(sorted(points, key=lambda point: -point[0]), 1):
        hits += right
        curve.append((hits / truths, hits / rank))
    levels = np.linspace(0, 1, 101)
    return float(np.mean([max((p for r, p in curve if r >= level), default=0.0) for level in levels]))


def _plain_breakdown(world: Any) -> tuple[dict[str, float], Counter[str]]:
    """TIDE as its paper has it: one list of (category, score, right) per fix, AP at .5 by the definition."""
    names = world.categories
    points: dict[str, list[tuple[str, float, bool]]] = {kind: [] for kind in ("none", *ERRORS)}
    truths = Counter(
        {name: sum(len(world.targets[i, n].boxes) for i, n in world.targets if n == name) for name in names}
    )
    missed: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for image in world.images:
        gt = [(name, box) for name in names for box in world.targets.get((image, name), BoxTarget(())).boxes]
        found = [(item.confidence, name, item.box) for name in names for item in world.answers.get((image, name), ())]
        found.sort(reverse=True)
        owner: dict[int, int] = {}
        for d, (_, name, box) in enumerate(found):
            best = [(iou(box, truth), j) for j, (other, truth) in enumerate(gt) if other == name and j not in owner]
            if best and max(best)[0] >= 0.5:
                owner[max(best)[1]] = d
        best_of: dict[int, int] = {}
        kinds: dict[int, tuple[str, int | None]] = {}
        for d, (_, name, box) in enumerate(found):
            if d in owner.values():
                continue
            same = [(iou(box, truth), -j) for j, (other, truth) in enumerate(gt) if other == name]
            cross = [(iou(box, truth), -j) for j, (other, truth) in enumerate(gt) if other != name]
            doubles = [value for value, j in same if -j in owner and value >= 0.5]
            if same and 0.1 <= max(same)[0] <= 0.5:
                kinds[d] = ("localisation", -max(same)[1])
            elif cross and max(cross)[0] >= 0.5:
                kinds[d] = ("classification", -max(cross)[1])
            elif doubles:
                kinds[d] = ("duplicate", None)
            elif max([*same, *cross], default=(0.0, 0))[0] <= 0.1:
                kinds[d] = ("background", None)
            else:
                kinds[d] = ("both", None)
            wanted = kinds[d][1]
            if wanted is not None and wanted not in owner:
                best_of.setdefault(wanted, d)
        for j, (name, _) in enumerate(gt):
            if j not in owner and j not in best_of:
                missed[name] += 1
        counts.update(kind for kind, _ in kinds.values())
        for fix, own in points.items():
            for d, (score, name, _) in enumerate(found):
                if d not in kinds:
                    own.append((name, score, True))
                elif kinds[d][0] != fix:
                    own.append((name, score, False))
                elif best_of.get(kinds[d][1]) == d:
                    own.append((gt[kinds[d][1]][0], score, True))
    counts["missed"] = missed.total()

    def mean_ap(fix: str) -> float:
        left = {name: truths[name] - (missed[name] if fix == "missed" else 0) for name in names}
        return float(
            np.mean(
                [
                    _plain_ap([(s, r) for n, s, r in points[fix] if n == name], left[name])
                    for name in names
                    if left[name]
                ]
            )
        )

    return {fix: mean_ap(fix) - (mean_ap("none") if fix != "none" else 0.0) for fix in points}, counts


@pytest.mark.parametrize("seed", range(8))
def test_the_breakdown_is_that_of_the_paper(random_world: Callable[..., Any], seed: int):
    world = random_world(seed, grid=None)
    _confused(world, seed)
    metric = DiagnosisMetric(world.dataset())
    for sample, prediction in world.pairs():
        metric.update(sample, prediction)
    report = metric.compute()
    expected, counts = _plain_breakdown(world)
    assert report.figures["ap50"].value == pytest.approx(expected["none"], abs=1e-12)
    for kind in ERRORS:
        assert report.figures[f"lost_{kind}"].value == pytest.approx(expected[kind], abs=1e-12)
        assert sum(row[f"{kind}_boxes"] for row in report.by_category.values()) == counts[kind]
    assert counts.keys() >= {"classification", "localisation", "background", "missed", "both"}

"""The best score of a results file is the best of all that there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.tasks.metrics.working_point import RightAndWrong

DETECTION = st.tuples(st.integers(0, 3), st.sampled_from([-2.5, 0.1, 0.1 + 1e-12, 0.5, 7.0]), st.booleans())


def judged(truths: list[int], rows: list[tuple[int, float, bool]]) -> RightAndWrong:
    rows = sorted(rows, key=lambda row: (row[0], -row[1]))
    category, score, right = (
        np.array([row[index] for row in rows], kind) for index, kind in enumerate((int, float, bool))
    )
    return RightAndWrong(np.array(truths, float), category, score, right)


def mean_f1(points: RightAndWrong, score: float) -> float:
    return float(np.nanmean(points.figures(score)["f1"]))


@given(st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any), st.lists(DETECTION, max_size=30))
def test_no_score_gives_a_higher_mean_f1_than_the_best_one(
    truths: list[int], rows: list[tuple[int, float, bool]]
) -> None:
    points = judged(truths, rows)
    best = points.best_score()
    own = {score for category, score, _ in rows if truths[category]}
    if best is None:
        assert not own
        return
    assert best in own
    assert mean_f1(points, best) == pytest.approx(max(mean_f1(points, score) for score in own), abs=1e-12)


def test_categories_without_truth_have_no_say() -> None:
    points = judged([1, 0], [(0, 0.4, True), (0, 0.3, False), (1, 0.9, False)])
    assert points.best_score() == 0.4
    assert np.isnan(points.figures(0.4)["f1"][1])
    assert judged([1, 0], [(1, 0.9, False)]).best_score() is None

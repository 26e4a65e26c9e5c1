"""Optimal LRP against its definition, threshold by threshold."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest

from vrft_bench.tasks.metrics.lrp import OptimalLRP, optimal_lrp


def _lrp(ious: list[float], false: int, missed: int) -> float:
    """The definition, for right boxes with ``ious``."""
    return (sum((1 - iou) / 0.5 for iou in ious) + false + missed) / (len(ious) + false + missed)


def _optimum(scores: list[float], ious: list[float], truths: int) -> OptimalLRP:
    return optimal_lrp(np.array(scores), np.array(ious), truths)


def test_a_small_case_by_hand():
    """Three truths. At .9 a right box of IoU .8; at .6 a wrong one; at .5 a right one of IoU .9; at .1 three wrong."""
    found = _optimum([0.1, 0.9, 0.5, 0.6, 0.1, 0.1], [nan, 0.8, 0.9, nan, nan, nan], 3)
    # Keeping .5 and above: ((.2 + .1) / .5 + 1 + 1) / (2 + 1 + 1) = .65; .9 alone: (.4 + 2) / 3 = .8; all: 5.6 / 7.
    assert found.olrp == pytest.approx(0.65)
    assert found.threshold == 0.5
    assert found.loc == pytest.approx((0.2 + 0.1) / 2)
    assert found.fp == pytest.approx(1 - 2 / 3)
    assert found.fn == pytest.approx(1 - 2 / 3)
    assert found.lrp == pytest.approx(5.6 / 7)


def test_it_is_the_least_over_all_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(300):
        count, truths = int(rng.integers(0, 12)), int(rng.integers(1, 8))
        scores = (rng.integers(1, 5, count) / 4).tolist()
        ious = np.where(rng.random(count) < 0.5, rng.uniform(0.5, 1, count), np.nan)
        ious[np.flatnonzero(~np.isnan(ious))[truths:]] = np.nan  # no more right boxes than truths
        by_threshold = {}
        for threshold in {*scores, 2.0}:
            kept = [iou for score, iou in zip(scores, ious.tolist(), strict=True) if score >= threshold]
            right = [iou for iou in kept if not isnan(iou)]
            by_threshold[threshold] = _lrp(right, len(kept) - len(right), truths - len(right))
        found = _optimum(scores, ious.tolist(), truths)
        assert found.olrp == pytest.approx(min(by_threshold.values()), abs=1e-12)
        assert 0.0 <= found.olrp <= found.lrp <= 1.0
        assert found.lrp == pytest.approx(by_threshold[min(by_threshold)], abs=1e-12)
        if not isnan(found.threshold):
            assert by_threshold[found.threshold] == pytest.approx(found.olrp, abs=1e-12)


def test_perfect_boxes_have_no_error():
    found = _optimum([0.3, 0.7], [1.0, 1.0], 2)
    assert (found.olrp, found.loc, found.fp, found.fn, found.threshold) == (0.0, 0.0, 0.0, 0.0, 0.3)


def test_where_nothing_is_right_it_is_one_and_parts_are_undefined():
    nothing = _optimum([], [], 2)
    assert (nothing.olrp, nothing.fn, nothing.lrp) == (1.0, 1.0, 1.0)
    assert isnan(nothing.loc)
    assert isnan(nothing.fp)
    assert isnan(nothing.threshold)
    wrong = _optimum([0.9], [nan], 2)
    assert (wrong.olrp, wrong.fp, wrong.fn) == (1.0, 1.0, 1.0)


def test_without_truth_nothing_is_defined():
    assert all(isnan(getattr(_optimum([0.5], [nan], 0), name)) for name in ("olrp", "loc", "fp", "fn", "lrp"))

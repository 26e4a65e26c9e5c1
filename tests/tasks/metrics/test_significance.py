"""Tests of differences against scipy, known values and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vrft_bench.tasks.metrics.significance import (
    bootstrap_p_value,
    clusters_needed,
    detectable_difference,
    exchanges,
    holm,
    mcnemar,
    permutation_p_value,
)


def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ():
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for gained, lost in ((0, 1), (3, 0), (5, 5), (2, 9), (40, 21), (600, 399)):
        expected = binomtest(gained, gained + lost).pvalue
        assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)
        assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_mcnemar_of_8_gained_and_1_lost():
    assert mcnemar(8, 1) == pytest.approx(20 / 512)
    assert mcnemar(0, 0) == 1.0


def test_mcnemar_of_many_pairs_goes_over_into_the_approximation_without_a_jump():
    assert mcnemar(460, 540) == pytest.approx(mcnemar(461, 541), rel=0.02)
    binomtest = pytest.importorskip("scipy.stats").binomtest
    assert mcnemar(5000, 5400) == pytest.approx(binomtest(5000, 10_400).pvalue, rel=0.01)


def test_holm_is_the_step_down_procedure():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.6]) == [1.0, None, 1.0]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_holm_keeps_the_order_of_the_p_values_and_never_lowers_one():
    values = np.random.default_rng(0).uniform(0, 0.2, 30).tolist()
    corrected = holm(values)
    assert all(after >= before for before, after in zip(values, corrected, strict=True))
    assert np.argsort(corrected, kind="stable").tolist()[0] == int(np.argmin(values))
    assert sorted(corrected) == [corrected[place] for place in np.argsort(values)]


def test_a_permutation_p_value_counts_the_order_observed_and_rounding_errors():
    exchanged = np.array([0.3, -0.3 + 1e-15, 0.1, np.nan, 0.0])
    assert permutation_p_value(0.3, exchanged) == 3 / 5
    assert permutation_p_value(0.4, exchanged) == 1 / 5
    assert permutation_p_value(math.nan, exchanged) is None
    assert permutation_p_value(0.3, np.array([np.nan])) is None


def test_a_bootstrap_p_value_is_the_share_beyond_twice_the_difference_or_below_nothing():
    assert bootstrap_p_value(0.2, np.array([0.5, 0.3, 0.2, -0.1])) == 3 / 5
    assert bootstrap_p_value(0.2, np.array([])) is None


def test_exchanges_are_fair_coins_and_depend_on_the_seed_alone():
    first, again, other = (np.array(list(exchanges(40, 300, seed))) for seed in (1, 1, 2))
    assert set(np.unique(first)) == {0.0, 1.0}
    assert (first == again).all()
    assert (first != other).any()
    assert first.mean() == pytest.approx(0.5, abs=0.02)


def test_the_detectable_difference_is_2_8_standard_errors_and_is_found_as_often_as_it_says():
    assert detectable_difference(0.1) == pytest.approx(0.2802, abs=1e-4)
    error = 1 / math.sqrt(50)
    true = detectable_difference(error)
    means = np.random.default_rng(0).normal(true, error, 4000)
    assert (np.abs(means) > 1.96 * error).mean() == pytest.approx(0.8, abs=0.02)


def test_half_the_difference_needs_four_times_the_images():
    assert clusters_needed(100, 0.1, detectable_difference(0.1)) == 100
    assert clusters_needed(100, 0.1, -detectable_difference(0.1) / 2) == 400
    assert clusters_needed(100, 0.1, 0.0) is None

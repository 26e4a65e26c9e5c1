"""Intervals against known values and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from vrft_bench.tasks.metrics.statistics import (
    basic_interval,
    bootstrap_mean_interval,
    resampled_weights,
    wilson_interval,
)


def test_wilson_interval_equals_scipy_on_all_shares_of_small_samples():
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for count in (1, 2, 7, 30):
        for hits in range(count + 1):
            expected = binomtest(hits, count).proportion_ci(0.9, method="wilson")
            assert wilson_interval(hits / count, count, 0.9) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_interval_of_10_in_20():
    assert wilson_interval(0.5, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)


def test_resampled_weights_are_draws_with_replacement_and_depend_on_the_seed_alone():
    first, again, other = (np.array(list(resampled_weights(50, 200, seed))) for seed in (1, 1, 2))
    assert (first.sum(axis=1) == 50).all()
    assert (first == again).all()
    assert (first != other).any()
    assert (first == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.02)


def test_basic_interval_mirrors_the_quantiles_and_leaves_out_what_is_not_defined():
    replicates = np.array([np.nan, *np.linspace(0.4, 0.8, 101)])
    assert basic_interval(0.5, replicates, 0.9) == pytest.approx((2 * 0.5 - 0.78, 2 * 0.5 - 0.42))
    assert basic_interval(0.5, np.array([np.nan])) is None
    assert basic_interval(0.5, np.array([])) is None


def test_basic_interval_holds_its_value_and_stays_within_0_and_1():
    assert basic_interval(0.5, np.linspace(0.6, 0.7, 101), 0.9) == pytest.approx((0.305, 0.5))
    assert basic_interval(0.1, np.linspace(0.0, 0.9, 101), 0.9) == pytest.approx((0.0, 0.155))
    assert basic_interval(1.0, np.ones(10)) == (1.0, 1.0)


def test_bootstrap_interval_of_a_mean_has_the_normal_width():
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    low, high = bootstrap_mean_interval(values, np.ones(400))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_clusters_of_equal_values_widen_the_interval():
    values = np.random.default_rng(0).normal(0.5, 0.1, 100)
    single = bootstrap_mean_interval(values, np.ones(100))
    same_data_in_clusters_of_four = bootstrap_mean_interval(values * 4, np.full(100, 4.0))
    assert same_data_in_clusters_of_four == pytest.approx(single)
    assert bootstrap_mean_interval(np.ones(1), np.ones(1)) is None

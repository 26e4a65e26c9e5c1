"""Intervals against known values and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from vrft_bench.tasks.metrics.statistics import (
    basic_interval,
    bca_interval,
    bootstrap_mean_interval,
    expanded_level,
    percentile_interval,
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


def test_percentile_interval_is_the_quantiles_of_what_is_defined():
    assert percentile_interval(np.array([np.nan, *np.linspace(0.4, 0.8, 101)]), 0.9) == pytest.approx((0.42, 0.78))
    assert percentile_interval(np.array([np.nan])) is None


def test_bca_interval_equals_scipy_with_the_same_replicates():
    bootstrap = pytest.importorskip("scipy.stats").bootstrap
    values = np.random.default_rng(3).exponential(1.0, 40)
    theirs = bootstrap((values,), np.mean, method="BCa", n_resamples=2000, rng=np.random.default_rng(0))
    jackknife = (values.sum() - values) / 39
    own = bca_interval(float(values.mean()), theirs.bootstrap_distribution, jackknife)
    assert own == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)
    percentile = percentile_interval(theirs.bootstrap_distribution)
    assert own[0] > percentile[0] + 0.01
    assert own[1] > percentile[1] + 0.02


def test_bca_interval_of_replicates_without_bias_and_skew_is_the_percentile_interval():
    replicates = np.linspace(0.4, 0.6, 2001)
    assert bca_interval(0.5, replicates, np.array([0.49, 0.5, 0.51])) == pytest.approx(percentile_interval(replicates))
    assert bca_interval(0.5, np.full(10, 0.5), np.full(5, 0.5)) == (0.5, 0.5)
    assert bca_interval(0.5, np.array([np.nan]), np.array([0.5])) is None


def test_bca_acceleration_is_the_same_from_groups_of_clusters():
    values = np.random.default_rng(5).exponential(1.0, 400)
    weights = np.array(list(resampled_weights(400, 1000, 0)))
    replicates = weights @ values / 400
    single = (values.sum() - values) / 399
    groups = (values.sum() - values.reshape(100, 4).sum(axis=1)) / 396
    assert bca_interval(values.mean(), replicates, groups) == pytest.approx(
        bca_interval(values.mean(), replicates, single), abs=0.01
    )


@pytest.mark.parametrize("clusters", [5, 10, 40, 1000])
def test_expanded_levels_are_those_of_students_t(clusters):
    stats = pytest.importorskip("scipy.stats")
    quantile = stats.t.ppf(0.975, clusters - 1) * np.sqrt(clusters / (clusters - 1))
    assert expanded_level(0.95, clusters) == pytest.approx(2 * stats.norm.cdf(quantile) - 1, abs=2e-4)
    assert 0.95 < expanded_level(0.95, 3) < 1


INTERVALS_OF_SKEWED_MEANS = {"basic": (0.90, 0.945), "percentile": (0.905, 0.95), "bca": (0.93, 0.97)}


def test_coverage_of_the_intervals_of_a_skewed_mean():
    """Nominal 95 %, 40 clusters of exponential values, 1,000 simulated data sets: only BCa's is near nominal."""
    rng = np.random.default_rng(0)
    weights = np.array(list(resampled_weights(40, 500, 1)))
    hits = dict.fromkeys(INTERVALS_OF_SKEWED_MEANS, 0)
    for _ in range(1000):
        values = rng.exponential(1.0, 40)
        mean, replicates = float(values.mean()), weights @ values / 40
        found = {
            "basic": basic_interval(mean, replicates, bounds=(0.0, np.inf)),
            "percentile": percentile_interval(replicates),
            "bca": bca_interval(mean, replicates, (values.sum() - values) / 39),
        }
        for name, (low, high) in found.items():
            hits[name] += low <= 1.0 <= high
    for name, (least, most) in INTERVALS_OF_SKEWED_MEANS.items():
        assert least <= hits[name] / 1000 <= most, (name, hits[name])


def test_expanded_intervals_of_few_clusters_cover_what_they_say():
    """Nominal 95 %, 4,000 simulated means of 20 normal values: 92 % with plain quantiles, 95 % with expanded ones."""
    rng = np.random.default_rng(0)
    weights = np.array(list(resampled_weights(20, 800, 1))) / 20
    hits = {0.95: 0, expanded_level(0.95, 20): 0}
    for _ in range(4000):
        values = rng.normal(0, 1, 20)
        replicates = weights @ values
        for level in hits:
            low, high = basic_interval(float(values.mean()), replicates, level, (-np.inf, np.inf))
            hits[level] += low <= 0 <= high
    plain, expanded = (count / 4000 for count in hits.values())
    assert 0.915 <= plain <= 0.935
    assert 0.94 <= expanded <= 0.96

"""PSI and KS against their formulas, and what chance alone makes of them against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from model.divergence import (
    design_effect,
    expected_shares,
    ks,
    ks_by_chance,
    psi,
    psi_by_chance,
    sampling_noise,
)

EQUAL = np.full(10, 0.1)


def test_psi_is_the_sum_of_differences_times_log_ratios() -> None:
    expected = np.array([0.2, 0.3, 0.5])
    counts = np.array([[5000, 2000, 3000], [2000, 3000, 5000]])
    share = counts[0] / 10_000
    by_formula = stats.entropy(share, expected) + stats.entropy(expected, share)
    assert psi(counts, expected) == pytest.approx([by_formula, 0.0], abs=1e-3)


def test_no_records_have_not_drifted() -> None:
    nothing = np.zeros((1, 10), np.int64)
    assert psi(nothing, EQUAL) == pytest.approx([0.0])
    assert ks(nothing, EQUAL) == pytest.approx([0.0])


def test_an_empty_bin_has_no_infinite_weight() -> None:
    shares = expected_shares(np.array([0, 1000]))
    assert shares.min() > 0.0
    assert np.isfinite(psi(np.array([[1000, 0], [0, 1000]]), shares)).all()


def test_ks_in_bins_approaches_that_of_the_values_from_below() -> None:
    random = np.random.default_rng(1)
    values = random.normal(0.4, 1.0, 5000)
    true = stats.kstest(values, "norm").statistic
    found = []
    for bins in (10, 1000):
        edges = stats.norm.ppf(np.arange(1, bins) / bins)
        counts = np.bincount(np.searchsorted(edges, values), minlength=bins)
        found.append(float(ks(counts[np.newaxis], np.full(bins, 1 / bins))[0]))
    assert found[0] <= found[1] <= true
    assert found[1] == pytest.approx(true, abs=0.002)


@pytest.mark.parametrize(("records", "reference"), [(200, 100_000), (200, 300), (1000, 300)])
def test_samples_of_an_unchanged_source_pass_what_chance_makes_as_often_as_said(records: int, reference: int) -> None:
    random = np.random.default_rng(records + reference)
    significance, trials = 0.01, 4000
    seen = random.multinomial(reference, EQUAL, trials)
    counts = random.multinomial(records, EQUAL, trials)
    noise = sampling_noise(records, reference, 1.0)
    passed = {
        "psi": [float(psi(one[np.newaxis], expected_shares(of))[0]) for one, of in zip(counts, seen, strict=True)],
        "ks": [float(ks(one[np.newaxis], expected_shares(of))[0]) for one, of in zip(counts, seen, strict=True)],
    }
    above_psi = np.mean(np.array(passed["psi"]) > psi_by_chance(10, noise, significance))
    above_ks = np.mean(np.array(passed["ks"]) > ks_by_chance(noise, significance))
    assert 0.003 < above_psi < 0.02
    assert above_ks < 0.015  # in ten bins the largest difference is not seen


def blocks_of(bins: NDArray[np.int64], length: int) -> float:
    return design_effect(bins, np.bincount(bins, minlength=10), length)


def test_records_drawn_one_by_one_have_no_design_effect() -> None:
    assert blocks_of(np.random.default_rng(2).integers(0, 10, 20_000), 200) == pytest.approx(1.0, abs=0.15)


def test_records_that_come_five_alike_tell_a_fifth() -> None:
    alike = np.repeat(np.random.default_rng(3).integers(0, 10, 8000), 5)
    assert blocks_of(alike, 200) == pytest.approx(5.0, rel=0.15)


def test_of_one_bin_or_one_block_nothing_can_be_told() -> None:
    assert blocks_of(np.zeros(1000, np.int64), 100) == 1.0
    assert blocks_of(np.arange(10).repeat(10), 60) == 1.0

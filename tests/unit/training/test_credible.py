"""Posteriors hold what they should, as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training import credible


def test_a_rates_interval_is_that_of_jeffreys_prior() -> None:
    assert credible.rate(0, 10) == pytest.approx(
        (0.0000, 0.2172), abs=1e-3
    )  # Brown, Cai, DasGupta 2001, table 5: n = 10
    low, high = credible.rate(5, 10)
    assert (low, high) == pytest.approx((1.0 - high, 1.0 - low))
    assert credible.rate(0, 0).high - credible.rate(0, 0).low > 0.99


def test_the_bootstraps_interval_holds_the_true_auroc_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [120, 40])
    true = 0.7602499  # Φ(1 / √2)
    held = 0
    for trial in range(60):
        interval = credible.auroc(labels, random.normal(size=160) + labels, seed=trial, draws=300)
        held += interval.low < true < interval.high
    assert 51 <= held <= 60


def test_the_interval_lies_around_the_auroc_and_ties_count_half() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], [300, 100])
    scores = np.round(random.normal(size=400) + labels)
    low, high = credible.auroc(labels, scores)
    assert low < roc_auc_score(labels, scores) < high
    assert credible.auroc(labels, np.zeros(400)) == pytest.approx((0.5, 0.5))
    assert credible.auroc(labels, labels.astype(float)) == pytest.approx((1.0, 1.0))
    assert credible.auroc(labels, scores) == (low, high)

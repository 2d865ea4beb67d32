"""How many records of a stream score higher than normal ones would, and which are then left out."""

from __future__ import annotations

import numpy as np
import pytest

from training.refresh.suspects import excess, stretches, suspects

RANDOM = np.random.default_rng(0)


def clean(count: int) -> np.ndarray:
    """Scores of normal records: 10^-s of them above s."""
    return -np.log10(1.0 - RANDOM.random(count)).astype(np.float32)


def poisoned(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    anomalous = RANDOM.random(count) < share
    scores = clean(count)
    scores[anomalous] = RANDOM.normal(2.5, 0.5, anomalous.sum())
    return scores, anomalous


def test_a_clean_stream_has_hardly_any_excess() -> None:
    assert np.quantile([excess(clean(500)) for _ in range(200)], 0.9) < 0.02


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_the_excess_is_about_the_share_of_anomalies(share: float) -> None:
    found = np.mean([excess(poisoned(500, share)[0]) for _ in range(50)])
    assert share - 0.05 < found < share


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_most_of_the_anomalies_are_left_out_and_few_others(share: float) -> None:
    scores, anomalous = poisoned(5000, share)
    left_out, in_excess = suspects(scores, 0.05, 0.6)
    assert left_out[anomalous].mean() > 0.95
    assert left_out[~anomalous].mean() < 0.05 + 0.8 * share
    assert (left_out | ~in_excess).all()
    assert in_excess.sum() < left_out.sum()


def test_a_stream_that_has_changed_is_learned_from_but_for_the_share() -> None:
    changed = np.random.default_rng(1).normal(3.0, 0.5, 1000).astype(np.float32)
    left_out, in_excess = suspects(changed, 0.05, 0.6)
    assert left_out.sum() == 50
    assert not in_excess.any()
    assert changed[left_out].min() >= changed[~left_out].max()


def test_stretches_are_of_one_stream_and_in_order_and_short_streams_are_taken_together() -> None:
    streams = RANDOM.permutation(np.repeat([0, 1, 2, 3], [1000, 260, 40, 30]))
    found = stretches(streams, 500)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(streams)))
    assert sorted(len(each) for each in found) == [70, 260, 500, 500]
    for each in found:
        assert (np.diff(each) > 0).all()
        assert set(streams[each].tolist()) in ({0}, {1}, {2, 3})


def test_nothing_is_left_out_of_nothing() -> None:
    assert excess(np.zeros(0, np.float32)) == 0.0
    assert [mask.tolist() for mask in suspects(np.zeros(0, np.float32), 0.05, 0.6)] == [[], []]

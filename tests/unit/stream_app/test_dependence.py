import struct

import numpy as np
import pytest

from false_alarms import autoregressive
from stream_app.dependence import Dependence


def series(correlation: float, count: int, seed: int) -> np.ndarray:
    return (autoregressive(correlation, count, np.random.default_rng(seed)) + 50.0).astype(np.float32)


def taken(scores: np.ndarray, *cuts: int) -> Dependence:
    dependence = Dependence()
    for block in np.split(scores, cuts):
        dependence.update(block)
    return dependence


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.98])
def test_scores_are_worth_as_many_independent_ones_as_the_variance_of_their_mean_says(correlation) -> None:
    means = [series(correlation, 2_000, seed).mean() for seed in range(200)]
    by_variance = 1.0 / np.var(means) / 2_000

    shares = [taken(series(correlation, 2_000, seed)).share for seed in range(20)]

    assert np.mean(shares) == pytest.approx(by_variance, rel=0.3)


def test_scores_that_alternate_are_worth_no_more_than_independent_ones() -> None:
    assert taken(np.tile(np.float32([1.0, 2.0]), 100)).share == 1.0


def test_blocks_say_what_the_whole_says_and_the_state_goes_on_where_it_stopped() -> None:
    scores = series(0.9, 1_000, seed=1)
    whole, cut = taken(scores), taken(scores, 1, 40, 700)
    restored = Dependence.from_bytes(taken(scores[:700], 32).to_bytes())
    restored.update(scores[700:])

    assert cut.share == pytest.approx(whole.share, rel=1e-9)
    assert restored.share == pytest.approx(whole.share, rel=1e-9)


def test_nothing_and_equal_scores_count_as_they_are() -> None:
    assert Dependence().share == 1.0
    assert Dependence.from_bytes(Dependence().to_bytes()).share == 1.0
    assert taken(np.full(500, 1.7, np.float32)).share == 1.0


def test_bytes_of_another_length_are_refused() -> None:
    with pytest.raises(struct.error):
        Dependence.from_bytes(b"short")

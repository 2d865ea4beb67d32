import math
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.settings import ThresholdSettings
from stream_app.threshold import MAX_SCORE, Judgement, StreamThreshold

Scores = NDArray[np.float64]
LN10 = math.log(10.0)
RECORDS = 200_000

MISCALIBRATIONS: dict[str, Callable[[Scores], Scores]] = {
    "calibrated": lambda scores: scores,
    "halved": lambda scores: scores * 0.5,
    "doubled": lambda scores: scores * 2.0,
    "shifted": lambda scores: scores + 0.5,
}


def normal_scores(count: int, seed: int) -> Scores:
    """What a calibrated detector gives normal records: -log10 of a uniform p."""
    return np.random.default_rng(seed).exponential(1.0 / LN10, count)


def judge_all(
    threshold: StreamThreshold, scores: NDArray[np.floating], pace: float = 1.0
) -> tuple[Scores, NDArray[np.bool_]]:
    return threshold.judge_many(scores, np.arange(len(scores)) / pace)


def test_a_new_stream_is_judged_by_the_calibration() -> None:
    threshold = StreamThreshold(ThresholdSettings(target_rate=1e-3))

    assert threshold.value == pytest.approx(3.0)
    assert not threshold.judge(2.99, 0.0).is_anomaly
    assert threshold.judge(3.01, 0.0) == Judgement(threshold.value, is_anomaly=True)
    assert (threshold.observations, threshold.warm, threshold.rate) == (1, False, 1e-3)


@pytest.mark.parametrize("miscalibrate", MISCALIBRATIONS.values(), ids=MISCALIBRATIONS)
@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_false_alarms_stay_near_the_budget(rate: float, miscalibrate: Callable[[Scores], Scores]) -> None:
    scores = miscalibrate(normal_scores(RECORDS, seed=1))
    _, alarms = judge_all(StreamThreshold(ThresholdSettings(target_rate=rate)), scores)

    assert 0.6 < alarms.mean() / rate < 1.5
    assert alarms[RECORDS // 2 :].mean() / rate < 1.5, "the threshold creeps down"


@pytest.mark.parametrize("miscalibrate", MISCALIBRATIONS.values(), ids=MISCALIBRATIONS)
@pytest.mark.parametrize("share", [0.01, 0.05])
@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_anomalies_in_the_stream_neither_raise_false_alarms_nor_hide_themselves(
    rate: float, share: float, miscalibrate: Callable[[Scores], Scores]
) -> None:
    rng = np.random.default_rng(2)
    scores, anomalous = normal_scores(RECORDS, seed=3), rng.random(RECORDS) < share
    scores[anomalous] = np.maximum(rng.normal(4.5, 1.0, int(anomalous.sum())), 0.0)

    _, alarms = judge_all(StreamThreshold(ThresholdSettings(target_rate=rate)), miscalibrate(scores))

    assert alarms[~anomalous].mean() / rate < 1.5
    assert alarms[anomalous].mean() > 0.75


def test_a_heavier_tail_than_the_calibration_says_is_learned() -> None:
    scores = normal_scores(RECORDS, seed=4) ** 1.3
    _, alarms = judge_all(StreamThreshold(ThresholdSettings(target_rate=1e-2)), scores)
    seed_alarms = (scores > 2.0).mean()

    assert alarms.mean() < 0.015 < seed_alarms


def test_what_is_anomalous_is_not_learned() -> None:
    threshold = StreamThreshold(ThresholdSettings(shift_after=1000))
    for _ in range(999):
        assert threshold.judge(9.0, 0.0).is_anomaly

    assert threshold.observations == 0
    assert threshold.value == pytest.approx(3.0)


def test_a_lasting_shift_is_relearned_from_its_own_scores() -> None:
    scores = normal_scores(60_000, seed=5)
    scores[20_000:] += 6.0
    _, alarms = judge_all(StreamThreshold(ThresholdSettings(target_rate=1e-3, shift_after=500)), scores)

    assert alarms[20_000:20_500].all()
    assert alarms[20_500:].mean() < 1.5e-3


def test_one_normal_record_starts_the_count_to_a_shift_anew() -> None:
    threshold = StreamThreshold(ThresholdSettings(shift_after=100))
    for _ in range(20):
        for score in [9.0] * 99 + [0.1]:
            threshold.judge(score, 0.0)

    assert threshold.value < 4.0


def test_after_a_long_incident_the_threshold_comes_back() -> None:
    scores = normal_scores(60_000, seed=6)
    scores[20_000:21_000] += 6.0
    thresholds, _ = judge_all(StreamThreshold(ThresholdSettings(target_rate=1e-3, horizon=10_000)), scores)

    assert thresholds[21_000] > 6.0
    assert thresholds[45_000:].max() < 4.5


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.5])
def test_a_score_that_is_no_score_is_refused_and_changes_nothing(score: float) -> None:
    threshold = StreamThreshold(ThresholdSettings())
    judge_all(threshold, normal_scores(500, seed=7))
    before = threshold.to_bytes()

    with pytest.raises(ValueError, match="finite and not negative"):
        threshold.judge(score, 0.0)
    with pytest.raises(ValueError, match="finite and not negative"):
        threshold.judge_many(np.array([score]), np.zeros(1))
    assert threshold.to_bytes() == before


def test_a_stream_of_equal_scores_raises_no_alarm_at_the_same_score_or_just_above() -> None:
    threshold = StreamThreshold(ThresholdSettings())
    _, alarms = judge_all(threshold, np.full(5000, 1.7))

    assert not alarms.any()
    assert not threshold.judge(1.75, 0.0).is_anomaly
    assert threshold.judge(2.5, 0.0).is_anomaly


def test_a_quiet_stream_is_not_judged_below_the_floor() -> None:
    threshold = StreamThreshold(ThresholdSettings(target_rate=1e-3))
    judge_all(threshold, normal_scores(5000, seed=8) * 0.01)

    assert threshold.value == pytest.approx(0.75)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.0, 1e300), st.integers(1, 200)), min_size=1, max_size=12),
    st.sampled_from([1e-9, 1e-3, 0.2, 0.49]),
    st.integers(1, 600),
    st.integers(1, 2000),
    st.integers(1, 500),
)
def test_a_threshold_is_finite_and_positive_whatever_comes(
    runs: list[tuple[float, int]], rate: float, min_observations: int, horizon: int, shift_after: int
) -> None:
    policy = ThresholdSettings(
        target_rate=rate, min_observations=min_observations, horizon=horizon, shift_after=shift_after
    )
    threshold = StreamThreshold(policy)
    for score, times in runs:
        thresholds, _ = judge_all(threshold, score * np.ones(times))
        assert ((thresholds > 0.0) & (thresholds <= MAX_SCORE)).all()
    assert 0.0 < threshold.value <= MAX_SCORE


STREAM = np.concatenate([normal_scores(3000, seed=9), normal_scores(700, seed=10) + 5.0, normal_scores(2300, seed=11)])
POLICIES = [
    ThresholdSettings(target_rate=1e-2, horizon=2000, shift_after=300),
    ThresholdSettings(alerts_per_day=500.0, horizon=2000, shift_after=300),
]
ONE_BY_ONE = [
    [judged.judge(score, index * 0.5) for index, score in enumerate(STREAM.tolist())]
    for judged in map(StreamThreshold, POLICIES)
]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([0, 1]),
    st.lists(st.integers(0, len(STREAM)), max_size=60).map(sorted),
    st.lists(st.booleans(), min_size=61, max_size=61),
)
def test_cuts_into_batches_and_saving_in_between_change_nothing(which: int, cuts: list[int], saved: list[bool]) -> None:
    threshold = StreamThreshold(POLICIES[which])
    thresholds, alarms = [], []
    for begin, end, save in zip([0, *cuts], [*cuts, len(STREAM)], saved, strict=False):
        if save:
            threshold = StreamThreshold.from_bytes(threshold.to_bytes(), POLICIES[which])
        part = threshold.judge_many(STREAM[begin:end], np.arange(begin, end) * 0.5)
        thresholds.append(part[0])
        alarms.append(part[1])

    assert np.concatenate(thresholds).tolist() == [judged.threshold for judged in ONE_BY_ONE[which]]
    assert np.concatenate(alarms).tolist() == [judged.is_anomaly for judged in ONE_BY_ONE[which]]


def test_float32_scores_are_held_against_the_threshold_in_full_precision() -> None:
    scores = np.array([3.1], np.float32)
    threshold = StreamThreshold(ThresholdSettings())
    threshold._value = float(np.nextafter(np.float64(scores[0]), 0.0))  # the same number in single precision

    _, alarms = judge_all(threshold, scores)

    assert alarms.tolist() == [True]


def test_a_state_is_small_and_comes_back_as_it_was() -> None:
    policy = ThresholdSettings()
    threshold = StreamThreshold(policy)
    new = threshold.to_bytes()
    judge_all(threshold, normal_scores(100_000, seed=12))
    data = threshold.to_bytes()
    restored = StreamThreshold.from_bytes(data, policy)

    assert len(new) < 150
    assert len(data) < 4096
    assert restored.to_bytes() == data
    assert (restored.value, restored.rate, restored.observations, restored.warm) == (
        threshold.value,
        threshold.rate,
        threshold.observations,
        threshold.warm,
    )


@given(st.data())
def test_corrupt_bytes_are_refused(data: st.DataObject) -> None:
    policy = ThresholdSettings()
    threshold = StreamThreshold(policy)
    judge_all(threshold, normal_scores(400, seed=13))
    state = threshold.to_bytes()
    at = data.draw(st.integers(0, len(state) - 1))
    flipped = state[:at] + bytes([state[at] ^ (1 << data.draw(st.integers(0, 7)))]) + state[at + 1 :]

    for corrupt in (flipped, state[:at], state + b"\0"):
        with pytest.raises(ValueError, match="threshold"):
            StreamThreshold.from_bytes(corrupt, policy)


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x02" + b"\0" * 200, b"\x01" + b"\xff" * 200])
def test_bytes_with_a_right_checksum_around_a_wrong_state_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="threshold"):
        StreamThreshold.from_bytes(body + struct.pack("<I", zlib.crc32(body)), ThresholdSettings())


def test_a_changed_budget_takes_effect_when_the_state_is_read() -> None:
    threshold = StreamThreshold(ThresholdSettings(target_rate=1e-3))
    judge_all(threshold, normal_scores(20_000, seed=14))

    changed = StreamThreshold.from_bytes(threshold.to_bytes(), ThresholdSettings(target_rate=1e-2))

    assert changed.rate == 1e-2
    assert threshold.value - changed.value == pytest.approx(1.0, abs=0.25)


def test_a_changed_budget_takes_effect_on_a_stream_that_has_learned_nothing() -> None:
    state = StreamThreshold(ThresholdSettings(target_rate=1e-3)).to_bytes()

    assert StreamThreshold.from_bytes(state, ThresholdSettings(target_rate=1e-2)).value == pytest.approx(2.0)


@pytest.mark.parametrize("pace", [1.0, 10.0])
def test_alerts_per_day_follows_the_streams_own_pace(pace: float) -> None:
    budget = 864.0
    threshold = StreamThreshold(ThresholdSettings(alerts_per_day=budget))
    _, alarms = judge_all(threshold, normal_scores(RECORDS, seed=15), pace)
    days = RECORDS / pace / 86400.0

    assert threshold.rate == pytest.approx(budget / 86400.0 / pace, rel=0.01)
    assert alarms.sum() / days < 1.5 * budget


def test_a_streams_observations_and_warmth_tell_how_much_was_learned() -> None:
    threshold = StreamThreshold(ThresholdSettings(min_observations=100))
    warm = []
    for score in normal_scores(200, seed=16).tolist():
        threshold.judge(score, 0.0)
        warm.append(threshold.warm)

    assert not any(warm[:99])
    assert all(warm[130:])
    assert threshold.observations >= 198

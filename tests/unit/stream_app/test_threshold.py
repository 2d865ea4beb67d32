import math
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from false_alarms import autoregressive
from stream_app.corrections import Mark
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


def dependent_scores(count: int, seed: int, correlation: float = 0.98) -> Scores:
    """Calibrated as well, but each like the one before it, as overlapping windows give them."""
    return -norm.logsf(autoregressive(correlation, count, np.random.default_rng(seed))) / LN10


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_a_threshold_does_not_follow_a_calm_stretch_of_dependent_scores_down(rate: float) -> None:
    shares = [
        judge_all(StreamThreshold(ThresholdSettings(target_rate=rate)), dependent_scores(2_000, seed))[1].mean() / rate
        for seed in range(30)
    ]

    assert np.mean(shares) < 1.0


def test_a_threshold_goes_up_with_dependent_scores_as_soon_as_with_others() -> None:
    threshold = StreamThreshold(ThresholdSettings(target_rate=0.01))
    judge_all(threshold, 3.0 * dependent_scores(20_000, seed=3))

    assert threshold.value > 4.0


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
    threshold = StreamThreshold(ThresholdSettings(shift_after=1000, shift_after_seconds=0))
    for _ in range(999):
        assert threshold.judge(9.0, 0.0).is_anomaly

    assert threshold.observations == 0
    assert threshold.value == pytest.approx(3.0)


def test_a_lasting_shift_is_relearned_from_its_own_scores() -> None:
    scores = normal_scores(60_000, seed=5)
    scores[20_000:] += 6.0
    _, alarms = judge_all(
        StreamThreshold(ThresholdSettings(target_rate=1e-3, shift_after=500, shift_after_seconds=0)), scores
    )

    assert alarms[20_000:20_500].all()
    assert alarms[20_500:].mean() < 1.5e-3


def shifts(threshold: StreamThreshold, scores: NDArray[np.floating], pace: float = 1.0) -> list[int]:
    """Places of the scores with which the stream has shifted for good."""
    return [at for at, score in enumerate(scores.tolist()) if threshold.judge(score, at / pace).shifted]


def test_a_lasting_shift_is_recognised_once_and_ends_the_false_alarms() -> None:
    scores = normal_scores(40_000, seed=17)
    scores[20_000:] += 6.0
    threshold = StreamThreshold(ThresholdSettings(target_rate=1e-3, shift_after=500, shift_after_seconds=0))

    assert shifts(threshold, scores) == [20_499]
    assert threshold.warm
    assert not threshold.judge(7.0, 0.0).is_anomaly


@pytest.mark.parametrize("share", [0.7, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_a_shifted_stream_whose_scores_straddle_the_threshold_gets_out(rate: float, share: float) -> None:
    threshold = StreamThreshold(ThresholdSettings(target_rate=rate, shift_after_seconds=0))
    judge_all(threshold, normal_scores(20_000, seed=18))
    straddling = normal_scores(10_000, seed=19) + threshold.value + math.log10(share)

    (at,) = shifts(threshold, straddling)
    assert 499 <= at < 1000
    _, alarms = judge_all(threshold, normal_scores(20_000, seed=20) + straddling.min())
    assert alarms.mean() < 2.0 * rate


def test_another_version_moves_no_threshold_and_is_then_learned_from_its_own_scores() -> None:
    threshold = StreamThreshold(ThresholdSettings())
    threshold.follow(1)
    judge_all(threshold, 2.0 * normal_scores(5000, 0))
    drifted = threshold.value
    assert drifted > 4.5
    threshold.follow(2)
    assert (threshold.value, threshold.observations, threshold.warm) == (drifted, 0, False)
    threshold = StreamThreshold.from_bytes(threshold.to_bytes(), ThresholdSettings())
    assert (threshold.value, threshold.model) == (drifted, 2)
    judge_all(threshold, normal_scores(250, 1))
    assert 3.0 < threshold.value < drifted
    judge_all(threshold, normal_scores(2000, 2))
    assert threshold.warm
    assert 2.3 < threshold.value < 3.7


def test_a_version_that_stays_for_moments_teaches_nothing() -> None:
    threshold = StreamThreshold(ThresholdSettings())
    for version in range(1, 100):
        threshold.follow(version)
        judge_all(threshold, normal_scores(20, version))
    assert threshold.value == 3.0


@pytest.mark.parametrize("rate", [1e-2, 1e-3])
def test_after_a_swap_false_alarms_stay_near_the_budget(rate: float) -> None:
    false_alarms = 0
    for stream in range(10):
        threshold = StreamThreshold(ThresholdSettings(target_rate=rate))
        threshold.follow(1)
        judge_all(threshold, normal_scores(3000, stream))
        threshold.follow(2)
        false_alarms += int(judge_all(threshold, normal_scores(10_000, 100 + stream))[1].sum())
    assert 0.5 * rate <= false_alarms / 100_000 <= 1.5 * rate


def test_an_incident_shorter_than_a_shift_is_not_learned() -> None:
    scores = normal_scores(40_000, seed=21)
    scores[20_000:20_499] += 6.0
    scores[20_512] = 9.0  # a false alarm after its end, which is no part of it
    threshold = StreamThreshold(ThresholdSettings(target_rate=1e-3, shift_after=500, shift_after_seconds=0))

    assert shifts(threshold, scores[:20_000]) == []
    before = threshold.value
    assert shifts(threshold, scores[20_000:21_000]) == []
    assert threshold.value == pytest.approx(before, abs=0.5)


def test_a_long_incident_that_is_over_is_no_shift_however_many_false_alarms_follow() -> None:
    threshold = StreamThreshold(ThresholdSettings(shift_after=500, shift_after_seconds=0))
    over = ([0.1] * 12 + [9.0]) * 50

    assert shifts(threshold, np.array([9.0] * 499 + over)) == []


def test_incidents_with_normal_records_among_them_are_no_shift() -> None:
    threshold = StreamThreshold(ThresholdSettings(shift_after=100, shift_after_seconds=0, shift_share=0.9))

    assert shifts(threshold, np.array(([9.0] * 8 + [0.1] * 2) * 1000)) == []
    assert threshold.value < 4.0


def test_by_default_a_shift_has_lasted_for_hours_and_an_incident_of_a_thousand_seconds_is_not_learned() -> None:
    threshold = StreamThreshold(ThresholdSettings())
    judge_all(threshold, normal_scores(5000, seed=21))
    before = threshold.value

    assert shifts(threshold, np.full(1000, 9.0)) == []
    assert threshold.value == before
    assert shifts(threshold, np.full(20_000, 9.0)) == [4 * 3600]


def test_a_shift_has_to_last_for_a_time_too() -> None:
    policy = ThresholdSettings(shift_after=100, shift_after_seconds=3600.0)

    assert shifts(StreamThreshold(policy), np.full(10_000, 9.0), pace=1.0) == [3600]
    assert shifts(StreamThreshold(policy), np.full(200, 9.0), pace=0.01) == [99]


def test_a_shift_that_has_to_last_is_learned_from_its_newest_scores_and_takes_no_memory_while_it_waits() -> None:
    threshold = StreamThreshold(ThresholdSettings(shift_after=100, shift_after_seconds=1e6))
    scores = np.concatenate([np.full(50_000, 9.0), normal_scores(1000, seed=22) + 20.0])
    judge_all(threshold, scores)

    assert len(threshold.to_bytes()) < 1000
    assert threshold.judge(21.0, 2e6).shifted
    assert threshold.observations == 100
    assert threshold.value > 20.0


def test_after_a_long_incident_the_threshold_comes_back() -> None:
    scores = normal_scores(60_000, seed=6)
    scores[20_000:21_000] += 6.0
    thresholds, _ = judge_all(
        StreamThreshold(ThresholdSettings(target_rate=1e-3, horizon=10_000, shift_after_seconds=0)), scores
    )

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
        target_rate=rate,
        min_observations=min_observations,
        horizon=horizon,
        shift_after=shift_after,
        shift_after_seconds=0,
    )
    threshold = StreamThreshold(policy)
    for score, times in runs:
        thresholds, _ = judge_all(threshold, score * np.ones(times))
        assert ((thresholds > 0.0) & (thresholds <= MAX_SCORE)).all()
    assert 0.0 < threshold.value <= MAX_SCORE


STREAM = np.concatenate([normal_scores(3000, seed=9), normal_scores(700, seed=10) + 5.0, normal_scores(2300, seed=11)])
POLICIES = [
    ThresholdSettings(target_rate=1e-2, horizon=2000, shift_after=300, shift_after_seconds=0),
    ThresholdSettings(alerts_per_day=500.0, horizon=2000, shift_after=300, shift_after_seconds=300.0),
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

    assert len(new) < 160
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


def normal(score: float) -> Mark:
    return Mark(score, is_anomaly=False)


def anomaly(score: float) -> Mark:
    return Mark(score, is_anomaly=True)


def test_labels_move_the_threshold_in_force_and_nothing_that_is_learned() -> None:
    threshold = StreamThreshold(ThresholdSettings(target_rate=1e-3))

    threshold.heed([normal(3.2)], 0.5)

    assert not threshold.judge(3.2, 0.0).is_anomaly
    assert threshold.judge(3.3, 0.0).is_anomaly
    assert (threshold.value, threshold.shift, threshold.labels) == pytest.approx((3.21, 0.21, 1))
    threshold.heed([anomaly(2.8)], 0.5)
    assert threshold.judge(2.8, 0.0).is_anomaly
    assert threshold.shift == pytest.approx(-0.21)
    threshold.heed([normal(99.0)], 0.5)
    assert threshold.value == pytest.approx(3.5)
    threshold.heed([], 0.5)
    assert (threshold.value, threshold.shift, threshold.labels) == pytest.approx((3.0, 0.0, 0))


def test_a_judgement_says_up_to_where_people_called_it_normal() -> None:
    threshold = StreamThreshold(ThresholdSettings(target_rate=1e-3))
    assert threshold.judge(1.0, 0.0).normal_up_to == -math.inf

    threshold.heed([normal(2.9)], 0.5)

    assert threshold.judge(1.0, 0.0).normal_up_to == pytest.approx(2.91)


@pytest.mark.parametrize("marks", [[normal(3.4)], [anomaly(2.6)], [normal(50.0)], [anomaly(0.0)]])
@pytest.mark.parametrize("which", range(len(POLICIES)))
def test_with_labels_too_it_does_not_matter_how_scores_are_cut_into_batches(which: int, marks: list[Mark]) -> None:
    one, many = StreamThreshold(POLICIES[which]), StreamThreshold(POLICIES[which])
    for threshold in (one, many):
        threshold.heed(marks, 0.5)
    scores, times = STREAM[:2500], np.arange(2500) * 0.5

    singly = [one.judge(*each)[:2] for each in zip(scores.tolist(), times.tolist(), strict=True)]
    thresholds, anomalies = many.judge_many(scores, times)

    assert list(zip(thresholds.tolist(), anomalies.tolist(), strict=True)) == singly
    assert one.to_bytes() == many.to_bytes()


@given(st.lists(st.integers(0, 2500), max_size=4))
@settings(max_examples=20, deadline=None)
def test_with_labels_too_the_state_may_be_saved_and_read_back_anywhere(cuts: list[int]) -> None:
    policy, marks = POLICIES[0], [normal(3.4), anomaly(2.0)]
    whole = StreamThreshold(policy)
    whole.heed(marks, 0.5)
    whole.judge_many(STREAM[:2500], np.arange(2500) * 0.5)
    threshold = StreamThreshold(policy)
    threshold.heed(marks, 0.5)
    for begin, end in pairwise([0, *sorted(cuts), 2500]):
        threshold.judge_many(STREAM[begin:end], np.arange(begin, end) * 0.5)
        threshold = StreamThreshold.from_bytes(threshold.to_bytes(), policy)
        threshold.heed(marks, 0.5)

    assert threshold.to_bytes() == whole.to_bytes()
    assert threshold.value == whole.value


def test_after_a_label_was_taken_back_the_threshold_is_about_what_it_would_have_been() -> None:
    scores = normal_scores(60_000, seed=23)
    untouched, lowered = (StreamThreshold(ThresholdSettings(target_rate=1e-2)) for _ in range(2))
    lowered.heed([anomaly(1.7)], 0.5)
    for threshold in (untouched, lowered):
        judge_all(threshold, scores)

    assert lowered.shift < -0.1, "it was to be lowered"
    lowered.heed([], 0.5)
    assert lowered.value == pytest.approx(untouched.value, abs=0.15)


def test_a_stream_that_shifts_for_good_gets_out_whatever_was_labelled() -> None:
    for marks in ([anomaly(2.0)], [normal(3.3)]):
        threshold = StreamThreshold(ThresholdSettings(target_rate=1e-3, shift_after=500, shift_after_seconds=0))
        threshold.heed(marks, 0.5)
        scores = normal_scores(40_000, seed=17)
        scores[20_000:] += 6.0

        assert shifts(threshold, scores) == [20_499]
        assert abs(threshold.shift) <= 0.5
        assert not threshold.judge(7.0, 0.0).is_anomaly

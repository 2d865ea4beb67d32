"""The last observations of streams, and when a window of them is due."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.settings import SequenceSettings
from stream_app.tail import Tail
from stream_app.tails import Outcome, Tails

WINDOW = 3
DISORDER = 16


class Fed:
    """Streams of one feature, fed by name; times count up by one second unless told."""

    def __init__(self, window=WINDOW, **options):
        self.tails = Tails((window, 1), SequenceSettings(**options))
        self.slots: dict[str, int] = {}
        self.clock: dict[str, float] = {}

    def push(self, *observations, timed=True, published=math.inf):
        """Observations are (stream, value) or (stream, value, time); returns what came of them."""
        slots, values, times = [], [], []
        for name, value, *time in observations:
            if name not in self.slots:
                self.slots[name] = self.tails.open()
            self.clock[name] = time[0] if time else self.clock.get(name, 0.0) + 1.0
            slots.append(self.slots[name])
            values.append([value])
            times.append(self.clock[name])
        count = len(slots)
        return self.tails.push(
            np.array(slots, np.int64),
            np.array(values, np.float32).reshape(count, 1),
            np.array(times, np.float64),
            np.full(count, timed),
            np.broadcast_to(np.asarray(published, np.float64), count),
        )

    def windows(self, *observations, **options):
        pushed = self.push(*observations, **options)
        return {int(i): window[:, 0].tolist() for i, window in zip(pushed.due, pushed.windows, strict=True)}

    def outcomes(self, *observations, **options):
        return [Outcome(each).name for each in self.push(*observations, **options).outcomes]


def test_a_window_is_due_from_the_first_full_one_on():
    assert Fed().windows(*(("a", i) for i in range(1, 5))) == {2: [1, 2, 3], 3: [2, 3, 4]}


def test_the_stride_leaves_windows_out():
    assert Fed(window=2, stride=3).windows(*(("a", i) for i in range(9))) == {1: [0, 1], 4: [3, 4], 7: [6, 7]}


def test_streams_of_one_chunk_do_not_mix():
    found = Fed(window=2).windows(("a", 1), ("b", 10), ("a", 2), ("c", 5), ("b", 20), ("a", 3))
    assert found == {2: [1, 2], 4: [10, 20], 5: [2, 3]}


@given(
    streams=st.lists(st.integers(0, 3), max_size=200),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    window=st.integers(1, 7),
    stride=st.integers(1, 5),
)
@settings(deadline=None)
def test_however_a_stream_is_cut_into_chunks_its_windows_are_the_same(streams, cuts, window, stride):
    observations = [(f"{stream}", float(at)) for at, stream in enumerate(streams)]
    by_stream = {name: [v for n, v in observations if n == name] for name, _ in observations}
    expected = {}
    for values in by_stream.values():
        for end in range(window, len(values) + 1):
            if (end - window) % stride == 0:
                expected[values[end - 1]] = values[end - window : end]
    fed, found = Fed(window, stride=stride), {}
    edges = [0, *sorted(cut for cut in cuts if cut < len(observations)), len(observations)]
    for first, last in pairwise(edges):
        for window_rows in fed.windows(*observations[first:last]).values():
            found[window_rows[-1]] = window_rows
    assert found == expected


def test_more_streams_than_slots_and_more_rows_than_a_slot_holds():
    fed = Fed(window=5)
    names = [f"s{i}" for i in range(200)]
    for turn in range(60):
        windows = fed.windows(*((name, turn) for name in names))
        assert len(windows) == (200 if turn >= 4 else 0)
    assert all(window == [55, 56, 57, 58, 59] for window in windows.values())
    assert list(fed.windows(*(("s0", i) for i in range(60, 400))).values())[-1] == [395, 396, 397, 398, 399]


def test_a_late_observation_is_put_in_its_place_and_scored_there():
    fed = Fed()
    fed.push(("a", 1, 10.0), ("a", 2, 20.0), ("a", 4, 40.0), ("a", 5, 50.0))
    assert fed.windows(("a", 3, 30.0)) == {0: [1, 2, 3]}
    assert fed.windows(("a", 6, 60.0)) == {0: [4, 5, 6]}


def test_one_that_is_too_late_is_refused():
    fed = Fed(lateness=30.0)
    fed.push(*(("a", i, 10.0 * i) for i in range(10)))
    assert fed.outcomes(("a", 0, 59.9)) == ["LATE"]
    assert fed.outcomes(("a", 0, 65.0)) == ["TAKEN"]


@pytest.mark.parametrize("disorder", [0, 5, 64, 300])
def test_one_that_more_others_have_overtaken_than_may_is_refused_though_it_is_not_late(disorder):
    fed = Fed(lateness=1e9, disorder=disorder)
    fed.push(*(("a", i, float(i)) for i in range(400)))
    pushed = fed.push(("a", 0, 398.5 - disorder), published=400.0)
    assert (pushed.outcomes.tolist(), pushed.by.tolist()) == ([Outcome.OVERTAKEN], [disorder + 1])
    pushed = fed.push(("a", 0, 399.5 - disorder), published=400.0)
    assert (pushed.outcomes.tolist(), len(pushed.due)) == ([Outcome.TAKEN], 1)


def test_by_default_a_burst_of_64_may_come_before_one_that_is_within_the_lateness():
    fed = Fed(lateness=60.0)
    fed.push(*(("a", i, 0.5 * i) for i in range(100)))
    assert fed.windows(("a", 0, 17.8)) == {0: [34, 35, 0]}


def test_what_is_refused_is_told_by_how_much():
    fed = Fed(lateness=30.0, max_ahead=3600.0)
    fed.push(("a", 0, 100.0), ("a", 0, 110.0), published=200.0)
    pushed = fed.push(("a", 0, 70.0), ("a", 0, 5_000.0), ("a", 0, 111.0), published=200.0)
    assert pushed.outcomes.tolist() == [Outcome.LATE, Outcome.AHEAD, Outcome.TAKEN]
    assert pushed.by.tolist() == [40.0, 4_800.0, 0.0]


def test_the_same_at_the_same_time_is_a_duplicate_and_another_value_is_not():
    fed = Fed()
    fed.push(("a", 1, 10.0), ("a", 2, 20.0), ("a", math.nan, 30.0))
    found = fed.outcomes(("a", 2, 20.0), ("a", math.nan, 30.0), ("a", 7, 30.0), ("a", 7, 30.0), ("a", 8, 40.0))
    assert found == ["DUPLICATE", "DUPLICATE", "TAKEN", "DUPLICATE", "TAKEN"]
    assert fed.windows(("a", 9, 50.0)) == {0: [7, 8, 9]}


def test_without_a_time_of_its_own_every_observation_is_new():
    fed = Fed()
    assert fed.windows(("a", 1, 5.0), ("a", 1, 5.0), ("a", 1, 4.0), timed=False) == {2: [1, 1, 1]}


def untimed(fed, *times):
    """Observations that have Kafka's time alone; the values are the number of each."""
    first = fed.number = getattr(fed, "number", 0)
    fed.number += len(times)
    return fed.push(*(("a", first + i, time) for i, time in enumerate(times)), timed=False, published=times)


@pytest.mark.parametrize("wrong", [1, 3, 4, 9])
def test_kafka_times_of_years_ahead_neither_begin_a_window_nor_hide_a_gap_that_comes_later(wrong):
    fed = Fed(max_gap=600.0)
    untimed(fed, *(10.0 * i for i in range(5)))
    ahead = untimed(fed, *(1e9 + 10.0 * i for i in range(wrong)))
    assert ahead.begun == (wrong >= 4)
    after = untimed(fed, *(50.0 + 10.0 * i for i in range(10)))
    assert (after.begun, len(after.due)) == (0, 10)
    assert untimed(fed, *(5_000.0 + 10.0 * i for i in range(5))).begun == 1
    assert fed.tails._read.newest[fed.slots["a"]] == 5_040.0


def test_kafka_times_that_are_behind_for_a_moment_begin_no_window():
    fed = Fed(max_gap=600.0)
    pushed = untimed(fed, *(1e9 + 10.0 * i for i in range(5)), 0.0, 10.0, *(1e9 + 50.0 + 10.0 * i for i in range(5)))
    assert (pushed.begun, len(pushed.due)) == (0, 10)
    assert pushed.windows[-1, :, 0].tolist() == [9, 10, 11]


def test_a_gap_begins_a_window():
    fed = Fed(max_gap=60.0)
    pushed = fed.push(("a", 1, 0.0), ("a", 2, 50.0), ("a", 3, 111.0), ("a", 4, 112.0))
    assert (len(pushed.due), pushed.begun) == (0, 1)
    assert fed.windows(("a", 5, 113.0)) == {0: [3, 4, 5]}


def test_an_observation_from_the_future_is_refused_and_spoils_nothing():
    fed = Fed(max_ahead=3600.0)
    fed.push(("a", 1, 100.0), ("a", 2, 101.0), published=102.0)
    assert fed.outcomes(("a", 9, 1e9), published=102.0) == ["AHEAD"]
    assert fed.windows(("a", 3, 102.0), published=102.0) == {0: [1, 2, 3]}


def test_a_clock_that_was_put_back_begins_a_window_after_some_refusals():
    fed = Fed(reset_after=3)
    fed.push(*(("a", i, 1e6 + i) for i in range(5)))
    pushed = fed.push(("a", 10, 1.0), ("a", 11, 2.0), ("a", 12, 3.0), ("a", 13, 4.0), ("a", 14, 5.0))
    assert [Outcome(each).name for each in pushed.outcomes] == ["LATE", "LATE", "TAKEN", "TAKEN", "TAKEN"]
    assert pushed.begun == 1
    assert pushed.windows[:, :, 0].tolist() == [[12, 13, 14]]


def test_late_ones_between_newer_ones_put_no_clock_back():
    fed = Fed(reset_after=3)
    fed.push(("a", 0, 1e6))
    for turn in range(5):
        assert fed.outcomes(("a", 1, float(turn)), ("a", 2, 1e6 + 1 + turn)) == ["LATE", "TAKEN"]


def test_late_ones_that_go_on_as_fast_as_they_are_published_are_a_clock_that_was_put_back():
    fed = Fed()
    fed.push(*(("a", i, 10.0 * i) for i in range(400)), published=4000.0)
    outcomes = []
    for i in range(30):  # an hour back, one every ten seconds
        outcomes += fed.outcomes(("a", 0.5, 400.0 + 10.0 * i), published=4000.0 + 10.0 * i)
    assert outcomes == ["LATE"] * 19 + ["TAKEN"] * 11


@pytest.mark.parametrize("pace", [0.0, 0.001, 0.2, 0.49])
def test_what_is_sent_again_comes_faster_and_is_not_taken_again(pace):
    fed = Fed(window=16, disorder=DISORDER)
    sent = [("a", i, 10.0 * i) for i in range(400)]
    fed.push(*sent, published=4000.0)
    count = {"LATE": 0, "DUPLICATE": 0}
    for at, each in enumerate(sent[200:]):
        pushed = fed.push(each, published=4000.0 + 10.0 * pace * at)
        count[Outcome(pushed.outcomes[0]).name] += 1
        assert (len(pushed.due), pushed.begun) == (0, 0)
    assert count == {"LATE": 200 - 16 - DISORDER, "DUPLICATE": 16 + DISORDER}
    assert fed.windows(("a", 400, 4000.0), published=9000.0) == {0: list(range(385, 401))}


@pytest.mark.parametrize("ahead", [1, 2, 3])
@pytest.mark.parametrize("max_gap", [None, 600.0])
def test_a_few_that_jump_ahead_are_scored_and_cost_those_after_them_nothing(ahead, max_gap):
    fed = Fed(max_gap=max_gap)
    fed.push(*(("a", i, 10.0 * i) for i in range(10)), published=100.0)
    jumped = fed.push(*(("a", 100 + i, 80_000.0 + 10.0 * i) for i in range(ahead)), published=100.0)
    assert set(jumped.outcomes) == {Outcome.TAKEN}
    assert len(jumped.due) == (ahead if max_gap is None else 0)
    back = fed.push(*(("a", i, 10.0 * i) for i in range(10, 30)), published=110.0)
    assert back.withdrawn == ahead
    assert back.windows[:, :, 0].tolist() == [[i - 2, i - 1, i] for i in range(10, 30)]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("max_gap", [None, 600.0])
def test_a_second_observation_that_is_years_ahead_costs_those_after_it_nothing(together, max_gap):
    fed = Fed(max_gap=max_gap)
    stamps = [0.0, 1e9, *(10.0 * i for i in range(1, 20))]
    sent = [("a", i, time) for i, time in enumerate(stamps)]
    pushed = [fed.push(*sent)] if together else [fed.push(each) for each in sent]
    assert {outcome for each in pushed for outcome in each.outcomes} == {Outcome.TAKEN}
    assert sum(each.withdrawn for each in pushed) == 1
    windows = [window[:, 0].tolist() for each in pushed for window in each.windows]
    assert windows == [[0, 2, 3], *([i - 2, i - 1, i] for i in range(4, 21))]


def test_a_second_observation_that_is_years_back_costs_only_itself():
    fed = Fed()
    assert fed.outcomes(("a", 0, 1e9), ("a", 1, 0.0), ("a", 2, 1e9 + 10.0)) == ["TAKEN", "LATE", "TAKEN"]


@pytest.mark.parametrize("jumped", [5, 200])
@pytest.mark.parametrize("before", [1, 50])
@pytest.mark.parametrize("max_gap", [None, 600.0])
def test_after_a_burst_that_jumped_ahead_and_stayed_a_stream_goes_on_from_where_it_was(jumped, before, max_gap):
    """Published in one go, so that the pace says nothing."""
    fed = Fed(max_gap=max_gap, reset_after=5)
    fed.push(*(("a", i, 10.0 * i) for i in range(before)), published=0.0)
    fed.push(*(("a", i, 80_000.0 + 10.0 * i) for i in range(jumped)), published=0.0)
    found = fed.outcomes(*(("a", i, 10.0 * i) for i in range(before, before + 50)), published=0.0)
    assert found == ["LATE"] * 4 + ["TAKEN"] * 46


def test_what_filled_a_gap_that_was_jumped_is_not_taken_again():
    fed = Fed(reset_after=5)
    fed.push(("a", 0, 0.0), *(("a", i, 50_000.0 + 10.0 * i) for i in range(10)), published=0.0)
    filling = [("a", i, 10.0 * i) for i in range(1, 100)]
    assert "TAKEN" in fed.outcomes(*filling, published=0.0)
    fed.push(("a", 0, 60_000.0), *(("a", i, 60_000.0 + i) for i in range(1, 20)), published=0.0)
    assert "TAKEN" not in fed.outcomes(*filling, published=0.0)


def test_what_jumps_ahead_and_stays_there_is_a_gap():
    fed = Fed()
    fed.push(*(("a", i, 10.0 * i) for i in range(10)))
    after = fed.push(*(("a", i, 5_000.0 + 10.0 * i) for i in range(10, 20)))
    assert after.windows[:, :, 0].tolist() == [[i - 2, i - 1, i] for i in range(10, 20)]
    assert fed.outcomes(("a", 50, 100.0)) == ["LATE"]


@pytest.mark.parametrize("window", [4, 6])
def test_after_a_gap_that_is_a_jump_the_window_begins_anew_once_it_is_sure(window):
    fed = Fed(window=window, max_gap=600.0)
    fed.push(*(("a", i, 10.0 * i) for i in range(10)))
    after = fed.push(*(("a", i, 5_000.0 + 10.0 * i) for i in range(10, 20)))
    assert after.windows[:, :, 0].tolist() == [list(range(i - window + 1, i + 1)) for i in range(9 + window, 20)]
    assert after.begun == 1


def test_long_steps_of_a_slow_stream_are_no_jumps():
    fed = Fed()
    fed.push(*(("a", i, 86_400.0 * i) for i in range(10)))
    assert fed.outcomes(("a", 5, 86_400.0 * 4)) == ["LATE"]
    assert fed.windows(("a", 10, 864_000.0)) == {0: [8, 9, 10]}


def test_a_duplicate_or_one_that_is_late_in_any_case_leaves_what_jumped_ahead():
    fed = Fed()
    fed.push(*(("a", i, 10.0 * i) for i in range(100)))
    fed.push(("a", 100, 50_000.0))
    assert fed.outcomes(("a", 99, 990.0), ("a", 7, 75.0)) == ["DUPLICATE", "LATE"]
    assert fed.windows(("a", 101, 50_010.0)) == {0: [99, 100, 101]}


def test_clocks_that_jump_again_and_again_cost_nothing():
    fed = Fed()
    times = 10.0 * np.arange(600)
    times[50::15] += 80_000.0
    outcomes = fed.outcomes(*(("a", i, time) for i, time in enumerate(times.tolist())))
    assert outcomes == ["TAKEN"] * 600


@given(
    steps=st.lists(st.sampled_from([1, 1, 1, 2, 5, 30, 300, -3, -25, -300, 0]), max_size=80),
    paces=st.lists(st.sampled_from([0.0, 1.0, 3.0, 40.0]), min_size=80, max_size=80),
    cut=st.integers(0, 80),
    window=st.integers(1, 5),
    stride=st.integers(1, 3),
    max_gap=st.sampled_from([None, 10.0, 25.0]),
    disorder=st.sampled_from([0, 4, 64]),
    timed=st.one_of(st.just([True] * 80), st.lists(st.booleans(), min_size=80, max_size=80)),
)
@settings(deadline=None, max_examples=300)
def test_a_stream_that_is_taken_up_again_goes_on_as_if_it_had_not_stopped(
    steps, paces, cut, window, stride, max_gap, disorder, timed
):
    """Whatever the order of its times: late ones, duplicates, gaps, jumps; and however it is cut into chunks."""
    options = {"lateness": 20.0, "max_gap": max_gap, "reset_after": 4, "stride": stride, "disorder": disorder}
    times, published = np.cumsum(steps).tolist(), (1e6 + np.cumsum(paces)).tolist()
    observations = [("a", float(time % 3), float(time)) for time in times]
    undisturbed, chunked = Fed(window, **options), Fed(window, **options)
    each = [
        (one, {"published": at, "timed": own}) for one, at, own in zip(observations, published, timed, strict=False)
    ]
    told = [undisturbed.push(one, **options) for one, options in each]
    before, after = Fed(window, **options), Fed(window, **options)
    found = [before.push(one, **options) for one, options in each[:cut]]
    if "a" in before.slots:
        slots = np.array([before.slots["a"]])
        before.tails.settle(before.tails.snapshot(slots), np.ones(1, np.bool_))
        saved = before.tails.judged(before.slots["a"]).to_bytes()
        after.slots["a"] = after.tails.open(Tail.from_bytes(saved))
    found += [after.push(one, **options) for one, options in each[cut:]]
    for one, other in zip(found, told, strict=True):
        assert one.outcomes.tolist() == other.outcomes.tolist()
        assert one.windows.tolist() == other.windows.tolist()
    parts = [slice(0, cut), slice(cut, None)]
    whole = [
        chunked.push(*(one for one, _ in some), published=published[part][: len(some)], timed=timed[part][: len(some)])
        for part in parts
        for some in [each[part]]
    ]
    assert [outcome for some in whole for outcome in some.outcomes] == [one.outcomes[0] for one in told]
    assert [w.tolist() for some in whole for w in some.windows] == [w.tolist() for one in told for w in one.windows]


@pytest.mark.parametrize("back", range(15, 60, 4))
def test_an_old_duplicate_is_the_same_before_a_restart_and_after(back):
    before, after = Fed(window=16, disorder=DISORDER), Fed(window=16, disorder=DISORDER)
    sent = [("a", i, 10.0 * i) for i in range(200)]
    before.push(*sent)
    slots = np.array([before.slots["a"]])
    before.tails.settle(before.tails.snapshot(slots), np.ones(1, np.bool_))
    after.slots["a"] = after.tails.open(before.tails.judged(before.slots["a"]))
    expected = "DUPLICATE" if back <= 16 + DISORDER else "LATE"
    assert before.outcomes(sent[-back]) == after.outcomes(sent[-back]) == [expected]


def test_what_is_judged_stays_behind_what_is_read():
    fed = Fed()
    fed.push(("a", 1), ("a", 2))
    slots = np.array([fed.slots["a"]])
    snapshot = fed.tails.snapshot(slots)
    fed.push(("a", 3))
    assert fed.tails.judged(fed.slots["a"]).count == 0
    fed.tails.settle(snapshot, np.ones(1, np.bool_))
    assert fed.tails.judged(fed.slots["a"]).rows[:, 0].tolist() == [1, 2]


def test_a_slot_that_is_given_back_begins_empty():
    fed = Fed(window=2)
    fed.push(("a", 1), ("a", 2))
    fed.tails.close(fed.slots.pop("a"))
    assert fed.windows(("a", 3), ("a", 4)) == {1: [3, 4]}


def test_a_tail_that_was_kept_for_a_shorter_window_fills_first():
    fed = Fed(window=30)
    fed.slots["a"] = fed.tails.open(Tail(1000, np.zeros((19, 1), np.float32), np.arange(19.0)))
    assert len(fed.windows(*(("a", i, 100.0 + i) for i in range(10)))) == 0
    assert len(fed.windows(("a", 11, 200.0))) == 1


@pytest.mark.parametrize(
    "data", [b"", b"123", Tail(2, np.zeros((2, 2), np.float32), np.zeros(2)).to_bytes()[:-1], b"\x07" + bytes(60)]
)
def test_bytes_that_are_not_observations_are_refused(data):
    with pytest.raises(ValueError, match="not the observations of a stream"):
        Tail.from_bytes(data)


def test_windows_come_with_the_times_of_their_first_and_last_observation_in_whatever_order_they_came():
    fed = Fed(lateness=100.0)
    pushed = fed.push(*(("a", at, float(at)) for at in (1, 2, 5, 3, 6)), ("b", 0, 1.0))
    assert [window[:, 0].tolist() for window in pushed.windows] == [[1, 2, 5], [1, 2, 3], [3, 5, 6]]
    assert pushed.times.tolist() == [[1.0, 5.0], [1.0, 3.0], [3.0, 6.0]]
    usual = fed.push(("b", 1, 4.0), ("c", 0, 0.5), ("b", 2, 9.0), ("b", 3, 10.0))
    assert usual.times.tolist() == [[1.0, 9.0], [4.0, 10.0]]

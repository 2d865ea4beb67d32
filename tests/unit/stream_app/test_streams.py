"""The streams of a partition: taken up where they were saved, saved where they changed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from stream_app.clock import ManualClock
from stream_app.decode import Decoder, InputSpec
from stream_app.errors import RedisUnavailable
from stream_app.judge import judge
from stream_app.metrics import REGISTRY
from stream_app.records import Kind
from stream_app.scoring import ScoredRows
from stream_app.settings import Settings
from stream_app.state import Mark, StreamState
from stream_app.streams import Streams
from tests.unit.stream_app.raw import TP, chunk_of, json, raw

WINDOW = 3


def counted(what, **labels):
    return REGISTRY.get_sample_value(f"ganomaly_{what}_total", labels) or 0.0


class FaultyStore:
    """States in memory, and a Redis that can be away."""

    def __init__(self):
        self.states: dict[str, StreamState] = {}
        self.held: Mark | None = None
        self.flushed = 0
        self.meanwhile = None  # what happens while it is asked
        self.away = False
        self.may_ask = True
        self.asked: list[list[str]] = []

    async def mark(self, place):
        if self.away:
            raise RedisUnavailable("away")
        return self.held

    async def load(self, place, streams):
        if self.away:
            raise RedisUnavailable("away")
        self.asked.append(list(streams))
        if self.meanwhile:
            await self.meanwhile()
        return {name: self.states[name] for name in streams if name in self.states}

    async def save(self, changes, marks):
        if self.away:
            raise RedisUnavailable("away")
        for states in changes.values():
            self.states.update(states)
        for mark in marks.values():
            if mark.epoch in (None, self.held and self.held.epoch):
                self.held = mark._replace(epoch=self.held.epoch if self.held else b"%d" % self.flushed)
        return dict.fromkeys(marks, self.held and self.held.epoch)

    def flush(self):
        self.states, self.held, self.flushed = {}, None, self.flushed + 1


class Partition:
    """The streams of one partition, fed with single observations, as a lane does it."""

    def __init__(self, store, start=0, features=1, shares=1, **sections):
        spec = InputSpec(Kind.SEQUENCE, (WINDOW, features))
        self.settings = Settings(**sections)
        self.store = store
        self.features = features
        self.clock = ManualClock()
        self.streams = Streams("sequences", TP, spec, self.settings, store, start, shares=shares, clock=self.clock)
        self.decoder = Decoder(spec, self.settings.limits)
        self.end = start  # of what was judged

    async def read(self, text, first=0):
        """Takes a chunk with an observation for each letter, the stream's name; returns what judging needs."""
        records = [raw(np.full(self.features, float(i), np.float32), key=name.encode()) for i, name in enumerate(text)]
        chunk = chunk_of(*records, first=first)
        decoded = self.decoder.decode(chunk)
        await self.streams.ensure(decoded)
        return chunk, decoded, self.streams.take(chunk, decoded)

    def judge(self, read):
        chunk, decoded, taken = read
        self.end = chunk.end
        values = np.full(len(taken.rows.index), 0.1, np.float32)
        return judge(
            "sequences", chunk, decoded, taken, ScoredRows(values, {}, SimpleNamespace(version="v1")), self.streams
        ).each

    async def feed(self, text, first=0):
        return [v.offset for v in self.judge(await self.read(text, first))]

    async def save(self, floor=0):
        """As the commit cycle does it, but once."""
        changes = self.streams.take_changes(floor)
        mark, place = self.streams.mark(self.end), ("sequences", *TP)
        try:
            epochs = await self.store.save({place: changes}, {place: mark} if mark else {})
        except RedisUnavailable:
            self.streams.settle_changes((), changes)
            return []
        for epoch in epochs.values():
            self.streams.check(epoch, mark)
        self.streams.settle_changes(changes, ())
        return sorted(changes)

    async def is_lost(self):
        """Whether windows are to be read again before what comes next."""
        return await self.streams.to_read_again(self.end) is not None

    async def recall(self, text, first=0):
        """Reads again what came before, as a lane does it."""
        records = [raw(np.full(self.features, float(i), np.float32), key=name.encode()) for i, name in enumerate(text)]
        chunk = chunk_of(*records, first=first)
        await self.streams.recall(chunk, self.decoder.decode(chunk))
        return self.streams.end_recall(whole=True)


async def test_what_was_saved_is_taken_up_again():
    store = FaultyStore()
    before = Partition(store)
    assert await before.feed("aaaa") == [2, 3]
    await before.save()
    after = Partition(store)
    assert await after.feed("aab", first=4) == [4, 5]
    assert after.streams["a"].threshold.observations == 4
    assert after.streams["b"].threshold.observations == 0


async def test_what_is_saved_knows_no_more_than_what_was_judged():
    store = FaultyStore()
    before = Partition(store)
    await before.feed("aaaa")
    await before.read("aaaa", first=4)  # in hand, not judged
    await before.save()
    after = Partition(store)
    assert await after.feed("aaaa", first=4) == [4, 5, 6, 7]
    assert after.streams["a"].threshold.observations == 6


async def test_observations_that_were_acknowledged_before_a_crash_are_not_taken_twice():
    store = FaultyStore()
    before = Partition(store)
    await before.feed("aaaa")
    await before.save()
    after = Partition(store)
    assert await after.feed("aaaaaa", first=0) == [4, 5]
    assert after.streams["a"].threshold.observations == 4


async def test_only_what_changed_is_saved_and_once():
    partition = Partition(FaultyStore())
    await partition.feed("ab")
    assert await partition.save() == ["a", "b"]
    assert await partition.save() == []
    await partition.feed("b", first=2)
    assert await partition.save() == ["b"]


async def test_changes_that_could_not_be_saved_are_kept():
    partition = Partition(FaultyStore())
    await partition.feed("a")
    partition.streams.settle_changes((), partition.streams.take_changes(floor=0))
    assert await partition.save() == ["a"]


async def test_a_stream_is_asked_for_once():
    partition = Partition(FaultyStore())
    await partition.feed("aab")
    await partition.feed("ba", first=3)
    assert partition.store.asked == [["a", "b"]]


async def test_a_record_that_cant_be_read_begins_no_stream():
    partition = Partition(FaultyStore())
    chunk = chunk_of(json("{", key=b"bad"))
    await partition.streams.ensure(partition.decoder.decode(chunk))
    assert (len(partition.streams), partition.store.asked) == (0, [])


async def test_while_redis_is_away_streams_begin_anew_and_do_not_overwrite_what_is_saved():
    store = FaultyStore()
    before = Partition(store)
    await before.feed("a" * 40)
    await before.save()
    store.away = True
    after = Partition(store)
    await after.feed("a" * 4, first=40)
    assert after.streams["a"].threshold.observations == 2
    assert await after.save() == []
    store.away = False
    await after.feed("a", first=44)
    assert after.streams["a"].threshold.observations == 39
    assert await after.save() == ["a"]
    assert store.states["a"].offset == 44


async def saved_state(store):
    before = Partition(store)
    await before.feed("a" * 10)
    await before.save()
    return store.states["a"]


async def test_a_window_outlives_a_threshold_and_an_episode_that_cant_be_read():
    store = FaultyStore()
    whole = await saved_state(store)
    store.states["a"] = replace(whole, threshold=b"\x63" + whole.threshold[1:], episode=b"")
    before = counted("states_corrupt", part="threshold"), counted("states_corrupt", part="episode")
    after = Partition(store)
    assert await after.feed("aa", first=9) == [10]  # offset 9 was learned
    assert after.streams["a"].threshold.observations == 1
    now = counted("states_corrupt", part="threshold"), counted("states_corrupt", part="episode")
    assert now == (before[0] + 1, before[1] + 1)


async def test_a_threshold_outlives_a_window_that_cant_be_read():
    store = FaultyStore()
    whole = await saved_state(store)
    store.states["a"] = replace(whole, tail=b"\x63" + whole.tail[1:])
    before = counted("states_corrupt", part="window")
    after = Partition(store)
    assert await after.feed("aaa", first=10) == [12]
    assert after.streams["a"].threshold.observations == 9
    assert counted("states_corrupt", part="window") == before + 1


async def test_what_cant_be_read_of_many_streams_is_said_once_and_counted_each_time():
    store = FaultyStore()
    whole = await saved_state(store)
    store.states = {name: replace(whole, threshold=b"nonsense") for name in "abcd"}
    before = counted("states_corrupt", part="threshold")
    with capture_logs() as said:
        await Partition(store).feed("abcd", first=10)
    assert counted("states_corrupt", part="threshold") == before + 4
    assert [line["stream"] for line in said if "saved threshold can't be read" in line["event"]] == ["a"]


async def test_where_an_assignment_begins_below_what_was_committed_everything_is_taken_again():
    store = FaultyStore()
    before = Partition(store, start=1_000)
    await before.feed("a" * 40, first=1_000)
    await before.save(floor=1_000)
    after = Partition(store, start=0)  # the group was put back, or the topic was made again
    assert await after.feed("aaa") == [2]
    assert after.streams["a"].threshold.observations == 39
    assert after.streams.take_changes(floor=0)["a"].overwrites


async def test_a_saved_window_of_another_number_of_features_begins_anew():
    store = FaultyStore()
    before = Partition(store)
    await before.feed("aaaa")
    await before.save()
    assert await Partition(store, features=2).feed("aaaa", first=4) == [6, 7]


async def test_the_least_recently_used_streams_are_forgotten_once_they_are_saved_and_come_back():
    partition = Partition(FaultyStore(), sequence={"max_streams": 2})
    await partition.feed("aaabbbcccddd")
    assert len(partition.streams) == 4
    in_hand = await partition.read("a", first=12)
    await partition.save()
    assert [name in partition.streams for name in "abcd"] == [True, False, False, True]
    partition.judge(in_hand)
    assert await partition.feed("b", first=13) == [13]
    assert partition.streams["b"].threshold.observations == 2


async def test_a_partition_has_its_share_of_the_memory_in_streams_and_in_bytes():
    few = Partition(FaultyStore(), shares=2, sequence={"max_streams": 4})
    await few.feed("abcd")
    await few.save()
    assert [name in few.streams for name in "abcd"] == [False, False, True, True]
    small = Partition(FaultyStore(), sequence={"max_bytes": 2_000})
    await small.feed("abcdefgh")
    await small.save()
    assert 1 <= len(small.streams) < 8


async def test_a_silent_stream_leaves_the_memory_and_comes_back():
    partition = Partition(FaultyStore(), sequence={"forget_after": 60.0})
    await partition.feed("aaabb")
    await partition.save()
    partition.clock.advance(50.0)
    await partition.feed("b", first=5)
    partition.clock.advance(20.0)
    await partition.save()
    assert [name in partition.streams for name in "ab"] == [False, True]
    assert await partition.feed("a", first=6) == [6]


async def test_without_redis_the_memory_is_still_bounded_and_what_is_lost_is_counted():
    store = FaultyStore()
    store.away = True
    partition = Partition(store, sequence={"max_streams": 2})
    before = REGISTRY.get_sample_value("ganomaly_streams_lost_total")
    await partition.feed("aaabbbcccddd")
    partition.streams.settle_changes((), partition.streams.take_changes(floor=0))
    assert [name in partition.streams for name in "abcd"] == [False, False, True, True]
    assert REGISTRY.get_sample_value("ganomaly_streams_lost_total") == before + 2


async def through_an_outage(store, text, **sections):
    """A worker that has saved eight observations ends after an outage in which it judged the rest."""
    before = Partition(store, **sections)
    await before.feed(text[:8])
    await before.save()
    store.away = True
    await before.feed(text[8:], first=8)
    await before.save()
    store.away = False
    return Partition(store, start=len(text), **sections)


async def test_where_states_are_older_than_the_committed_offsets_what_lies_between_is_read_again():
    before = counted("states_behind", topic=TP.topic)
    after = await through_an_outage(FaultyStore(), "aaaabbbbaaaacc")
    chunk = chunk_of(*(raw(np.full(1, -1.0, np.float32), key=name.encode()) for name in "abc"), first=14)
    decoded = after.decoder.decode(chunk)
    await after.streams.ensure(decoded)
    assert await after.streams.to_read_again(14) == range(8, 14)
    assert await after.recall("aaaacc", first=8) == 2
    taken = after.streams.take(chunk, decoded)
    assert taken.rows.data[:, :, 0].tolist() == [[2, 3, -1], [6, 7, -1], [4, 5, -1]]
    after.judge((chunk, decoded, taken))
    await after.save()
    assert after.store.held.complete == 17
    assert not await Partition(after.store, start=17).is_lost()
    assert counted("states_behind", topic=TP.topic) == before + 1


async def test_where_that_is_too_far_back_windows_begin_anew_rather_than_with_a_hole():
    store = FaultyStore()
    after = await through_an_outage(store, "aaaabbbbaaaacc", sequence={"rebuild_records": 3})
    chunk = chunk_of(*(raw(np.zeros(1, np.float32), key=name.encode()) for name in "abc"), first=14)
    decoded = after.decoder.decode(chunk)
    await after.streams.ensure(decoded)
    assert await after.streams.to_read_again(14) == range(11, 14)
    await after.recall("acc", first=11)
    taken = after.streams.take(chunk, decoded)
    assert taken.rows.index.tolist() == [2]
    after.judge((chunk, decoded, taken))
    await after.save()
    assert (store.held.complete, store.held.whole_from) == (17, 11)
    assert await Partition(store, start=17).feed("bb", first=17) == [18]


async def test_when_nothing_is_to_be_read_again_all_windows_that_may_have_a_hole_begin_anew():
    after = await through_an_outage(FaultyStore(), "aaaabbbbaaaacc", sequence={"rebuild_records": 0})
    assert await after.feed("aaa", first=14) == [16]
    assert not await after.is_lost()


async def test_a_window_that_can_only_be_read_again_in_part_begins_anew():
    after = await through_an_outage(FaultyStore(), "aaaabbbbaaaacc")
    chunk = chunk_of(*(raw(np.zeros(1, np.float32), key=name.encode()) for name in "aaab"), first=14)
    decoded = after.decoder.decode(chunk)
    await after.streams.ensure(decoded)
    await after.streams.to_read_again(14)
    part = chunk_of(raw(np.zeros(1, np.float32), key=b"a"), first=8)
    await after.streams.recall(part, after.decoder.decode(part))
    after.streams.end_recall(whole=False)
    assert after.streams.take(chunk, decoded).rows.index.tolist() == [2]


async def test_a_stream_that_had_to_leave_unsaved_begins_anew_and_not_with_the_window_of_before():
    store = FaultyStore()
    partition = Partition(store, sequence={"max_streams": 1})
    await partition.feed("aaaa")
    await partition.save()
    store.away = True
    await partition.feed("ab", first=4)
    await partition.save()
    store.away = False
    await partition.feed("b", first=6)
    await partition.save()
    assert "a" not in partition.streams
    assert await partition.feed("aaa", first=7) == [9]
    assert partition.streams["a"].threshold.observations == 3


async def test_states_are_no_more_complete_while_a_stream_is_not_asked_for_or_windows_are_read_again():
    store = FaultyStore()
    store.away = True
    partition = Partition(store, start=3)
    await partition.feed("ab", first=3)
    assert partition.streams.mark(5) is None
    store.away = False
    await partition.feed("c", first=5)
    assert partition.streams.mark(6).complete == 0
    partition.streams.take_changes(floor=0)
    assert await partition.is_lost()
    assert partition.streams.mark(6).complete == 0
    partition.streams.end_recall(whole=True)
    assert partition.streams.mark(6).complete == 6


async def test_what_comes_again_is_not_lost_where_a_group_was_put_back_or_a_topic_made_again():
    store = FaultyStore()
    store.held = Mark(b"epoch", 1_000, whole_from=900)
    store.states = {"a": replace(await saved_state(FaultyStore()), offset=120)}
    after = Partition(store, start=121)
    assert await after.feed("a", first=121) == [121]


async def test_streams_that_began_while_redis_was_away_are_saved_and_may_leave_though_they_are_silent_since():
    store = FaultyStore()
    before = Partition(store)
    await before.feed("aaaaaa")
    await before.save()
    store.away = True
    after = Partition(store, start=6, sequence={"forget_after": 60.0})
    await after.feed("abbb", first=6)
    assert await after.save() == []
    store.away = False
    await after.feed("c", first=10)
    assert await after.save() == ["a", "b", "c"]
    assert store.states["a"].offset == 6
    after.clock.advance(61.0)
    await after.feed("c", first=11)
    await after.save()
    assert [name in after.streams for name in "abc"] == [False, False, True]
    assert await after.feed("b", first=12) == [12]


async def test_of_streams_beyond_the_limit_those_that_are_saved_leave_before_those_that_are_not():
    partition = Partition(FaultyStore(), sequence={"max_streams": 2})
    before = counted("streams_lost")
    await partition.feed("aaabbbcccddd")
    partition.streams.take_changes(floor=0)
    partition.streams.settle_changes("cd", "ab")
    assert [name in partition.streams for name in "abcd"] == [True, True, False, False]
    assert counted("streams_lost") == before


@pytest.mark.parametrize(
    ("start", "known", "away", "lost"),
    [(0, False, False, False), (9, True, False, False), (9, False, False, True), (9, True, True, True)],
)
async def test_windows_are_lost_where_records_came_before_that_redis_knows_nothing_of(start, known, away, lost):
    store = FaultyStore()
    store.held = Mark(b"epoch", start) if known else None
    store.away = away
    assert await Partition(store, start=start).is_lost() is lost


async def test_what_is_read_again_fills_windows_is_saved_and_teaches_nothing():
    partition = Partition(FaultyStore(), start=4)
    assert await partition.recall("aaaa") == 1
    assert await partition.save() == ["a"]
    assert await partition.feed("a", first=4) == [4]
    assert partition.streams["a"].threshold.observations == 1
    assert not partition.streams["a"].threshold.warm


async def test_what_was_read_again_and_saved_is_not_taken_twice_after_a_restart():
    store = FaultyStore()
    before = Partition(store, start=4)
    await before.recall("aaaa")
    await before.save()
    assert await Partition(store, start=2).feed("aaa", first=2) == [4]


async def test_what_is_read_again_keeps_to_the_limit_and_says_what_is_lost():
    partition = Partition(FaultyStore(), start=9, sequence={"max_streams": 2})
    before = counted("streams_lost")
    for first, text in enumerate(["ab", "cde", "dd"]):
        chunk = chunk_of(*(raw(np.zeros(1, np.float32), key=name.encode()) for name in text), first=3 * first)
        await partition.streams.recall(chunk, partition.decoder.decode(chunk))
        assert len(partition.streams) == 2
    assert partition.streams.end_recall(whole=True) == 2
    assert [name in partition.streams for name in "abcde"] == [False, False, False, True, True]
    assert counted("streams_lost") == before + 3


async def test_streams_that_are_here_keep_what_they_have_when_others_are_read_again():
    partition = Partition(FaultyStore(), sequence={"max_streams": 2})
    await partition.feed("aaa", first=6)
    await partition.recall("aabbbb")
    assert partition.streams["a"].threshold.observations == 1
    assert await partition.feed("ab", first=9) == [9, 10]


@pytest.mark.parametrize("sections", [{"sequence": {"max_streams": 1}}, {"sequence": {"forget_after": 60.0}}])
async def test_a_stream_of_the_chunk_that_is_read_stays_while_redis_is_asked_for_another(sections):
    partition = Partition(FaultyStore(), **sections)
    await partition.feed("aaabbb")
    partition.clock.advance(61.0)
    partition.store.meanwhile = partition.save
    assert await partition.feed("ac", first=6) == [6]
    partition.store.meanwhile = None
    assert await partition.feed("b", first=8) == [8]


async def test_a_replay_that_began_while_redis_was_away_is_not_learned_again_when_it_is_back():
    store = FaultyStore()
    before = Partition(store)
    await before.feed("a" * 40)
    await before.save()
    store.away = True
    after = Partition(store)  # the offsets had not been committed
    await after.feed("a" * 4)
    store.away = False
    assert await after.feed("a" * 38, first=4) == [40, 41]
    assert after.streams["a"].threshold.observations == 40
    assert after.streams["a"].offset == 41
    undisturbed = Partition(FaultyStore())
    await undisturbed.feed("a" * 42)
    assert after.streams["a"].threshold.to_bytes() == undisturbed.streams["a"].threshold.to_bytes()


async def test_what_was_in_hand_when_redis_came_back_leaves_the_window_that_was_saved():
    store = FaultyStore()
    before = Partition(store)
    await before.feed("a" * 10)
    await before.save()
    store.away = True
    after = Partition(store)
    early = await after.read("a" * 12)
    store.away = False
    late = await after.read("a" * 2, first=12)
    after.judge(early)
    after.judge(late)
    await after.save()
    undisturbed = Partition(FaultyStore())
    await undisturbed.feed("a" * 12)
    await undisturbed.feed("aa", first=12)
    await undisturbed.save()
    assert store.states["a"].offset == 13
    assert store.states["a"].threshold == undisturbed.store.states["a"].threshold
    assert store.states["a"].tail == undisturbed.store.states["a"].tail


async def test_after_a_flush_what_is_here_is_saved_again_and_what_left_is_to_be_read_again():
    partition = Partition(FaultyStore(), sequence={"max_streams": 2})
    await partition.feed("aaabbbccc")
    await partition.save()
    assert not await partition.is_lost()
    before = counted("states_lost", topic=TP.topic)
    partition.store.flush()
    await partition.feed("c", first=9)
    assert await partition.save() == ["c"]
    assert counted("states_lost", topic=TP.topic) == before + 1
    assert partition.store.held is None  # it must not say that all is there before it is
    assert await partition.is_lost()
    assert not await partition.is_lost()
    assert await partition.recall("aaabbbccc") == 0  # there is no room for a
    assert await partition.save() == ["b", "c"]
    assert await partition.save() == []
    assert not await partition.is_lost()
    after = Partition(partition.store, start=10)
    assert not await after.is_lost()
    assert await after.feed("b", first=10) == [10]
    assert after.streams["b"].threshold.observations == 2


async def test_a_stream_that_comes_back_after_a_flush_is_said_to_be_lost_and_its_window_is_read_again():
    partition = Partition(FaultyStore(), sequence={"max_streams": 2})
    await partition.feed("aaabbbccc")
    await partition.save()
    assert "a" not in partition.streams
    partition.store.flush()
    before = counted("streams_lost")
    chunk = chunk_of(raw(np.zeros(1, np.float32), key=b"a"), first=9)
    decoded = partition.decoder.decode(chunk)
    await partition.streams.ensure(decoded)
    assert counted("streams_lost") == before + 1
    assert await partition.is_lost()
    await partition.recall("aaabbbccc")
    taken = partition.streams.take(chunk, decoded)
    assert taken.rows.index.tolist() == [0]
    assert partition.streams["a"].threshold.observations == 0


async def test_a_single_state_that_redis_has_dropped_is_said_to_be_lost_and_nothing_is_read_again():
    partition = Partition(FaultyStore(), sequence={"max_streams": 1})
    await partition.feed("aaab")
    await partition.save()
    del partition.store.states["a"]
    before = counted("streams_lost")
    assert await partition.feed("a", first=4) == []
    assert counted("streams_lost") == before + 1
    assert not await partition.is_lost()


async def test_an_observation_at_a_wrong_time_is_refused_with_the_reason_and_noted_as_seen():
    partition = Partition(FaultyStore(), sequence={"lateness": 5.0})
    records = [json('{"data": [1.0], "timestamp": "2026-01-01T00:01:00Z"}', key=b"a"),
               json('{"data": [1.0], "timestamp": "2026-01-01T00:00:00Z"}', key=b"a")]  # fmt: skip
    for record in records:
        record.timestamp = 1_800_000_000_000
    chunk = chunk_of(*records)
    decoded = partition.decoder.decode(chunk)
    await partition.streams.ensure(decoded)
    taken = partition.streams.take(chunk, decoded)
    (rejected,) = taken.rejected
    assert rejected.index == 1
    assert str(rejected.error).startswith("late: the observation is of 2026-01-01T00:00:00.000Z")
    assert taken.learned == {"a": 1}


def told():
    return [counted(what, topic=TP.topic) for what in ("duplicates", "clock_jumps", "windows_begun_anew")]


async def test_what_became_of_observations_is_counted_once_however_often_they_are_read():
    """A duplicate, a jump that is withdrawn, a gap: read but not judged, then judged, read again, and recalled."""
    sections = {"sequence": {"max_gap": 3600.0}}
    stamps = ["00:00:00", "00:00:10", "00:00:10", "20:00:00", "00:00:20", "00:00:30", *["06:00:00"] * 4]
    values = [0, 1, 1, 2, 3, 4, 5, 6, 7, 8]
    records = [
        json(f'{{"data": [{value}.0], "timestamp": "2026-01-01T{stamp}Z"}}', key=b"a")
        for stamp, value in zip(stamps, values, strict=True)
    ]
    for record in records:
        record.timestamp = 1_800_000_000_000
    before, store = told(), FaultyStore()

    async def read(partition):
        chunk = chunk_of(*records)
        decoded = partition.decoder.decode(chunk)
        await partition.streams.ensure(decoded)
        return chunk, decoded, partition.streams.take(chunk, decoded)

    await read(Partition(store, **sections))  # its assignment ends before this is judged
    assert told() == before
    second = Partition(store, **sections)
    second.judge(await read(second))
    await second.save()
    assert told() == [count + 1 for count in before]
    replayed = await read(second)
    assert replayed[2].repeated == len(records)
    second.judge(replayed)
    flushed = Partition(FaultyStore(), start=len(records), **sections)
    chunk = chunk_of(*records)
    await flushed.streams.recall(chunk, flushed.decoder.decode(chunk))
    assert told() == [count + 1 for count in before]


@pytest.mark.parametrize("cut", range(1, 9))
async def test_with_a_stride_a_restart_changes_nothing(cut):
    undisturbed = await Partition(FaultyStore(), sequence={"stride": 2}).feed("a" * 10)
    store = FaultyStore()
    before = Partition(store, sequence={"stride": 2})
    found = await before.feed("a" * cut)
    await before.save()
    after = Partition(store, sequence={"stride": 2})
    assert found + await after.feed("a" * (10 - cut), first=cut) == undisturbed == [2, 4, 6, 8]

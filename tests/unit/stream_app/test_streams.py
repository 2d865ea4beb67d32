"""The streams of a partition: taken up where they were saved, saved where they changed."""

from __future__ import annotations

import numpy as np
import pytest

from stream_app.decode import Decoder, InputSpec
from stream_app.errors import RedisUnavailable
from stream_app.judge import judge
from stream_app.records import Kind
from stream_app.scoring import ScoredRows
from stream_app.settings import Settings
from stream_app.state import StreamState
from stream_app.streams import Streams
from tests.unit.stream_app.raw import TP, chunk_of, json, raw

WINDOW = 3


class FaultyStore:
    """States in memory, and a Redis that can be away."""

    def __init__(self):
        self.states: dict[str, StreamState] = {}
        self.away = False
        self.may_ask = True
        self.asked: list[list[str]] = []

    async def load(self, detector, topic, partition, streams):
        if self.away:
            raise RedisUnavailable("away")
        self.asked.append(list(streams))
        return {name: self.states[name] for name in streams if name in self.states}

    async def save(self, detector, topic, partition, states):
        self.states.update(states)


class Partition:
    """The streams of one partition, fed with single observations, as a lane does it."""

    def __init__(self, store, start=0, features=1, **sections):
        spec = InputSpec(Kind.SEQUENCE, (WINDOW, features))
        self.settings = Settings(**sections)
        self.store = store
        self.features = features
        self.streams = Streams("sequences", TP, spec, self.settings, store, start)
        self.decoder = Decoder(spec, self.settings.limits)

    async def read(self, text, first=0):
        """Takes a chunk with an observation for each letter, the stream's name; returns what judging needs."""
        records = [raw(np.full(self.features, float(i), np.float32), key=name.encode()) for i, name in enumerate(text)]
        chunk = chunk_of(*records, first=first)
        decoded = self.decoder.decode(chunk)
        await self.streams.ensure(decoded)
        return chunk, decoded, self.streams.take(chunk, decoded)

    def judge(self, read):
        chunk, decoded, taken = read
        values = np.full(len(taken.rows.index), 0.1, np.float32)
        return judge("sequences", chunk, decoded, taken, ScoredRows(values, {}, None), self.streams).each

    async def feed(self, text, first=0):
        return [v.offset for v in self.judge(await self.read(text, first))]

    async def save(self, floor=0):
        changes = self.streams.take_changes(floor)
        await self.store.save("sequences", TP.topic, TP.partition, changes)
        self.streams.saved(changes)
        return sorted(changes)


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
    partition.streams.keep_changes(partition.streams.take_changes(floor=0))
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


async def test_a_corrupt_state_begins_anew():
    store = FaultyStore()
    store.states = {"a": StreamState(b"nonsense", b"", b"", 7)}
    partition = Partition(store)
    assert await partition.feed("aaa") == [2]


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


@pytest.mark.parametrize("cut", range(1, 9))
async def test_with_a_stride_a_restart_changes_nothing(cut):
    undisturbed = await Partition(FaultyStore(), sequence={"stride": 2}).feed("a" * 10)
    store = FaultyStore()
    before = Partition(store, sequence={"stride": 2})
    found = await before.feed("a" * cut)
    await before.save()
    after = Partition(store, sequence={"stride": 2})
    assert found + await after.feed("a" * (10 - cut), first=cut) == undisturbed == [2, 4, 6, 8]

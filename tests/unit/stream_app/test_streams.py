"""The streams of a partition: taken up where they were saved, saved where they changed."""

from __future__ import annotations

import numpy as np
import pytest

from stream_app.errors import RedisUnavailable
from stream_app.settings import Settings
from stream_app.store import StreamState
from stream_app.streams import Streams, pack_tail, unpack_tail
from tests.unit.stream_app.raw import TP


class FaultyStore:
    """States in memory, and a Redis that can be away."""

    def __init__(self):
        self.states: dict[str, StreamState] = {}
        self.away = False
        self.may_ask = True
        self.asked: list[list[str]] = []

    async def load(self, detector, topic, streams, *, partition):
        if self.away:
            raise RedisUnavailable("away")
        self.asked.append(list(streams))
        return {name: self.states[name] for name in streams if name in self.states}


def streams_of(store, **sections):
    return Streams("images", TP, Settings(**sections), store)


def learn(streams, name, scores, first=0):
    for offset, score in enumerate(scores, first):
        streams[name].threshold.judge(score, 0.0)
        streams.touch(name, offset)


async def test_what_was_saved_is_taken_up_again():
    store = FaultyStore()
    before = streams_of(store)
    await before.ensure(["a"])
    learn(before, "a", [0.1] * 40)
    before["a"].tail = np.ones((3, 2), np.float32)
    store.states = before.take_changes()
    after = streams_of(store)
    assert await after.ensure(["a", "b"]) == ["a"]
    assert (after["a"].offset, after["a"].threshold.observations) == (39, 40)
    np.testing.assert_array_equal(after["a"].tail, np.ones((3, 2)))
    assert (after["b"].offset, after["b"].threshold.observations) == (-1, 0)


async def test_only_what_changed_is_saved_and_once():
    streams = streams_of(FaultyStore())
    await streams.ensure(["a", "b"])
    learn(streams, "a", [0.1])
    assert list(streams.take_changes()) == ["a"]
    assert streams.take_changes() == {}
    streams.keep_changes(["a"])
    assert list(streams.take_changes()) == ["a"]


async def test_a_stream_is_asked_for_once():
    store = FaultyStore()
    streams = streams_of(store)
    await streams.ensure(["a", "a", "b"])
    await streams.ensure(["b", "a"])
    assert store.asked == [["a", "b"]]


async def test_while_redis_is_away_streams_begin_anew_and_do_not_overwrite_what_is_saved():
    store = FaultyStore()
    saved = streams_of(store)
    await saved.ensure(["a"])
    learn(saved, "a", [0.1] * 40)
    store.states = saved.take_changes()
    store.away = True
    streams = streams_of(store)
    assert await streams.ensure(["a"]) == []
    learn(streams, "a", [0.1], first=40)
    assert streams.take_changes() == {}
    store.away = False
    assert await streams.ensure(["a"]) == ["a"]
    assert streams["a"].threshold.observations == 40


async def test_a_corrupt_state_begins_anew():
    store = FaultyStore()
    store.states = {"a": StreamState(b"nonsense", b"", b"", 7)}
    streams = streams_of(store)
    await streams.ensure(["a"])
    assert streams["a"].offset == -1


async def test_least_recently_used_streams_are_forgotten_once_they_are_saved():
    streams = streams_of(FaultyStore(), sequence={"max_streams": 2})
    await streams.ensure(["a", "b", "c", "d"])
    for name in "abcd":
        learn(streams, name, [0.1])
    streams.trim()
    assert len(streams) == 4
    streams.take_changes()
    streams.trim()
    assert ["a" in streams, "b" in streams, "c" in streams, "d" in streams] == [False, False, True, True]


@pytest.mark.parametrize("tail", [None, np.zeros((0, 3), np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)])
def test_a_tail_is_packed_and_unpacked(tail):
    unpacked = unpack_tail(pack_tail(tail))
    if tail is None:
        assert unpacked is None
    else:
        np.testing.assert_array_equal(unpacked, tail)


@pytest.mark.parametrize("data", [b"123", pack_tail(np.zeros((2, 2), np.float32))[:-1]])
def test_a_tail_of_another_length_than_its_shape_is_refused(data):
    with pytest.raises(ValueError, match=r"."):
        unpack_tail(data)

"""The state store against a real Redis (Valkey, or what the environment names)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.asyncio import Redis

from stream_app.clock import ManualClock
from stream_app.errors import RedisUnavailable, SettingsError
from stream_app.metrics import REGISTRY
from stream_app.settings import RedisSettings, Settings
from stream_app.state import Mark, StreamState
from stream_app.store import StateStore

STATE = StreamState(threshold=b"\x00t\xff", tail=b"", episode=b"e" * 22, offset=41)
HOSTILE_NAMES = [
    "",
    ":",
    "a:b",
    "%3A",
    "../../x",
    "*",
    "{tag}",
    "a\0b",
    "a\nb",
    "\N{SNOWMAN}" * 300,
    "\udcff",
    "#",
    " ",
]


@pytest.fixture
def redis_settings(settings_factory: Callable[..., Settings]) -> RedisSettings:
    return settings_factory().redis


@pytest_asyncio.fixture
async def raw(redis_settings: RedisSettings) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_settings.url.get_secret_value())
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def store(redis_settings: RedisSettings) -> AsyncIterator[StateStore]:
    store = StateStore(redis_settings, "group", ManualClock())
    await store.start()
    yield store
    await store.close()


async def only_key(raw: Redis, settings: RedisSettings) -> bytes:
    """Of the one stream that was saved."""
    (key,) = [bytes(key) async for key in raw.scan_iter(match=f"{settings.prefix}:*")]
    return key


def counted(what: str) -> float:
    """The value of the metric of corrupt, or of fenced, states."""
    labels = {"part": "whole"} if what == "corrupt" else {}
    return REGISTRY.get_sample_value(f"ganomaly_states_{what}_total", labels) or 0.0


def changed(settings: RedisSettings, **changes: Any) -> RedisSettings:
    return settings.model_copy(update=changes)


async def test_what_was_saved_is_loaded_and_what_was_not_is_absent(store: StateStore) -> None:
    other = StreamState(b"threshold", b"w" * 100_000, b"", -1)
    await store.save({("images", "records", 0): {"a": STATE, "b": other}})

    assert await store.load(("images", "records", 0), ["a", "b", "c"]) == {"a": STATE, "b": other}
    assert await store.load(("images", "records", 0), []) == {}
    assert store.degraded is False


async def test_hostile_names_neither_collide_nor_break_anything(store: StateStore) -> None:
    states = {name: StreamState(b"", b"", b"", number) for number, name in enumerate(HOSTILE_NAMES)}
    await store.save({("images", "records", 0): states})

    assert await store.load(("images", "records", 0), list(states)) == states


async def test_names_that_differ_only_far_behind_do_not_collide(store: StateStore) -> None:
    one, other = "x" * 1000 + "1", "x" * 1000 + "2"
    await store.save({("images", "records", 0): {one: STATE}})

    assert await store.load(("images", "records", 0), [one, other]) == {one: STATE}


async def test_detectors_topics_and_partitions_are_kept_apart(store: StateStore) -> None:
    places = [("a", "b:c", 0), ("a:b", "c", 0), ("a", "b", 0), ("a", "b", 1), ("a", "b:1", 1)]
    for number, (detector, topic, partition) in enumerate(places):
        await store.save({(detector, topic, partition): {"s": StreamState(b"", b"", b"", number)}})

    for number, (detector, topic, partition) in enumerate(places):
        loaded = await store.load((detector, topic, partition), ["s"])
        assert loaded["s"].offset == number


async def test_a_key_can_be_read_by_people(store: StateStore, raw: Redis, redis_settings: RedisSettings) -> None:
    await store.save({("images", "records.images", 0): {"camera 3": STATE}})

    assert (
        await only_key(raw, redis_settings)
        == f"{redis_settings.prefix}:group:images:records.images:0:camera%203".encode()
    )


async def test_a_key_is_bounded_however_long_the_name(
    store: StateStore, raw: Redis, redis_settings: RedisSettings
) -> None:
    await store.save({("images", "records", 0): {"\N{SNOWMAN}" * 300: STATE}})

    assert len(await only_key(raw, redis_settings)) < 360


async def test_a_lower_offset_never_overwrites_a_higher_one(store: StateStore) -> None:
    fenced = counted("fenced")
    newer, older = StreamState(b"new", b"", b"", 100), StreamState(b"old", b"", b"", 99)
    await store.save({("images", "records", 0): {"a": newer}})
    await store.save({("images", "records", 0): {"a": older, "b": older}})

    assert await store.load(("images", "records", 0), ["a", "b"]) == {"a": newer, "b": older}
    assert counted("fenced") == fenced + 1


@pytest.mark.parametrize("offset", [100, 101])
async def test_the_same_or_a_higher_offset_overwrites(store: StateStore, offset: int) -> None:
    await store.save({("images", "records", 0): {"a": StreamState(b"1", b"", b"", 100)}})
    await store.save({("images", "records", 0): {"a": StreamState(b"2", b"", b"", offset)}})

    assert (await store.load(("images", "records", 0), ["a"]))["a"].threshold == b"2"


async def test_a_topic_that_was_made_again_can_be_forced_through(store: StateStore) -> None:
    await store.save({("images", "records", 0): {"a": StreamState(b"old topic", b"", b"", 10**15)}})
    await store.save({("images", "records", 0): {"a": replace(STATE, overwrites=True)}})

    assert await store.load(("images", "records", 0), ["a"]) == {"a": STATE}


async def test_of_two_workers_saving_at_once_the_higher_offset_stays(redis_settings: RedisSettings) -> None:
    stores = [StateStore(redis_settings, "group", ManualClock()) for _ in range(4)]
    for store in stores:
        await store.start()
    offsets = [7, 3, 9, 5]
    await asyncio.gather(
        *(
            store.save({("images", "records", 0): {"a": StreamState(b"%d" % offset, b"", b"", offset)}})
            for store, offset in zip(stores, offsets, strict=True)
        )
    )

    assert (await stores[0].load(("images", "records", 0), ["a"]))["a"].threshold == b"9"
    for store in stores:
        await store.close()


async def test_a_saved_state_is_forgotten_after_its_time(redis_settings: RedisSettings, raw: Redis) -> None:
    store = StateStore(changed(redis_settings, ttl=1000.0), "group", ManualClock())
    await store.start()
    await store.save({("images", "records", 0): {"a": STATE}})
    key = await only_key(raw, redis_settings)
    first = await raw.pttl(key)
    await raw.pexpire(key, 5000)
    await store.save({("images", "records", 0): {"a": STATE}})

    assert 990_000 < first <= 1_000_000
    assert await raw.pttl(key) > 990_000, "a save begins the time anew"
    await store.close()


async def test_after_a_flush_streams_are_absent_and_can_be_saved_again(
    store: StateStore, raw: Redis, redis_settings: RedisSettings
) -> None:
    await store.save({("images", "records", 0): {"a": STATE}})
    await raw.script_flush()
    await raw.delete(await only_key(raw, redis_settings))

    assert await store.load(("images", "records", 0), ["a"]) == {}
    await store.save({("images", "records", 0): {"a": STATE}})
    assert await store.load(("images", "records", 0), ["a"]) == {"a": STATE}


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x02",
        b"garbage",
        STATE.to_bytes()[:-1],
        STATE.to_bytes() + b"\0",
        b"\x03" + STATE.to_bytes()[1:],
        b"\x02" + b"9" * 20 + STATE.to_bytes()[21:],
        b"\x02" + b"x" * 20 + STATE.to_bytes()[21:],
    ],
)
async def test_a_corrupt_value_is_absent_counted_and_overwritten(
    store: StateStore, raw: Redis, redis_settings: RedisSettings, value: bytes
) -> None:
    corrupt = counted("corrupt")
    await store.save({("images", "records", 0): {"a": STATE, "b": STATE}})
    await raw.set(f"{redis_settings.prefix}:group:images:records:0:a", value)

    assert await store.load(("images", "records", 0), ["a", "b"]) == {"b": STATE}
    assert (counted("corrupt"), store.degraded) == (corrupt + 1, False)

    first = StreamState(b"anew", b"", b"", 0)
    await store.save({("images", "records", 0): {"a": first}})
    assert await store.load(("images", "records", 0), ["a"]) == {"a": first}


async def test_a_key_of_another_type_is_absent_and_overwritten(
    store: StateStore, raw: Redis, redis_settings: RedisSettings
) -> None:
    await raw.hset(f"{redis_settings.prefix}:group:images:records:0:a", "field", "value")

    assert await store.load(("images", "records", 0), ["a"]) == {}
    await store.save({("images", "records", 0): {"a": STATE}})
    assert await store.load(("images", "records", 0), ["a"]) == {"a": STATE}


@given(st.binary(), st.binary(), st.binary(), st.integers(-1, 10**19), st.data())
def test_a_value_comes_back_whole_or_not_at_all(
    threshold: bytes, window: bytes, episode: bytes, offset: int, data: st.DataObject
) -> None:
    state = StreamState(threshold, window, episode, offset)
    value = state.to_bytes()
    at = data.draw(st.integers(0, len(value) - 1))

    assert StreamState.from_bytes(value) == state
    for corrupt in (value[:at], value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]):
        with pytest.raises(ValueError, match="state"):
            StreamState.from_bytes(corrupt)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_redis_that_is_not_there_degrades_and_is_not_asked_again_before_its_time(
    redis_settings: RedisSettings,
) -> None:
    port, clock = closed_port(), ManualClock()
    url = SecretStr(f"redis://user:s3cret@127.0.0.1:{port}/0")
    store = StateStore(changed(redis_settings, url=url, retry_after=2.0), "group", clock)

    await store.start()
    assert (store.degraded, store.may_ask) == (True, False)
    with pytest.raises(RedisUnavailable, match=f"127.0.0.1:{port} did not answer a moment ago"):
        await store.load(("images", "records", 0), ["a"])

    clock.advance(2.0)
    assert store.may_ask
    with pytest.raises(RedisUnavailable, match=f"127.0.0.1:{port}: ConnectionError") as raised:
        await store.save({("images", "records", 0): {"a": STATE}})
    assert "s3cret" not in str(raised.value)
    assert not store.may_ask
    await store.close()


async def test_a_redis_that_comes_back_is_used_again(redis_settings: RedisSettings) -> None:
    clock = ManualClock()
    url = redis_settings.url.get_secret_value().rpartition("@")[2].removeprefix("redis://").partition("/")[0]
    host, _, port = url.partition(":")
    gate, wires = asyncio.Event(), []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not gate.is_set():
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_connection(host, int(port or 6379))
        wires.extend([writer, up_writer])
        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as relay:
        address = relay.sockets[0].getsockname()
        store = StateStore(changed(redis_settings, url=SecretStr(f"redis://127.0.0.1:{address[1]}/0")), "group", clock)
        await store.start()
        assert store.degraded

        gate.set()
        clock.advance(redis_settings.retry_after)
        await store.save({("images", "records", 0): {"a": STATE}})
        assert not store.degraded
        assert await store.load(("images", "records", 0), ["a"]) == {"a": STATE}

        for wire in wires:
            wire.transport.abort()
        assert await store.load(("images", "records", 0), ["a"]) == {"a": STATE}, "a dropped connection is made again"
        await store.close()


async def test_a_redis_that_hangs_is_given_up_within_the_timeout_and_answers_rightly_afterwards(
    redis_settings: RedisSettings, raw: Redis
) -> None:
    clock = ManualClock()
    store = StateStore(changed(redis_settings, timeout=0.2), "group", clock)
    await store.start()
    await store.save({("images", "records", 0): {"a": STATE}})
    await raw.client_pause(600)
    began = asyncio.get_running_loop().time()
    with pytest.raises(RedisUnavailable, match="Timeout"):
        await store.load(("images", "records", 0), ["a"])
    assert asyncio.get_running_loop().time() - began < 0.5
    await raw.client_unpause()
    clock.advance(10.0)

    assert await store.load(("images", "records", 0), ["b", "a"]) == {"a": STATE}
    assert not store.degraded
    await store.close()


async def test_a_wrong_password_is_an_unavailable_redis_whose_message_keeps_the_password(
    redis_settings: RedisSettings, raw: Redis
) -> None:
    await raw.acl_setuser("somebody", enabled=True, passwords=["+right"], keys=["*"], commands=["+@all"])
    address = redis_settings.url.get_secret_value().rpartition("@")[2].removeprefix("redis://")
    wrong = StateStore(
        changed(redis_settings, url=SecretStr(f"redis://somebody:wr0ng@{address}")), "group", ManualClock()
    )
    right = StateStore(
        changed(redis_settings, url=SecretStr(f"redis://somebody:right@{address}")), "group", ManualClock()
    )
    await right.start()
    await right.save({("images", "records", 0): {"a": STATE}})
    await wrong.start()
    wrong._clock.advance(10.0)  # type: ignore[attr-defined]
    with pytest.raises(RedisUnavailable, match="Authentication") as raised:
        await wrong.load(("images", "records", 0), ["a"])

    assert "wr0ng" not in str(raised.value)
    assert wrong.degraded
    await raw.acl_deluser("somebody")
    await right.close()
    await wrong.close()


@pytest.mark.parametrize("url", ["http://x:p4ss@127.0.0.1", "redis://:p4ss@127.0.0.1:port"])
async def test_a_url_that_is_no_redis_url_is_a_settings_error(redis_settings: RedisSettings, url: str) -> None:
    with pytest.raises(SettingsError, match="GANOMALY_REDIS__URL") as raised:
        await StateStore(changed(redis_settings, url=SecretStr(url)), "group", ManualClock()).start()
    assert "p4ss" not in str(raised.value)


async def test_the_epoch_of_a_partition_is_made_once_kept_and_not_made_again_where_one_is_expected(
    store: StateStore, raw: Redis, redis_settings: RedisSettings
) -> None:
    place, states = ("images", "records", 0), {"a": STATE}
    assert await store.mark(place) is None
    assert await store.save({place: states}) == {}, "more states of the partition are to come"
    assert await store.mark(place) is None
    first = (await store.save({place: states}, {place: Mark(None, 5)}))[place]
    assert first
    assert await store.mark(place) == Mark(first, 5)
    assert await store.save({place: states}, {place: Mark(None, 6)}) == {place: first}
    assert await store.save({}, {place: Mark(first, 7, 3)}) == {place: first}
    assert await store.mark(place) == Mark(first, 7, 3)

    await raw.delete(*[key async for key in raw.scan_iter(match=f"{redis_settings.prefix}:*")])
    assert await store.save({place: states}, {place: Mark(first, 8)}) == {place: None}
    assert await store.mark(place) is None
    second = (await store.save({place: states}, {place: Mark(None, 9)}))[place]
    assert second not in (None, first)
    assert await store.save({place: states}, {place: Mark(first, 10)}) == {place: second}
    assert await store.mark(place) == Mark(second, 9)


@pytest.mark.parametrize("kind", ["empty", "list", "text"])
async def test_a_mark_that_is_none_is_made_anew(
    kind: str, store: StateStore, raw: Redis, redis_settings: RedisSettings
) -> None:
    key = f"{redis_settings.prefix}:group:images:records:0"
    await (raw.rpush(key, b"x") if kind == "list" else raw.set(key, b"some text" if kind == "text" else b""))
    place = ("images", "records", 0)
    assert await store.mark(place) is None
    epoch = (await store.save({place: {"a": STATE}}, {place: Mark(None, 5)}))[place]
    assert epoch
    assert await store.mark(place) == Mark(epoch, 5)

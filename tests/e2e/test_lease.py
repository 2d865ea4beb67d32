"""Of several trainers one trains: the lease and the memory of runs, on a real Redis."""

from __future__ import annotations

import asyncio

import pytest

from stream_app.clock import SystemClock
from stream_app.errors import RedisUnavailable
from stream_app.redis_client import connect
from training.refresh.lease import Lease
from training.refresh.memory import Memory, Outcome

TTL = 1.0


@pytest.fixture
async def redis(settings_factory):
    """A client, and the settings it follows."""
    settings = settings_factory()
    client = connect(settings.redis)
    yield client, settings
    await client.aclose()


def lease_on(redis, settings=None) -> Lease:
    client, own = redis
    settings = settings or own
    return Lease(client, settings.redis, settings.kafka.group_id, "images", TTL, SystemClock())


def memory_on(redis) -> Memory:
    client, settings = redis
    return Memory(client, settings.redis, settings.kafka.group_id, "images")


async def until_expired(redis):
    """Waits on the server's own clock until the lease is gone."""
    lease = lease_on(redis)
    while await lease.holder() is not None:
        await asyncio.sleep(0.02)


async def test_of_two_one_gets_the_lease_and_the_next_token_is_higher(redis):
    first, second = lease_on(redis), lease_on(redis)
    assert sorted(await asyncio.gather(first.acquire(), second.acquire())) == [False, True]
    winner, loser = (first, second) if first.token else (second, first)
    assert await loser.holder() == winner.owner
    await loser.release()  # not theirs
    assert await loser.holder() == winner.owner
    await winner.release()
    assert await loser.acquire()
    assert loser.token == winner.token + 1


async def test_a_lease_that_is_renewed_outlives_its_time_and_one_that_is_not_is_taken_over(redis):
    holder, other = lease_on(redis), lease_on(redis)
    assert await holder.acquire()
    keeping = asyncio.create_task(holder.keep())
    await asyncio.sleep(2.2 * TTL)
    assert not keeping.done()
    assert not await other.acquire()
    keeping.cancel()
    await until_expired(redis)
    assert await other.acquire()
    assert other.token > holder.token


async def test_the_next_token_is_above_what_the_registry_knows_even_if_redis_has_forgotten(redis):
    client, settings = redis
    first = lease_on(redis)
    assert await first.acquire(above=41)
    assert first.token == 42
    keys = [key async for key in client.scan_iter(f"{settings.redis.prefix}:*")]
    await client.delete(*keys)
    second = lease_on(redis)
    assert await second.acquire(above=first.token)
    assert second.token == 43


async def test_a_lease_that_went_to_another_is_known_to_be_lost_at_the_next_renewal(redis):
    client, settings = redis
    holder = lease_on(redis)
    assert await holder.acquire()
    keeping = asyncio.create_task(holder.keep())
    keys = [key async for key in client.scan_iter(f"{settings.redis.prefix}:*lease")]
    assert len(keys) == 1
    await client.set(keys[0], "another")
    assert "given to another" in await asyncio.wait_for(keeping, TTL)


async def test_without_redis_the_lease_is_given_up_before_it_has_expired(redis, settings_factory):
    holder = lease_on(redis)
    assert await holder.acquire()
    started = asyncio.get_running_loop().time()
    holder._client = connect(settings_factory(redis={"url": "redis://127.0.0.1:9/0"}).redis)
    assert "Redis" in await asyncio.wait_for(holder.keep(), 5)
    assert asyncio.get_running_loop().time() - started < TTL
    with pytest.raises(RedisUnavailable):
        await holder.release()


async def test_what_is_remembered_is_read_as_it_was_written(redis):
    memory = memory_on(redis)
    assert (await memory.read(now=5.0)).handled == 5.0
    fields = {"outcome": Outcome.PROMOTED, "offsets": {"records.images": {0: 7}}, "run": {"version": "v"}}
    assert await memory.write(3, **fields, finished_at=None)
    known = await memory.read(now=9.0)
    assert (known.token, known.handled, known.outcome, known.finished_at) == (3, 5.0, Outcome.PROMOTED, None)
    assert known.offsets == {"records.images": {0: 7}}
    assert known.run == {"version": "v"}


async def test_a_stale_holder_does_not_overwrite_what_the_next_one_wrote(redis):
    memory = memory_on(redis)
    assert await memory.write(8, outcome=Outcome.RUNNING)
    assert not await memory.write(7, outcome=Outcome.FAILED)
    assert (await memory.read(now=0.0)).outcome is Outcome.RUNNING


async def test_a_wish_for_a_run_is_granted_once(redis):
    memory = memory_on(redis)
    await memory.request("anna", ttl=60)
    assert await memory.requested() == "anna"
    assert await memory.requested(take=True) == "anna"
    assert await memory.requested() is None


async def test_what_can_t_be_read_begins_anew(redis):
    client, settings = redis
    memory = memory_on(redis)
    await memory.write(1, outcome=Outcome.FAILED)
    keys = [key async for key in client.scan_iter(f"{settings.redis.prefix}:*:trainer:images")]
    assert len(keys) == 1
    await client.hset(keys[0], "outcome", "{")
    assert (await memory.read(now=4.0)).outcome is None

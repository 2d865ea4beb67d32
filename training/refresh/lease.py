"""Of several trainers one trains a detector: a lease in Redis that expires, with a fencing token that only grows.

The lease alone can't keep a holder from acting that was stopped for a while and does not know that its time is over;
the token can: whoever is asked to publish refuses one that is lower than another it has seen (Kleppmann, "How to do
distributed locking", 2016). Redis may forget the last token; the registry does not, so the next is above both.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from typing import Any

from redis.asyncio import Redis

from stream_app.clock import Clock
from stream_app.errors import RedisUnavailable
from stream_app.redis_client import redis_errors, redis_key
from stream_app.settings import RedisSettings

# KEYS: the lease, the last token. ARGV: owner, time to live in milliseconds, a token that the new one must exceed.
_ACQUIRE = """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
local last = tonumber(redis.call('GET', KEYS[2]) or 0)
if tonumber(ARGV[3]) > last then redis.call('SET', KEYS[2], ARGV[3]) end
return redis.call('INCR', KEYS[2])
"""
_RENEW = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('PEXPIRE', KEYS[1], ARGV[2])"
_RELEASE = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])"
_RENEWALS = 3  # in one time to live
_SURE = 0.75  # of the time to live: after so long without a renewal the work has to end, with time left to end it


class Lease:
    """One trainer's claim on a detector. `token` is 0 until it is acquired; `owner` tells people who holds it."""

    def __init__(
        self, client: Redis, settings: RedisSettings, group: str, detector: str, ttl: float, clock: Clock
    ) -> None:
        self._client: Any = client  # its types mix plain answers with awaited ones
        self._settings = settings
        self._clock = clock
        self._ttl = ttl
        self._key = redis_key(settings, group, "trainer", detector, "lease")
        self._last_token = redis_key(settings, group, "trainer", detector, "token")
        self._sure_until = 0.0
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self.token = 0

    async def acquire(self, above: int = 0) -> bool:
        """Takes the lease if nobody holds it; the token is then above `above` and above any that Redis remembers.

        Raises RedisUnavailable.
        """
        asked = self._clock.monotonic()
        async with redis_errors(self._client, self._settings):
            self.token = await self._client.eval(
                _ACQUIRE, 2, self._key, self._last_token, self.owner, self._milliseconds, above
            )
        self._sure_until = asked + _SURE * self._ttl
        return self.token > 0

    async def keep(self) -> str:
        """Renews the lease for as long as it can be; returns why it is lost, before it has expired.

        Whoever works under the lease runs this beside the work, and ends the work when this returns.
        """
        pause, trouble = self._ttl / _RENEWALS, "it was not renewed in time"
        while (left := self._sure_until - self._clock.monotonic()) > 0:
            await asyncio.sleep(min(pause, left))
            asked = self._clock.monotonic()
            try:
                async with asyncio.timeout(max(self._sure_until - asked, 0.0)):
                    if not await self._renew():
                        return "it has expired or was given to another trainer"
            except RedisUnavailable as error:
                pause, trouble = self._ttl / _RENEWALS / 4, str(error)
            except TimeoutError:
                break
            else:
                self._sure_until, pause = asked + _SURE * self._ttl, self._ttl / _RENEWALS
        return trouble

    async def release(self) -> None:
        """Gives the lease up, if it is still ours. Raises RedisUnavailable; it then expires by itself."""
        async with redis_errors(self._client, self._settings):
            await self._client.eval(_RELEASE, 1, self._key, self.owner)

    async def holder(self) -> str | None:
        """Who holds the lease now. Raises RedisUnavailable."""
        async with redis_errors(self._client, self._settings):
            value: bytes | None = await self._client.get(self._key)
        return None if value is None else value.decode(errors="replace")

    async def _renew(self) -> bool:
        async with redis_errors(self._client, self._settings):
            return bool(await self._client.eval(_RENEW, 1, self._key, self.owner, self._milliseconds))

    @property
    def _milliseconds(self) -> int:
        return round(self._ttl * 1000)

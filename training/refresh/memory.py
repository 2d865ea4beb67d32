"""What trainers remember of a detector's last run, in Redis, so that one that starts, or takes over, goes on from it.

A hash `{prefix}:{group}:trainer:{detector}`, each field JSON. Only a holder of the lease writes, and one with a lower
token than the last writer's is refused.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from redis.asyncio import Redis

from stream_app.log import get_logger
from stream_app.redis_client import redis_errors, redis_key
from stream_app.settings import RedisSettings

log = get_logger(__name__)

# KEYS: the hash. ARGV: token, then fields and values. Answers 0, having written nothing, for a token lower than the
# last.
_WRITE_UNLESS_STALE = """
local last = tonumber(redis.call('HGET', KEYS[1], 'token') or '0') or 0
if tonumber(ARGV[1]) < last then return 0 end
redis.call('HSET', KEYS[1], 'token', unpack(ARGV))
return 1
"""
Offsets = dict[str, dict[int, int]]


class Outcome(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    PROMOTED = "promoted"
    REFUSED = "refused"
    WAITING = "waiting for a person"
    FAILED = "failed"
    STOPPED = "stopped"


class Remembered(BaseModel):
    """Of one detector. Times are seconds since the Unix epoch.

    `handled`: firings of the clock up to then are dealt with. `attempts`: runs in a row that began and led to nothing.
    `refusals`: runs in a row whose version was refused, whatever failed in between.
    `offsets`: topic → partition → end of what the last run has seen. `run` is the last run's result.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: int = 0
    handled: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    outcome: Outcome | None = None
    trigger: str = ""
    attempts: int = 0
    refusals: int = 0
    offsets: Offsets = {}
    run: dict[str, Any] | None = None


class Memory:
    """Reads and writes what is remembered, and a person's wish for a run. All raise RedisUnavailable."""

    def __init__(self, client: Redis, settings: RedisSettings, group: str, detector: str) -> None:
        self._client: Any = client  # its types mix plain answers with awaited ones
        self._settings = settings
        self._detector = detector
        self._key = redis_key(settings, group, "trainer", detector)
        self._request = redis_key(settings, group, "trainer", detector, "request")

    async def read(self, now: float) -> Remembered:
        """What is known; of a detector that is new here, that it is followed from `now` on."""
        async with redis_errors(self._client, self._settings):
            await self._client.hsetnx(self._key, "handled", json.dumps(now))
            fields: dict[bytes, bytes] = await self._client.hgetall(self._key)
        try:
            return Remembered.model_validate({name.decode(): json.loads(value) for name, value in fields.items()})
        except (ValidationError, ValueError) as error:
            log.warning("what was remembered can't be read; it begins anew", detector=self._detector, error=str(error))
            return Remembered(handled=now)

    async def last_run(self) -> dict[str, Any] | None:
        """The result of the last run that came to an end, as it was written; None where there was none."""
        async with redis_errors(self._client, self._settings):
            value: bytes | None = await self._client.hget(self._key, "run")
        return None if value is None else cast("dict[str, Any] | None", json.loads(value))

    async def write(self, token: int, **fields: Any) -> bool:
        """Changes fields; false, and nothing is written, when a holder with a higher token has written since."""
        values = Remembered.model_validate(fields).model_dump(mode="json", include=set(fields))
        arguments = [part for name, value in values.items() for part in (name, json.dumps(value))]
        async with redis_errors(self._client, self._settings):
            return bool(await self._client.eval(_WRITE_UNLESS_STALE, 1, self._key, token, *arguments))

    async def request(self, by: str, ttl: float) -> None:
        """Asks whoever follows the detector for a run; the wish is forgotten after `ttl` seconds."""
        async with redis_errors(self._client, self._settings):
            await self._client.set(self._request, by, px=round(ttl * 1000))

    async def requested(self, take: bool = False) -> str | None:
        """Who asked for a run, if anybody did. With `take` the wish is granted, and gone."""
        async with redis_errors(self._client, self._settings):
            ask = self._client.getdel if take else self._client.get
            value: bytes | None = await ask(self._request)
        return None if value is None else value.decode(errors="replace")

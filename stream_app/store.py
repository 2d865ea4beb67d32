"""What streams have learned, in Redis: thresholds, windows, episodes, and the offset up to which they have learned.

A key is `{prefix}:{group}:{detector}:{topic}:{partition}:{stream}`, each part percent-encoded; without the stream it
holds the mark of the partition's states, which says that those from before are still there, and how complete they are.
What a consumer group has learned is its own affair. The offset is told by partition, so a stream whose records come on
several partitions (those without a key) has a state on each. The value is `StreamState`'s; the fence reads its offset
on the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from stream_app.clock import Clock
from stream_app.errors import RedisUnavailable
from stream_app.metrics import STATES_CORRUPT, STATES_FENCED
from stream_app.redis_client import address, connect, redis_errors, redis_key
from stream_app.settings import RedisSettings
from stream_app.state import Mark, Place, StreamState

# Writes each key unless it holds a state of a higher offset. A value that isn't one of ours (pcall: not even a string)
# doesn't count. ARGV: time to live in milliseconds, then for each key its value, and 1 to write in any case. Answers
# how many keys it left as they were.
_SAVE_UNLESS_NEWER = """
local fenced = 0
for i = 1, #KEYS do
  local value, always = ARGV[2 * i], ARGV[2 * i + 1]
  local write = true
  if always ~= '1' then
    local held = redis.pcall('GETRANGE', KEYS[i], 0, 20)
    if type(held) == 'string' and string.byte(held) == string.byte(value) then
      local offset = tonumber(string.sub(held, 2, 21))
      write = not (offset and offset > tonumber(string.sub(value, 2, 21)))
    end
  end
  if write then redis.call('SET', KEYS[i], value, 'PX', ARGV[1]) else fenced = fenced + 1 end
end
return fenced
"""
# Answers the epoch of a partition's states, and says with it how complete they are: makes one where there is none and
# none was expected. ARGV: the epoch that is expected or nothing, the one to make, the numbers of the mark, time to live
# in milliseconds.
_KEEP_MARK = """
local held = redis.pcall('GET', KEYS[1])
held = type(held) == 'string' and string.match(held, '^%S+')
if ARGV[1] ~= '' and held ~= ARGV[1] then return held end
held = held or ARGV[2]
redis.call('SET', KEYS[1], held .. ARGV[3], 'PX', ARGV[4])
return held
"""
_KEYS_AT_ONCE = 256  # of a call, so that other clients of the server are not kept waiting


class StateStore:
    """Loads and saves the states of streams.

    Whatever goes wrong with Redis is a RedisUnavailable, and `degraded` until a command succeeds again; for
    `retry_after` seconds after a failure no further attempt is made, and calls raise at once.
    """

    def __init__(self, settings: RedisSettings, group: str, clock: Clock) -> None:
        self._settings = settings
        self._group = group
        self._clock = clock
        self._client: Redis | None = None
        self._retry_at = 0.0
        self._unreadable: set[str] = set()  # keys whose value must not fence a save off
        self.degraded = False

    @property
    def may_ask(self) -> bool:
        """False during the pause after a failure, when a call would raise without asking."""
        return not self.degraded or self._clock.monotonic() >= self._retry_at

    async def start(self) -> None:
        """Connects. A Redis that can't be reached isn't an error here: the store is then degraded.

        Raises SettingsError for a URL that can't be read.
        """
        self._client = client = connect(self._settings)
        try:
            await self._asked(client.ping())
        except RedisUnavailable:
            return

    async def close(self) -> None:
        """Ends the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def mark(self, place: Place) -> Mark | None:
        """What was said of the states of a partition within the last `ttl` seconds; None where nothing was.

        Raises RedisUnavailable.
        """
        (value,) = await self._asked(self._running().mget([self._key(*place)]))
        try:
            return None if value is None else Mark.from_bytes(value)
        except ValueError:
            return None

    async def load(self, place: Place, streams: list[str]) -> dict[str, StreamState]:
        """The states of the streams that have one, in one round trip. Values that can't be read count as missing.

        Raises RedisUnavailable.
        """
        if not streams:
            return {}
        keys = [self._key(*place, stream) for stream in streams]
        values: list[bytes | None] = await self._asked(self._running().mget(keys))
        states: dict[str, StreamState] = {}
        for stream, key, value in zip(streams, keys, values, strict=True):
            if value is None:
                continue
            try:
                states[stream] = StreamState.from_bytes(value)
            except ValueError:
                STATES_CORRUPT.labels("whole").inc()
                self._unreadable.add(key)
        return states

    async def save(
        self, changes: Mapping[Place, Mapping[str, StreamState]], marks: Mapping[Place, Mark] | None = None
    ) -> dict[Place, bytes | None]:
        """Saves the states of streams by their partition for `ttl` seconds, and marks, all in one round trip.

        One of a higher offset stays, unless the new `overwrites`. Returns the epoch of each partition in `marks`: where
        it isn't the one that is expected, what was saved before is gone, and the mark isn't saved; where None is
        expected there is one afterwards. Raises RedisUnavailable; some of the states may then be saved.
        """
        milliseconds = max(int(self._settings.ttl * 1000.0), 1)
        saved = [(self._key(*place, name), state) for place, some in changes.items() for name, state in some.items()]
        marks = marks or {}
        if not saved and not marks:
            return {}
        pipeline = self._running().pipeline(transaction=False)
        calls = range(0, len(saved), _KEYS_AT_ONCE)
        for first in calls:
            some = saved[first : first + _KEYS_AT_ONCE]
            values = [
                part
                for key, state in some
                for part in (state.to_bytes(), int(state.overwrites or key in self._unreadable))
            ]
            pipeline.eval(_SAVE_UNLESS_NEWER, len(some), *(key for key, _ in some), milliseconds, *values)
        for place, mark in marks.items():
            numbers = mark._replace(epoch=None).to_bytes()
            pipeline.eval(_KEEP_MARK, 1, self._key(*place), mark.epoch or b"", uuid4().hex, numbers, milliseconds)
        answers: list[Any] = await self._asked(pipeline.execute())
        STATES_FENCED.inc(sum(answers[: len(calls)]))
        self._unreadable.difference_update(key for key, _ in saved)
        return dict(zip(marks, answers[len(calls) :], strict=True))

    def _key(self, detector: str, topic: str, partition: int, *stream: str) -> str:
        """Of a stream, or without one of the note that the partition has states."""
        return redis_key(self._settings, self._group, detector, topic, str(partition), *stream)

    def _running(self) -> Redis:
        if self._client is None:
            msg = "the store isn't started"
            raise RuntimeError(msg)
        if not self.may_ask:
            raise RedisUnavailable(f"{address(self._client)} did not answer a moment ago; it will be asked again soon")
        return self._client

    async def _asked(self, command: Any) -> Any:
        assert self._client is not None  # whoever made the command had it
        try:
            async with redis_errors(self._client, self._settings):
                answer = await command
        except RedisUnavailable:
            self.degraded = True
            self._retry_at = self._clock.monotonic() + self._settings.retry_after
            raise
        self.degraded = False
        return answer

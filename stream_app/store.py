"""What streams have learned, in Redis: thresholds, windows, episodes, and the offset up to which they have learned.

A key is `{prefix}:{group}:{detector}:{topic}:{partition}:{stream}`, each part percent-encoded. What a consumer group
has learned is its own affair. The offset is told by partition, so a stream whose records come on several partitions
(those without a key) has a state on each. The value is `StreamState`'s; the fence reads its offset on the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stream_app.clock import Clock
from stream_app.errors import RedisUnavailable, SettingsError
from stream_app.metrics import STATES_CORRUPT, STATES_FENCED
from stream_app.settings import RedisSettings
from stream_app.state import StreamState

_LONGEST_PART = 256  # characters of a key's part, longer ones end in a digest

# Writes unless the key holds a state of a higher offset. A value that isn't one of ours (pcall: not even a string)
# doesn't count. ARGV: value, time to live in milliseconds, 1 to write in any case. Answers whether it wrote.
_SAVE_UNLESS_NEWER = """
local held = redis.pcall('GET', KEYS[1])
if ARGV[3] ~= '1' and type(held) == 'string' and string.byte(held) == string.byte(ARGV[1]) then
  local offset = tonumber(string.sub(held, 2, 21))
  if offset and offset > tonumber(string.sub(ARGV[1], 2, 21)) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


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
        self._address = "Redis"
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
        try:
            client = Redis.from_url(
                self._settings.url.get_secret_value(),
                decode_responses=False,
                socket_timeout=self._settings.timeout,
                socket_connect_timeout=self._settings.timeout,
                retry=Retry(NoBackoff(), 1),  # a connection from before a restart of Redis fails once
            )
        except ValueError:  # its text may hold the password
            raise SettingsError("GANOMALY_REDIS__URL must be redis://, rediss:// or unix://") from None
        options = client.connection_pool.connection_kwargs
        place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        self._address = f"Redis at {place}"
        self._client = client
        try:
            await self._asked(client.ping())
        except RedisUnavailable:
            return

    async def close(self) -> None:
        """Ends the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def load(self, detector: str, topic: str, partition: int, streams: list[str]) -> dict[str, StreamState]:
        """The states of the streams that have one, in one round trip. Values that can't be read count as missing.

        Raises RedisUnavailable.
        """
        if not streams:
            return {}
        keys = [self._key(detector, topic, partition, stream) for stream in streams]
        values: list[bytes | None] = await self._asked(self._running().mget(keys))
        states: dict[str, StreamState] = {}
        for stream, key, value in zip(streams, keys, values, strict=True):
            if value is None:
                continue
            try:
                states[stream] = StreamState.from_bytes(value)
            except ValueError:
                STATES_CORRUPT.inc()
                self._unreadable.add(key)
        return states

    async def save(
        self,
        detector: str,
        topic: str,
        partition: int,
        states: Mapping[str, StreamState],
    ) -> None:
        """Saves the states for `ttl` seconds, in one round trip; one of a higher offset stays, unless the new
        `overwrites`.

        Raises RedisUnavailable; some of the states may then be saved.
        """
        if not states:
            return
        keys = [self._key(detector, topic, partition, stream) for stream in states]
        milliseconds = max(int(self._settings.ttl * 1000.0), 1)
        pipeline = self._running().pipeline(transaction=False)
        for key, state in zip(keys, states.values(), strict=True):
            in_any_case = int(state.overwrites or key in self._unreadable)
            pipeline.eval(_SAVE_UNLESS_NEWER, 1, key, state.to_bytes(), milliseconds, in_any_case)
        written: list[int] = await self._asked(pipeline.execute())
        STATES_FENCED.inc(written.count(0))
        self._unreadable.difference_update(keys)

    def _key(self, detector: str, topic: str, partition: int, stream: str) -> str:
        return ":".join(
            _key_part(part) for part in (self._settings.prefix, self._group, detector, topic, str(partition), stream)
        )

    def _running(self) -> Redis:
        if self._client is None:
            msg = "the store isn't started"
            raise RuntimeError(msg)
        if not self.may_ask:
            raise RedisUnavailable(f"{self._address} did not answer a moment ago; it will be asked again soon")
        return self._client

    async def _asked(self, command: Any) -> Any:
        try:
            async with asyncio.timeout(self._settings.timeout):
                answer = await command
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            self.degraded = True
            self._retry_at = self._clock.monotonic() + self._settings.retry_after
            raise RedisUnavailable(f"{self._address}: {type(error).__name__}: {self._without_secret(error)}") from error
        self.degraded = False
        return answer

    def _without_secret(self, error: BaseException) -> str:
        options = self._client.connection_pool.connection_kwargs if self._client else {}
        password = options.get("password")
        return str(error).replace(password, "***") if password else str(error)


def _key_part(text: str) -> str:
    encoded = quote(text, safe="", errors="surrogatepass")
    if len(encoded) <= _LONGEST_PART:
        return encoded
    # "#" never comes out of the encoding, so no short name can be mistaken for a long one.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{encoded[: _LONGEST_PART - 33]}#{digest}"

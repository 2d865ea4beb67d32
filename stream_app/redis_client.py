"""How Redis is reached, what keys look like, and what is said when it does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from stream_app.errors import RedisUnavailable, SettingsError
from stream_app.settings import RedisSettings

_LONGEST_PART = 256  # characters of a key's part, longer ones end in a digest


def connect(settings: RedisSettings) -> Redis:
    """A client whose values are bytes; it connects with its first command. Raises SettingsError for a bad URL."""
    try:
        return Redis.from_url(
            settings.url.get_secret_value(),
            decode_responses=False,
            socket_timeout=settings.timeout,
            socket_connect_timeout=settings.timeout,
            retry=Retry(NoBackoff(), 1),  # a connection from before a restart of Redis fails once
        )
    except ValueError:  # its text may hold the password
        raise SettingsError("GANOMALY_REDIS__URL must be redis://, rediss:// or unix://") from None


@asynccontextmanager
async def redis_errors(client: Redis, settings: RedisSettings) -> AsyncIterator[None]:
    """For commands in the block together, `redis.timeout` seconds; whatever goes wrong is a RedisUnavailable."""
    try:
        async with asyncio.timeout(settings.timeout):
            yield
    except (RedisError, OSError) as error:  # a TimeoutError is an OSError
        password, text = client.connection_pool.connection_kwargs.get("password"), str(error)
        safe = text.replace(password, "***") if password else text
        raise RedisUnavailable(f"{address(client)}: {type(error).__name__}: {safe}") from error


def address(client: Redis) -> str:
    """Where it is, for people."""
    options = client.connection_pool.connection_kwargs
    place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"Redis at {place}"


def redis_key(settings: RedisSettings, group: str, *parts: str) -> str:
    """`{prefix}:{group}:{part}:…`, each part percent-encoded, so that no part can pass for two."""
    return ":".join(map(_key_part, (settings.prefix, group, *parts)))


@lru_cache(maxsize=1 << 17)  # a place's parts and a stream's name are asked for at each save
def _key_part(text: str) -> str:
    encoded = quote(text, safe="", errors="surrogatepass")
    if len(encoded) <= _LONGEST_PART:
        return encoded
    # "#" never comes out of the encoding, so no short name can be mistaken for a long one.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{encoded[: _LONGEST_PART - 33]}#{digest}"

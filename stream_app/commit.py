"""The commit cycle: acknowledgements → thresholds with the offsets they have seen → offsets, in this order only.

So a crash at any point repeats records, never loses one, and a threshold never learns the same record twice: what is
saved for a stream says up to which offset it has learned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from stream_app import metrics
from stream_app.clock import Clock
from stream_app.errors import RedisUnavailable
from stream_app.log import get_logger
from stream_app.offsets import OffsetLedger
from stream_app.publish import Publisher, wait_for_acknowledgements
from stream_app.records import TopicPartition
from stream_app.state import StreamState
from stream_app.streams import Store, Streams

log = get_logger(__name__)


class DegradableStore(Store, Protocol):
    """A store that says whether it could be reached."""

    degraded: bool


class Owner(Protocol):
    """Who owns the streams of a partition."""

    detector: str
    streams: Streams
    between_chunks: asyncio.Lock


class CommitCycle:
    """Prepares a commit: afterwards the offsets it returns may be given to the broker."""

    def __init__(
        self, ledger: OffsetLedger, publisher: Publisher, store: DegradableStore, clock: Clock, publish_timeout: float
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._store = store
        self._clock = clock
        self._publish_timeout = publish_timeout

    async def prepare(self, owners: Mapping[TopicPartition, Owner]) -> Mapping[TopicPartition, int]:
        """Waits for every acknowledgement, saves the states, and returns what may be committed.

        Raises PublishFault when an event isn't acknowledged. Redis out of reach doesn't stop the stream: the states
        stay changed and are saved when it is back.
        """
        started = self._clock.monotonic()
        offsets: dict[TopicPartition, int] = {}
        changes: list[tuple[TopicPartition, Owner, dict[str, StreamState]]] = []
        for tp, owner in list(owners.items()):
            async with owner.between_chunks:
                # Offset and states are taken in one step, so that they say the same.
                offset = self._ledger.committable(tp)
                if offset is not None:
                    offsets[tp] = offset
                    changes.append((tp, owner, owner.streams.take_changes(self._ledger.committed(tp))))
        if not offsets:
            return {}
        await wait_for_acknowledgements(self._publisher.take_unacknowledged(), self._publish_timeout)
        for tp, owner, states in changes:
            await self._save(tp, owner, states)
        metrics.DEGRADED.set(self._store.degraded)
        metrics.COMMIT_SECONDS.observe(self._clock.monotonic() - started)
        return offsets

    async def _save(self, tp: TopicPartition, owner: Owner, states: dict[str, StreamState]) -> None:
        if not states:
            return
        try:
            await self._store.save(owner.detector, tp.topic, tp.partition, states)
            owner.streams.saved(states)
        except RedisUnavailable as error:
            owner.streams.keep_changes(states)
            metrics.STORE_ERRORS.inc()
            log.warning("thresholds can't be saved; going on, and marking events as degraded", error=str(error))

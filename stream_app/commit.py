"""The commit cycle: acknowledgements → thresholds with the offsets they have seen → offsets, in this order only.

So a crash at any point repeats records, never loses one, and a threshold never learns the same record twice: what is
saved for a stream says up to which offset it has learned.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from stream_app import metrics
from stream_app.clock import Clock
from stream_app.errors import RedisUnavailable
from stream_app.log import get_logger
from stream_app.offsets import OffsetLedger
from stream_app.publish import Publisher, wait_for_acknowledgements
from stream_app.records import TopicPartition
from stream_app.state import Mark, Place, Store, StreamState
from stream_app.streams import Streams

log = get_logger(__name__)

# Of one round trip to Redis. Most commits have less; with tens of thousands of streams one would outlast its timeout.
STATES_PER_CALL = 4096
BYTES_PER_CALL = 4 << 20


class DegradableStore(Store, Protocol):
    """A store that says whether it could be reached."""

    degraded: bool


class Owner(Protocol):
    """Who owns the streams of a partition."""

    detector: str
    streams: Streams
    between_chunks: asyncio.Lock
    sound: bool  # false where the streams have learned what was never told: nothing of them may be saved


class _Change(NamedTuple):
    streams: Streams
    place: Place
    states: dict[str, StreamState]
    mark: Mark | None


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
        offsets, is_complete = await self._cycle(owners)
        if not is_complete:
            # Redis was flushed. What is in memory is saved there again before anything is committed.
            offsets, _ = await self._cycle(owners)
        if offsets:
            metrics.DEGRADED.set(self._store.degraded)
            metrics.COMMIT_SECONDS.observe(self._clock.monotonic() - started)
        return offsets

    async def _cycle(self, owners: Mapping[TopicPartition, Owner]) -> tuple[Mapping[TopicPartition, int], bool]:
        """What may be committed, and whether the states that were saved before are still in the store."""
        offsets: dict[TopicPartition, int] = {}
        changes: list[_Change] = []
        for tp, owner in list(owners.items()):
            async with owner.between_chunks:
                # Offset and states are taken in one step, so that they say the same.
                offset = self._ledger.committable(tp)
                if offset is not None and owner.sound:
                    offsets[tp] = offset
                    states = owner.streams.take_changes(self._ledger.committed(tp))
                    mark = owner.streams.mark(offset)
                    changes.append(_Change(owner.streams, (owner.detector, *tp), states, mark))
        if not offsets:
            return {}, True
        await wait_for_acknowledgements(self._publisher.take_unacknowledged(), self._publish_timeout)
        return offsets, await self._save(changes)

    async def _save(self, changes: Sequence[_Change]) -> bool:
        marks = {change.place: change.mark for change in changes if change.mark is not None}
        saved: dict[Place, list[str]] = defaultdict(list)
        epochs: dict[Place, bytes | None] = {}
        try:
            for states, whole in _in_calls(changes):
                epochs |= await self._store.save(states, {place: marks[place] for place in whole if place in marks})
                for place, some in states.items():
                    saved[place].extend(some)
        except RedisUnavailable as error:
            metrics.STORE_ERRORS.inc()
            log.warning("thresholds can't be saved; going on, and marking events as degraded", error=str(error))
        streams = {change.place: change.streams for change in changes}
        flushed = [place for place, epoch in epochs.items() if not streams[place].check(epoch, marks[place])]
        for change in changes:
            names = saved[change.place]
            change.streams.settle_changes(names, change.states.keys() - set(names))
        return not flushed


def _in_calls(changes: Sequence[_Change]) -> Iterator[tuple[dict[Place, dict[str, StreamState]], list[Place]]]:
    """The states in as few calls as can each be done within `redis.timeout`, and the places that are whole with it."""
    states: dict[Place, dict[str, StreamState]] = defaultdict(dict)
    whole: list[Place] = []
    count = size = 0
    for change in changes:
        for name, state in change.states.items():
            if count and (count == STATES_PER_CALL or size + state.size > BYTES_PER_CALL):
                yield states, whole
                states, whole, count, size = defaultdict(dict), [], 0, 0
            states[change.place][name] = state
            count, size = count + 1, size + state.size
        whole.append(change.place)
    if whole:
        yield states, whole

"""A Faust transport that delivers chunks of records: one event for each run of records fetched from a partition.

Stock Faust spends 75 to 105 µs on every record before an agent sees it; here that is paid once a chunk. What is
replaced in Faust, and why, is described in docs/transport.md:

- `Consumer.getmany` makes chunks, and fetches nothing while too many bytes are in hand or a route waits for its model;
- the bookkeeping of acknowledged offsets is our `OffsetLedger`'s, so `force_commit` and `wait_empty` are too;
- assignment and revocation are passed on to the record stream.

`check_faust` compares what is overridden with the Faust that is installed, so that a release that differs inside is
refused at start with a clear message.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from stream_app.errors import PublishFault, TransportMismatch
from stream_app.offsets import Fetch, OffsetLedger
from stream_app.records import Chunk, RawRecord, TopicPartition, header_bytes

SUPPORTED_FAUST = ((0, 15, 0), (0, 16, 0))  # from, below

_FETCH_SECONDS = 1.0
_RECORD_OVERHEAD = 512  # bytes of memory that a record takes beside its own, about
# Name and parameters of each method of Faust that is overridden or called, as in the supported releases.
_CONTRACT: dict[str, tuple[str, ...]] = {
    "getmany": ("self", "timeout"),
    "_getmany": ("self", "active_partitions", "timeout"),
    "_get_active_partitions": ("self",),
    "_commit_offsets": ("self", "offsets", "start_new_transaction"),
    "force_commit": ("self", "topics", "start_new_transaction"),
    "wait_empty": ("self",),
    "on_partitions_assigned": ("self", "assigned", "generation_id"),
    "on_partitions_revoked": ("self", "revoked"),
    "highwater": ("self", "tp"),
    "assignment": ("self",),
    "_new_consumer_thread": ("self",),
    "_create_worker_consumer": ("self", "transport"),
    "_fetch_records": ("self", "consumer", "active_partitions", "timeout", "max_records"),
    "_add_gap": ("self", "tp", "offset_from", "offset_to"),
}


class RecordStream(Protocol):
    """What the transport asks of the part that processes chunks."""

    ledger: OffsetLedger

    def next_fetch(self, partitions: Collection[TopicPartition]) -> Fetch:
        """What to fetch now of the assigned partitions; nothing while too much is in hand."""
        ...

    async def wait_until_fetchable(self, timeout: float) -> None:
        """Returns when `next_fetch` may answer otherwise, or after `timeout` seconds."""
        ...

    async def prepare_commit(self) -> Mapping[TopicPartition, int]:
        """Waits for acknowledgements, saves the state, and returns the offsets that may now be committed."""
        ...

    def committed(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        """The broker has taken the offsets of this generation."""
        ...

    def fail(self, error: BaseException) -> None:
        """Ends the worker."""
        ...

    async def finish_in_hand(self) -> None:
        """Returns when the chunks in hand are finished, or can't be within the time there is."""
        ...

    async def assigned(self, partitions: Iterable[TopicPartition], generation: int) -> None:
        """A new assignment is in force."""
        ...

    async def revoked(self) -> None:
        """The assignment is over: when this returns, nothing more is published for its partitions."""
        ...


class ChunkMessage(ConsumerMessage):
    """What Faust carries to the agent: its value is a `Chunk`."""


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's thread for the Kafka client, with a bounded fetch that never loses records to a rebalance.

    Faust has a fetch wait of 1.5 s in its code. A broker that answers a waiting fetch only when its time is up (Tansu
    does) would delay every record by that much.
    """

    fetch_max_wait: float
    max_records: int | None = None  # of the next fetch

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = round(self.fetch_max_wait * 1000)  # noqa: SLF001
        return consumer

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: float | None = None, max_records: int | None = None
    ) -> Any:
        before = consumer._subscription.subscription.assignment  # noqa: SLF001
        records = await super()._fetch_records(consumer, active_partitions, timeout, self.max_records)
        after = consumer._subscription.subscription.assignment  # noqa: SLF001
        if after is before or not records:
            return records
        # The fetch began under an assignment that is over, and took records of the next one, which Faust will drop.
        # This
        # runs in the client's thread without a pause since, so the position can be put back before anything else moves
        # it.
        for tp, run in records.items():
            if after is not None and tp in after.tps:
                consumer.seek(tp, run[0].offset)
        return {}


class Consumer(driver.Consumer):
    """Faust's consumer, delivering chunks."""

    max_chunk: ClassVar[int] = 256
    fetch_max_wait: ClassVar[float] = 0.1
    commit_timeout: ClassVar[float] = 60.0
    stream: ClassVar[RecordStream]

    def __init__(self, *args: Any, **options: Any) -> None:
        self._committing = asyncio.Lock()
        super().__init__(*args, **options)

    def _new_consumer_thread(self) -> ConsumerThread:
        thread = ConsumerThread(self, loop=self.loop, beacon=self.beacon)
        thread.fetch_max_wait = self.fetch_max_wait
        return thread

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Fetches once and yields what came, cut into chunks, in turns between the partitions.

        What is dropped because an assignment ended meanwhile comes again: the next one begins at the committed offsets.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        generation = self.app.consumer_generation_id
        records = await self._fetch()
        for tp, run in _take_turns(records, self.max_chunk):
            if self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation:
                return
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            yield tp, self._message(tp, run, generation)

    async def _fetch(self) -> Mapping[TP, Sequence[RawRecord]]:
        active = {TopicPartition(*tp): tp for tp in self._get_active_partitions()}
        fetch = self.stream.next_fetch(active.keys())
        wanted = {active[tp] for tp in fetch.partitions}
        if not wanted:  # an empty set would mean all of them to aiokafka
            await self.stream.wait_until_fetchable(_FETCH_SECONDS)
            return {}
        self._thread.max_records = fetch.max_records
        # With some partitions left out, those asked for may be empty while others have records: their turn shall come
        # soon.
        wait = _FETCH_SECONDS if len(wanted) == len(active) else self.fetch_max_wait
        fetched: Mapping[TP, Sequence[RawRecord]] = await self._getmany(active_partitions=wanted, timeout=wait)
        return fetched

    def _message(self, tp: TP, run: Sequence[RawRecord], generation: int) -> ChunkMessage:
        key = TopicPartition(*tp)
        size = sum(_RECORD_OVERHEAD + len(r.value or b"") + len(r.key or b"") + header_bytes(r.headers) for r in run)
        chunk = Chunk(key, self.stream.ledger.first_offset(key, run[0].offset), run, generation, size)
        self.stream.ledger.deliver(chunk)
        last = run[-1]
        return ChunkMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=last.offset,
            timestamp=last.timestamp / 1000.0,
            timestamp_type=0,
            headers=(),
            key=None,
            value=chunk,
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=size,
            tp=tp,
            generation_id=generation,
        )

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: a chunk answers for the gap in front of it."""

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commits what the record stream says is done; Faust's own acknowledgements play no part."""
        try:
            async with self._committing, asyncio.timeout(self.commit_timeout):
                return await self._commit_done()
        except TimeoutError:
            self.stream.fail(PublishFault(f"a commit took longer than {self.commit_timeout:g} s"))
            return False

    async def _commit_done(self) -> bool:
        generation = self.stream.ledger.generation
        offsets = await self.stream.prepare_commit()
        if not offsets or generation != self.stream.ledger.generation:
            return False
        done: bool = await self._commit_offsets({TP(*tp): offset for tp, offset in offsets.items()})
        if done:
            self.stream.committed(offsets, generation)
        return done

    async def wait_empty(self) -> None:
        """Finishes and commits what is in hand before the partitions are given away."""
        await self.stream.finish_in_hand()
        # Not `commit`, which is content when another commit was under way: that one began before we finished.
        await self.force_commit()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Opens the books of the new assignment before its first fetch."""
        await self.stream.assigned((TopicPartition(*tp) for tp in assigned), generation_id)
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Closes the books, after Faust had what is in hand finished and committed."""
        try:
            await super().on_partitions_revoked(revoked)
        finally:
            await self.stream.revoked()


class Transport(driver.Transport):
    """Faust's aiokafka transport with our consumer."""

    Consumer: ClassVar[type[Any]] = Consumer


class ChunkSchema(faust.Schema):
    """Hands the chunk to the agent as it is: records are decoded by our own code, not by Faust's codecs."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> None:
        """No key: a chunk has many."""

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Chunk:
        """The chunk."""
        chunk: Chunk = message.value
        return chunk


def bind(stream: RecordStream, max_chunk: int, fetch_max_wait: float, commit_timeout: float) -> type[Transport]:
    """A transport class whose consumer works for `stream`.

    Its chunks have at most `max_chunk` records, the broker may keep a fetch waiting for `fetch_max_wait` seconds, and a
    commit that takes longer than `commit_timeout` seconds ends the worker.
    """
    own = {
        "stream": stream,
        "max_chunk": max_chunk,
        "fetch_max_wait": fetch_max_wait,
        "commit_timeout": commit_timeout,
    }
    consumer = type("Consumer", (Consumer,), own)
    return type("Transport", (Transport,), {"Consumer": consumer})


def check_faust() -> None:
    """Raises TransportMismatch unless the installed Faust is, inside, what this file is written for."""
    version = tuple(int(part) for part in faust.__version__.split(".")[:3])
    low, high = SUPPORTED_FAUST
    wanted = f"install faust-streaming >={_version(low)},<{_version(high)}"
    if not low <= version < high:
        raise TransportMismatch(f"faust-streaming {faust.__version__} is installed; {wanted}")
    for name, parameters in _CONTRACT.items():
        method = getattr(driver.Consumer, name, None) or getattr(driver.AIOKafkaConsumerThread, name, None)
        found = tuple(inspect.signature(method).parameters) if method is not None else None
        if found != parameters:
            raise TransportMismatch(
                f"Consumer.{name} of faust-streaming {faust.__version__} takes {found}, expected {parameters}; {wanted}"
            )


def _take_turns(records: Mapping[TP, Sequence[RawRecord]], size: int) -> list[tuple[TP, Sequence[RawRecord]]]:
    """The records of each partition in runs of at most `size`: first every partition's first run, then the second …"""
    runs = [(start, tp, run[start : start + size]) for tp, run in records.items() for start in range(0, len(run), size)]
    runs.sort(key=lambda item: item[0])
    return [(tp, run) for _, tp, run in runs]


def _version(parts: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in parts)

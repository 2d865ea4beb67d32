"""What has been delivered, what is done, and so what may be committed: the bookkeeping of a worker's partitions.

Faust keeps its own and commits past a chunk whose handler raised when nothing was committed before it. Here a commit
is the end of the unbroken run of finished chunks, counted from the first chunk of the assignment. A chunk covers the
gap in front of it, so compaction and transaction markers never hold a commit up, and a chunk of an older assignment
counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from stream_app.records import Chunk, TopicPartition


@dataclass(slots=True)
class _Partition:
    frontier: int  # everything below is done, in this assignment
    committed: int
    position: int  # the next offset that a chunk will answer for
    in_hand: dict[int, Chunk] = field(default_factory=dict)  # by first offset, in order: not part of the frontier yet
    done: set[int] = field(default_factory=set)  # first offsets of finished chunks beyond the frontier


@dataclass(frozen=True, slots=True)
class Fetch:
    """What to fetch: from which partitions, and at most so many records in all."""

    partitions: Sequence[TopicPartition]
    max_records: int


class OffsetLedger:
    """The offsets of the partitions assigned to this worker, and the bytes it has in hand.

    One thread (the event loop's) uses it. `generation` is that of the assignment in force.
    """

    def __init__(self) -> None:
        self.generation = -1
        self.in_hand_bytes = 0
        self.in_hand_records = 0
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._partitions: dict[TopicPartition, _Partition] = {}

    def assign(self, partitions: Iterable[TopicPartition], generation: int) -> None:
        """A new assignment: all that was in hand belongs to the old one and is forgotten."""
        self.generation = generation
        self.in_hand_bytes = 0
        self.in_hand_records = 0
        self._assigned = frozenset(partitions)
        self._partitions = {}

    def revoke(self) -> None:
        """The assignment is over. What is not committed by now comes again, here or elsewhere."""
        self.assign((), -1)

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        """The partitions of the assignment in force."""
        return self._assigned

    def first_offset(self, tp: TopicPartition, offset: int) -> int:
        """The offset that a chunk beginning at `offset` answers from: the end of the chunk before it."""
        state = self._partitions.get(tp)
        return offset if state is None else min(offset, state.position)

    def deliver(self, chunk: Chunk) -> None:
        """Notes that a chunk is in hand. The chunks of a partition are delivered in order."""
        if not self.is_current(chunk):
            return
        state = self._partitions.get(chunk.tp)
        if state is None:
            state = self._partitions[chunk.tp] = _Partition(chunk.first, chunk.first, chunk.first)
        state.position = chunk.end
        state.in_hand[chunk.first] = chunk
        self.in_hand_bytes += chunk.size
        self.in_hand_records += len(chunk)

    def grow(self, chunk: Chunk, size: int) -> None:
        """Notes that a chunk in hand takes so many bytes more until it is done."""
        if self._is_in_hand(chunk):
            chunk.size += size
            self.in_hand_bytes += size

    def finish(self, chunk: Chunk) -> bool:
        """Notes that every record of a chunk is scored or dead-lettered and handed to the producer.

        Returns whether this changed anything: a chunk of an older assignment, or one finished before, counts for
        nothing.
        """
        if not self._is_in_hand(chunk):
            return False
        state = self._partitions[chunk.tp]
        state.done.add(chunk.first)
        self.in_hand_bytes -= chunk.size
        self.in_hand_records -= len(chunk)
        for first in list(state.in_hand):
            if first not in state.done:
                break
            state.done.discard(first)
            state.frontier = state.in_hand.pop(first).end
        return True

    def frontiers(self) -> dict[TopicPartition, int]:
        """The offset below which everything is done, of each partition that delivered something."""
        return {tp: state.frontier for tp, state in self._partitions.items()}

    def committable(self, tp: TopicPartition) -> int | None:
        """The offset below which everything of a partition is done, where that is more than was committed."""
        state = self._partitions.get(tp)
        return state.frontier if state is not None and state.frontier > state.committed else None

    def committed(self, tp: TopicPartition) -> int:
        """The offset that was committed last in this assignment, or that it began with."""
        return self._partitions[tp].committed

    def commit(self, offsets: Mapping[TopicPartition, int], generation: int) -> None:
        """Notes what the broker has taken, unless the assignment changed meanwhile."""
        if generation == self.generation:
            for tp, offset in offsets.items():
                self._partitions[tp].committed = offset

    def _is_in_hand(self, chunk: Chunk) -> bool:
        state = self._partitions.get(chunk.tp)
        return state is not None and state.in_hand.get(chunk.first) is chunk and chunk.first not in state.done

    def is_current(self, chunk: Chunk) -> bool:
        """Whether the chunk belongs to the assignment in force."""
        return chunk.generation == self.generation and chunk.tp in self._assigned

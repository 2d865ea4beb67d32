"""What a partition knows of its streams: threshold, episode, last observations, and the offset they have learned.

Reading runs ahead of judging, so there are two points in a stream. What windows are cut from is as far as reading has
come; everything else is as far as judging has, and only that is ever saved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from stream_app import metrics
from stream_app.clock import Clock, SystemClock
from stream_app.completeness import Completeness
from stream_app.decode import InputSpec
from stream_app.episodes import Episode
from stream_app.errors import RedisUnavailable
from stream_app.label_book import LabelBook, TopicLabels
from stream_app.log import get_logger
from stream_app.observations import Read, read_observations
from stream_app.records import Chunk, Decoded, Kind, Rejected, Rows, TopicPartition
from stream_app.residents import Residents, Stream
from stream_app.restore import Restorer
from stream_app.settings import Settings
from stream_app.state import Mark, Place, Store, StreamState
from stream_app.tail import Snapshot, Tail
from stream_app.tails import Tails
from stream_app.threshold import StreamThreshold

log = get_logger(__name__)

_ASKED_BESIDES = 256  # streams of an outage that are asked for with a chunk of others


@dataclass(frozen=True, slots=True)
class Taken:
    """A chunk as its streams took it in.

    `rows` are what is to be scored: pictures `[n, H, W, C]` or windows `[n, T, F]`; `times` `[n, 2]` are of the first
    and the last observation of each window that was made here, in seconds, and NaN of what came whole. `rejected` is
    what came at a wrong time, and `duplicates` are the indices of what was there already. `learned` is the last offset
    of each stream in the chunk, and `tails` are the tails of those streams, by `names`, that had single observations.
    `repeated` counts observations that a stream had read before, and so took no part in this; `begun` and `withdrawn`
    are as in `Pushed`.
    """

    rows: Rows
    times: NDArray[np.float64]
    rejected: list[Rejected]
    learned: dict[str, int]
    names: list[str]
    tails: Snapshot | None
    duplicates: frozenset[int]
    repeated: int
    begun: int
    withdrawn: int

    @property
    def size(self) -> int:
        """Bytes of what is to be scored, and of the tails."""
        return self.rows.data.nbytes + (self.tails.size if self.tails is not None else 0)


class Streams:
    """The streams of one partition, out of `shares` that this worker has of the topic.

    Of those beyond `sequence.max_streams` or `sequence.max_bytes`, the least recently used are forgotten here, as are
    those that were silent for `sequence.forget_after` seconds: they come back from the store.
    """

    def __init__(
        self,
        detector: str,
        tp: TopicPartition,
        spec: InputSpec,
        settings: Settings,
        store: Store | None = None,
        start: int = 0,
        *,
        shares: int = 1,
        clock: Clock | None = None,
        labels: LabelBook | None = None,
    ) -> None:
        self._place: Place = (detector, tp.topic, tp.partition)
        self._settings = settings
        self._store = store
        self._spec = spec
        self._completeness = Completeness(self._place, start, store, settings.sequence.rebuild_records)
        self._restorer = Restorer(settings, spec, start, self._completeness)
        self._tails = Tails(spec.shape, settings.sequence) if spec.kind is Kind.SEQUENCE else None
        self._here = Residents(
            self._limit(shares), settings.sequence.forget_after, clock or SystemClock(), self._on_leaving
        )
        self._labels = TopicLabels(LabelBook() if labels is None else labels, detector, tp.topic)
        self._recalled: OrderedDict[str, None] = OrderedDict()
        self._unasked: dict[str, None] = {}  # streams of which the store has not said whether it has a state
        self._end = start  # everything below has been read

    def __getitem__(self, name: str) -> Stream:
        return self._here[name]

    def __contains__(self, name: object) -> bool:
        return name in self._here

    def __len__(self) -> int:
        return len(self._here)

    async def to_read_again(self, first: int) -> range | None:
        """The offsets that windows lack, to be read again before the chunk that was last made sure of; None for none.

        `first` is the offset with which it begins. So it is where records came before this assignment of which the
        store knows nothing, or can't be asked, or less than was committed, and after it was flushed. It is said once.
        """
        await self._completeness.ask()
        offsets = self._completeness.to_read_again(first)
        if offsets and self._tails is not None:
            return offsets
        self._completeness.end_recall()
        return None

    async def ensure(self, decoded: Decoded) -> None:
        """Makes sure that the streams of a chunk are here, and stay: from the store, or new.

        When Redis can't be reached they begin with the model's own calibration and are asked for again later: also
        those that are silent since, some with each chunk, as they can't be saved before.
        """
        names = dict.fromkeys(streams_of(decoded))
        if self._store is not None and self._store.may_ask:
            names |= dict.fromkeys(islice(self._unasked, _ASKED_BESIDES))
        self._here.reserve(names)
        await self._completeness.ask()
        await self._bring(list(names))

    def begin(self, names: Iterable[str]) -> None:
        """Begins those of the streams that aren't here, with nothing learned."""
        for name in names:
            if name not in self._here:
                threshold = StreamThreshold(self._settings.threshold.of(name))
                self._heed_labels_of(name, threshold)
                self._here.add(name, Stream(threshold, Episode(self._settings.alerts), self._new_slot()))

    def heed_labels(self) -> None:
        """Lets thresholds heed what was said of their streams' records since the last call."""
        for name in self._labels.changed():
            if (stream := self._here.get(name)) is not None:
                self._heed_labels_of(name, stream.threshold)

    def take(self, chunk: Chunk, decoded: Decoded) -> Taken:
        """Reads a chunk into its streams: single observations become windows.

        An observation that a stream has read before is the replay of one whose event was acknowledged: it makes no
        window.
        """
        offsets = [record.offset for record in chunk.records]
        self._end = max(self._end, chunk.end)
        read, tails = Read.nothing(), None
        if self._tails is not None and len(decoded.observations.index):
            read = read_observations(chunk, decoded, self._here, self._tails, self._settings.sequence)
            tails = self._snapshot(self._tails, read.names)
        indices = np.concatenate([decoded.ready.index, decoded.observations.index])
        learned = {decoded.streams[index]: offsets[index] for index in sorted(indices.tolist())}
        for name in learned:
            self._here.use(name).in_hand += 1
        self._here.reserve(())
        rows, times = _merge(decoded.ready, read.due, read.times)
        return Taken(
            rows,
            times,
            read.rejected,
            learned,
            read.names,
            tails,
            read.duplicates,
            read.repeated,
            read.begun,
            read.withdrawn,
        )

    async def recall(self, chunk: Chunk, decoded: Decoded) -> None:
        """Takes a chunk from before the one that was made sure of into the tails of streams that have read less.

        Nothing is scored or learned: those records were, before what was learned got lost. Beyond the limit the least
        recently used of the streams that were brought back so are lost.
        """
        if self._tails is None or not len(decoded.observations.index):
            return
        wanted = {decoded.streams[index] for index in decoded.observations.index.tolist()}
        reserved = self._here.reserve(())
        self._here.reserve(reserved | wanted)
        await self._bring(sorted(wanted))
        names = read_observations(chunk, decoded, self._here, self._tails, self._settings.sequence).names
        self._end = max(self._end, chunk.end)
        self._tails.settle(self._snapshot(self._tails, names), np.ones(len(names), np.bool_))
        for name in names:
            stream = self._here[name]
            stream.offset = stream.read
            self._here.changed.add(name)
            self._recalled[name] = None
            self._recalled.move_to_end(name)
        self._here.reserve(reserved)
        self._drop("they were read again for a Redis that lost them", self._recalled)
        self._recalled = OrderedDict.fromkeys(name for name in self._recalled if name in self._here)

    def end_recall(self, whole: bool) -> int:
        """Notes that what came before has been read again; returns how many streams came back so.

        Unless that is the `whole` of it, windows may have holes, and begin anew.
        """
        self._here.put_first(reversed(self._recalled))
        count = len(self._recalled)
        self._recalled.clear()
        if not whole:
            self._completeness.note_loss(self._end)
            for name in self._here:
                stream = self._here[name]
                if self._tails is not None and stream.slot is not None and not stream.in_hand:
                    self._tails.restore(stream.slot, None)
        self._completeness.end_recall()
        return count

    def settle(self, taken: Taken) -> None:
        """Notes that a chunk that was taken has been judged; its streams are to be saved.

        Only now what became of its observations is counted: what is taken and not judged comes again.
        """
        topic = self._place[1]
        metrics.WINDOWS_BEGUN.labels(topic).inc(taken.begun)
        metrics.JUMPS.labels(topic).inc(taken.withdrawn)
        metrics.DUPLICATES.labels(topic).inc(len(taken.duplicates))
        is_new = {}
        for name, offset in taken.learned.items():
            stream = self._here[name]
            stream.in_hand -= 1
            is_new[name] = offset > stream.offset
            if is_new[name]:
                stream.offset = offset
                self._here.changed.add(name)
        if self._tails is not None and taken.tails is not None:
            self._tails.settle(taken.tails, np.array([is_new[name] for name in taken.names], np.bool_))

    def take_changes(self, floor: int) -> dict[str, StreamState]:
        """The states that changed since the last call, as they are at this moment, to be saved.

        `floor` is the partition's committed offset: no assignment but one that was put back begins below it.
        """
        ready = [name for name in self._here.changed if self._here[name].restored]
        self._here.changed.difference_update(ready)
        return {name: self._state(self._here[name], floor) for name in ready}

    def mark(self, offset: int) -> Mark | None:
        """What to say of the states once the last `take_changes` are saved, and the offset is to be committed."""
        return self._completeness.mark(offset, left_out=bool(self._here.changed))

    def settle_changes(self, saved: Collection[str], unsaved: Collection[str]) -> None:
        """Notes which changes are saved, and takes the others back.

        Forgets streams that are silent or beyond the limits. What is beyond them and could not be saved is lost, and
        said to be.
        """
        self._here.changed.update(name for name in unsaved if name in self._here)
        for name in saved:
            if (stream := self._here.get(name)) is not None:
                stream.overwrites, stream.stored = False, True
        self._here.forget_saved()
        if unsaved or self._unasked:
            self._drop("Redis is away, so that they can't be saved")

    def check(self, epoch: bytes | None, mark: Mark) -> bool:
        """Takes the epoch that a save with this mark has found.

        False where the states from before are gone: all are to be saved.
        """
        is_there = self._completeness.check(epoch, mark)
        if not is_there:
            self._save_all()
        return is_there

    def _save_all(self) -> None:
        """The store has nothing any more."""
        self._here.changed.update(self._here)
        for name in self._here:
            self._here[name].stored = False

    async def _bring(self, names: Sequence[str]) -> None:
        """Makes sure that streams are here, which must be reserved: what is awaited here lets others leave."""
        wanted = [name for name in names if not self._is_settled(name)]
        if not wanted or self._store is None:
            self.begin(wanted)
            return
        try:
            saved = await self._store.load(self._place, wanted)
        except RedisUnavailable as error:
            log.warning("thresholds can't be read; going on with the model's own calibration", error=str(error))
            self.begin(wanted)
            for name in wanted:
                self._here[name].restored = False
            self._unasked |= dict.fromkeys(wanted)
            return
        missing = 0
        for name in wanted:
            if name in saved:
                self._take_up(name, saved[name])
            elif (stream := self._here.get(name)) is not None:
                stream.restored = True
            else:
                missing += self._here.has_left(name)
            self._unasked.pop(name, None)
        self.begin(wanted)
        if missing:
            await self._note_missing(missing)

    async def _note_missing(self, count: int) -> None:
        """Streams that left the memory came back, and the store has nothing of them."""
        metrics.STREAMS_LOST.inc(count)
        log.warning("streams came back of which Redis has lost the state; they begin anew", streams=count)
        try:
            if await self._completeness.is_flushed():
                self._completeness.note_flush()
                self._save_all()
        except RedisUnavailable:
            return  # the next save finds out

    def _drop(self, why: str, among: Iterable[str] | None = None) -> None:
        lost = self._here.drop(among)
        if lost:
            log.warning(
                f"more streams than sequence.max_streams or max_bytes: {why}; they begin anew", streams=len(lost)
            )
            metrics.STREAMS_LOST.inc(len(lost))
        if any(stream.stored or not stream.restored for stream in lost):
            self._completeness.note_loss(self._end)

    def _limit(self, shares: int) -> int:
        sequence = self._settings.sequence
        most = sequence.max_streams
        if self._tails is not None:
            most = min(most, sequence.max_bytes // self._tails.bytes_per_stream)
        return max(1, most // shares)

    def _on_leaving(self, name: str, stream: Stream) -> None:
        self._unasked.pop(name, None)
        if self._tails is not None and stream.slot is not None:
            self._tails.close(stream.slot)

    def _is_settled(self, name: str) -> bool:
        stream = self._here.get(name)
        return stream is not None and (stream.restored or self._store is None or not self._store.may_ask)

    def _snapshot(self, tails: Tails, names: Sequence[str]) -> Snapshot:
        return tails.snapshot(np.array([self._here[name].slot for name in names], np.int64))

    def _new_slot(self, tail: Tail | None = None) -> int | None:
        return None if self._tails is None else self._tails.open(tail)

    def _state(self, stream: Stream, floor: int) -> StreamState:
        tail = b""
        if self._tails is not None and stream.slot is not None:
            judged = self._tails.judged(stream.slot)
            tail = judged.to_bytes() if judged.count or judged.late else b""
        return StreamState(
            stream.threshold.to_bytes(), tail, stream.episode.to_bytes(), stream.offset, floor, stream.overwrites
        )

    def _take_up(self, name: str, state: StreamState) -> None:
        """Goes on from a saved state; what the stream learned here while Redis was away is given up for it."""
        saved = self._restorer.restore(name, state)
        self._heed_labels_of(name, saved.threshold)
        here = self._here.get(name)
        if here is None:
            here = Stream(saved.threshold, saved.episode, self._new_slot(saved.tail), saved.offset, saved.offset)
            self._here.add(name, here)
        else:
            here.threshold, here.episode = saved.threshold, saved.episode
            self._catch_up(here, saved.offset, saved.tail)
        here.overwrites, here.restored, here.stored = saved.overwrites, True, True

    def _heed_labels_of(self, name: str, threshold: StreamThreshold) -> None:
        threshold.heed(self._labels.marks(name), self._settings.labels.max_shift)

    def _catch_up(self, stream: Stream, offset: int, tail: Tail | None) -> None:
        """A stream that began here while Redis was away goes on with a threshold that has learned up to `offset`."""
        if self._tails is not None and stream.slot is not None and tail is not None:
            if offset >= stream.read:
                self._tails.restore(stream.slot, tail)
            elif offset > stream.offset:
                self._tails.restore_judged(stream.slot, tail)  # what was read since is in hand, and has windows
        stream.offset, stream.read = max(stream.offset, offset), max(stream.read, offset)


def streams_of(decoded: Decoded) -> list[str]:
    """The stream of each record that could be read, in the order of the chunk."""
    indices = np.concatenate([decoded.ready.index, decoded.observations.index])
    return [decoded.streams[index] for index in sorted(indices.tolist())]


def _merge(ready: Rows, due: Rows, times: NDArray[np.float64]) -> tuple[Rows, NDArray[np.float64]]:
    whole = np.full((len(ready.index), 2), np.nan)
    if not len(due.index):
        return ready, whole
    if not len(ready.index):
        return due, times
    index = np.concatenate([ready.index, due.index])
    order = np.argsort(index, kind="stable")
    return Rows(index[order], np.concatenate([ready.data, due.data])[order]), np.concatenate([whole, times])[order]

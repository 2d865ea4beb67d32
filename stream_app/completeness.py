"""How complete the states are that the store has of a partition, and what is to be read again where they are not.

Redis out of reach doesn't hold offsets up, so states may be older than what is committed when a worker ends. Beside the
states the store has a mark of the partition, which says up to which offset they are complete. Where that is below the
beginning of an assignment, what lies between is read again into the windows; where it can't be, they begin anew, as a
window with a hole would be scored like any other.
"""

from __future__ import annotations

from stream_app import metrics
from stream_app.errors import RedisUnavailable
from stream_app.log import get_logger
from stream_app.state import Mark, Place, Store

log = get_logger(__name__)


class Completeness:
    """Of the states of one partition, for an assignment that begins with the offset `start`.

    At most `most` records are read again.
    """

    def __init__(self, place: Place, start: int, store: Store | None, most: int) -> None:
        self._place = place
        self._start = start
        self._store = store
        self._most = most
        self._is_known = False
        self._was_away = False
        self._epoch: bytes | None = None  # of the states in the store
        self._complete = 0  # every record below is in them …
        self._whole_from = 0  # … but what was learned of those below this may be lost
        self._is_lost = False
        self._is_behind = False
        self._is_recalling = False

    async def ask(self) -> None:
        """Asks the store how complete its states are, until it has answered."""
        if self._is_known or self._store is None:
            return
        try:
            mark = await self._store.mark(self._place)
        except RedisUnavailable:
            self._is_lost |= not self._was_away and self._start > 0
            self._was_away = True
            return
        self._is_known = True
        if mark is not None:
            self._take(mark)
        elif self._start > 0:
            self._is_lost = True
            metrics.STATES_LOST.labels(self._place[1]).inc()
            log.warning(
                "Redis knows nothing of a partition that has records from before: its windows are read again, and its "
                "thresholds begin with the model's own calibration",
                **self._where(),
            )

    def _take(self, mark: Mark) -> None:
        self._epoch, self._complete = mark.epoch, mark.complete
        # What comes again can't be lost, nor can what was learned of it.
        self._whole_from = min(mark.whole_from, self._start)
        self._is_behind = mark.complete < self._start
        if not self._is_behind:
            return
        if self._start - mark.complete > self._most:
            self._whole_from = self._start - self._most
        metrics.STATES_BEHIND.labels(self._place[1]).inc()
        log.warning(
            "Redis was away when a partition was judged last: what its streams learned then is lost; their windows are "
            "read again, or begin anew where that is too far back",
            complete=mark.complete,
            begins=self._start,
            **self._where(),
        )

    def is_whole(self, offset: int) -> bool:
        """Whether a state that has learned up to this offset, inclusive, lacks nothing of its stream's window."""
        return offset >= self._whole_from - 1

    def to_read_again(self, first: int) -> range | None:
        """The offsets, before the chunk that begins with `first`, that windows lack; None for none. Said once."""
        if self._is_lost:
            self._is_lost, self._is_recalling = False, True
            return range(max(0, first - self._most), first)
        if self._is_behind:
            self._is_behind, self._is_recalling = False, True
            return range(max(self._complete, self._start - self._most), self._start)
        return None

    def end_recall(self) -> None:
        """What could be is read again."""
        self._is_recalling = False

    def note_loss(self, end: int) -> None:
        """What streams learned of records below `end` may be gone, and older states of them be in the store."""
        self._whole_from = max(self._whole_from, end)

    def mark(self, offset: int, left_out: bool) -> Mark | None:
        """What to say of the states that are saved with the offset that is to be committed; None while it isn't known.

        With some `left_out`, or while windows are still to be read again, they are as complete as before.
        """
        if not self._is_known:
            return None
        as_before = left_out or self._is_lost or self._is_behind or self._is_recalling
        return Mark(self._epoch, self._complete if as_before else offset, self._whole_from)

    def check(self, epoch: bytes | None, mark: Mark) -> bool:
        """Takes the epoch that a save has found. False where the states from before are gone."""
        if self._epoch in (None, epoch):
            self._epoch, self._complete = epoch, mark.complete
            return True
        self.note_flush()
        return False

    async def is_flushed(self) -> bool:
        """Whether the store has other states than it had, or none. Raises RedisUnavailable."""
        if self._store is None or self._epoch is None:
            return False
        mark = await self._store.mark(self._place)
        return mark is None or mark.epoch != self._epoch

    def note_flush(self) -> None:
        """The store was flushed: what is in memory must be saved again, and the windows of what left be read again."""
        self._epoch, self._complete, self._is_lost = None, 0, True
        metrics.STATES_LOST.labels(self._place[1]).inc()
        log.warning(
            "Redis has lost what was saved of a partition: streams in memory are saved again; the windows of others "
            "are read again, and their thresholds begin with the model's own calibration",
            **self._where(),
        )

    def _where(self) -> dict[str, str | int]:
        return {"topic": self._place[1], "partition": self._place[2]}

"""The last observations of all streams of a partition, in one array: windows are cut from it.

What a stream says of its time decides what becomes of an observation. One that is newer than all before is put last.
One that comes a little late is put in its place among the others and gets the window that ends with it; windows that
were cut before stay as they were. One that was there already, the same at the same time, is dropped. One that is later
than `sequence.lateness`, or was overtaken by more than `sequence.disorder` others, or that lies ahead of when it was
published by more than `sequence.max_ahead`, is refused.

So that one wrong clock doesn't spoil a window, one that jumps ahead (by more than the lateness, and `_JUMP` times the
step before it, if there was one) is on trial until `_TRIAL` have come from there: where the next ones come back, it
leaves the window. One that has no time of its own but Kafka's stays, and gets the time before it.

`sequence.reset_after` late ones in a row may be a clock that was put back, with which the window must begin anew, or
observations that are sent again, which must not be learned again. A clock goes on as fast as its observations are
published; what is sent again comes faster. So it is a clock where their times went on by less than `_PACE` times as
much as their publication, and where they are of a time that the stream has had nothing of: older than all, or within
the last jump ahead that stayed.

Reading runs ahead of judging, so that there are two points in a stream: its tail as far as reading has come, and as far
as judging has. Only the latter is ever saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.settings import SequenceSettings
from stream_app.tail import NEVER, Block, FloatArray, Slots, Snapshot, Tail, Times
from stream_app.windows import FIRST_SLOTS, Windows, fill

_TRIAL = 4
_JUMP = 8.0
_PACE = 2.0


class Outcome(IntEnum):
    """What became of an observation."""

    TAKEN = 0
    DUPLICATE = 1
    LATE = 2  # by more than `sequence.lateness`, by so many seconds
    OVERTAKEN = 3  # by more than `sequence.disorder` others, by at least so many
    AHEAD = 4  # by more than `sequence.max_ahead`, by so many seconds


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a chunk of `n` observations led to.

    `due` `[k]` int64 are those, ascending, that complete a window; `windows` `[k, T, F]` end with them, and `times`
    `[k, 2]` are of the first and the last observation of each, in seconds. `outcomes` `[n]` are `Outcome`s, and `by`
    `[n]` by how much. `begun` counts windows that began anew after a gap or with a clock that was put back, `withdrawn`
    observations that had jumped ahead and left their window again.
    """

    due: Slots
    windows: FloatArray
    times: Times
    outcomes: NDArray[np.uint8]
    by: NDArray[np.float64]
    begun: int
    withdrawn: int = 0


class _One(NamedTuple):
    """What became of one observation, by how much; where a window ends with it, and whether the window began anew."""

    outcome: Outcome
    by: float = 0.0
    place: int | None = None
    anew: bool = False


class Tails:
    """The tails of streams of windows `[T, F]`, a slot for each."""

    def __init__(self, shape: tuple[int, ...], settings: SequenceSettings) -> None:
        self._settings = settings
        # Among so many observations one may be put, or be there already.
        depth = shape[0] + settings.disorder
        self._read = Windows(shape, settings.stride, depth, depth + _TRIAL)
        self._judged = Block.empty(FIRST_SLOTS, self._read.kept, self._read.features)
        self._free = list(range(FIRST_SLOTS))[::-1]
        self._withdrawn = 0  # in all

    @property
    def bytes_per_stream(self) -> int:
        """What one more stream takes."""
        return (self._read.capacity + self._read.kept) * (4 * self._read.features + 8)

    def open(self, tail: Tail | None = None) -> int:
        """A slot for a stream that begins, or goes on with a `tail` of as many features."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self.restore(slot, tail)
        return slot

    def restore(self, slot: int, tail: Tail | None) -> None:
        """Makes a slot hold this tail and nothing else, as far as it was read and judged."""
        self._read.fill(slot, tail)
        self._fill_judged(slot, tail)

    def restore_judged(self, slot: int, tail: Tail) -> None:
        """Makes a slot hold this tail as far as it was judged, and leaves what was read."""
        self._fill_judged(slot, tail)

    def _fill_judged(self, slot: int, tail: Tail | None) -> None:
        fill(self._judged, slot, tail, self._read.window, self._read.kept)

    def close(self, slot: int) -> None:
        """Gives a slot back."""
        self._free.append(slot)

    def push(self, slots: Slots, rows: FloatArray, times: Times, timed: NDArray[np.bool_], published: Times) -> Pushed:
        """Takes observations in their order: `rows` `[n, F]` of the streams in `slots` `[n]`, at `times` `[n]`.

        Where `timed` is false an observation has no time of its own but Kafka's, and counts as new. `published` `[n]`
        is Kafka's time, infinite where it isn't known. A window is due with the first `T` observations, and then with
        every `sequence.stride`-th.
        """
        outcomes = np.zeros(len(slots), np.uint8)
        order = np.argsort(slots, kind="stable")
        usual = self._usual(slots[order], times[order], timed[order], published[order])
        plain = order[usual]
        parts = [self._read.append(slots[plain], rows[plain], times[plain], plain)] if len(plain) else []
        begun, before, by = 0, self._withdrawn, np.zeros(len(slots))
        for index in np.sort(order[~usual]).tolist():
            one = self._push_one(
                int(slots[index]), rows[index], float(times[index]), bool(timed[index]), float(published[index])
            )
            outcomes[index], by[index] = one.outcome, one.by
            begun += one.anew
            if one.place is not None:
                parts.append(self._read.cut(np.array([index]), slots[[index]], np.array([one.place])))
        return Pushed(*self._read.together(parts), outcomes, by, begun, self._withdrawn - before)

    def snapshot(self, slots: Slots) -> Snapshot:
        """The tails of the streams as far as reading has come: a copy."""
        return self._read.snapshot(slots)

    def settle(self, snapshot: Snapshot, which: NDArray[np.bool_]) -> None:
        """Notes that judging has come as far as the snapshot, for those of its streams where `which` is true."""
        slots = snapshot.slots[which]
        for judged, taken in zip(self._judged.arrays(), snapshot.block.arrays(), strict=True):
            judged[slots] = taken[which]

    def judged(self, slot: int) -> Tail:
        """A stream's tail as far as judging has come, to be saved."""
        block, filled = self._judged, int(self._judged.filled[slot])
        return Tail(
            int(block.count[slot]),
            block.rows[slot, :filled],
            block.times[slot, :filled],
            int(block.late[slot]),
            float(block.late_time[slot]),
            float(block.late_from[slot]),
            float(block.late_published[slot]),
            int(block.ahead[slot]),
            float(block.since[slot]),
            (float(block.gap_from[slot]), float(block.gap_to[slot])),
            int(block.behind[slot]),
        )

    def _usual(self, slots: Slots, times: Times, timed: NDArray[np.bool_], published: Times) -> NDArray[np.bool_]:
        """Of observations sorted by slot: whether all of the slot's simply follow each other."""
        before = np.empty(len(slots))
        first = np.empty(len(slots), np.bool_)
        first[:1] = True
        first[1:] = slots[1:] != slots[:-1]
        before[1:] = times[:-1]
        before[first] = self._read.newest[slots[first]]
        follows = np.where(timed, (times > before) & (times <= published + self._settings.max_ahead), times >= before)
        if self._settings.max_gap is not None:
            follows &= (times - before <= self._settings.max_gap) | np.isneginf(before)
        follows &= self._read.block.ahead[slots] == 0
        far = np.flatnonzero((times - before > self._settings.lateness) & ~np.isneginf(before))
        if len(far):
            between = before[far] - np.where(np.isneginf(before[far - 1]), before[far], before[far - 1])
            steps = np.where(first[far], self._read.last_step(slots[far]), between)
            follows[far] &= times[far] - before[far] <= _JUMP * steps
        if follows.all():
            return follows
        usual: NDArray[np.bool_] = ~np.isin(slots, slots[~follows])
        return usual

    def _push_one(self, slot: int, row: FloatArray, time: float, timed: bool, published: float) -> _One:
        """One observation whose time is not simply the next."""
        read, block, settings = self._read, self._read.block, self._settings
        if not timed:
            return self._push_untimed(slot, row, time, published)
        if time > published + settings.max_ahead:
            return _One(Outcome.AHEAD, time - published)
        first, place = read.first(slot), read.place(slot, time)
        if _is_there(row, block.rows[slot, first:place], block.times[slot, first:place], time):
            return _One(Outcome.DUPLICATE)
        if self._came_back(slot, time):
            self._withdraw(slot)
        late, newer = float(read.newest[slot]) - time, int(block.filled[slot]) - read.place(slot, time)
        if late <= settings.lateness and newer <= settings.disorder:
            return self._put(slot, row, time)
        if self._was_put_back(slot, time, published):
            read.begin_anew(slot)
            block.gap_from[slot] = block.gap_to[slot] = NEVER
            return _One(Outcome.TAKEN, place=read.insert(slot, row, time), anew=True)
        return _One(Outcome.LATE, late) if late > settings.lateness else _One(Outcome.OVERTAKEN, newer)

    def _push_untimed(self, slot: int, row: FloatArray, time: float, published: float) -> _One:
        """One that has only Kafka's time, which tells of a gap; the order is the log's.

        So where the two disagree for good it is the earlier ones whose time was wrong, and they get another.
        """
        block, behind = self._read.block, 0
        if self._came_back(slot, time):
            self._put_back(slot, self._jump(slot)[0])
        if published < self._read.newest[slot] - self._settings.lateness:
            behind = int(block.behind[slot]) + 1
        if behind == _TRIAL:
            self._put_back(slot, time)
            behind = 0
        one = self._put(slot, row, max(time, float(self._read.newest[slot])))
        block.behind[slot] = behind
        return one

    def _put(self, slot: int, row: FloatArray, time: float) -> _One:
        """Puts an observation in its place; what jumps ahead is put on trial."""
        read, block, settings = self._read, self._read.block, self._settings
        step = time - float(read.newest[slot]) if block.filled[slot] else 0.0
        is_jump = step > max(settings.lateness, _JUMP * float(read.last_step(np.array([slot]))[0]))
        anew = False
        if is_jump and not block.ahead[slot]:
            block.ahead[slot] = 1
        elif settings.max_gap is not None and step > settings.max_gap:
            read.begin_anew(slot)
            anew = True
        elif block.ahead[slot]:
            block.ahead[slot] += 1
        place = read.insert(slot, row, time)
        if block.ahead[slot] and self._jumped_a_gap(slot):
            place = None
        if block.ahead[slot] >= _TRIAL:
            return self._confirm(slot, place)
        return _One(Outcome.TAKEN, place=place, anew=anew)

    def _put_back(self, slot: int, time: float) -> None:
        self._read.put_back(slot, time)
        self._read.block.ahead[slot] = 0

    def _came_back(self, slot: int, time: float) -> bool:
        """Whether a time goes on from before a jump ahead."""
        if not self._read.block.ahead[slot]:
            return False
        before, jump = self._jump(slot)
        return before - self._settings.lateness <= time < jump - self._settings.lateness

    def _withdraw(self, slot: int) -> None:
        """Takes what jumped ahead out of the window."""
        ahead = int(self._read.block.ahead[slot])
        self._read.withdraw(slot, ahead)
        self._read.block.ahead[slot] = 0
        self._withdrawn += ahead

    def _confirm(self, slot: int, place: int | None) -> _One:
        """Ends the trial of what jumped ahead; after a gap the window begins anew with it."""
        block = self._read.block
        is_gap, ahead = self._jumped_a_gap(slot), int(block.ahead[slot])
        block.gap_from[slot], block.gap_to[slot] = self._jump(slot)
        block.ahead[slot] = 0
        if is_gap:
            place = self._read.begin_anew(slot, ahead)
        return _One(Outcome.TAKEN, place=place, anew=is_gap)

    def _jump(self, slot: int) -> tuple[float, float]:
        """The times from which and to which what is on trial has jumped."""
        first = int(self._read.block.filled[slot] - self._read.block.ahead[slot])
        before, jump = self._read.block.times[slot, first - 1 : first + 1].tolist()
        return before, jump

    def _jumped_a_gap(self, slot: int) -> bool:
        before, jump = self._jump(slot)
        return self._settings.max_gap is not None and jump - before > self._settings.max_gap

    def _was_put_back(self, slot: int, time: float, published: float) -> bool:
        """Counts a late observation; whether it is so many in a row that the clock must have been put back."""
        read, settings = self._read.block, self._settings
        if read.late[slot] and time >= read.late_time[slot]:
            read.late[slot] += 1
        else:
            read.late[slot], read.late_from[slot], read.late_published[slot] = 1, time, published
        read.late_time[slot] = time
        if read.late[slot] < settings.reset_after:
            return False
        is_new = read.gap_from[slot] < read.late_from[slot] and time < read.gap_to[slot] - settings.lateness
        if is_new or read.late_from[slot] < read.since[slot]:
            return True
        went_on = published - read.late_published[slot] if published > read.late_published[slot] else 0.0
        return bool(time - read.late_from[slot] < _PACE * went_on)

    def _grow(self) -> None:
        slots = len(self._read.newest)
        self._read.grow()
        self._judged = self._judged.grown(2 * slots)
        self._free = list(range(slots, 2 * slots))[::-1]


def _is_there(row: FloatArray, rows: FloatArray, times: Times, time: float) -> bool:
    """Whether the last of `rows`, those at this very `time`, hold the same observation; NaN is like NaN."""
    first = int(np.searchsorted(times, time, side="left"))
    return any(np.array_equal(row, other, equal_nan=True) for other in rows[first:])

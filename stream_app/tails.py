"""The last observations of all streams of a partition, in one array: windows are cut from it.

What a stream says of its time decides what becomes of an observation. One that is newer than all before is put last.
One that comes a little late is put in its place among the others and gets the window that ends with it; windows that
were cut before stay as they were. One that was there already, the same at the same time, is dropped. One that is later
than `sequence.lateness`, or that lies ahead of when it was published by more than `sequence.max_ahead`, is refused.

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

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.settings import SequenceSettings
from stream_app.tail import NEVER, NOTHING, Block, FloatArray, Slots, Snapshot, Tail, Times

RECALL = 16  # observations by which one may come too late and still be put in its place

_TRIAL = 4
_JUMP = 8.0
_PACE = 2.0

_FIRST_SLOTS = 64


class Outcome(IntEnum):
    """What became of an observation."""

    TAKEN = 0
    DUPLICATE = 1
    LATE = 2
    AHEAD = 3


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a chunk of `n` observations led to.

    `due` `[k]` int64 are those, ascending, that complete a window; `windows` `[k, T, F]` end with them, and `times`
    `[k, 2]` are of the first and the last observation of each, in seconds. `outcomes` `[n]` are `Outcome`s. `begun`
    counts windows that began anew after a gap or with a clock that was put back, `withdrawn` observations that had
    jumped ahead and left their window again.
    """

    due: Slots
    windows: FloatArray
    times: Times
    outcomes: NDArray[np.uint8]
    begun: int
    withdrawn: int = 0


class _Cut(NamedTuple):
    """Windows, as in `Pushed`."""

    due: Slots
    windows: FloatArray
    times: Times


class Tails:
    """The tails of streams of windows `[T, F]`, a slot for each."""

    def __init__(self, shape: tuple[int, ...], settings: SequenceSettings) -> None:
        self._window, self._features = shape
        self._settings = settings
        self._depth = self._window + RECALL  # observations among which one may be put, or be there already
        self._kept = self._depth + _TRIAL
        # Rows are moved to the front only when a slot is full.
        self._capacity = self._kept + max(self._window // 2, RECALL)
        self._read = Block.empty(_FIRST_SLOTS, self._capacity, self._features)
        self._judged = Block.empty(_FIRST_SLOTS, self._kept, self._features)
        self._newest = np.full(_FIRST_SLOTS, NEVER)
        self._free = list(range(_FIRST_SLOTS))[::-1]
        self._withdrawn = 0  # in all

    @property
    def bytes_per_stream(self) -> int:
        """What one more stream takes."""
        return (self._capacity + self._kept) * (4 * self._features + 8)

    def open(self, tail: Tail | None = None) -> int:
        """A slot for a stream that begins, or goes on with a `tail` of as many features."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self.restore(slot, tail)
        return slot

    def restore(self, slot: int, tail: Tail | None) -> None:
        """Makes a slot hold this tail and nothing else, as far as it was read and judged."""
        self._fill(self._read, slot, tail)
        self._fill(self._judged, slot, tail)
        filled = int(self._read.filled[slot])
        self._newest[slot] = self._read.times[slot, filled - 1] if filled else NEVER

    def restore_judged(self, slot: int, tail: Tail) -> None:
        """Makes a slot hold this tail as far as it was judged, and leaves what was read."""
        self._fill(self._judged, slot, tail)

    def _fill(self, block: Block, slot: int, tail: Tail | None) -> None:
        rows = tail.rows[-self._kept :] if tail is not None else np.empty((0, self._features), np.float32)
        filled = len(rows)
        block.rows[slot, :filled] = rows
        block.times[slot, :filled] = tail.times[-self._kept :] if tail is not None else 0.0
        block.filled[slot] = filled
        # Of a model with a shorter window less was kept than this one needs: it must fill first.
        block.count[slot] = 0 if tail is None else tail.count if filled >= min(tail.count, self._window) else filled
        block.mark(slot, tail if tail is not None else NOTHING)

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
        parts = [self._append(slots[plain], rows[plain], times[plain], plain)] if len(plain) else []
        begun, before = 0, self._withdrawn
        for index in np.sort(order[~usual]).tolist():
            outcome, place, anew = self._push_one(
                int(slots[index]), rows[index], float(times[index]), bool(timed[index]), float(published[index])
            )
            outcomes[index] = outcome
            begun += anew
            if place is not None:
                parts.append(self._cut(np.array([index]), slots[[index]], np.array([place])))
        return Pushed(*self._together(parts), outcomes, begun, self._withdrawn - before)

    def snapshot(self, slots: Slots) -> Snapshot:
        """The tails of the streams as far as reading has come: a copy."""
        read = self._read
        first = np.maximum(read.filled[slots] - self._kept, 0)
        places = np.minimum(first[:, np.newaxis] + np.arange(self._kept), self._capacity - 1)
        block = Block(
            read.rows[slots[:, np.newaxis], places],
            read.times[slots[:, np.newaxis], places],
            np.minimum(read.filled[slots], self._kept),
            read.count[slots],
            read.late[slots],
            read.ahead[slots],
            read.late_time[slots],
            read.late_from[slots],
            read.late_published[slots],
            read.since[slots],
            read.gap_from[slots],
            read.gap_to[slots],
            read.behind[slots],
        )
        return Snapshot(slots, block)

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
        before[first] = self._newest[slots[first]]
        follows = np.where(timed, (times > before) & (times <= published + self._settings.max_ahead), times >= before)
        if self._settings.max_gap is not None:
            follows &= (times - before <= self._settings.max_gap) | np.isneginf(before)
        follows &= self._read.ahead[slots] == 0
        far = np.flatnonzero((times - before > self._settings.lateness) & ~np.isneginf(before))
        if len(far):
            between = before[far] - np.where(np.isneginf(before[far - 1]), before[far], before[far - 1])
            steps = np.where(first[far], self._last_step(slots[far]), between)
            follows[far] &= times[far] - before[far] <= _JUMP * steps
        if follows.all():
            return follows
        usual: NDArray[np.bool_] = ~np.isin(slots, slots[~follows])
        return usual

    def _last_step(self, slots: Slots) -> Times:
        """Seconds between the two newest observations; 0 where there are fewer, as nothing speaks for a long one."""
        filled, times = self._read.filled[slots], self._read.times
        step: Times = times[slots, np.maximum(filled - 1, 0)] - times[slots, np.maximum(filled - 2, 0)]
        return step

    def _append(self, slots: Slots, rows: FloatArray, times: Times, index: Slots) -> _Cut:
        """Puts observations, sorted by slot, behind those that are there; returns the windows that they complete."""
        starts = np.flatnonzero(np.r_[True, slots[1:] != slots[:-1]])
        rank = np.arange(len(slots)) - np.repeat(starts, np.diff(np.r_[starts, len(slots)]))
        most = self._capacity - self._kept  # that a slot has room for once it was moved to the front
        if int(rank.max()) < most:
            return self._append_once(slots, rows, times, rank, index)
        turns = [np.flatnonzero(rank // most == turn) for turn in range(int(rank.max()) // most + 1)]
        parts = [
            self._append_once(slots[some], rows[some], times[some], rank[some] % most, index[some]) for some in turns
        ]
        return self._together(parts)

    def _append_once(self, slots: Slots, rows: FloatArray, times: Times, rank: Slots, index: Slots) -> _Cut:
        read = self._read
        starts = np.flatnonzero(rank == 0)
        each, sizes = slots[starts], np.diff(np.r_[starts, len(slots)])
        self._make_room(each, sizes)
        places = read.filled[slots] + rank
        read.rows[slots, places] = rows
        read.times[slots, places] = times
        due = self._is_due(read.count[slots] + rank + 1)
        read.filled[each] += sizes
        read.count[each] += sizes
        read.late[each] = read.behind[each] = 0
        read.since[each] = np.minimum(read.since[each], times[starts])
        self._newest[each] = times[starts + sizes - 1]
        return self._cut(index[due], slots[due], places[due])

    def _push_one(
        self, slot: int, row: FloatArray, time: float, timed: bool, published: float
    ) -> tuple[Outcome, int | None, bool]:
        """One observation whose time is not simply the next.

        Returns also its place in the slot where it completes a window, and whether the window began anew with it.
        """
        read, settings = self._read, self._settings
        if not timed:
            return self._push_untimed(slot, row, time, published)
        if time > published + settings.max_ahead:
            return Outcome.AHEAD, None, False
        first, place = self._first(slot), self._place(slot, time)
        if _is_there(row, read.rows[slot, first:place], read.times[slot, first:place], time):
            return Outcome.DUPLICATE, None, False
        if self._came_back(slot, time):
            self._withdraw(slot)
            place = self._place(slot, time)
        if read.filled[slot] - place <= RECALL and self._newest[slot] - time <= settings.lateness:
            return Outcome.TAKEN, *self._put(slot, row, time)
        if not self._was_put_back(slot, time, published):
            return Outcome.LATE, None, False
        self._begin_anew(slot)
        read.gap_from[slot] = read.gap_to[slot] = NEVER
        return Outcome.TAKEN, self._insert(slot, row, time), True

    def _push_untimed(
        self, slot: int, row: FloatArray, time: float, published: float
    ) -> tuple[Outcome, int | None, bool]:
        """One that has only Kafka's time, which tells of a gap; the order is the log's.

        So where the two disagree for good it is the earlier ones whose time was wrong, and they get another.
        """
        read, behind = self._read, 0
        if self._came_back(slot, time):
            self._put_back(slot, self._jump(slot)[0])
        if published < self._newest[slot] - self._settings.lateness:
            behind = int(read.behind[slot]) + 1
        if behind == _TRIAL:
            self._put_back(slot, time)
            behind = 0
        due, anew = self._put(slot, row, max(time, float(self._newest[slot])))
        read.behind[slot] = behind
        return Outcome.TAKEN, due, anew

    def _put(self, slot: int, row: FloatArray, time: float) -> tuple[int | None, bool]:
        """Puts an observation in its place; what jumps ahead is put on trial.

        Returns where a window ends with it, if one does, and whether the window began anew with it.
        """
        read, settings = self._read, self._settings
        step = time - float(self._newest[slot]) if read.filled[slot] else 0.0
        is_jump = step > max(settings.lateness, _JUMP * float(self._last_step(np.array([slot]))[0]))
        if is_jump and not read.ahead[slot]:
            read.ahead[slot] = 1
            return self._insert(slot, row, time), False
        anew = settings.max_gap is not None and step > settings.max_gap
        if anew:
            self._begin_anew(slot)
        elif read.ahead[slot]:
            read.ahead[slot] += 1
        due = self._insert(slot, row, time)
        return self._confirm(slot, due) if read.ahead[slot] >= _TRIAL else (due, anew)

    def _begin_anew(self, slot: int) -> None:
        self._read.filled[slot] = self._read.count[slot] = self._read.ahead[slot] = 0
        self._newest[slot] = NEVER

    def _put_back(self, slot: int, time: float) -> None:
        """Makes no observation newer than this."""
        read, filled = self._read, int(self._read.filled[slot])
        np.minimum(read.times[slot, :filled], time, out=read.times[slot, :filled])
        read.ahead[slot] = 0
        self._newest[slot] = time

    def _first(self, slot: int) -> int:
        """Where the observations begin that count: a stream that is taken up again has no others."""
        return max(int(self._read.filled[slot]) - self._depth, 0)

    def _place(self, slot: int, time: float) -> int:
        first, filled = self._first(slot), int(self._read.filled[slot])
        return first + int(np.searchsorted(self._read.times[slot, first:filled], time, side="right"))

    def _came_back(self, slot: int, time: float) -> bool:
        """Whether a time goes on from before a jump ahead."""
        if not self._read.ahead[slot]:
            return False
        before, jump = self._jump(slot)
        return before - self._settings.lateness <= time < jump - self._settings.lateness

    def _withdraw(self, slot: int) -> None:
        """Takes what jumped ahead out of the window."""
        read, ahead = self._read, int(self._read.ahead[slot])
        read.filled[slot] -= ahead
        read.count[slot] -= ahead
        read.ahead[slot] = 0
        self._newest[slot] = read.times[slot, read.filled[slot] - 1]
        self._withdrawn += ahead

    def _confirm(self, slot: int, due: int | None) -> tuple[int | None, bool]:
        """Ends the trial of what jumped ahead.

        Returns where a window ends now, if one does, and whether it was a gap, after which the window begins anew.
        """
        read = self._read
        is_gap, filled = self._jumped_a_gap(slot), int(read.filled[slot])
        read.gap_from[slot], read.gap_to[slot] = self._jump(slot)
        ahead, read.ahead[slot] = int(read.ahead[slot]), 0
        if not is_gap:
            return due, False
        read.rows[slot, :ahead] = read.rows[slot, filled - ahead : filled].copy()
        read.times[slot, :ahead] = read.times[slot, filled - ahead : filled].copy()
        read.filled[slot] = read.count[slot] = ahead
        if ahead < self._window or not self._is_due(read.count[slot : slot + 1])[0]:
            return None, True
        return ahead - 1, True

    def _jump(self, slot: int) -> tuple[float, float]:
        """The times from which and to which what is on trial has jumped."""
        first = int(self._read.filled[slot] - self._read.ahead[slot])
        before, jump = self._read.times[slot, first - 1 : first + 1].tolist()
        return before, jump

    def _jumped_a_gap(self, slot: int) -> bool:
        before, jump = self._jump(slot)
        return self._settings.max_gap is not None and jump - before > self._settings.max_gap

    def _was_put_back(self, slot: int, time: float, published: float) -> bool:
        """Counts a late observation; whether it is so many in a row that the clock must have been put back."""
        read, settings = self._read, self._settings
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

    def _insert(self, slot: int, row: FloatArray, time: float) -> int | None:
        read = self._read
        behind = int(read.filled[slot]) - self._place(slot, time)
        self._make_room(np.array([slot]), np.array([1]))
        filled = int(read.filled[slot])
        place = filled - behind
        read.rows[slot, place + 1 : filled + 1] = read.rows[slot, place:filled].copy()
        read.times[slot, place + 1 : filled + 1] = read.times[slot, place:filled].copy()
        read.rows[slot, place], read.times[slot, place] = row, time
        read.filled[slot] += 1
        read.count[slot] += 1
        read.late[slot] = read.behind[slot] = 0
        read.since[slot] = min(float(read.since[slot]), time)
        self._newest[slot] = max(float(self._newest[slot]), time)
        if place < self._window - 1 or not self._is_due(read.count[slot : slot + 1])[0]:
            return None
        if read.ahead[slot] and self._jumped_a_gap(slot):
            return None
        return place

    def _is_due(self, count: Slots) -> NDArray[np.bool_]:
        beyond = count - self._window
        due: NDArray[np.bool_] = (beyond >= 0) & (beyond % self._settings.stride == 0)
        return due

    def _cut(self, due: Slots, slots: Slots, places: Slots) -> _Cut:
        """The windows of slots that end at these places, with the observations `due`."""
        steps = places[:, np.newaxis] + np.arange(1 - self._window, 1)
        times = self._read.times[slots[:, np.newaxis], steps[:, [0, -1]]]
        return _Cut(due, self._read.rows[slots[:, np.newaxis], steps], times)

    def _together(self, parts: Sequence[_Cut]) -> _Cut:
        """In the order of the observations."""
        if not parts:
            nothing = np.empty((0, self._window, self._features), np.float32)
            return _Cut(np.empty(0, np.int64), nothing, np.empty((0, 2)))
        due = np.concatenate([cut.due for cut in parts])
        order = np.argsort(due)
        windows = np.concatenate([cut.windows for cut in parts])
        return _Cut(due[order], windows[order], np.concatenate([cut.times for cut in parts])[order])

    def _make_room(self, slots: Slots, sizes: Slots) -> None:
        """Moves what is kept to the front, of the slots where `sizes` more would not fit."""
        read = self._read
        full = slots[read.filled[slots] + sizes > self._capacity]
        if not len(full):
            return
        places = (read.filled[full] - self._kept)[:, np.newaxis] + np.arange(self._kept)
        read.rows[full, : self._kept] = read.rows[full[:, np.newaxis], places]
        read.times[full, : self._kept] = read.times[full[:, np.newaxis], places]
        read.filled[full] = self._kept

    def _grow(self) -> None:
        slots = len(self._newest)
        self._read, self._judged = self._read.grown(2 * slots), self._judged.grown(2 * slots)
        self._newest = np.concatenate([self._newest, np.full(slots, NEVER)])
        self._free = list(range(slots, 2 * slots))[::-1]


def _is_there(row: FloatArray, rows: FloatArray, times: Times, time: float) -> bool:
    """Whether the last of `rows`, those at this very `time`, hold the same observation; NaN is like NaN."""
    first = int(np.searchsorted(times, time, side="left"))
    return any(np.array_equal(row, other, equal_nan=True) for other in rows[first:])

"""The last observations of all streams of a partition in one array, in the order of their times, and windows of them.

What becomes of an observation is for `tails` to say; here it is put where it belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.tail import NEVER, NOTHING, Block, FloatArray, Slots, Snapshot, Tail, Times

FIRST_SLOTS = 64

_ROOM = 16  # observations, at least, that a slot has room for once it was moved to the front


class Cut(NamedTuple):
    """Windows `[k, T, F]` that end with the observations `due` `[k]`; `times` `[k, 2]` are of their first and last."""

    due: Slots
    windows: FloatArray
    times: Times


class Windows:
    """The observations of streams of windows `[T, F]`, a slot for each; the last `kept` of them stay.

    An observation is put or looked for among the last `depth`. `newest` `[S]` are the times of the newest. A window is
    due with the first `T` observations, and then with every `stride`-th.
    """

    def __init__(self, shape: tuple[int, ...], stride: int, depth: int, kept: int) -> None:
        self.window, self.features = shape
        self.kept = kept
        self._stride = stride
        self._depth = depth
        # Rows are moved to the front only when a slot is full.
        self.capacity = kept + max(self.window // 2, _ROOM)
        self.block = Block.empty(FIRST_SLOTS, self.capacity, self.features)
        self.newest = np.full(FIRST_SLOTS, NEVER)

    def grow(self) -> None:
        """Makes twice as many slots."""
        self.newest = np.concatenate([self.newest, np.full(len(self.newest), NEVER)])
        self.block = self.block.grown(len(self.newest))

    def fill(self, slot: int, tail: Tail | None) -> None:
        """Makes a slot hold this tail and nothing else."""
        fill(self.block, slot, tail, self.window, self.kept)
        filled = int(self.block.filled[slot])
        self.newest[slot] = self.block.times[slot, filled - 1] if filled else NEVER

    def snapshot(self, slots: Slots) -> Snapshot:
        """The tails of the streams: a copy."""
        block = self.block
        first = np.maximum(block.filled[slots] - self.kept, 0)
        places = np.minimum(first[:, np.newaxis] + np.arange(self.kept), self.capacity - 1)
        copy = Block(
            block.rows[slots[:, np.newaxis], places],
            block.times[slots[:, np.newaxis], places],
            np.minimum(block.filled[slots], self.kept),
            block.count[slots],
            *(mark[slots] for mark in block.marks()),
        )
        return Snapshot(slots, copy)

    def first(self, slot: int) -> int:
        """Where the observations begin that count: a stream that is taken up again has no others."""
        return max(int(self.block.filled[slot]) - self._depth, 0)

    def place(self, slot: int, time: float) -> int:
        """Where an observation of this time belongs: behind those that are not newer."""
        first, filled = self.first(slot), int(self.block.filled[slot])
        return first + int(np.searchsorted(self.block.times[slot, first:filled], time, side="right"))

    def last_step(self, slots: Slots) -> Times:
        """Seconds between the two newest observations; 0 where there are fewer, as nothing speaks for a long one."""
        filled, times = self.block.filled[slots], self.block.times
        step: Times = times[slots, np.maximum(filled - 1, 0)] - times[slots, np.maximum(filled - 2, 0)]
        return step

    def append(self, slots: Slots, rows: FloatArray, times: Times, index: Slots) -> Cut:
        """Puts observations, sorted by slot, behind those that are there; returns the windows that they complete."""
        starts = np.flatnonzero(np.r_[True, slots[1:] != slots[:-1]])
        rank = np.arange(len(slots)) - np.repeat(starts, np.diff(np.r_[starts, len(slots)]))
        most = self.capacity - self.kept  # that a slot has room for once it was moved to the front
        if int(rank.max()) < most:
            return self._append_once(slots, rows, times, rank, index)
        turns = [np.flatnonzero(rank // most == turn) for turn in range(int(rank.max()) // most + 1)]
        parts = [
            self._append_once(slots[some], rows[some], times[some], rank[some] % most, index[some]) for some in turns
        ]
        return self.together(parts)

    def insert(self, slot: int, row: FloatArray, time: float) -> int | None:
        """Puts an observation in its place; returns the place where a window is due with it."""
        block = self.block
        newer = int(block.filled[slot]) - self.place(slot, time)
        self._make_room(np.array([slot]), np.array([1]))
        filled = int(block.filled[slot])
        place = filled - newer
        block.rows[slot, place + 1 : filled + 1] = block.rows[slot, place:filled].copy()
        block.times[slot, place + 1 : filled + 1] = block.times[slot, place:filled].copy()
        block.rows[slot, place], block.times[slot, place] = row, time
        block.filled[slot] += 1
        block.count[slot] += 1
        block.late[slot] = block.behind[slot] = 0
        block.since[slot] = min(float(block.since[slot]), time)
        self.newest[slot] = max(float(self.newest[slot]), time)
        return place if self._ends_window(slot, place) else None

    def begin_anew(self, slot: int, keep: int = 0) -> int | None:
        """Keeps only so many of the newest observations; returns the place where a window is due with the last."""
        block, filled = self.block, int(self.block.filled[slot])
        block.rows[slot, :keep] = block.rows[slot, filled - keep : filled].copy()
        block.times[slot, :keep] = block.times[slot, filled - keep : filled].copy()
        block.filled[slot] = block.count[slot] = keep
        block.ahead[slot] = 0
        if not keep:
            self.newest[slot] = NEVER
        return keep - 1 if self._ends_window(slot, keep - 1) else None

    def withdraw(self, slot: int, count: int) -> None:
        """Takes the newest observations out."""
        block = self.block
        block.filled[slot] -= count
        block.count[slot] -= count
        self.newest[slot] = block.times[slot, block.filled[slot] - 1]

    def put_back(self, slot: int, time: float) -> None:
        """Makes no observation newer than this."""
        times = self.block.times[slot, : int(self.block.filled[slot])]
        np.minimum(times, time, out=times)
        self.newest[slot] = time

    def cut(self, due: Slots, slots: Slots, places: Slots) -> Cut:
        """The windows of slots that end at these places, with the observations `due`."""
        steps = places[:, np.newaxis] + np.arange(1 - self.window, 1)
        times = self.block.times[slots[:, np.newaxis], steps[:, [0, -1]]]
        return Cut(due, self.block.rows[slots[:, np.newaxis], steps], times)

    def together(self, parts: Sequence[Cut]) -> Cut:
        """In the order of the observations."""
        if not parts:
            nothing = np.empty((0, self.window, self.features), np.float32)
            return Cut(np.empty(0, np.int64), nothing, np.empty((0, 2)))
        due = np.concatenate([cut.due for cut in parts])
        order = np.argsort(due)
        windows = np.concatenate([cut.windows for cut in parts])
        return Cut(due[order], windows[order], np.concatenate([cut.times for cut in parts])[order])

    def _append_once(self, slots: Slots, rows: FloatArray, times: Times, rank: Slots, index: Slots) -> Cut:
        block = self.block
        starts = np.flatnonzero(rank == 0)
        each, sizes = slots[starts], np.diff(np.r_[starts, len(slots)])
        self._make_room(each, sizes)
        places = block.filled[slots] + rank
        block.rows[slots, places] = rows
        block.times[slots, places] = times
        due = self._is_due(block.count[slots] + rank + 1)
        block.filled[each] += sizes
        block.count[each] += sizes
        block.late[each] = block.behind[each] = 0
        block.since[each] = np.minimum(block.since[each], times[starts])
        self.newest[each] = times[starts + sizes - 1]
        return self.cut(index[due], slots[due], places[due])

    def _ends_window(self, slot: int, place: int) -> bool:
        return place >= self.window - 1 and bool(self._is_due(self.block.count[slot : slot + 1])[0])

    def _is_due(self, count: Slots) -> NDArray[np.bool_]:
        beyond = count - self.window
        due: NDArray[np.bool_] = (beyond >= 0) & (beyond % self._stride == 0)
        return due

    def _make_room(self, slots: Slots, sizes: Slots) -> None:
        """Moves what is kept to the front, of the slots where `sizes` more would not fit."""
        block = self.block
        full = slots[block.filled[slots] + sizes > self.capacity]
        if not len(full):
            return
        places = (block.filled[full] - self.kept)[:, np.newaxis] + np.arange(self.kept)
        block.rows[full, : self.kept] = block.rows[full[:, np.newaxis], places]
        block.times[full, : self.kept] = block.times[full[:, np.newaxis], places]
        block.filled[full] = self.kept


def fill(block: Block, slot: int, tail: Tail | None, window: int, kept: int) -> None:
    """Makes a slot hold the last `kept` observations of this tail and nothing else."""
    if tail is None:
        block.filled[slot] = block.count[slot] = 0
        block.mark(slot, NOTHING)
        return
    rows = tail.rows[-kept:]
    filled = len(rows)
    block.rows[slot, :filled] = rows
    block.times[slot, :filled] = tail.times[-kept:]
    block.filled[slot] = filled
    # Of a model with a shorter window less was kept than this one needs: it must fill first.
    block.count[slot] = tail.count if filled >= min(tail.count, window) else filled
    block.mark(slot, tail)

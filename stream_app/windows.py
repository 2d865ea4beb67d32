"""Single observations to windows: the last `window` observations of each stream.

The tail of a stream after a chunk travels with the chunk, so that what is saved for a stream is exactly what the
committed offsets have seen, however far the reading is ahead of the committing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_app.records import Rows

FloatArray = NDArray[np.float32]


class Tail:
    """The last observations of one stream, oldest first, and how many more until the next score."""

    __slots__ = ("_ring", "_window", "length", "offset", "pending")

    def __init__(self, window: int, features: int, rows: FloatArray | None = None, offset: int = -1) -> None:
        # Twice the window, so that rows are moved only every `window` observations.
        self._ring = np.empty((2 * window, features), np.float32)
        self._window = window
        self.length = 0
        self.offset = offset  # of the newest observation
        self.pending = 0
        if rows is not None:
            kept = rows[-window:]
            self._ring[: len(kept)] = kept
            self.length = len(kept)

    def push(self, row: FloatArray, offset: int) -> None:
        """Appends one observation `[F]`."""
        if self.length == len(self._ring):
            self._ring[: self._window] = self._ring[-self._window :]
            self.length = self._window
        self._ring[self.length] = row
        self.length += 1
        self.offset = offset

    @property
    def full(self) -> bool:
        """Whether there is a whole window."""
        return self.length >= self._window

    def rows(self) -> FloatArray:
        """A copy of the last `window` observations, or of the fewer there are: `[≤ T, F]`."""
        return self._ring[max(0, self.length - self._window) : self.length].copy()


class Windows:
    """The tails of the streams of one partition. Least recently used streams beyond `max_streams` are forgotten."""

    def __init__(self, shape: tuple[int, ...], stride: int, max_streams: int) -> None:
        self._window, self._features = shape
        self._stride = stride
        self._max_streams = max_streams
        self._tails: OrderedDict[str, Tail] = OrderedDict()

    def __contains__(self, stream: str) -> bool:
        return stream in self._tails

    def restore(self, stream: str, rows: FloatArray, offset: int) -> None:
        """Takes up the saved tail of a stream: `[≤ T, F]`, the newest of them at `offset`."""
        self._tails[stream] = Tail(self._window, self._features, rows, offset)

    def add(
        self, observations: Rows, streams: Sequence[str], offsets: Sequence[int]
    ) -> tuple[Rows, dict[str, FloatArray]]:
        """Takes the single observations of a chunk, in order.

        `streams` and `offsets` are those of all records of the chunk. Returns the windows that are due `[n, T, F]`,
        each under the index of its newest observation, and the tail `[≤ T, F]` that each touched stream has now. An
        observation that a restored tail has already seen is a replay of one whose event was acknowledged; it makes no
        window.
        """
        due: list[int] = []
        windows: list[FloatArray] = []
        touched: dict[str, Tail] = {}
        for index, row in zip(observations.index.tolist(), observations.data, strict=True):
            stream = streams[index]
            tail = self._tail(stream)
            if offsets[index] <= tail.offset:
                continue
            tail.push(row.astype(np.float32, copy=False), offsets[index])
            touched[stream] = tail
            tail.pending -= 1
            if tail.full and tail.pending <= 0:
                tail.pending = self._stride
                due.append(index)
                windows.append(tail.rows())
        data = np.stack(windows) if windows else np.empty((0, self._window, self._features), np.float32)
        return Rows(np.array(due, np.int64), data), {stream: tail.rows() for stream, tail in touched.items()}

    def _tail(self, stream: str) -> Tail:
        tail = self._tails.get(stream)
        if tail is None:
            tail = self._tails[stream] = Tail(self._window, self._features)
            if len(self._tails) > self._max_streams:
                self._tails.popitem(last=False)
        else:
            self._tails.move_to_end(stream)
        return tail

"""Single observations to windows: the last `window` observations of a stream."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_HEAD = struct.Struct("<QII")


@dataclass(frozen=True, slots=True)
class Recent:
    """The newest observations of a stream at some point of it: `rows` `[≤ T, F]`, oldest first.

    `count` is how many there were before and with them: from it follows when the next window is due, so that a stream
    that is taken up again goes on in step.
    """

    count: int
    rows: FloatArray

    def to_bytes(self) -> bytes:
        """Count, steps and features, and the rows as little-endian float32."""
        return _HEAD.pack(self.count, *self.rows.shape) + self.rows.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Recent:
        """Reads what `to_bytes` wrote. Raises ValueError for anything else."""
        try:
            count, steps, features = _HEAD.unpack_from(data)
        except struct.error as error:
            msg = f"not the observations of a stream: {error}"
            raise ValueError(msg) from error
        if len(data) != _HEAD.size + 4 * steps * features:
            msg = f"not the observations of a stream: {len(data)} bytes for {steps} steps of {features} features"
            raise ValueError(msg)
        rows = np.frombuffer(data, "<f4", offset=_HEAD.size).reshape(steps, features)
        return cls(count, rows.astype(np.float32))


class Ring:
    """The last observations of one stream, as far as reading has come."""

    __slots__ = ("_count", "_filled", "_rows", "_stride", "_window")

    def __init__(self, shape: tuple[int, ...], stride: int, recent: Recent | None = None) -> None:
        self._window, features = shape
        self._stride = stride
        # Twice the window, so that rows are moved only every `window` observations.
        self._rows = np.empty((2 * self._window, features), np.float32)
        kept = recent.rows[-self._window :] if recent is not None else self._rows[:0]
        self._rows[: len(kept)] = kept
        self._filled = len(kept)
        self._count = recent.count if recent is not None else 0

    def push(self, row: NDArray[np.generic]) -> FloatArray | None:
        """Takes one observation `[F]`; returns the window `[T, F]` that ends with it where one is due.

        The first full window is due, and then every `stride`-th.
        """
        if self._filled == len(self._rows):
            self._rows[: self._window] = self._rows[-self._window :]
            self._filled = self._window
        self._rows[self._filled] = row
        self._filled += 1
        self._count += 1
        beyond = self._count - self._window
        return self._newest() if beyond >= 0 and beyond % self._stride == 0 else None

    def recent(self) -> Recent:
        """The newest observations, to be saved: a copy."""
        return Recent(self._count, self._newest())

    def _newest(self) -> FloatArray:
        return self._rows[max(0, self._filled - self._window) : self._filled].copy()

"""How many independent scores a stream's consecutive ones are worth."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_STATE = struct.Struct("<Q5d")


class Dependence:
    """The correlation of each score with the one before it.

    Windows that overlap score alike, so that a thousand of them say no more of the tail of a stream's scores than a few
    dozen that don't. Scores are taken for a first-order autoregressive process, as is usual for the mean of a series
    (Bayley & Hammersley 1946): n of them with the correlation r are worth n (1 - r) / (1 + r).
    """

    __slots__ = ("_count", "_last", "_products", "_squares", "_sum", "_zero")

    def __init__(self) -> None:
        self._count = 0
        self._zero = 0.0  # the first score: sums of differences from it keep their digits
        self._last = 0.0  # as the sums, less `_zero`
        self._sum = self._squares = self._products = 0.0

    def update(self, scores: NDArray[np.float32]) -> None:
        """Takes in consecutive scores `[N]`, N ≥ 1, finite."""
        if self._count == 0:
            self._zero = float(scores[0])
        values = scores.astype(np.float64) - self._zero
        before = np.concatenate([[self._last], values[:-1]])  # the first of all has the product 0: it is `_zero`
        self._sum += float(values.sum())
        self._squares += float(values @ values)
        self._products += float(values @ before)
        self._last = float(values[-1])
        self._count += len(values)

    @property
    def share(self) -> float:
        """Independent scores for each score taken in, in [0, 1]; 1 as long as all were equal."""
        if self._count == 0:
            return 1.0
        mean = self._sum / self._count
        variance = self._squares / self._count - mean**2
        if variance <= 1e-12:
            return 1.0
        correlation = (self._products / self._count - mean**2) / variance
        correlation = min(max(correlation, 0.0), 1.0)
        return (1.0 - correlation) / (1.0 + correlation)

    def to_bytes(self) -> bytes:
        """The state, to be continued exactly by `from_bytes`; empty before the first score."""
        if self._count == 0:
            return b""
        return _STATE.pack(self._count, self._zero, self._last, self._sum, self._squares, self._products)

    @classmethod
    def from_bytes(cls, data: bytes) -> Dependence:
        """Continues where `to_bytes` stopped. Raises struct.error for bytes of another length."""
        own = cls()
        if data:
            own._count, own._zero, own._last, own._sum, own._squares, own._products = _STATE.unpack(data)
        return own

"""One threshold per stream: from the model's calibration to the stream's own tail, at a false-alarm budget.

Scores are -log10 of the share of held-out normal records that score as high, so a budget of `rate` starts at
-log10(rate). The stream's own scores then take over, in two steps on a rolling quantile sketch (t-digest: Dunning &
Ertl 2019) of what was judged normal:

- the body, between the .60 and the .95 quantile, extrapolated: anomalies hardly reach there, but a tail that bends away
  from the body isn't seen;
- the tail proper, up to the threshold itself: sees the bend, but anomalies just below the threshold look like one,
  raise it, and let more of their kind in.

The tail decides, and may exceed what the body says by a fixed part only. Both are fitted as truncated samples
(`stream_app.pareto`), for what is judged anomalous is never learned. A run of `shift_after` anomalous scores means that
the stream itself has changed for good: the threshold forgets and learns from that run.
"""

from __future__ import annotations

import math
import struct
import zlib
from array import array
from typing import NamedTuple

import numpy as np
from datasketches import tdigest_float
from numpy.typing import NDArray

from stream_app import pareto
from stream_app.pace import Pace
from stream_app.settings import ThresholdSettings, target_rate

MAX_SCORE = (
    1e6  # thresholds, and what is learned, end here: far beyond any calibrated score, and exact enough as float32
)

_SKETCH_K = 100  # 1 KB; ranks from .6 up within 1 % of their distance from 1
_LEAST_BLOCK, _LARGEST_BLOCK = 32, 256  # learned scores between two refreshes
_FIRST_GENERATION = 512
_BODY_SHARE, _BODY_END, _BODY_SHAPE_DEVIATION = 0.4, 0.05, 0.05
_TAIL_SHARE, _TAIL_SHAPE_DEVIATION = 0.05, 0.1
_TAIL_OVER_BODY = 0.15  # of the body's extrapolation
_FLOOR = 0.25  # of the seed: no budget calls a record anomalous that scores below the rate's fourth root
_LEAST_RISE = 0.05  # of the seed, above the bulk of the scores: a stream of equal scores has no tail of its own

_VERSION = 1
_HEAD = struct.Struct("<BddddddQIQ?5I")  # version, numbers as in to_bytes, lengths of the parts that follow
_CHECKSUM = struct.Struct("<I")


class Judgement(NamedTuple):
    """What a score was held against, and whether it is above."""

    threshold: float
    is_anomaly: bool


class StreamThreshold:
    """The threshold of one stream; learns in the order of the scores, however they are cut into batches.

    It changes only after fixed counts of learned scores, and the same scores give the same thresholds, with the state
    written and read back at any point or not. (The REQ sketch of the same library has tighter bounds, but compacts by
    coin flips that can't be seeded: runs over the same scores differed in a tenth of the false alarms.)
    """

    NAME = "rolling-pot"

    __slots__ = ("_block", "_block_size", "_capacity", "_ceilings", "_observations", "_old", "_pace", "_rate", "_run",
                 "_settings", "_shifted", "_value", "_young")  # fmt: skip

    def __init__(self, settings: ThresholdSettings) -> None:
        self._settings = settings
        self._rate = settings.target_rate
        self._value = self._seed
        self._pace = Pace() if settings.alerts_per_day is not None else None
        self._block = array("f")
        self._block_size = _LEAST_BLOCK
        self._run = array("f")
        self._observations = 0
        self._shifted = False
        self._capacity = _FIRST_GENERATION
        self._young: tdigest_float | None = None
        self._old: tdigest_float | None = None
        self._ceilings = (math.inf, math.inf)  # lowest threshold under which the young and the old sketch learned

    @property
    def value(self) -> float:
        """The threshold in force for the next score: finite, > 0, on the scale of the scores."""
        return self._value

    @property
    def rate(self) -> float:
        """The share of normal records that may alert, in (0, 0.5), that the threshold in force was made for."""
        return self._rate

    @property
    def observations(self) -> int:
        """Scores learned, since the start or since the last lasting shift."""
        return self._observations + len(self._block)

    @property
    def warm(self) -> bool:
        """Whether the stream's own scores count in full."""
        return self._shifted or self._observations >= self._settings.min_observations

    def judge(self, score: float, time: float) -> Judgement:
        """Judges a score, in [0, inf), by the threshold in force, then learns it unless it is anomalous.

        `time` is the record's event time in seconds. Raises ValueError for a score that is negative or not finite.
        """
        if not 0.0 <= score < math.inf:
            msg = f"a score must be finite and not negative, this one is {score}"
            raise ValueError(msg)
        if self._pace is not None:
            self._pace.observe(time)
        threshold = self._value
        if score > threshold:
            self._run.append(min(score, MAX_SCORE))
            if len(self._run) >= self._settings.shift_after:
                self._relearn()
            return Judgement(threshold, True)
        if self._run:
            self._run = array("f")
        self._block.append(score)
        if len(self._block) >= self._block_size:
            self._refresh()
        return Judgement(threshold, False)

    def judge_many(
        self, scores: NDArray[np.floating], times: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """`judge` for consecutive scores `[N]` at event times `[N]`: thresholds `[N]`, and whether each is above."""
        thresholds = np.empty(len(scores))
        anomalies = np.zeros(len(scores), dtype=np.bool_)
        at = 0
        while at < len(scores):
            part = scores[at : at + self._block_size - len(self._block)]
            end = at + len(part)
            if self._pace is None and float(part.min()) >= 0.0 and float(part.max()) <= self._value:
                thresholds[at:end] = self._value
                self._learn_normal(part)
            else:
                for index in range(at, end):
                    thresholds[index], anomalies[index] = self.judge(float(scores[index]), float(times[index]))
            at = end
        return thresholds, anomalies

    def _learn_normal(self, scores: NDArray[np.floating]) -> None:
        self._run = array("f")
        self._block.frombytes(scores.astype(np.float32).tobytes())
        if len(self._block) >= self._block_size:
            self._refresh()

    @property
    def _seed(self) -> float:
        return -math.log10(self._rate)

    def _relearn(self) -> None:
        self._block, self._run = self._run, array("f")
        self._young = self._old = None
        self._ceilings = (math.inf, math.inf)
        self._capacity = _FIRST_GENERATION
        self._observations = 0
        self._shifted = True
        self._value = max(self._block)  # nothing of the run was left out
        self._refresh()

    def _refresh(self) -> None:
        """Takes the block into the sketch and sets the next threshold."""
        if self._young is None:
            self._young = tdigest_float(_SKETCH_K)
        self._young.update(np.frombuffer(self._block, np.float32))
        self._young.compress()  # else reading or writing the state would, and its bytes depend on when
        self._ceilings = (min(self._ceilings[0], self._value), self._ceilings[1])
        self._observations += len(self._block)
        self._block = array("f")
        self._block_size = min(max(self._observations // 4, _LEAST_BLOCK), _LARGEST_BLOCK)
        self._set_value()
        if self._young.get_total_weight() >= min(self._capacity, max(self._settings.horizon // 2, 1)):
            self._rotate()

    def _rotate(self) -> None:
        """The young generation becomes the old one. Each is twice as large as the last, up to half the horizon.

        So the first scores, learned under a threshold that knew little of the stream, are soon forgotten.
        """
        self._old, self._young = self._young, None
        self._ceilings = (math.inf, self._ceilings[0])
        self._capacity = min(self._capacity * 2, max(self._settings.horizon // 2, 1))

    def _set_value(self) -> None:
        self._rate = target_rate(self._settings, self._pace.per_second if self._pace else None)
        seed = self._seed
        own = self._own_quantile() if self._observations else seed
        # Linear in -log10 p: the geometric mean of what both sides take for the false-alarm rate.
        share = 1.0 if self.warm else self._observations / self._settings.min_observations
        self._value = min(max(seed + share * (own - seed), _FLOOR * seed), MAX_SCORE)

    def _own_quantile(self) -> float:
        """The score that a share `rate` of the stream's normal records exceeds."""
        scores, rate = self._both_generations(), self._rate
        ceiling = min(self._ceilings)
        body_end = min(scores.get_quantile(1.0 - max(_BODY_END, rate)), ceiling)
        body_start, body = self._fit(scores, body_end, max(_BODY_SHARE, 2.0 * rate), _BODY_SHAPE_DEVIATION)
        tail_share = max(_TAIL_SHARE, min(10.0 * rate, 0.5), 2.0 * rate)
        tail_start, own = self._fit(scores, ceiling, tail_share, _TAIL_SHAPE_DEVIATION)
        own = min(own, body + _TAIL_OVER_BODY * (body - body_start))
        return max(own, tail_start + _LEAST_RISE * self._seed)

    def _fit(self, scores: tdigest_float, ceiling: float, share: float, shape_deviation: float) -> tuple[float, float]:
        """The start of the tail that is `share` of what lies below the ceiling, and the quantile beyond it."""
        below = scores.get_rank(ceiling)
        start = scores.get_quantile(below * (1.0 - share))
        while start <= scores.get_min_value() and share > 2.0 * self._rate:  # many scores equal the least: no tail yet
            share /= 2.0
            start = scores.get_quantile(below * (1.0 - share))
        width = max(ceiling - start, 1e-3 + 1e-4 * start)  # cells that float32 tells apart
        edges = start + np.linspace(0.0, width, pareto.CELLS + 1)
        ranks = np.array(scores.get_cdf(edges.tolist())[:-1])  # (CELLS + 1,)
        counts = np.diff(ranks) * scores.get_total_weight()
        above_start = (ranks[-1] - ranks[0]) / ranks[-1]
        return start, pareto.quantile(start, start + width, counts, above_start, self._rate, shape_deviation)

    def _both_generations(self) -> tdigest_float:
        if self._old is None:
            return self._young
        if self._young is None:
            return self._old
        both = tdigest_float.deserialize(self._old.serialize())
        both.merge(self._young)
        return both

    def to_bytes(self) -> bytes:
        """The whole state, versioned, with a checksum: 100 bytes for a new stream, 8 KB at the default horizon."""
        parts = (
            self._block.tobytes(),
            self._run.tobytes(),
            self._young.serialize() if self._young else b"",
            self._old.serialize() if self._old else b"",
            self._pace.to_bytes() if self._pace else b"",
        )
        head = _HEAD.pack(
            _VERSION,
            self._settings.target_rate,
            self._settings.alerts_per_day or 0.0,
            self._rate,
            self._value,
            *self._ceilings,
            self._observations,
            self._block_size,
            self._capacity,
            self._shifted,
            *map(len, parts),
        )
        state = b"".join((head, *parts))
        return state + _CHECKSUM.pack(zlib.crc32(state))

    @classmethod
    def from_bytes(cls, data: bytes, settings: ThresholdSettings) -> StreamThreshold:
        """Continues where `to_bytes` stopped; a budget that has changed since takes effect at once.

        Raises ValueError for bytes that aren't a whole state of the version that this release writes.
        """
        threshold = cls(settings)
        try:
            budget = threshold._restore(data)
        except (struct.error, ValueError, RuntimeError) as error:  # the last from a sketch that can't be read
            msg = f"not a stream's threshold: {error}"
            raise ValueError(msg) from error
        if budget != (settings.target_rate, settings.alerts_per_day or 0.0):
            threshold._change_budget()
        return threshold

    def _restore(self, data: bytes) -> tuple[float, float]:
        """Takes the state over and returns the budget that it was made for: target rate, alerts a day (0 for none)."""
        state = data[: -_CHECKSUM.size]
        if zlib.crc32(state) != _CHECKSUM.unpack(data[-_CHECKSUM.size :])[0]:
            msg = "the checksum does not match"
            raise ValueError(msg)
        head = _HEAD.unpack_from(state)
        if head[0] != _VERSION:
            msg = f"it has version {head[0]}, this release reads {_VERSION}"
            raise ValueError(msg)
        _, target, alerts_per_day, self._rate, self._value, young_ceiling, old_ceiling = head[:7]
        self._ceilings = (young_ceiling, old_ceiling)
        self._observations, self._block_size, self._capacity, self._shifted = head[7:11]
        parts, at = [], _HEAD.size
        for length in head[11:]:
            parts.append(state[at : at + length])
            at += length
        if at != len(state):
            msg = f"it has {len(state)} bytes instead of {at}"
            raise ValueError(msg)
        block, run, young, old, pace = parts
        self._block, self._run = array("f", block), array("f", run)
        self._young = tdigest_float.deserialize(young) if young else None
        self._old = tdigest_float.deserialize(old) if old else None
        if pace and self._pace is not None:
            self._pace = Pace.from_bytes(pace)
        return target, alerts_per_day

    def _change_budget(self) -> None:
        if self._block:
            self._ceilings = (min(self._ceilings[0], self._value), self._ceilings[1])
        self._set_value()

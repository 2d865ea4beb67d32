"""One threshold per stream: from the model's calibration to the stream's own tail, at a false-alarm budget.

Scores are -log10 of the share of held-out normal records that score as high, so a budget of `rate` starts at
-log10(rate). The stream's own scores then take over, in two steps on a rolling quantile sketch (t-digest: Dunning &
Ertl 2019) of what was judged normal:

- the body, between the .60 and the .95 quantile, extrapolated: anomalies hardly reach there, but a tail that bends away
  from the body isn't seen;
- the tail proper, up to the threshold itself: sees the bend, but anomalies just below the threshold look like one,
  raise it, and let more of their kind in.

The tail decides, and may exceed what the body says by a fixed part only. Up it goes at once, as many alerts are proof
enough; down only by what the scores are worth as independent ones (`stream_app.dependence`), for those of overlapping
windows look calm for long without being so. Both are fitted as truncated samples (`stream_app.pareto`), for what is
judged anomalous is never learned, with one way out. A run of mostly anomalous scores that has at least `shift_after` of
them and lasts for `shift_after_seconds` means that the stream itself has changed for good, and not that an incident
goes on: the threshold forgets, and learns from that run.
Normal scores within a run are held back with it. Were the lower scores of a stream that has shifted learned alone, the
threshold would follow them up and down, and no run would ever last.

People's labels move the threshold in force away from the learned one (`stream_app.corrections`), and teach it nothing.
"""

from __future__ import annotations

import math
import struct
import zlib
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from datasketches import tdigest_float
from numpy.typing import NDArray

from stream_app import pareto
from stream_app.corrections import Correction, Mark, correct
from stream_app.dependence import Dependence
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
_NORMAL_IN_A_ROW = 10  # end a run, however long it was: an incident that is over is no shift

_CELL_EDGES = np.linspace(0.0, 1.0, pareto.CELLS + 1)

_VERSION = 4
_HEAD = struct.Struct("<BddddddQIQ?QddQQI6I")  # version, numbers as in to_bytes, lengths of the parts that follow
_CHECKSUM = struct.Struct("<I")


class Judgement(NamedTuple):
    """What a score was held against, whether it is above, and whether the stream has shifted for good with it.

    `normal_up_to` is the highest score that people have called normal, and a little; -inf where they have not.
    """

    threshold: float
    is_anomaly: bool
    shifted: bool = False
    normal_up_to: float = -math.inf


class StreamThreshold:
    """The threshold of one stream; learns in the order of the scores, however they are cut into batches.

    It changes only after fixed counts of learned scores, and the same scores give the same thresholds, with the state
    written and read back at any point or not. (The REQ sketch of the same library has tighter bounds, but compacts by
    coin flips that can't be seeded: runs over the same scores differed in a tenth of the false alarms.)
    """

    NAME = "rolling-pot"

    __slots__ = ("_block", "_block_size", "_capacity", "_ceilings", "_dependence", "_in_force", "_lead", "_marks",
                 "_max_shift", "_model", "_observations", "_old", "_pace", "_rate", "_run", "_run_anomalous",
                 "_run_length", "_run_normal", "_run_start", "_settings", "_shifted", "_value", "_young")  # fmt: skip

    def __init__(self, settings: ThresholdSettings) -> None:
        self._settings = settings
        self._rate = settings.target_rate
        self._value = self._seed  # as learned
        self._in_force = Correction(self._value, 0, -math.inf)
        self._marks: tuple[Mark, ...] = ()
        self._max_shift = 0.0
        self._pace = Pace() if settings.alerts_per_day is not None else None
        self._block = array("f")
        self._block_size = _LEAST_BLOCK
        self._end_run()
        self._model = 0
        self._lead = 0.0  # over the seed, of where learning begins
        self._forget()

    def _forget(self) -> None:
        self._observations = 0
        self._dependence = Dependence()
        self._shifted = False
        self._capacity = _FIRST_GENERATION
        self._young: tdigest_float | None = None
        self._old: tdigest_float | None = None
        self._ceilings = (math.inf, math.inf)  # lowest threshold under which the young and the old sketch learned

    @property
    def value(self) -> float:
        """The threshold in force for the next score: finite, > 0, on the scale of the scores."""
        return self._in_force.threshold

    @property
    def shift(self) -> float:
        """By how much labels have moved the threshold in force from the learned one."""
        return self._in_force.threshold - self._value

    @property
    def labels(self) -> int:
        """Labels that the threshold in force heeds."""
        return self._in_force.labels

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
        """Whether the stream's own scores count in full; False for a new stream, the cold start."""
        return self._shifted or self._observations >= self._settings.min_observations

    @property
    def model(self) -> int:
        """The version that its last scores are by, as `follow` was told; 0 before."""
        return self._model

    def follow(self, model: int) -> None:
        """Says that the next scores are by another version (any number but 0 that tells versions apart).

        The threshold stays where it is, as scores mean the same whoever gives them. But what a version finds usual in
        a stream that has drifted away from it is another's to learn anew: within `min_observations` scores the
        threshold goes over to what the stream's scores by the new version say.
        """
        if self._model:
            self._lead = self._value - self._seed
            self._block = array("f")
            self._block_size = _LEAST_BLOCK
            self._end_run()
            self._forget()
        self._model = model

    def heed(self, marks: Sequence[Mark], max_shift: float) -> None:
        """Takes the labelled scores of the stream, oldest label first, in place of those it had.

        They move the threshold in force by at most `max_shift` from the learned one, now and after each refresh. They
        are no part of the state that is saved: whoever goes on from it is given them again.
        """
        self._ceilings = self._ceilings_now()
        self._marks, self._max_shift = tuple(marks), max_shift
        self._correct()

    def judge(self, score: float, time: float) -> Judgement:
        """Judges a score, in [0, inf), by the threshold in force, then learns it unless it belongs to a run.

        A run begins with an anomalous score and is learned as a whole, with the anomalous score that makes it a lasting
        shift, or not at all. `time` is the record's event time in seconds. Raises ValueError for a score that is
        negative or not finite.
        """
        if not 0.0 <= score < math.inf:
            msg = f"a score must be finite and not negative, this one is {score}"
            raise ValueError(msg)
        if self._pace is not None:
            self._pace.observe(time)
        threshold, _, normal_up_to = self._in_force
        if score > threshold:
            self._extend_run(score, time, is_anomaly=True)
            shifted = self._is_lasting(time)
            if shifted:
                self._relearn()
            return Judgement(threshold, True, shifted, normal_up_to)
        if self._run:
            self._extend_run(score, time, is_anomaly=False)
        if not self._run:
            self._block.append(score)
            if len(self._block) >= self._block_size:
                self._refresh()
        return Judgement(threshold, False, False, normal_up_to)

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
            is_plain = self._pace is None and not self._run
            if is_plain and float(part.min()) >= 0.0 and float(part.max()) <= self.value:
                thresholds[at:end] = self.value
                self._learn_normal(part)
            else:
                for index in range(at, end):
                    thresholds[index], anomalies[index], *_ = self.judge(float(scores[index]), float(times[index]))
            at = end
        return thresholds, anomalies

    def _learn_normal(self, scores: NDArray[np.floating]) -> None:
        self._block.frombytes(scores.astype(np.float32).tobytes())
        if len(self._block) >= self._block_size:
            self._refresh()

    @property
    def _seed(self) -> float:
        return -math.log10(self._rate)

    def _end_run(self) -> None:
        self._run = array("f")  # its newest scores, the normal ones among them
        self._run_start = 0.0  # event time of its first
        self._run_length, self._run_anomalous = 0, 0
        self._run_normal = 0  # since its last anomalous one

    def _extend_run(self, score: float, time: float, is_anomaly: bool) -> None:
        if not self._run:
            self._run_start = time
        self._run.append(min(score, MAX_SCORE))
        self._run_length += 1
        self._run_anomalous += is_anomaly
        self._run_normal = 0 if is_anomaly else self._run_normal + 1
        is_over = self._run_anomalous < self._settings.shift_share * self._run_length
        if is_over or self._run_normal >= _NORMAL_IN_A_ROW:
            self._end_run()
        elif len(self._run) >= 2 * self._settings.shift_after:  # one that waits for `shift_after_seconds`
            del self._run[: -self._settings.shift_after]

    def _is_lasting(self, time: float) -> bool:
        seconds = self._settings.shift_after_seconds
        # Without a time asked for, clocks that were put back don't matter either.
        has_lasted = not seconds or time - self._run_start >= seconds
        return has_lasted and self._run_length >= self._settings.shift_after

    def _relearn(self) -> None:
        self._block = self._run[-self._settings.shift_after :]
        self._end_run()
        self._forget()
        self._shifted = True
        self._in_force = Correction(max(self._block), 0, -math.inf)  # nothing of the run was left out
        self._refresh()

    def _refresh(self) -> None:
        """Takes the block into the sketch and sets the next threshold."""
        if self._young is None:
            self._young = tdigest_float(_SKETCH_K)
        scores = np.frombuffer(self._block, np.float32)
        self._young.update(scores)
        self._young.compress()  # else reading or writing the state would, and its bytes depend on when
        self._ceilings = self._ceilings_now()
        self._observations += len(self._block)
        self._dependence.update(scores)
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
        share = 1.0 if self.warm else self._observations / self._settings.min_observations
        goal = self._own_quantile() if self._observations else self._seed
        if goal < self._seed and not self._shifted:
            goal = self._seed + self._worth() * (goal - self._seed)
        # Linear in -log10 p: the geometric mean of what both sides take for the false-alarm rate.
        start = self._seed + self._lead
        self._value = min(max(start + share * (goal - start), _FLOOR * self._seed), MAX_SCORE)
        self._correct()

    def _worth(self) -> float:
        """The share of the scores it has, or of those it needs if fewer, that what it remembers is worth; up to 1."""
        remembered = min(self._observations, self._settings.horizon)
        needed = min(self._observations, self._settings.min_observations)
        return min(1.0, self._dependence.share * remembered / needed)

    def _correct(self) -> None:
        corrected = correct(self._value, self._marks, self._max_shift, _FLOOR * self._seed)
        self._in_force = corrected._replace(threshold=min(corrected.threshold, MAX_SCORE))

    def _ceilings_now(self) -> tuple[float, float]:
        """The ceilings, with the threshold under which the block, if there is one, is being learned."""
        young, old = self._ceilings
        return (min(young, self.value), old) if self._block else (young, old)

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
        edges = start + width * _CELL_EDGES
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
            self._dependence.to_bytes(),
        )
        head = _HEAD.pack(
            _VERSION,
            self._settings.target_rate,
            self._settings.alerts_per_day or 0.0,
            self._rate,
            self._value,
            *self._ceilings_now(),
            self._observations,
            self._block_size,
            self._capacity,
            self._shifted,
            self._model,
            self._lead,
            self._run_start,
            self._run_length,
            self._run_anomalous,
            self._run_normal,
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
        self._observations, self._block_size, self._capacity, self._shifted, self._model, self._lead = head[7:13]
        self._run_start, self._run_length, self._run_anomalous, self._run_normal = head[13:17]
        parts, at = [], _HEAD.size
        for length in head[17:]:
            parts.append(state[at : at + length])
            at += length
        if at != len(state):
            msg = f"it has {len(state)} bytes instead of {at}"
            raise ValueError(msg)
        block, run, young, old, pace, dependence = parts
        self._dependence = Dependence.from_bytes(dependence)
        self._block, self._run = array("f", block), array("f", run)
        self._young = tdigest_float.deserialize(young) if young else None
        self._old = tdigest_float.deserialize(old) if old else None
        if pace and self._pace is not None:
            self._pace = Pace.from_bytes(pace)
        self._correct()
        return target, alerts_per_day

    def _change_budget(self) -> None:
        self._ceilings = self._ceilings_now()
        self._set_value()

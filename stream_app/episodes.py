"""Anomalous records of one stream that belong together, and what of them is told.

An incident of a thousand anomalous records is one episode and a handful of alerts: it opens, is told again only as it
grows, and closes once the stream is quiet. What is told depends on the stream's records and on nothing else, so an
episode that is saved, read back and given the same records again tells the same again.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from stream_app.events import EpisodeState
from stream_app.settings import AlertSettings
from stream_app.threshold import Judgement

_SEVERITY_STEP = 25
LENGTH_FACTOR = 10  # an episode that is so many times as long as when it was last told is told again
_CALM_FACTOR = 10  # times as many records that are not anomalous end an episode as quiet ones
_MOST_DOUBLINGS = 6  # of the quiet records that a reopened episode takes to close

_STATE = struct.Struct("<B?BIIQQBddddQ16s")
_PENDING = struct.Struct("<Qddd")
_VERSION = 2
_NO_ID = bytes(16)


def severity(score: float, threshold: float) -> int:
    """0 up to the threshold; each step of 1 of the score above it (ten times rarer) halves the distance to 100."""
    return _severity_of(score - threshold)


def _severity_of(excess: float) -> int:
    return int(100.0 * (1.0 - 2.0 ** -max(excess, 0.0)))


class Transition(NamedTuple):
    """What a record does to its stream's episode, and what the episode has come to.

    `state` is None where nothing is to be told: the record belongs to the episode and doesn't change it. `since` is the
    event time of the episode's first anomalous record, in seconds; `anomalous` counts them, `worst_score` is their
    highest score.
    """

    episode_id: str
    state: EpisodeState | None
    since: float
    anomalous: int
    worst_score: float
    severity: int


class _Pending(NamedTuple):
    """An anomalous record that has opened nothing yet."""

    number: int
    time: float
    score: float
    excess: float


class Episode:
    """The episode of one stream, with its settings.

    - It opens with an anomalous record that is the `open_after`-th among the last `open_within`; its id is that of the
      event about this record.
    - While it is open, it is told again when its severity enters the next quarter, or when it has ten times as many
      anomalous records as when it was last told.
    - It closes after `close_after` quiet records in a row. Quiet is what scores below the threshold by a share
      `hysteresis` of it, so that scores around the threshold keep one episode open; or no higher than what somebody
      has called normal. Ten times as many records that are just not anomalous also close it: some streams never score
      that low.
    - An anomalous record within `cool_down` seconds of the close, by event time, or within `cool_down_records` records
      of it, reopens it. Each time, twice as many quiet records are then needed, up to 64 times: what comes and goes is
      told less and less often.
    - A lasting shift ends it: what was anomalous is the stream's normal from then on.
    """

    __slots__ = ("_anomalous", "_calm", "_closed", "_excess", "_id", "_number", "_open", "_pending", "_quiet",
                 "_reopened", "_settings", "_since", "_told", "_told_step", "_worst")  # fmt: skip

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings
        self._id = ""  # of the open episode, or of the last one
        self._open = False
        self._reopened = 0
        self._quiet = 0  # records in a row, up to now
        self._calm = 0  # records since the last anomalous one
        self._anomalous = 0
        self._told = 0  # anomalous records when it was last told
        self._told_step = 0  # of its severity then
        self._since = 0.0
        self._worst = 0.0
        self._excess = 0.0  # the most by which a score exceeded the threshold that it was held against
        self._closed = -math.inf  # event time; -inf where nothing may reopen it
        self._number = 0  # records since the close
        self._pending: list[_Pending] = []

    @property
    def severity(self) -> int:
        """0–100: of the worst score, and of the length: ten times as many records weigh as much as one ten times rarer.

        That is `severity` of the largest excess over the threshold plus log10 of the anomalous records.
        """
        return _severity_of(self._excess + math.log10(self._anomalous)) if self._anomalous else 0

    def advance(self, score: float, judgement: Judgement, time: float, event_id: str) -> Transition | None:
        """Takes in the stream's next record: its score, what was made of it, and its event time in seconds.

        None for a record outside of episodes.
        """
        if judgement.is_anomaly:
            return self._take_anomalous(score, judgement, time, event_id)
        if self._open:
            return self._take_normal(score, judgement, time)
        self._number += 1
        return None

    def _take_anomalous(self, score: float, judgement: Judgement, time: float, event_id: str) -> Transition | None:
        excess = score - judgement.threshold
        if self._open:
            state = self._grow(score, excess)
        elif self._is_cooling_down(time):
            self._reopened = min(self._reopened + 1, _MOST_DOUBLINGS)
            self._begin()
            self._grow(score, excess)
            state = EpisodeState.UPDATE
        else:
            self._number += 1
            oldest = self._number - self._settings.open_within
            self._pending = [each for each in self._pending if each.number > oldest]
            self._pending.append(_Pending(self._number, time, score, excess))
            if len(self._pending) < self._settings.open_after and not judgement.shifted:
                return None
            self._begin_anew(event_id)
            state = EpisodeState.OPEN
        if judgement.shifted:
            self._end(closed=-math.inf)
            state = EpisodeState.SHIFT
        return self._tell(state)

    def _take_normal(self, score: float, judgement: Judgement, time: float) -> Transition:
        settings = self._settings
        self._calm += 1
        quiet_up_to = max(judgement.threshold * (1.0 - settings.hysteresis), judgement.normal_up_to)
        self._quiet = self._quiet + 1 if score <= quiet_up_to else 0
        enough = settings.close_after << self._reopened
        if self._quiet < enough and self._calm < _CALM_FACTOR * enough:
            return self._tell(None)
        self._end(closed=time)
        return self._tell(EpisodeState.CLOSE)

    def _is_cooling_down(self, time: float) -> bool:
        if self._closed == -math.inf:
            return False
        settings = self._settings
        return abs(time - self._closed) < settings.cool_down or self._number < settings.cool_down_records

    def _begin(self) -> None:
        self._open = True
        self._quiet = self._calm = 0

    def _begin_anew(self, event_id: str) -> None:
        self._id, self._since = event_id, self._pending[0].time
        self._reopened = self._anomalous = 0
        self._worst = self._excess = 0.0
        for each in self._pending:
            self._grow(each.score, each.excess)
        self._begin()

    def _grow(self, score: float, excess: float) -> EpisodeState | None:
        """Takes in an anomalous record; whether the episode has thereby grown so much that it is told again."""
        self._quiet = self._calm = 0
        self._anomalous += 1
        self._worst = max(self._worst, score)
        self._excess = max(self._excess, excess)
        grown = self._anomalous >= LENGTH_FACTOR * self._told or self.severity // _SEVERITY_STEP > self._told_step
        return EpisodeState.UPDATE if grown else None

    def _end(self, closed: float) -> None:
        self._open, self._closed = False, closed
        self._number, self._pending = 0, []

    def _tell(self, state: EpisodeState | None) -> Transition:
        reached = self.severity
        if state is not None:
            self._told, self._told_step = self._anomalous, reached // _SEVERITY_STEP
        return Transition(self._id, state, self._since, self._anomalous, self._worst, reached)

    def to_bytes(self) -> bytes:
        """The state: 84 bytes, and 32 more for each anomalous record that has opened nothing yet."""
        head = _STATE.pack(
            _VERSION,
            self._open,
            self._reopened,
            self._quiet,
            self._calm,
            self._anomalous,
            self._told,
            self._told_step,
            self._since,
            self._worst,
            self._excess,
            self._closed,
            self._number,
            bytes.fromhex(self._id) or _NO_ID,
        )
        return head + b"".join(_PENDING.pack(*each) for each in self._pending)

    @classmethod
    def from_bytes(cls, data: bytes, settings: AlertSettings) -> Episode:
        """Continues where `to_bytes` stopped. Raises ValueError for anything else."""
        if data[:1] != bytes([_VERSION]):
            msg = f"not a stream's episode: it has version {data[:1].hex() or 'none'}, this release reads {_VERSION}"
            raise ValueError(msg)
        try:
            _, *numbers, identity = _STATE.unpack_from(data)
            pending = [_Pending(*each) for each in _PENDING.iter_unpack(data[_STATE.size :])]
        except struct.error as error:
            msg = f"not a stream's episode: {error}"
            raise ValueError(msg) from error
        episode = cls(settings)
        episode._open, episode._reopened, episode._quiet, episode._calm = numbers[:4]
        episode._anomalous, episode._told, episode._told_step = numbers[4:7]
        episode._since, episode._worst, episode._excess, episode._closed, episode._number = numbers[7:]
        episode._id = "" if identity == _NO_ID else identity.hex()
        episode._pending = pending
        return episode

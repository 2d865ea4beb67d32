"""Sections: what becomes of a record – batches, limits, thresholds, alerts, windows."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from stream_app.settings.fields import AlertsPerDay, Bytes, Count, PositiveSeconds, Seconds, Section, TargetRate


class BatchSettings(Section):
    """Micro-batching."""

    max_batch: Annotated[int, Field(ge=1, le=4096)] = Field(256, description="records scored at once, and per chunk")
    linger: Seconds = Field(0.0, description="wait so long for a fuller batch; 0 scores whatever is there")
    max_in_hand_bytes: Bytes = Field(
        64 << 20, description="partitions are paused while records, and what is made of them, take more than this"
    )


class LimitSettings(Section):
    """What a record may be. Checked before memory is taken for it."""

    max_record_bytes: Bytes = Field(8 << 20, description="of the value")
    max_header_bytes: Bytes = Field(16 << 10, description="of all headers of a record together")
    max_key_bytes: Bytes = 1024
    max_pixels: Count = Field(1 << 24, description="height × width of a picture")
    max_length: Count = Field(4096, description="steps of a window")
    max_abs: Annotated[float, Field(gt=0)] = Field(1e12, description="largest magnitude of a sequence's value")


class StreamBudget(Section):
    """The false-alarm budget of the streams of a pattern: one of the two."""

    target_rate: TargetRate | None = None
    alerts_per_day: AlertsPerDay | None = None

    @model_validator(mode="after")
    def _is_one(self) -> StreamBudget:
        if (self.target_rate is None) == (self.alerts_per_day is None):
            raise ValueError("a pattern needs one of target_rate and alerts_per_day, not both")
        return self


class ThresholdSettings(Section):
    """The false-alarm budget and how a stream's own threshold is learned."""

    target_rate: TargetRate = Field(1e-3, description="share of normal records that may alert")
    alerts_per_day: AlertsPerDay | None = Field(
        None, description="instead of target_rate: false alarms a day and stream, at the stream's own pace"
    )
    min_observations: Count = Field(500, description="scores before a stream's own threshold counts in full")
    horizon: Count = Field(20_000, description="scores after which old ones have been forgotten")
    shift_after: Count = Field(500, description="records that a run of anomalous ones has when it is a lasting shift")
    shift_after_seconds: Seconds = Field(
        4 * 3600.0, description="how long, by the records' times, it must have lasted as well; 0 asks for no time"
    )
    shift_share: Annotated[float, Field(gt=0.5, le=1)] = Field(
        0.6, description="share of a run's records that must be anomalous; with fewer, the run is over"
    )
    streams: dict[str, StreamBudget] = Field(
        {},
        description="budgets by pattern of the stream's name (*, ?, [abc]; case counts); the first that fits holds",
        examples=[{"pump-*": {"target_rate": 0.01}, "door-*": {"alerts_per_day": 2}}],
    )
    _of_patterns: tuple[tuple[str, ThresholdSettings], ...] = PrivateAttr(())

    def model_post_init(self, _: object) -> None:
        """Makes the settings of each pattern, once: streams are many, patterns are few."""
        self._of_patterns = tuple((pattern, self._with(budget)) for pattern, budget in self.streams.items())

    def of(self, stream: str) -> ThresholdSettings:
        """The settings that hold for a stream: with the budget of the first pattern that fits its name."""
        return next((settings for pattern, settings in self._of_patterns if fnmatchcase(stream, pattern)), self)

    def _with(self, budget: StreamBudget) -> ThresholdSettings:
        rate = self.target_rate if budget.target_rate is None else budget.target_rate
        return self.model_copy(update={"target_rate": rate, "alerts_per_day": budget.alerts_per_day, "streams": {}})


class LabelSettings(Section):
    """What people's labels do to the threshold of their stream."""

    max_shift: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.5,
        description="most that labels move a threshold, as scores count: 1 is ten times rarer; 0 turns it off",
    )
    horizon: PositiveSeconds = Field(30 * 86400.0, description="a label that is older does nothing to the threshold")
    per_stream: Count = Field(100, description="labels of one stream that count, the newest")
    start_timeout: Seconds = Field(5.0, description="a starting worker waits at most so long for the labels there are")


class AlertSettings(Section):
    """What is published on the alerts topic, and what makes an episode of anomalous records."""

    publish: Literal["anomalies", "all"] = Field(
        "anomalies", description="anomalies: episodes open, grow and close; all: every scored record"
    )
    evidence: bool = Field(True, description="heat maps and contributions in alerts")
    open_after: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="anomalous records among the last open_within that open an episode"
    )
    open_within: Annotated[int, Field(ge=1, le=4096)] = Field(1, description="records; see open_after")
    hysteresis: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of the threshold by which a score must be below it to count as quiet in an episode"
    )
    close_after: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        20, description="quiet records in a row that end an episode"
    )
    cool_down: Seconds = Field(
        60.0,
        description="an anomalous record so soon after an episode, by the records' own times, reopens it; 0 never does",
    )
    cool_down_records: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        20, description="the same in records of the stream: what is sent once in five minutes has no second one in 60 s"
    )

    @model_validator(mode="after")
    def _enough_records_to_open(self) -> AlertSettings:
        if self.open_within < self.open_after:
            raise ValueError(f"open_within={self.open_within} records can't hold open_after={self.open_after} of them")
        return self


class ScoreSettings(Section):
    """The topic of every scored event."""

    publish: bool = False


class DeadLetterSettings(Section):
    """The fuse: past these limits it is the worker or the topic that is wrong, not the records."""

    max_share: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="of the last `window` records")
    window: Count = 1000
    max_run: Count = Field(200, description="dead letters in a row in one partition")


class SequenceSettings(Section):
    """What a sequence may lack, and windows made of single observations."""

    allow_nan: bool = Field(
        False, description="NaN in the bytes of a record is a missing value, as JSON's null always is, and no error"
    )
    max_missing: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="largest share of a record's values that may be missing"
    )
    stride: Count = Field(1, description="a score every so many observations")
    lateness: Seconds = Field(60.0, description="an observation that is older than the newest by more is too late")
    disorder: Annotated[int, Field(ge=0, le=65_536)] = Field(
        64, description="an observation of which the stream has more newer ones is too late; each costs memory"
    )
    max_ahead: PositiveSeconds = Field(
        86_400.0, description="an observation that claims to be so much newer than when it was published is refused"
    )
    max_gap: PositiveSeconds | None = Field(None, description="after a gap of more seconds the window begins anew")
    reset_after: Count = Field(20, description="late observations in a row after which a clock was put back")
    max_streams: Count = Field(100_000, description="streams that a worker keeps in memory")
    max_bytes: Bytes = Field(1 << 30, description="of memory for the windows of all streams")
    forget_after: PositiveSeconds = Field(3600.0, description="a stream that is silent for so long leaves the memory")
    rebuild_records: Annotated[int, Field(ge=0)] = Field(
        50_000,
        description="records of a partition that are read again at most when Redis lacks its windows, or their last",
    )


def target_rate(settings: ThresholdSettings, records_per_second: float | None) -> float:
    """The share of normal records that may alert, in (0, 0.5).

    With `alerts_per_day` it follows from the stream's own pace; until that is known, `target_rate` holds.
    """
    if settings.alerts_per_day is None or not records_per_second or not math.isfinite(records_per_second):
        return settings.target_rate
    return min(max(settings.alerts_per_day / (records_per_second * 86400.0), 1e-9), 0.49)

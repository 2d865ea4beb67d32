"""Sections: how weights refresh themselves – what is trained on, what a new version must show, and when."""

from __future__ import annotations

from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from stream_app.settings.fields import Bytes, Count, PositiveSeconds, Seconds, Section


class TrainerSettings(Section):
    """When a detector is trained anew (`ganomaly-stream schedule`), and what happens when that fails."""

    cron: str | None = Field(None, description="minute hour day month weekday; without it nothing fires by the clock")
    timezone: str = Field("UTC", description="in which cron is meant, like Europe/Berlin")
    after_records: Count | None = Field(
        None,
        description="a run after so many records of the detector's topics that came since the last; off by default",
    )
    on_drift: bool = Field(False, description="a run when the stream's drift is past its limit")
    drift_records: Annotated[int, Field(ge=0)] = Field(
        1000,
        description="records of the detector's topics that must come after drift was first seen, for a new version to "
        "learn the change from",
    )
    make_up_within: PositiveSeconds = Field(
        86_400.0, description="a firing of cron that was missed is made up once, if it is not longer ago"
    )
    min_pause: Seconds = Field(600.0, description="between two runs of a detector, whatever fires; not by hand")
    retry_after: PositiveSeconds = Field(300.0, description="pause after a failed run; it doubles with each in a row")
    max_retry_after: PositiveSeconds = Field(86_400.0, description="longest pause after failed or refused runs")
    retry_after_refusal: PositiveSeconds = Field(
        3600.0, description="pause of drift after a version was refused; it doubles with each in a row"
    )
    seconds: PositiveSeconds = Field(300.0, description="of gradient steps in a run; all of it takes longer")
    lease_ttl: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        60.0, description="a trainer that is silent for so long is replaced, and must have stopped before"
    )
    poll_interval: PositiveSeconds = Field(5.0, description="how often records, drift and requests are looked at")
    torch_threads: Annotated[int, Field(ge=0)] = Field(
        1, description="of the process that trains; 0 leaves it to torch. With one, a worker on the machine goes on"
    )
    nice: Annotated[int, Field(ge=0, le=19)] = Field(10, description="niceness of the process that trains")
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(0, description="of the trainer's metrics; 0: none")

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("there is no such time zone; names are like UTC or Europe/Berlin") from None
        return value


class DriftSettings(Section):
    """How far records and scores may be from what they were at training, and what of that asks for a new version."""

    enabled: bool = True
    window: Annotated[int, Field(ge=20, le=20_000)] = Field(
        1000, description="the last records of a stream that count, about"
    )
    min_records: Annotated[int, Field(ge=20)] = Field(200, description="of a stream, before it can be called drifting")
    psi: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        0.25, description="population stability index beyond which a stream drifts"
    )
    ks: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Kolmogorov-Smirnov distance beyond which a stream drifts"
    )
    significance: Annotated[float, Field(gt=0, le=0.1)] = Field(
        1e-4, description="both must also be beyond what this share of streams reaches though nothing has changed"
    )
    cpu: Annotated[float, Field(gt=0, le=1)] = Field(
        0.02, description="share of a core that counting may take; beyond it chunks of records are passed over"
    )
    interval: PositiveSeconds = Field(5.0, description="how often it is worked out and told")
    keep: PositiveSeconds = Field(600.0, description="what a worker told counts for so long")
    trigger_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2, description="drifting streams, of those with enough records, that ask for a new version"
    )

    @model_validator(mode="after")
    def _window_holds_enough(self) -> DriftSettings:
        if self.min_records > self.window // 2:
            raise ValueError(
                f"min_records={self.min_records} must be at most half of window={self.window}, of which half may be "
                "forgotten at once"
            )
        return self


class SnapshotSettings(Section):
    """What of a topic a detector is trained on."""

    records: Annotated[int, Field(ge=100)] = Field(20_000, description="most records or windows that are kept")
    bytes: Bytes = Field(512 << 20, description="of memory for what is kept")
    records_back: Count = Field(100_000, description="newest records of the topic that are looked at")
    seconds_back: PositiveSeconds | None = Field(None, description="only records published since; all by default")
    min_records: Annotated[int, Field(ge=50)] = Field(
        500, description="normal records or windows below which nothing is trained"
    )
    leave_out: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.05,
        description="share of the records that score highest which is not learned from, besides what the stream has "
        "more of them than its detector's calibration explains",
    )
    older_labels: Annotated[int, Field(ge=0)] = Field(
        1000, description="newest labelled records that are older than those looked at, and are fetched all the same"
    )
    older_lead: Count = Field(
        1000, description="records of the partition that are read before such a single observation, for its window"
    )
    fresh: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.2, description="share of each stream's records, its newest, that is not learned from but judges what was"
    )

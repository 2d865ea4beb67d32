"""Sections: what a challenger must show before it takes the champion's place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stream_app.settings.fields import Count, PositiveSeconds, Section

Share = Annotated[float, Field(gt=0, le=1)]
Factor = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Correlation = Annotated[float, Field(ge=-1, le=1)]


class GateSettings(Section):
    """Limits of the rules that a new version is held to before it is saved, on records it did not learn from."""

    fresh_records: Count = Field(2000, description="most fresh normal records that are scored")
    min_fresh: Annotated[int, Field(ge=20)] = Field(50, description="with fewer fresh normal records it is refused")
    synthetic_records: Annotated[int, Field(ge=20)] = Field(400, description="anomalies made of fresh normal records")
    min_labelled: Annotated[int, Field(ge=2)] = Field(
        10, description="labelled records of each class; with fewer that rule is not judged"
    )
    labelled_margin: Share = Field(0.05, description="by which the AUROC on labels may be below the champion's")
    synthetic_margin: Share = Field(
        0.03, description="by which the AUROC on synthetic anomalies may be below the champion's"
    )
    false_alarm_factor: Factor = Field(3.0, description="false alarms on fresh normals, times threshold.target_rate")
    calibration_distance: Share = Field(
        0.15, description="Kolmogorov-Smirnov distance of fresh normals' scores from the law, beyond chance"
    )
    significance: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.01, description="how often chance alone may fail a sound version by false alarms, or by calibration"
    )
    latency_factor: Factor = Field(2.0, description="seconds per record, times the champion's")
    latency_rounds: Annotated[int, Field(ge=1, le=100)] = Field(5, description="of timing, the two in turns")
    agreement: Correlation = Field(0.2, description="least rank correlation with the champion's scores")


class ShadowSettings(Section):
    """A challenger scores live records beside the champion: how much of it, and what it must show."""

    share: Share = Field(
        0.25,
        description="of the batches, each only while nothing waits to be scored; all of them while that takes next to "
        "none of max_cost",
    )
    max_cost: Share = Field(0.1, description="seconds of the challenger per second of wall clock, in each worker")
    min_rows: Annotated[int, Field(ge=0)] = Field(
        1000, description="records scored by both before anything is decided; 0: no shadow"
    )
    timeout: PositiveSeconds = Field(3600.0, description="a challenger that has not passed by then is refused")
    alert_factor: Factor = Field(
        2.0, description="share of records past the threshold, times the champion's or threshold.target_rate"
    )
    agreement: Correlation = Field(0.2, description="least rank correlation with the champion's scores")
    cost_factor: Factor = Field(2.0, description="seconds per record, times the champion's")
    approve: Literal["auto", "manual"] = Field(
        "auto", description="what has passed is promoted; manual: it waits for `models promote`"
    )
    report_interval: PositiveSeconds = Field(2.0, description="how often a worker writes its comparison to Redis")
    poll_interval: PositiveSeconds = Field(2.0, description="how often the trainer reads them")
    keep: PositiveSeconds = Field(7 * 86_400.0, description="how long a comparison stays in Redis")

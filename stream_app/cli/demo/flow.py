"""The demo's sequence: two months of hourly flow in a water main, with its four real incidents.

river's `WaterFlow`, given by Tecnojest s.r.l., March to May 2022, litres a second. Its documentation says what the
incidents are: three moments of low flow (water losses, or maintenance), and a small peak after the first two of them (a
pumping operation). It gives no hours; those below are read off the series: where the flow leaves, and comes back to,
its range of the days around. Local time, the end exclusive.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.cli.demo.scene import NORMAL, Due, Planned
from stream_app.decode import RAW
from stream_app.headers import seconds_of
from stream_app.messages import encode_row

WINDOW = 8  # hours; four to twelve find the same incidents, eight with the fewest false ones


class Incident(NamedTuple):
    """What happened, from when to when."""

    name: str
    start: datetime
    end: datetime


INCIDENTS = (
    Incident("low flow, 24 March", datetime(2022, 3, 24, 8), datetime(2022, 3, 25, 2)),  # noqa: DTZ001
    Incident("low flow, 29 March", datetime(2022, 3, 29, 7), datetime(2022, 3, 29, 22)),  # noqa: DTZ001
    Incident("peak, 3 April", datetime(2022, 4, 3, 5), datetime(2022, 4, 3, 7)),  # noqa: DTZ001
    Incident("low flow, 27 April", datetime(2022, 4, 27, 15), datetime(2022, 4, 28, 7)),  # noqa: DTZ001
)
# Learned from: the longest stretch between two incidents that is whole. Everything else is streamed.
TRAINING = (datetime(2022, 4, 4), datetime(2022, 4, 24))  # noqa: DTZ001


class Series(NamedTuple):
    """`times` as in the data, with their offsets from UTC; `values` `[rows, 1]`."""

    times: list[datetime]
    values: NDArray[np.float64]


def load_flow() -> Series:
    """The whole series, hour by hour; some hours are missing."""
    from river.datasets import WaterFlow

    rows = list(WaterFlow())
    return Series([row["Time"] for row, _ in rows], np.array([[value] for _, value in rows]))


def split_flow(series: Series) -> tuple[Series, Series, Series]:
    """What is learned from, what came before it, and what came after."""
    local = [time.replace(tzinfo=None) for time in series.times]
    first, last = (sum(time < bound for time in local) for bound in TRAINING)
    return _part(series, first, last), _part(series, 0, first), _part(series, last, len(local))


def _part(series: Series, first: int, last: int) -> Series:
    return Series(series.times[first:last], series.values[first:last])


def plan_flow(topic: str, stream: str, series: Series) -> list[Planned]:
    """One record an hour. A window is strange as long as one of its hours is: its record's truth is that incident."""
    planned = []
    for number, (time, value) in enumerate(zip(series.times, series.values, strict=True)):
        window = series.times[max(0, number - WINDOW + 1) : number + 1]
        truth = next((i.name for i in INCIDENTS if any(_during(i, hour) for hour in window)), NORMAL)
        value_bytes, headers = encode_row(value.astype(np.float32), RAW, seconds_of(time))
        due = Due.SCORE if number >= WINDOW - 1 else Due.NOTHING
        planned.append(Planned(topic, stream, f"{stream}-{number}", value_bytes, headers, truth, due))
    return planned


def _during(incident: Incident, time: datetime) -> bool:
    return incident.start <= time.replace(tzinfo=None) < incident.end

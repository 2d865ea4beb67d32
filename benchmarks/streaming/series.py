"""Real series as files that the product's own commands read."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detection.protocols import NAB_FOLDER, find
from detection.protocols import cases as cases_of
from stream_app.errors import UsageError
from stream_app.files import TIMESTAMP

PROTOCOLS = {"skab": "SKAB", "nab": "NAB"}
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Series:
    """`rows` `[N, F]` at `times` `[N]`, seconds since the Unix epoch; the first `history` are learned from.

    `y` `[N]` is 1 where the benchmark labels an anomaly.
    """

    protocol: str  # skab or nab
    case: str
    rows: Floats
    times: NDArray[np.float64]
    y: NDArray[np.int64]
    history: int

    @property
    def name(self) -> str:
        """Of its detector, its topic and its stream."""
        return f"{self.protocol}-{self.case}"


def names(data: Path, only: str | None = None) -> list[str]:
    """All series as `skab/3`, `nab/nyc_taxi`, or those that `only` names. Raises UsageError for others."""
    known = [f"{short}/{case.name}" for short, name in PROTOCOLS.items() for case in cases_of(name, data)]
    if only is None:
        return known
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(f"there is no series {', '.join(unknown)}; there are {', '.join(known)}")
    return wanted


def load(name: str, data: Path) -> Series:
    """A series by its name."""
    protocol, _, case = name.partition("/")
    material = find(PROTOCOLS[protocol], case, data).load(data)
    folder, separator = ("skab/valve1", ";") if protocol == "skab" else (f"nab/data/{NAB_FOLDER}", ",")
    times = _times(data / folder / f"{case}.csv", separator)
    return Series(protocol, case, material.test, times, material.y, material.history)


def write(series: Series, file: Path) -> None:
    """As a .csv file with a column `timestamp`; every number in as many digits as bring it back."""
    with file.open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow([TIMESTAMP, *(f"feature_{number}" for number in range(series.rows.shape[1]))])
        for time, row in zip(series.times.tolist(), series.rows, strict=True):
            writer.writerow([time, *(np.format_float_positional(value) for value in row)])


def _times(file: Path, separator: str) -> NDArray[np.float64]:
    """Of the lines below the header: the first column, in UTC."""
    lines = file.read_text().splitlines()[1:]
    stamps = [line.split(separator, 1)[0].replace(" ", "T") for line in lines if line]
    return np.array(stamps, "datetime64[ms]").astype(np.int64) / 1000.0

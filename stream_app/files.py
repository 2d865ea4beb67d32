"""Files of records: what is in a `.npz` and in a `.csv`, read in one way by whoever publishes, scores or learns.

`.npz`: `x`, the rows, and optional `y`, their labels. `.csv`: a header, one numeric column a feature, and optional
columns `timestamp` (RFC 3339, or seconds since the Unix epoch) and `label`; separated by comma, semicolon or tab. An
empty cell of a feature is a missing value.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_app.decode import parse_time
from stream_app.errors import DecodeError, UsageError

MAX_VALUES = 1 << 31  # numbers in one file, counted before they are in memory
TIMESTAMP, LABEL = "timestamp", "label"
_QUOTED = re.compile(r'"[^"]*"')


class Arrays(NamedTuple):
    """A file's rows `x` `[N, …]`, their labels `y` and their times `[N]`, where it has any.

    `features` are the names of a table's columns, where each has one of its own.
    """

    x: NDArray[Any]
    y: NDArray[Any] | None = None
    timestamps: NDArray[np.float64] | None = None  # seconds since the Unix epoch
    features: tuple[str, ...] | None = None


class Line(NamedTuple):
    """One line of a `.csv`: an observation, and its time and label where there are such columns."""

    values: list[float]  # NaN where the cell is empty
    time: float | None  # seconds since the Unix epoch
    label: float | None


def read_npz(file: Path) -> Arrays:
    """The arrays `x` and `y`, without their other neighbours.

    Raises UsageError for a file without `x`, for Python objects, for more than 2³¹ numbers, and for what is no archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = {Path(name).stem for name in archive.namelist()}
            for name in names & {"x", "y"}:
                _check_member(archive, file, name)
        if "x" not in names:
            raise UsageError(f"{file}: there is no array x in it, only {', '.join(sorted(names)) or 'nothing'}")
        with np.load(file, allow_pickle=False) as arrays:
            return Arrays(arrays["x"], arrays["y"] if "y" in names else None)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise UsageError(f"{file}: not a readable .npz file: {error}") from error


def read_kinds(file: Path, rows: int) -> NDArray[np.str_] | None:
    """The array `kind` of a .npz file: what each of its `rows` is called, as text. None where the file has none.

    Raises UsageError where it is anything else than a text for each row.
    """
    if file.suffix != ".npz":
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            kinds = arrays.get("kind")
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise UsageError(f"{file}: kind can't be read: {error}") from error
    if kinds is None:
        return None
    if kinds.dtype.kind != "U" or kinds.shape != (rows,):
        raise UsageError(f"{file}: kind is a text for each of {rows} rows, not {list(kinds.shape)} of {kinds.dtype}")
    return np.asarray(kinds)


def _check_member(archive: zipfile.ZipFile, file: Path, name: str) -> None:
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    if dtype.hasobject:
        raise UsageError(f"{file}: {name} holds Python objects; only numbers are read")
    if (count := math.prod(shape)) > MAX_VALUES:
        raise UsageError(f"{file}: {name} has {count} numbers; at most {MAX_VALUES} are read")


def read_csv(file: Path) -> Arrays:
    """All lines: `x` is `[rows, F]` float64. Raises UsageError as `csv_lines` does, and for a file without rows."""
    rows: list[list[float]] = []
    times: list[float] = []
    labels: list[float] = []
    for line in csv_lines(file):
        if len(rows) * len(line.values) >= MAX_VALUES:
            raise UsageError(f"{file}: more than {MAX_VALUES} numbers")
        rows.append(line.values)
        if line.time is not None:
            times.append(line.time)
        if line.label is not None:
            labels.append(line.label)
    if not rows:
        raise UsageError(f"{file}: no rows below the header")
    return Arrays(
        np.array(rows),
        np.array(labels) if labels else None,
        np.array(times) if times else None,
        _feature_names(file),
    )


def csv_lines(file: Path) -> Iterator[Line]:
    """The lines below the header, one by one; empty ones are left out.

    Raises UsageError for a header without features, and when it comes to a line that can't be read, naming its number
    and column.
    """
    with _open_text(file) as text:
        header, rows = _split(text)
        places = {name.strip().lower(): place for place, name in enumerate(header)}
        features = _feature_places(header)
        if not features:
            raise UsageError(f"{file}: the header names no feature column: {','.join(header)[:80]!r}")
        for row in rows:
            if not row:
                continue
            where = f"{file}: line {rows.line_num}"
            if len(row) != len(header):
                raise UsageError(f"{where}: {len(row)} columns, but the header has {len(header)}")
            yield Line(
                [_value(row[place], where, header[place]) for place in features],
                _time(row[places[TIMESTAMP]], where) if TIMESTAMP in places else None,
                _number(row[places[LABEL]], where, LABEL) if LABEL in places else None,
            )


def _feature_places(header: Sequence[str]) -> list[int]:
    return [place for place, name in enumerate(header) if name.strip().lower() not in (TIMESTAMP, LABEL)]


def csv_features(file: Path) -> list[str]:
    """The names in the header of the columns that are features. Raises UsageError for a file that can't be read."""
    with _open_text(file) as text:
        header, _ = _split(text)
    return [header[place].strip() for place in _feature_places(header)]


def has_times(file: Path) -> bool:
    """Whether a `.csv` has a column `timestamp`. Raises UsageError for a file that can't be read."""
    with _open_text(file) as text:
        header, _ = _split(text)
    return any(name.strip().lower() == TIMESTAMP for name in header)


def _feature_names(file: Path) -> tuple[str, ...] | None:
    names = tuple(csv_features(file))
    return names if all(names) and len(set(names)) == len(names) else None


def count_csv_lines(file: Path) -> int:
    """How many lines `csv_lines` gives, without reading what is in them."""
    with _open_text(file) as text:
        return sum(1 for row in _split(text)[1] if row)


@contextmanager
def _open_text(file: Path) -> Iterator[io.TextIOWrapper]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            yield text
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file}: not a readable .csv file: {error}") from error


def _split(text: io.TextIOWrapper) -> tuple[Sequence[str], Any]:
    """The header, and the reader (csv's own, whose type has no name) that stands below it."""
    unquoted = _QUOTED.sub("", text.readline())
    text.seek(0)
    reader = csv.reader(text, delimiter=max(",;\t", key=unquoted.count))
    return next(reader, []), reader


def _value(text: str, where: str, column: str) -> float:
    return _number(text, where, column) if text.strip() else math.nan


def _number(text: str, where: str, column: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{where}, column {column.strip()}: {text[:40]!r} is not a number") from None


def _time(text: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return _moment(text, where)
    if not math.isfinite(seconds):
        raise UsageError(f"{where}, timestamp: {text[:40]!r} is no moment")
    try:
        datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{where}, timestamp: {text[:40]!r} seconds are beyond the year 9999") from None
    return seconds


def _moment(text: str, where: str) -> float:
    try:
        return parse_time("timestamp", text.strip()[:40])
    except DecodeError as error:
        raise UsageError(f"{where}, {error}, nor seconds since 1970") from None

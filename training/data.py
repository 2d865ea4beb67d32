"""Offline files: records to train on and to evaluate with.

`.npz` with `x` (`[N,H,W]` or `[N,H,W,C]` uint8, or float in 0…1; `[N,T,F]` float windows; `[rows,F]` a series) and an
optional `y` (0 normal, 1 anomaly). `.csv` with a header, one numeric column a feature, and optional columns `timestamp`
and `label`; columns are separated by comma, semicolon or tab. NaN and empty cells of sequences are missing values. A
series is cut into windows that overlap by all but one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import CHANNEL_LIMITS, FEATURE_LIMITS, LENGTH_LIMITS, SIDE_LIMITS, Kind
from model.manifest import TrainingData
from stream_app.errors import UsageError
from stream_app.files import read_csv, read_npz

DEFAULT_WINDOW = 64
LONG_WINDOW, LONG_SERIES = 96, 6  # steps; and how many such windows a series must hold
SHORTEST_DEFAULT = 8
MAX_ABS = 1e12


@dataclass(frozen=True, slots=True)
class Dataset:
    """Records of one file.

    `x`: pictures `[N, H, W, C]` (uint8, or float32 in 0…255) or windows `[N, T, F]` float32. `y`: `[N]` 0 or 1, None
    without labels; a window of a series has the label of its newest observation. `clean`: `[N]`, true where nothing in
    the record is labelled anomalous: what may be learned from. For a series, `series` is the `[rows, F]` table the
    windows were cut from (window i ends at row i + T − 1). `timestamps`: `[rows]` seconds since the Unix epoch.
    `features`: the F names of its columns, None where there are none, or none that tell columns apart.

    `spans`: `[N, 2]` int64, the first and the last place of what a record is made of, on one axis for all of them: two
    records share observations only where their spans meet. Windows of several streams lie far apart on it. Records are
    in the order of time, whatever their places. None where no record shares anything with another. `origin`: what the
    manifest is to say of where they came from, where that is no file.
    """

    kind: Kind
    x: NDArray[Any]
    y: NDArray[np.int64] | None
    clean: NDArray[np.bool_]
    timestamps: NDArray[np.float64] | None
    source: str
    sha256: str
    series: NDArray[np.float32] | None = None
    features: tuple[str, ...] | None = None
    spans: NDArray[np.int64] | None = None
    origin: TrainingData | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one record."""
        return tuple(self.x.shape[1:])

    @property
    def rows(self) -> int:
        """Rows of the file: observations of a series, records otherwise."""
        return len(self.x) if self.series is None else len(self.series)


def load(path: str | Path, kind: str, window: int | None = None) -> Dataset:
    """Reads a file. `window` is the length to cut a series into (`default_window` unless told).

    Raises UsageError, naming the field, the limit and the value, for whatever can't be used.
    """
    file = Path(path)
    kind = _kind(kind)
    if not file.is_file():
        raise UsageError(f"{file}: there is no such file")
    if file.suffix == ".npz":
        arrays = read_npz(file)
    elif file.suffix == ".csv" and kind is Kind.SEQUENCE:
        arrays = read_csv(file)
    else:
        wanted = ".npz" if kind is Kind.IMAGE else ".npz or .csv"
        raise UsageError(f"{file}: a file of {kind} records ends in {wanted}")
    return from_arrays(
        arrays.x,
        kind,
        y=arrays.y,
        timestamps=arrays.timestamps,
        window=window,
        features=arrays.features,
        source=str(file),
        sha256=_digest_of_file(file),
    )


def from_arrays(
    x: NDArray[Any],
    kind: str,
    *,
    y: NDArray[Any] | None = None,
    timestamps: NDArray[np.float64] | None = None,
    window: int | None = None,
    features: tuple[str, ...] | None = None,
    source: str = "memory",
    sha256: str | None = None,
) -> Dataset:
    """A dataset from arrays as files hold them, and the names of its columns. Raises UsageError as `load` does."""
    labels = None if y is None else _check_labels(y, len(x), source)
    digest = hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest() if sha256 is None else sha256
    if _kind(kind) is Kind.IMAGE:
        pictures = _check_pictures(x, source)
        clean = np.ones(len(x), dtype=bool) if labels is None else labels == 0
        return Dataset(Kind.IMAGE, pictures, labels, clean, None, source, digest)
    values = _check_values(x, source)
    if values.ndim == 3:
        _within(f"{source}: x.shape[1] (steps)", values.shape[1], LENGTH_LIMITS)
        if window not in (None, values.shape[1]):
            raise UsageError(f"{source}: x holds windows of {values.shape[1]} steps; they can't be cut to {window}")
        clean = np.ones(len(x), dtype=bool) if labels is None else labels == 0
        return Dataset(Kind.SEQUENCE, values, labels, clean, timestamps, source, digest, features=features)
    return _cut(values, labels, timestamps, window or default_window(len(values)), features, source, digest)


def default_window(rows: int) -> int:
    """96 where a series holds six of them that share nothing; else 64, or a quarter of a series too short for that."""
    if rows >= LONG_SERIES * LONG_WINDOW:
        return LONG_WINDOW
    return min(DEFAULT_WINDOW, max(SHORTEST_DEFAULT, rows // 4))


def _kind(name: str) -> Kind:
    try:
        return Kind(name)
    except ValueError:
        raise UsageError(f"kind must be {' or '.join(Kind)}, not {name!r}") from None


def _cut(
    series: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    timestamps: NDArray[np.float64] | None,
    window: int,
    features: tuple[str, ...] | None,
    source: str,
    digest: str,
) -> Dataset:
    _within(f"{source}: window", window, LENGTH_LIMITS)
    if len(series) < window:
        raise UsageError(f"{source}: {len(series)} rows are fewer than one window of {window}")
    views = np.lib.stride_tricks.sliding_window_view(series, window, axis=0)  # (N, F, T)
    windows = views.transpose(0, 2, 1)  # (N, T, F), still without a copy
    newest = None if labels is None else labels[window - 1 :]
    clean = np.ones(len(windows), dtype=bool)
    if labels is not None:
        clean = np.lib.stride_tricks.sliding_window_view(labels, window).max(axis=1) == 0
    first = np.arange(len(windows), dtype=np.int64)
    spans = np.stack([first, first + window - 1], axis=1)
    return Dataset(Kind.SEQUENCE, windows, newest, clean, timestamps, source, digest, series, features, spans)


def _check_pictures(x: NDArray[Any], source: str) -> NDArray[Any]:
    if x.ndim not in (3, 4):
        raise UsageError(f"{source}: x of pictures is [N,H,W] or [N,H,W,C], not {list(x.shape)}")
    pictures = x[..., None] if x.ndim == 3 else x
    _within(f"{source}: x.shape[1] (height)", pictures.shape[1], SIDE_LIMITS)
    _within(f"{source}: x.shape[2] (width)", pictures.shape[2], SIDE_LIMITS)
    _within(f"{source}: x.shape[3] (channels)", pictures.shape[3], CHANNEL_LIMITS)
    if pictures.dtype == np.uint8:
        return pictures
    if not np.issubdtype(pictures.dtype, np.floating):
        raise UsageError(f"{source}: x of pictures is uint8, or float in 0…1, not {pictures.dtype}")
    low, high = (float(pictures.min()), float(pictures.max())) if pictures.size else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # false for NaN as well
        raise UsageError(f"{source}: x of float pictures must lie in 0…1, but has {low:g}…{high:g}")
    return pictures.astype(np.float32) * np.float32(255.0)


def _check_values(x: NDArray[Any], source: str) -> NDArray[np.float32]:
    if x.ndim not in (1, 2, 3):
        raise UsageError(f"{source}: x of sequences is [N,T,F], or a series [rows,F], not {list(x.shape)}")
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise UsageError(f"{source}: x of sequences holds numbers, not {x.dtype}")
    table = x[:, None] if x.ndim == 1 else x
    _within(f"{source}: x.shape[{table.ndim - 1}] (features)", table.shape[-1], FEATURE_LIMITS)
    wrong = ~((np.abs(table, dtype=np.float64) <= MAX_ABS) | np.isnan(table))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise UsageError(f"{source}: x{list(place)} is {table[place]}; finite numbers up to ±{MAX_ABS:g} are read")
    return table.astype(np.float32)


def _check_labels(y: NDArray[Any], rows: int, source: str) -> NDArray[np.int64]:
    if y.shape != (rows,):
        raise UsageError(f"{source}: y has shape {list(y.shape)}, but x has {rows} rows")
    if not np.isin(y, (0, 1)).all():
        other = y[~np.isin(y, (0, 1))][0]
        raise UsageError(f"{source}: y (label) is 0 for normal and 1 for an anomaly, but has {other}")
    return y.astype(np.int64)


def _within(name: str, value: int, limits: tuple[int, int]) -> None:
    if not limits[0] <= value <= limits[1]:
        raise UsageError(f"{name} must be in {limits[0]}..{limits[1]}, not {value}")


def _digest_of_file(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()

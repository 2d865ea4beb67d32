"""The rows of files as the records that `publish` sends and `score` scores: one encoding for both, in order."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from stream_app.decode import JSON, NPY, PICTURES, RAW
from stream_app.errors import UsageError
from stream_app.files import count_csv_lines, csv_features, csv_lines, has_times, read_npz
from stream_app.headers import format_time
from stream_app.values import listed

PNG = "image/png"
ROW_TYPES = (RAW, NPY, JSON, PNG)
FILE_TYPES = {".png": PNG, ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".npy": NPY}


class Message(NamedTuple):
    """The value and the headers of one record."""

    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Source:
    """Messages of a file or a folder, how many there are, and whether they have times of their own."""

    total: int
    messages: Callable[[], Iterator[Message]]
    timed: bool = False


def open_source(path: Path, content_type: str | None = None, features: Sequence[str] | None = None) -> Source:
    """Looks at a file or folder; its rows are read when `messages` is iterated, and errors in them are raised there.

    `.npz`: a record for each row of `x`. `.csv`: an observation `[F]` for each line, its columns in the order of the
    file, or of `features`, which must name them. `.png`, `.jpg`, `.npy`: one record, the file's own bytes. A folder:
    its files of these last kinds, by name. Raises UsageError for anything else.
    """
    if content_type is not None and content_type not in (*ROW_TYPES, *PICTURES):
        raise UsageError(f"--content-type {content_type}: it must be one of {', '.join(ROW_TYPES)}")
    if path.is_dir():
        return _folder(path, content_type)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _npz(path, content_type)
    if suffix == ".csv":
        return _csv(path, content_type, features)
    if suffix in FILE_TYPES:
        return _files([path], content_type)
    raise UsageError(f"{path}: expected a folder, or a file that ends in .npz, .csv, .png, .jpg or .npy")


def encode_row(row: NDArray[Any], content_type: str | None = None, time: float | None = None) -> Message:
    """One row as a record of that content type. The time (seconds since the Unix epoch) goes into the JSON, or into the
    header `ce_time`, with microseconds.

    Unless told, it is raw bytes, or JSON where values are missing (NaN): its null says so to every worker, while NaN in
    bytes may as well be an error. Raises UsageError for a picture of another shape or type than PNG can hold.
    """
    if content_type is None:
        content_type = JSON if row.dtype.kind == "f" and np.isnan(row).any() else RAW
    headers = [("content-type", content_type.encode())]
    if content_type == JSON:
        body: dict[str, Any] = {"data": _without_infinity(row)}
        if time is not None:
            body["timestamp"] = format_time(time)
        return Message(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers)
    if time is not None:
        headers.append(("ce_time", format_time(time).encode()))
    if content_type == RAW:
        headers += [("shape", ",".join(map(str, row.shape)).encode()), ("dtype", row.dtype.name.encode())]
        return Message(row.tobytes(), headers)
    return Message(_npy(row) if content_type == NPY else _png(row), headers)


def _without_infinity(row: NDArray[Any]) -> NDArray[Any]:
    """JSON has no infinity, and null would pass for a missing value: the largest number is refused just the same."""
    if row.dtype.kind != "f" or not np.isinf(row).any():
        return np.ascontiguousarray(row)
    return np.nan_to_num(row.astype(np.float64), nan=np.nan)


def _npy(row: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, row, allow_pickle=False)
    return buffer.getvalue()


def _png(row: NDArray[Any]) -> bytes:
    if row.dtype != np.uint8 or row.ndim not in (2, 3) or (row.ndim == 3 and row.shape[2] not in (1, 2, 3, 4)):
        raise UsageError(
            f"--content-type {PNG}: rows must be pictures [H,W] or [H,W,C] of uint8, these are "
            f"{list(row.shape)} of {row.dtype}"
        )
    buffer = io.BytesIO()
    Image.fromarray(row[..., 0] if row.ndim == 3 and row.shape[2] == 1 else row).save(buffer, "PNG")
    return buffer.getvalue()


def _npz(path: Path, content_type: str | None) -> Source:
    _check_type(path, content_type)
    x = read_npz(path).x
    if x.dtype.kind not in "iuf" or x.ndim < 1 or not len(x):
        raise UsageError(f"{path}: x must be rows of numbers, this is {list(x.shape)} of {x.dtype}")
    rows = x[:, np.newaxis] if x.ndim == 1 else x  # a series of one feature
    return Source(len(rows), lambda: (encode_row(row, content_type) for row in rows))


def _csv(path: Path, content_type: str | None, features: Sequence[str] | None) -> Source:
    _check_type(path, content_type, pictures=False)
    order = None if features is None else _order(path, features)
    return Source(count_csv_lines(path), lambda: _csv_messages(path, content_type, order), has_times(path))


def _csv_messages(path: Path, content_type: str | None, order: list[int] | None) -> Iterator[Message]:
    for line in csv_lines(path):
        values = line.values if order is None else [line.values[place] for place in order]
        with np.errstate(over="ignore"):  # infinite is what it is then, and refused
            row = np.array(values).astype(np.float32)
        yield encode_row(row, content_type, line.time)


def _order(path: Path, features: Sequence[str]) -> list[int]:
    """Where among the columns the features are. Raises UsageError, naming those that are missing or unknown."""
    columns = csv_features(path)
    missing = [name for name in features if name not in columns]
    unknown = [name for name in columns if name not in features]
    if missing or unknown:
        wrong = [f"missing {listed(missing)}"] if missing else []
        wrong += [f"unknown {listed(unknown)}"] if unknown else []
        raise UsageError(
            f"{path}: the columns must be the detector's features {listed(features)}, in any order; {', '.join(wrong)}"
        )
    if len(columns) != len(features):
        raise UsageError(f"{path}: {len(columns)} columns, some of one name, for {len(features)} features")
    return [columns.index(name) for name in features]


def _folder(path: Path, content_type: str | None) -> Source:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in FILE_TYPES and file.is_file())
    if not files:
        raise UsageError(f"{path}: there is no .png, .jpg or .npy file in this folder")
    return _files(files, content_type)


def _files(files: list[Path], content_type: str | None) -> Source:
    for file in files:
        own = FILE_TYPES[file.suffix.lower()]
        if content_type not in (None, own):
            raise UsageError(f"--content-type {content_type}: {file} is published as it is, as {own}")
    return Source(len(files), lambda: (_file_message(file) for file in files))


def _file_message(file: Path) -> Message:
    try:
        return Message(file.read_bytes(), [("content-type", FILE_TYPES[file.suffix.lower()].encode())])
    except OSError as error:
        raise UsageError(f"{file}: can't be read: {error.strerror}") from error


def _check_type(path: Path, content_type: str | None, *, pictures: bool = True) -> None:
    possible = ROW_TYPES if pictures else tuple(t for t in ROW_TYPES if t not in PICTURES)
    if content_type not in (None, *possible):
        raise UsageError(f"--content-type {content_type}: rows of {path} can be {', '.join(possible)}")

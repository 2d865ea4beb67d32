"""What `publish` sends: a file or a folder of files as Kafka messages, in order."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from stream_app.decode import JSON, NPY, PICTURES, RAW
from stream_app.errors import UsageError
from stream_app.events import rfc3339

PNG = "image/png"
ROW_TYPES = (RAW, NPY, JSON, PNG)
FILE_TYPES = {".png": PNG, ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".npy": NPY}
TIMESTAMP, LABEL = "timestamp", "label"


class Message(NamedTuple):
    """The value and the headers of one record."""

    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Source:
    """Messages of a file or a folder, and how many there are."""

    total: int
    messages: Callable[[], Iterator[Message]]


def open_source(path: Path, content_type: str | None = None) -> Source:
    """Looks at a file or folder; its rows are read when `messages` is iterated, and errors in them are raised there.

    `.npz`: a record for each row of `x`. `.csv`: an observation `[F]` for each line. `.png`, `.jpg`, `.npy`: one
    record, the file's own bytes. A folder: its files of these last kinds, by name. Raises UsageError for anything else.
    """
    if content_type is not None and content_type not in (*ROW_TYPES, *PICTURES):
        raise UsageError(f"--content-type {content_type}: it must be one of {', '.join(ROW_TYPES)}")
    if path.is_dir():
        return _folder(path, content_type)
    if not path.is_file():
        raise UsageError(f"--data {path}: there is no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _npz(path, content_type or RAW)
    if suffix == ".csv":
        return _csv(path, content_type or RAW)
    if suffix in FILE_TYPES:
        return _files([path], content_type)
    raise UsageError(f"--data {path}: expected a folder, or a file that ends in .npz, .csv, .png, .jpg or .npy")


def encode_row(row: NDArray[Any], content_type: str, timestamp: str | None = None) -> Message:
    """One row as a record of that content type. The time goes into the JSON, or into the header `ce_time`.

    Raises UsageError for a picture of another shape or type than PNG can hold.
    """
    headers = [("content-type", content_type.encode())]
    if content_type == JSON:
        body: dict[str, Any] = {"data": row} if timestamp is None else {"data": row, "timestamp": timestamp}
        return Message(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers)
    if timestamp is not None:
        headers.append(("ce_time", timestamp.encode()))
    if content_type == RAW:
        headers += [("shape", ",".join(map(str, row.shape)).encode()), ("dtype", row.dtype.name.encode())]
        return Message(row.tobytes(), headers)
    return Message(_npy(row) if content_type == NPY else _png(row), headers)


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


def _npz(path: Path, content_type: str) -> Source:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "x" not in arrays:
                raise UsageError(
                    f"--data {path}: there is no array x in it, only {', '.join(arrays.files) or 'nothing'}"
                )
            x = arrays["x"]
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"--data {path}: not a readable .npz file: {error}") from error
    if x.dtype.kind not in "iuf" or x.ndim < 2 or not len(x):
        raise UsageError(f"--data {path}: x must be rows of numbers, this is {list(x.shape)} of {x.dtype}")
    _check_type(path, content_type)
    return Source(len(x), lambda: (encode_row(row, content_type) for row in x))


def _csv(path: Path, content_type: str) -> Source:
    _check_type(path, content_type, pictures=False)
    with _text(path) as file:
        total = sum(1 for row in _reader(file)[1] if row)
    return Source(total, lambda: _csv_messages(path, content_type))


def _csv_messages(path: Path, content_type: str) -> Iterator[Message]:
    with _text(path) as file:
        header, reader = _reader(file)
        names = [name.strip().lower() for name in header]
        features = [i for i, name in enumerate(names) if name not in (TIMESTAMP, LABEL)]
        if not features:
            raise UsageError(f"--data {path}: the header names no feature column: {','.join(header)[:80]!r}")
        for row in reader:
            if not row:
                continue
            where = f"--data {path}: line {reader.line_num}"
            if len(row) != len(header):
                raise UsageError(f"{where}: {len(row)} columns, but the header has {len(header)}")
            values = np.array([_number(row[i], where, header[i]) for i in features], np.float32)
            time = _time(row[names.index(TIMESTAMP)], where) if TIMESTAMP in names else None
            yield encode_row(values, content_type, time)


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOWrapper]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--data {path}: not a readable .csv file: {error}") from error


def _reader(file: io.TextIOWrapper) -> tuple[list[str], Any]:
    first = file.readline()
    file.seek(0)
    reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
    return next(reader, []), reader


def _number(text: str, where: str, column: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{where}, column {column.strip()}: {text[:40]!r} is not a number") from None


def _time(text: str, where: str) -> str:
    """RFC 3339 of a cell that holds that, or seconds since the Unix epoch."""
    try:
        return rfc3339(float(text))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{where}, timestamp: {text[:40]!r} is neither an RFC 3339 time nor seconds") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _folder(path: Path, content_type: str | None) -> Source:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in FILE_TYPES and file.is_file())
    if not files:
        raise UsageError(f"--data {path}: there is no .png, .jpg or .npy file in this folder")
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
        raise UsageError(f"--data {file}: can't be read: {error.strerror}") from error


def _check_type(path: Path, content_type: str, *, pictures: bool = True) -> None:
    possible = ROW_TYPES if pictures else tuple(t for t in ROW_TYPES if t not in PICTURES)
    if content_type not in possible:
        raise UsageError(f"--content-type {content_type}: rows of {path} can be {', '.join(possible)}")

"""What `publish` sends: a file or a folder of files as Kafka messages, in order."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from stream_app.decode import JSON, NPY, PICTURES, RAW
from stream_app.errors import UsageError
from stream_app.events import rfc3339
from stream_app.files import count_csv_lines, csv_lines, read_npz

PNG = "image/png"
ROW_TYPES = (RAW, NPY, JSON, PNG)
FILE_TYPES = {".png": PNG, ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".npy": NPY}


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
        raise UsageError(f"{path}: there is no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _npz(path, content_type or RAW)
    if suffix == ".csv":
        return _csv(path, content_type or RAW)
    if suffix in FILE_TYPES:
        return _files([path], content_type)
    raise UsageError(f"{path}: expected a folder, or a file that ends in .npz, .csv, .png, .jpg or .npy")


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
    _check_type(path, content_type)
    x = read_npz(path).x
    if x.dtype.kind not in "iuf" or x.ndim < 2 or not len(x):
        raise UsageError(f"{path}: x must be rows of numbers, this is {list(x.shape)} of {x.dtype}")
    return Source(len(x), lambda: (encode_row(row, content_type) for row in x))


def _csv(path: Path, content_type: str) -> Source:
    _check_type(path, content_type, pictures=False)
    return Source(count_csv_lines(path), lambda: _csv_messages(path, content_type))


def _csv_messages(path: Path, content_type: str) -> Iterator[Message]:
    for line in csv_lines(path):
        time = None if line.time is None else rfc3339(line.time)
        yield encode_row(np.array(line.values, np.float32), content_type, time)


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


def _check_type(path: Path, content_type: str, *, pictures: bool = True) -> None:
    possible = ROW_TYPES if pictures else tuple(t for t in ROW_TYPES if t not in PICTURES)
    if content_type not in possible:
        raise UsageError(f"--content-type {content_type}: rows of {path} can be {', '.join(possible)}")

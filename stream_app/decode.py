"""Bytes of a record to an array of the detector's shape.

A chunk of raw records becomes one array with one copy; the other encodings are read one by one. Sizes are checked
before memory is taken, pickles are never opened, and what can't be read is named with its field, limit and value.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from stream_app.errors import ContentTypeError, DecodeError, LimitError, RecordError, ShapeError, ValueRangeError
from stream_app.records import DEFAULT_STREAM, Chunk, Decoded, Kind, RawRecord, Rejected, Rows, header_bytes
from stream_app.settings import LimitSettings

RAW = "application/octet-stream"
NPY = "application/x-npy"
JSON = "application/json"
PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG"}
CONTENT_TYPES = (RAW, NPY, JSON, *PICTURES)
STAGE = "decode"

_PICTURE_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_MAX_NPY_HEADER = 4096
_SIZE = re.compile(r" *[0-9]{1,10} *")
_OWN_HEADERS = frozenset({"content-type", "shape", "dtype", "ce_id", "ce_time"})

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a detector takes: `(H, W, C)` of a picture or `(T, F)` of a window."""

    kind: Kind
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """What a record's headers say."""

    content_type: str = JSON
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None
    id: str | None = None
    time: float | None = None


class Decoder:
    """Reads chunks for one detector. Without state between chunks, so one instance serves any number of threads."""

    def __init__(self, spec: InputSpec, limits: LimitSettings) -> None:
        self.spec = spec
        self._limits = limits

    def decode(self, chunk: Chunk) -> Decoded:
        """Reads every record of a chunk; those that can't be read are listed in `rejected`, never raised."""
        decoded = Decoded.empty(len(chunk))
        raw: dict[tuple[np.dtype[Any], tuple[int, ...]], list[int]] = {}
        arrays: list[tuple[int, NDArray[Any]]] = []
        for index, record in enumerate(chunk.records):
            try:
                head = self._read_head(record)
                decoded.streams[index] = stream_of(record)
                decoded.ids[index] = head.id
                decoded.event_times[index] = head.time if head.time is not None else record.timestamp / 1000.0
                if head.content_type == RAW:
                    raw.setdefault(self._raw_layout(head, record), []).append(index)
                else:
                    arrays.append((index, self._read_one(head, record, index, decoded)))
            except RecordError as error:
                decoded.rejected.append(Rejected(index, STAGE, error))
            except MemoryError:
                raise
            except Exception as error:  # hostile bytes find errors in parsers that their authors didn't
                reason = DecodeError(f"value: can't be read: {type(error).__name__}: {error}")
                decoded.rejected.append(Rejected(index, STAGE, reason))
        groups = [(np.array([i]), array[np.newaxis]) for i, array in arrays]
        groups += [self._read_raw(chunk.records, *layout, indices) for layout, indices in raw.items()]
        self._gather(groups, decoded)
        decoded.rejected.sort(key=lambda rejected: rejected.index)
        return decoded

    def _read_head(self, record: RawRecord) -> Head:
        limits = self._limits
        value = record.value
        if not value:
            raise DecodeError("value: is empty; a record must carry a picture or a sequence")
        if len(value) > limits.max_record_bytes:
            raise LimitError(
                f"value: {len(value)} bytes are more than limits.max_record_bytes={limits.max_record_bytes}"
            )
        if record.key is not None and len(record.key) > limits.max_key_bytes:
            raise LimitError(f"key: {len(record.key)} bytes are more than limits.max_key_bytes={limits.max_key_bytes}")
        if not record.headers:
            return Head()
        return _parse_headers(tuple(record.headers), limits.max_header_bytes)

    def _raw_layout(self, head: Head, record: RawRecord) -> tuple[np.dtype[Any], tuple[int, ...]]:
        dtype = head.dtype or np.dtype(np.uint8 if self.spec.kind is Kind.IMAGE else np.float32)
        shape = head.shape or self.spec.shape
        self._check_shape(shape)
        expected = dtype.itemsize * int(np.prod(shape))
        given = len(record.value or b"")
        if given != expected:
            raise ShapeError(f"value: {given} bytes, but shape {_text(shape)} of {dtype} takes {expected}")
        return dtype, shape

    def _read_raw(
        self, records: Sequence[RawRecord], dtype: np.dtype[Any], shape: tuple[int, ...], indices: list[int]
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        values = [records[i].value or b"" for i in indices]
        joined = values[0] if len(values) == 1 else b"".join(values)
        return np.array(indices), np.frombuffer(joined, dtype).reshape(len(indices), *shape)

    def _read_one(self, head: Head, record: RawRecord, index: int, decoded: Decoded) -> NDArray[Any]:
        value = record.value or b""
        if head.content_type == NPY:
            array = read_npy(value, self._check_shape)
        elif head.content_type in PICTURES:
            array = self._read_picture(value, head.content_type)
        else:
            array = self._read_json(value, record, index, decoded)
        self._check_shape(array.shape)
        return array

    def _read_picture(self, value: bytes, content_type: str) -> NDArray[Any]:
        if self.spec.kind is not Kind.IMAGE:
            raise ContentTypeError(f"content-type: {content_type}, but this topic's detector takes sequences")
        height, width, channels = self.spec.shape
        try:
            with Image.open(io.BytesIO(value), formats=(PICTURES[content_type],)) as picture:
                if picture.width * picture.height > self._limits.max_pixels:
                    raise LimitError(
                        f"value: a picture of {picture.width}×{picture.height} pixels is more than "
                        f"limits.max_pixels={self._limits.max_pixels}"
                    )
                if (picture.height, picture.width) != (height, width):
                    raise ShapeError(
                        f"value: a picture {picture.height} high and {picture.width} wide, but the detector takes "
                        f"{height} × {width}"
                    )
                if picture.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip it at 255
                    return (np.asarray(picture, np.float32) / 65535.0)[..., np.newaxis]
                pixels = np.asarray(picture.convert(_PICTURE_MODES[channels]))
                return pixels.reshape(height, width, channels)
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as error:
            raise DecodeError(f"value: not a readable {content_type}: {error}") from error

    def _read_json(self, value: bytes, record: RawRecord, index: int, decoded: Decoded) -> NDArray[Any]:
        try:
            body = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"value: not JSON: {error}") from error
        if not isinstance(body, dict) or "data" not in body:
            raise DecodeError('value: JSON without a "data" field; expected {"data": [[…]]}')
        if record.key is None and body.get("stream") is not None:
            decoded.streams[index] = _json_text(body, "stream", self._limits.max_key_bytes)
        if body.get("timestamp") is not None:
            decoded.event_times[index] = parse_time("timestamp", _json_text(body, "timestamp", 64))
        try:
            array = np.array(body["data"])
        except ValueError as error:
            raise ShapeError(f"data: rows of unequal length ({error})") from error
        if array.dtype.kind not in "iuf":
            raise DecodeError("data: expected nested lists of numbers; null, text and booleans aren't numbers")
        return array

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape == self.spec.shape:
            return
        if self.spec.kind is Kind.IMAGE:
            if len(shape) in (2, 3) and shape[0] * shape[1] > self._limits.max_pixels:
                raise LimitError(f"shape: {_text(shape)} is more than limits.max_pixels={self._limits.max_pixels}")
            if len(shape) == 2 and (*shape, 1) == self.spec.shape:
                return
        else:
            if len(shape) == 2 and shape[0] > self._limits.max_length:
                raise LimitError(f"shape: {shape[0]} steps are more than limits.max_length={self._limits.max_length}")
            if shape == self.spec.shape[1:]:
                return
        raise ShapeError(f"shape: {_text(shape)}, but the detector takes {self._takes()}")

    def _takes(self) -> str:
        shape = self.spec.shape
        if self.spec.kind is Kind.IMAGE:
            return f"{_text(shape)}" + (f" or {_text(shape[:2])}" if shape[2] == 1 else "")
        return f"windows {_text(shape)} or single observations {_text(shape[1:])}"

    def _gather(self, groups: list[tuple[NDArray[np.int64], NDArray[Any]]], decoded: Decoded) -> None:
        """Puts the arrays of a chunk together: pictures and windows into `ready`, single observations apart."""
        ready, observations = [], []
        for indices, array in groups:
            kept, rows = self._check_values(indices, array, decoded)
            if len(kept) == 0:
                continue
            if self.spec.kind is Kind.SEQUENCE and rows.ndim == 2:
                observations.append((kept, rows))
            else:
                ready.append((kept, rows.reshape(-1, *self.spec.shape)))
        decoded.ready = _concatenate(ready, self.spec.shape)
        decoded.observations = _concatenate(observations, self.spec.shape[1:])

    def _check_values(
        self, indices: NDArray[np.int64], array: NDArray[Any], decoded: Decoded
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        if array.dtype == np.uint8 and self.spec.kind is Kind.IMAGE:
            return indices, array
        low, high = self._value_range(array.dtype)
        flat = array.reshape(len(array), -1)
        good = np.all((flat >= low) & (flat <= high), axis=1)  # false for NaN too
        for row in np.flatnonzero(~good):
            error = _explain_values(flat[row], low, high)
            decoded.rejected.append(Rejected(int(indices[row]), STAGE, error))
        rows = array[good]
        if self.spec.kind is Kind.SEQUENCE:
            return indices[good], rows.astype(np.float32)
        return indices[good], rows.astype(np.uint8) if high == 255 else rows.astype(np.float32) * np.float32(255.0)

    def _value_range(self, dtype: np.dtype[Any]) -> tuple[float, float]:
        """Of a picture, integers are 0 to 255 and floats 0 to 1."""
        if self.spec.kind is Kind.SEQUENCE:
            return -self._limits.max_abs, self._limits.max_abs
        return (0, 255) if dtype.kind in "iu" else (0.0, 1.0)


def stream_of(record: RawRecord) -> str:
    """The stream a record belongs to: its key. Raises DecodeError where that isn't UTF-8."""
    return DEFAULT_STREAM if record.key is None else _key_text(record.key)


@lru_cache(maxsize=65536)
def _key_text(key: bytes) -> str:
    try:
        return key.decode() or DEFAULT_STREAM
    except UnicodeDecodeError as error:
        raise DecodeError(f"key: not UTF-8 ({error.reason} at byte {error.start})") from error


@lru_cache(maxsize=1024)
def _parse_headers(headers: tuple[tuple[str, bytes], ...], limit: int) -> Head:
    size = header_bytes(headers)
    if size > limit:
        raise LimitError(f"headers: {size} bytes are more than limits.max_header_bytes={limit}")
    found = {name: _header_text(name, value) for name, value in headers if name.lower() in _OWN_HEADERS}
    named = {name.lower(): value for name, value in found.items()}
    content_type = named.get("content-type", JSON).split(";")[0].strip().lower()
    if content_type not in CONTENT_TYPES:
        raise ContentTypeError(f"content-type: {content_type!r} isn't one of {', '.join(CONTENT_TYPES)}")
    return Head(
        content_type,
        _parse_shape(named["shape"]) if "shape" in named else None,
        _parse_dtype(named["dtype"]) if "dtype" in named else None,
        named.get("ce_id"),
        parse_time("ce_time", named["ce_time"]) if "ce_time" in named else None,
    )


def _header_text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except (UnicodeDecodeError, AttributeError) as error:
        raise DecodeError(f"header {name}: not UTF-8 text") from error


def _parse_shape(text: str) -> tuple[int, ...]:
    parts = text.strip("()[] ").split(",")
    if not 1 <= len(parts) <= 3 or not all(_SIZE.fullmatch(part) for part in parts):
        raise DecodeError(f"header shape: {text[:40]!r}; expected one to three whole numbers, like 28,28")
    shape = tuple(int(part) for part in parts)
    if any(size == 0 or size > 1 << 31 for size in shape):
        raise LimitError(f"header shape: {text!r}; every size must be from 1 to {1 << 31}")
    return shape


def _parse_dtype(text: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError, SyntaxError) as error:
        raise DecodeError(f"header dtype: {text!r} isn't a numpy dtype, like uint8 or float32") from error
    _check_dtype(dtype)
    return dtype


def _check_dtype(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "fiu" or dtype.hasobject or dtype.itemsize > 8:
        raise ShapeError(f"dtype: {dtype} isn't uint8, another integer, or a float of at most 64 bits")


def parse_time(field: str, text: str) -> float:
    """Seconds since the Unix epoch of an RFC 3339 time; one without an offset is read as UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DecodeError(f"{field}: {text!r} isn't an RFC 3339 time, like 2026-01-31T12:00:00Z") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _json_text(body: dict[str, Any], field: str, limit: int) -> str:
    text = body[field]
    if not isinstance(text, str) or not text:
        raise DecodeError(f"{field}: expected text, got {type(text).__name__}")
    if len(text.encode()) > limit:
        raise LimitError(f"{field}: {len(text.encode())} bytes are more than {limit}")
    return text


@lru_cache(maxsize=256)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream, max_header_size=_MAX_NPY_HEADER)
    except (ValueError, SyntaxError, EOFError) as error:
        raise DecodeError(f"value: not a .npy file: {error}") from error
    return shape, fortran, dtype


def read_npy(value: bytes, check_shape: Callable[[tuple[int, ...]], None]) -> NDArray[Any]:
    """An array over the bytes of a `.npy` file, without a copy where the order is C's.

    `np.load` takes the memory that the header asks for before it looks how much there is; here `check_shape` sees the
    shape first, and the bytes must be as many as it needs.
    """
    major = value[6] if len(value) > 11 else 0
    length = int.from_bytes(value[8:10], "little") + 10 if major == 1 else int.from_bytes(value[8:12], "little") + 12
    if length > _MAX_NPY_HEADER:
        raise LimitError(f"value: a .npy header of {length} bytes is more than {_MAX_NPY_HEADER}")
    shape, fortran, dtype = _npy_header(value[:length])
    _check_dtype(dtype)
    check_shape(shape)
    expected = int(np.prod(shape)) * dtype.itemsize
    if len(value) - length != expected:
        raise DecodeError(f"value: {len(value) - length} bytes behind the .npy header, but it promises {expected}")
    flat = np.frombuffer(value, dtype, offset=length)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _explain_values(row: NDArray[Any], low: float, high: float) -> ValueRangeError:
    where = int(np.flatnonzero(~((row >= low) & (row <= high)))[0])
    return ValueRangeError(
        f"data: value {row[where]} at position {where}; it must be a number from {low:g} to {high:g}"
    )


def _concatenate(groups: list[tuple[NDArray[np.int64], NDArray[Any]]], shape: tuple[int, ...]) -> Rows:
    if not groups:
        return Rows(np.empty(0, np.int64), np.empty((0, *shape), np.float32))
    if len(groups) == 1:
        return Rows(groups[0][0], groups[0][1])
    index = np.concatenate([indices for indices, _ in groups])
    order = np.argsort(index, kind="stable")
    return Rows(index[order], np.concatenate([rows for _, rows in groups])[order])


def _text(shape: tuple[int, ...]) -> str:
    return f"[{','.join(str(size) for size in shape)}]"

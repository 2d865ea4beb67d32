"""Bytes of a record to an array of the detector's shape.

A chunk of raw records becomes one array with one copy; the other encodings are read one by one. Sizes are checked
before memory is taken, pickles are never opened, and what can't be read is named with its field, limit and value.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from stream_app.avro import AvroReader, in_wire_format
from stream_app.clock import Clock, SystemClock
from stream_app.errors import (
    ContentTypeError,
    DecodeError,
    LimitError,
    RecordError,
    ShapeError,
    ValueRangeError,
    WorkerFault,
)
from stream_app.headers import AVRO, JSON, NPY, PICTURES, RAW, Head, check_dtype, parse_time, read_headers
from stream_app.records import DEFAULT_STREAM, Chunk, Decoded, Kind, RawRecord, Rejected, Rows
from stream_app.settings import LimitSettings, SchemaRegistrySettings, SequenceSettings
from stream_app.values import (
    DATA,
    STREAM,
    TIMESTAMP,
    Numbers,
    fields_of,
    in_order,
    listed,
    read_numbers,
    text_of,
    time_of,
)

__all__ = ["JSON", "NPY", "PICTURES", "RAW", "STAGE", "Decoder", "InputSpec", "parse_time", "read_npy", "stream_of"]

STAGE = "decode"

_PICTURE_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_MAX_NPY_HEADER = 4096
_NOT_FINITE = re.compile(r"(nan|inf(inity)?)\b", re.IGNORECASE)  # as many languages write it into their JSON


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a detector takes: `(H, W, C)` of a picture or `(T, F)` of a window, whose F `features` may have names."""

    kind: Kind
    shape: tuple[int, ...]
    features: tuple[str, ...] | None = None


class _Group(NamedTuple):
    """Records of one layout: `indices` int64 `[n]`, `array` `[n, …]`. `holes`: NaN in it is a missing value."""

    indices: NDArray[np.int64]
    array: NDArray[Any]
    holes: bool


class Decoder:
    """Reads chunks for one detector. Any number of threads may read.

    Between chunks it keeps Avro schemas, and which of them there are none of, and no more.

    `sequence` and `schema_registry` are the defaults unless told, `clock` is the machine's.
    """

    def __init__(
        self,
        spec: InputSpec,
        limits: LimitSettings,
        sequence: SequenceSettings | None = None,
        schema_registry: SchemaRegistrySettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.spec = spec
        self._limits = limits
        self._sequence = sequence or SequenceSettings()
        self._avro = AvroReader(schema_registry or SchemaRegistrySettings(), clock or SystemClock())

    def decode(self, chunk: Chunk) -> Decoded:
        """Reads every record of a chunk; those that can't be read are listed in `rejected`, never raised.

        Raises SchemaRegistryFault when a schema can't be had: that is nothing against the records.
        """
        decoded = Decoded.empty(len(chunk))
        raw: dict[tuple[np.dtype[Any], tuple[int, ...]], list[int]] = {}
        known: dict[tuple[Head, int], list[int]] = {}  # of raw records with these headers and of this length
        groups: list[_Group] = []
        for index, record in enumerate(chunk.records):
            try:
                head = self._read_head(record)
                decoded.streams[index] = stream_of(record)
                decoded.ids[index] = head.id
                decoded.timed[index] = head.time is not None
                decoded.event_times[index] = head.time if head.time is not None else record.timestamp / 1000.0
                if head.content_type == RAW:
                    like = head, len(record.value or b"")
                    if like not in known:
                        known[like] = raw.setdefault(self._raw_layout(head, record), [])
                    known[like].append(index)
                else:
                    array, holes = self._read_one(head, record, index, decoded)
                    groups.append(_Group(np.array([index]), array[np.newaxis], holes))
            except RecordError as error:
                decoded.rejected.append(Rejected(index, STAGE, error))
            except (MemoryError, WorkerFault):
                raise
            except Exception as error:  # hostile bytes find errors in parsers that their authors didn't
                reason = DecodeError(f"value: can't be read: {type(error).__name__}: {error}")
                decoded.rejected.append(Rejected(index, STAGE, reason))
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
        return read_headers(tuple(record.headers), limits.max_header_bytes)

    def _raw_layout(self, head: Head, record: RawRecord) -> tuple[np.dtype[Any], tuple[int, ...]]:
        dtype = head.dtype or np.dtype(np.uint8 if self.spec.kind is Kind.IMAGE else np.float32)
        shape = head.shape or self.spec.shape
        self._check_shape(shape)
        expected = dtype.itemsize * math.prod(shape)
        given = len(record.value or b"")
        if given != expected:
            told = f"value: {given} bytes, but shape {_text(shape)} of {dtype} takes {expected}"
            raise ShapeError(told + self._values(given, dtype, shape, is_told=head.shape is not None))
        return dtype, shape

    def _values(self, given: int, dtype: np.dtype[Any], shape: tuple[int, ...], *, is_told: bool) -> str:
        """For an error: how many values raw bytes of a sequence are, and how many they would have to be."""
        if self.spec.kind is not Kind.SEQUENCE or given % dtype.itemsize:
            return ""
        told = f": they are {given // dtype.itemsize} values, not {math.prod(shape)}"
        return told if is_told else f"{told}; it takes {self._takes()}, these with a header shape"

    def _read_raw(
        self, records: Sequence[RawRecord], dtype: np.dtype[Any], shape: tuple[int, ...], indices: list[int]
    ) -> _Group:
        values = [records[i].value or b"" for i in indices]
        joined = values[0] if len(values) == 1 else b"".join(values)
        array = np.frombuffer(joined, dtype).reshape(len(indices), *shape)
        return _Group(np.array(indices), array, self._sequence.allow_nan)

    def _read_one(self, head: Head, record: RawRecord, index: int, decoded: Decoded) -> tuple[NDArray[Any], bool]:
        """An array, and whether NaN in it is a missing value."""
        value, holes = record.value or b"", self._sequence.allow_nan
        if head.content_type == NPY:
            array = read_npy(value, self._check_shape)
        elif head.content_type in PICTURES:
            array = self._read_picture(value, head.content_type)
        else:
            fields = self._read_fields(value, head)
            array, nulls = self._take_fields(fields, record, index, decoded)
            holes = holes or (nulls > 0 and np.count_nonzero(np.isnan(array)) == nulls)
        self._check_shape(array.shape)
        return array, holes

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

    def _read_fields(self, value: bytes, head: Head) -> dict[str, Any]:
        if head.content_type in AVRO or (_says_nothing(head) and self._avro.takes(value)):
            return fields_of(self._avro.read(value), bare=True)
        try:
            return fields_of(orjson.loads(value), bare=head.binary)
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"value: not JSON: {error}{_advice(head, value, error)}") from error

    def _take_fields(self, fields: dict[str, Any], record: RawRecord, index: int, decoded: Decoded) -> Numbers:
        if record.key is None and fields.get(STREAM) is not None:
            decoded.streams[index] = text_of(fields[STREAM], STREAM, self._limits.max_key_bytes)
        if fields.get(TIMESTAMP) is not None:
            decoded.event_times[index] = time_of(fields[TIMESTAMP])
            decoded.timed[index] = True
        if self.spec.kind is Kind.IMAGE:
            return read_numbers(fields[DATA], nulls=False)
        return read_numbers(in_order(fields[DATA], self.spec.features), nulls=True)

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
            if len(shape) in (1, 2) and shape[-1] != self.spec.shape[1]:
                raise ShapeError(f"shape: {_text(shape)} has {self._features(shape[-1])}; it takes {self._takes()}")
        raise ShapeError(f"shape: {_text(shape)}, but the detector takes {self._takes()}")

    def _takes(self) -> str:
        shape = self.spec.shape
        if self.spec.kind is Kind.IMAGE:
            return f"{_text(shape)}" + (f" or {_text(shape[:2])}" if shape[2] == 1 else "")
        return f"windows {_text(shape)} or single observations {_text(shape[1:])}"

    def _features(self, given: int) -> str:
        names = f" ({listed(self.spec.features)})" if self.spec.features else ""
        return f"{given} feature{'' if given == 1 else 's'}, but the detector has {self.spec.shape[1]}{names}"

    def _gather(self, groups: list[_Group], decoded: Decoded) -> None:
        """Puts the arrays of a chunk together: pictures and windows into `ready`, single observations apart."""
        ready, observations = [], []
        for group in groups:
            kept, rows = self._check_values(group, decoded)
            if len(kept) == 0:
                continue
            if self.spec.kind is Kind.SEQUENCE and rows.ndim == 2:
                observations.append((kept, rows))
            else:
                ready.append((kept, rows.reshape(-1, *self.spec.shape)))
        decoded.ready = _concatenate(ready, self.spec.shape)
        decoded.observations = _concatenate(observations, self.spec.shape[1:])

    def _check_values(self, group: _Group, decoded: Decoded) -> tuple[NDArray[np.int64], NDArray[Any]]:
        indices, array, holes = group
        if array.dtype == np.uint8 and self.spec.kind is Kind.IMAGE:
            return indices, array
        low, high = self._value_range(array.dtype)
        flat = array.reshape(len(array), -1)
        inside = (flat >= low) & (flat <= high)  # false for NaN too
        good = inside.all(axis=1)
        if holes and self.spec.kind is Kind.SEQUENCE and not good.all():
            missing = np.isnan(flat)
            inside |= missing
            good = inside.all(axis=1) & (missing.mean(axis=1) <= self._sequence.max_missing)
        for row in np.flatnonzero(~good):
            error = self._explain_values(flat[row], inside[row], low, high)
            decoded.rejected.append(Rejected(int(indices[row]), STAGE, error))
        rows = array[good]
        if self.spec.kind is Kind.SEQUENCE:
            return indices[good], rows.astype(np.float32)
        return indices[good], rows.astype(np.uint8) if high == 255 else rows.astype(np.float32) * np.float32(255.0)

    def _explain_values(self, row: NDArray[Any], inside: NDArray[np.bool_], low: float, high: float) -> ValueRangeError:
        if inside.all():
            missing = int(np.isnan(row).sum())
            return ValueRangeError(
                f"data: {missing} of {len(row)} values are missing, a share of {missing / len(row):.3g}; at most "
                f"sequence.max_missing={self._sequence.max_missing:g} may be"
            )
        where = int(np.argmin(inside))
        told = f"data: value {row[where]} at position {where}; it must be a number from {low:g} to {high:g}"
        if self.spec.kind is Kind.SEQUENCE and np.isnan(row[where]):
            told += "; sequence.allow_nan would take NaN for a missing value"
        return ValueRangeError(told)

    def _value_range(self, dtype: np.dtype[Any]) -> tuple[float, float]:
        """Of a picture, integers are 0 to 255 and floats 0 to 1."""
        if self.spec.kind is Kind.SEQUENCE:
            return -self._limits.max_abs, self._limits.max_abs
        return (0, 255) if dtype.kind in "iu" else (0.0, 1.0)


def stream_of(record: RawRecord) -> str:
    """The stream a record belongs to: its key. Raises DecodeError where that isn't UTF-8."""
    return DEFAULT_STREAM if record.key is None else _key_text(record.key)


def _says_nothing(head: Head) -> bool:
    """Whether no header tells how the value is to be read; `shape` and `dtype` are for arrays."""
    return head.content_type is None and head.shape is None and head.dtype is None


def _advice(head: Head, value: bytes, error: orjson.JSONDecodeError) -> str:
    """For an error: what a value may be that isn't JSON, and how else to say it."""
    if _NOT_FINITE.match(error.doc, error.pos):
        return (
            "; NaN and Infinity aren't in JSON, whatever sequence.allow_nan is: a missing value of a sequence is null"
        )
    if _says_nothing(head) and in_wire_format(value):
        return (
            "; it begins with a zero byte, as Avro does: GANOMALY_SCHEMA_REGISTRY__URL says where its schema is, "
            "a header content-type what it is otherwise"
        )
    return ""


@lru_cache(maxsize=65536)
def _key_text(key: bytes) -> str:
    try:
        return key.decode() or DEFAULT_STREAM
    except UnicodeDecodeError as error:
        raise DecodeError(f"key: not UTF-8 ({error.reason} at byte {error.start})") from error


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
    check_dtype(dtype)
    check_shape(shape)
    expected = int(np.prod(shape)) * dtype.itemsize
    if len(value) - length != expected:
        raise DecodeError(f"value: {len(value) - length} bytes behind the .npy header, but it promises {expected}")
    flat = np.frombuffer(value, dtype, offset=length)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


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

"""What a record's headers say: how its value is to be read, and which event it is.

Source: CloudEvents, Kafka protocol binding 1.0.2, section 3.2 "Binary Content Mode".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from stream_app.errors import ContentTypeError, DecodeError, LimitError, ShapeError
from stream_app.records import header_bytes

RAW = "application/octet-stream"
NPY = "application/x-npy"
JSON = "application/json"
PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG"}
AVRO = ("avro/binary", "application/avro", "application/vnd.confluent.avro")
CONTENT_TYPES = (RAW, NPY, JSON, *PICTURES, *AVRO)

_STRUCTURED = "application/cloudevents"  # and what follows: +json, +avro, -batch+json
_SPEC_VERSION = re.compile(r"1\.[0-9]{1,3}")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::(?P<second>\d\d)(?:[.,]\d+)?)?(?:[Zz]|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
_SIZE = re.compile(r" *[0-9]{1,10} *")
_OWN_HEADERS = frozenset({"content-type", "shape", "dtype", "ce_specversion", "ce_id", "ce_time"})


@dataclass(frozen=True, slots=True)
class Head:
    """What a record's headers say; `content_type` is None where none of them says it. `binary`: a CloudEvent in binary
    mode, whose value is the bare data.
    """

    content_type: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None
    id: str | None = None
    time: float | None = None
    binary: bool = False


@lru_cache(maxsize=1024)
def read_headers(headers: tuple[tuple[str, bytes], ...], limit: int) -> Head:
    """Reads headers of at most `limit` bytes together. Raises RecordError, naming the header."""
    size = header_bytes(headers)
    if size > limit:
        raise LimitError(f"headers: {size} bytes are more than limits.max_header_bytes={limit}")
    found = {name: _header_text(name, value) for name, value in headers if name.lower() in _OWN_HEADERS}
    named = {name.lower(): value for name, value in found.items()}
    if "ce_specversion" in named and not _SPEC_VERSION.fullmatch(named["ce_specversion"]):
        raise DecodeError(f"ce_specversion: {named['ce_specversion'][:40]!r}; CloudEvents 1.x are read")
    return Head(
        _content_type(named["content-type"]) if "content-type" in named else None,
        _parse_shape(named["shape"]) if "shape" in named else None,
        _parse_dtype(named["dtype"]) if "dtype" in named else None,
        named.get("ce_id"),
        parse_time("ce_time", named["ce_time"]) if "ce_time" in named else None,
        "ce_specversion" in named,
    )


def parse_time(field: str, text: str) -> float:
    """Seconds since the Unix epoch of an RFC 3339 time.

    One without an offset is read as UTC, a day as its first moment, a leap second as the first of the next minute.
    """
    if not (match := _TIME.fullmatch(text)):
        raise _not_a_time(field, text)
    leap = match["second"] == "60"
    if leap:
        text = f"{text[: match.start('second')]}59{text[match.end('second') :]}"
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise _not_a_time(field, text) from error
    return seconds_of(moment) + leap


def _not_a_time(field: str, text: str) -> DecodeError:
    return DecodeError(f"{field}: {text!r} isn't an RFC 3339 time, like 2026-01-31T12:00:00Z")


def format_time(seconds: float) -> str:
    """The RFC 3339 text, UTC, with microseconds, of seconds since the Unix epoch in the years 1 to 9999."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seconds_of(moment: datetime) -> float:
    """Seconds since the Unix epoch; a time without an offset is read as UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raises ShapeError for a type whose values aren't numbers that we read."""
    if dtype.kind not in "fiu" or dtype.hasobject or dtype.itemsize > 8:
        raise ShapeError(f"dtype: {dtype} isn't uint8, another integer, or a float of at most 64 bits")


def _content_type(text: str) -> str:
    content_type = text.split(";")[0].strip().lower()
    if content_type.startswith(_STRUCTURED):
        raise ContentTypeError(
            f"content-type: {content_type!r} is a CloudEvent in structured mode; binary mode is what is understood: "
            "the attributes in headers ce_…, the data's own content type, and the data as the value"
        )
    if content_type not in CONTENT_TYPES:
        raise ContentTypeError(f"content-type: {content_type!r} isn't one of {', '.join(CONTENT_TYPES)}")
    return content_type


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
    check_dtype(dtype)
    return dtype

"""Records for tests, as the transport delivers them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stream_app.records import Chunk, RawRecord, TopicPartition

TP = TopicPartition("records.images", 0)


@dataclass
class Record:
    """A record with the fields that are read of aiokafka's."""

    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    key: bytes | None = b"camera-1"
    offset: int = 0
    timestamp: int = 1_700_000_000_000
    topic: str = TP.topic
    partition: int = TP.partition


def chunk_of(*records: RawRecord, generation: int = 1, first: int | None = None) -> Chunk:
    """The records as one chunk, numbered from `first` (0) on."""
    start = first or 0
    for index, record in enumerate(records):
        record.offset = start + index  # type: ignore[misc]
    size = sum(len(record.value or b"") for record in records)
    return Chunk(TP, start, records, generation, size)


def raw(array: NDArray[Any], key: bytes | None = b"camera-1") -> Record:
    """C-order bytes with shape and dtype."""
    headers = [
        ("content-type", b"application/octet-stream"),
        ("shape", ",".join(map(str, array.shape)).encode()),
        ("dtype", str(array.dtype).encode()),
    ]
    return Record(array.tobytes(), headers, key)


def npy(array: NDArray[Any]) -> Record:
    """A .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return Record(buffer.getvalue(), [("content-type", b"application/x-npy")])


def picture(array: NDArray[np.uint8], kind: str = "png", **options: Any) -> Record:
    """An encoded picture."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return Record(buffer.getvalue(), [("content-type", f"image/{kind}".encode())])


def json(text: str, key: bytes | None = b"camera-1") -> Record:
    """JSON without a header."""
    return Record(text.encode(), (), key)

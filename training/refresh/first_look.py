"""What a topic carries, where no detector says it: the shape of its newest records."""

from __future__ import annotations

import io

import numpy as np
import orjson
from PIL import Image

from model.config import Kind
from model.errors import GanomalyError
from stream_app.decode import InputSpec, read_npy
from stream_app.errors import UsageError
from stream_app.headers import NPY, PICTURES, RAW, read_headers
from stream_app.history import read_before
from stream_app.records import RawRecord, TopicPartition
from stream_app.settings import Settings
from training.data import DEFAULT_WINDOW
from training.refresh.readings import Ranges

LOOKED_AT = 100  # records of each partition

Shape = tuple[int, ...]


async def look(settings: Settings, topic: str, kind: Kind, ranges: Ranges, window: int | None = None) -> InputSpec:
    """What a detector of the topic would take: that of the newest record whose shape can be told.

    Of single observations `window` of them are a record, 64 unless told. Raises UsageError where no record tells its
    shape, and BrokerUnavailable.
    """
    for partition, (_, end) in sorted(ranges.items()):
        found = None
        async for chunk in read_before(settings, TopicPartition(topic, partition), end, LOOKED_AT):
            for record in chunk.records:
                shape = _of_detector(shape_of(record, settings.limits.max_header_bytes), kind, window)
                found = shape or found
        if found:
            return InputSpec(kind, found)
    raise UsageError(
        f"topic {topic}: none of its newest records tells its shape as {kind} records; raw bytes do in a header "
        "(shape), or train the first version from a file (--data)"
    )


def shape_of(record: RawRecord, header_limit: int) -> Shape | None:
    """The shape of a record's array, as its bytes or headers tell it; None where they don't."""
    value, shapes = record.value or b"", list[Shape]()
    try:
        head = read_headers(tuple(record.headers), header_limit)
        if head.content_type == RAW:
            return head.shape
        if head.content_type == NPY:
            read_npy(value, shapes.append)
            return shapes[0]
        if head.content_type in PICTURES:
            with Image.open(io.BytesIO(value), formats=(PICTURES[head.content_type],)) as picture:
                return picture.height, picture.width, 3 if picture.mode == "P" else len(picture.getbands())
        fields = orjson.loads(value)
        return np.array(fields["data"], np.float64).shape  # null is NaN
    except (GanomalyError, OSError, ValueError, TypeError, KeyError, Image.DecompressionBombError):
        return None


def _of_detector(shape: Shape | None, kind: Kind, window: int | None) -> Shape | None:
    if shape is None:
        return None
    if kind is Kind.IMAGE:
        return (*shape, 1) if len(shape) == 2 else shape if len(shape) == 3 else None
    if len(shape) == 1:
        return (window or DEFAULT_WINDOW, *shape)
    return shape if len(shape) == 2 and window in (None, shape[0]) else None

"""Bytes to arrays: every encoding, every limit, every way to be wrong."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.decode import Decoder, InputSpec
from stream_app.errors import ContentTypeError, DecodeError, LimitError, ShapeError, ValueRangeError
from stream_app.records import Kind
from stream_app.settings import LimitSettings
from tests.unit.stream_app.raw import Record, chunk_of, json, npy, picture, raw

IMAGE = InputSpec(Kind.IMAGE, (4, 6, 1))
COLOUR = InputSpec(Kind.IMAGE, (4, 6, 3))
SEQUENCE = InputSpec(Kind.SEQUENCE, (5, 2))
PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 6)
WINDOW = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)


def decoder(spec: InputSpec = IMAGE, **limits: float) -> Decoder:
    return Decoder(spec, LimitSettings(**limits))


@pytest.mark.parametrize(
    "record",
    [
        raw(PIXELS),
        raw(PIXELS[..., np.newaxis]),
        Record(PIXELS.tobytes(), [("content-type", b"application/octet-stream")]),
        npy(PIXELS),
        npy(np.asfortranarray(PIXELS)),
        npy(PIXELS.astype(np.int64)),
        picture(PIXELS),
        json(f'{{"data": {PIXELS.tolist()}}}'),
    ],
    ids=["raw", "raw with channel", "raw without shape", "npy", "npy fortran", "npy int64", "png", "json"],
)
def test_a_picture_is_the_same_whatever_its_encoding(record: Record) -> None:
    decoded = decoder().decode(chunk_of(record))
    assert decoded.rejected == []
    assert decoded.ready.data.dtype == np.uint8
    np.testing.assert_array_equal(decoded.ready.data, PIXELS[np.newaxis, :, :, np.newaxis])


def test_float_pictures_are_scaled_from_one_to_255() -> None:
    decoded = decoder().decode(chunk_of(npy(PIXELS / 255.0)))
    np.testing.assert_allclose(decoded.ready.data[0, ..., 0], PIXELS, atol=1e-4)


def test_jpeg_and_colour_are_read_in_the_detectors_channels() -> None:
    grey_in_colour = decoder(COLOUR).decode(chunk_of(picture(PIXELS)))
    assert grey_in_colour.ready.data.shape == (1, 4, 6, 3)
    jpeg = decoder().decode(chunk_of(picture(PIXELS, "jpeg", quality=100)))
    np.testing.assert_allclose(jpeg.ready.data[0, ..., 0].astype(int), PIXELS, atol=4)


def test_16_bit_png_keeps_its_brightness() -> None:
    buffer = io.BytesIO()
    from PIL import Image

    Image.fromarray(PIXELS.astype(np.uint16) * 257).save(buffer, "png")
    decoded = decoder().decode(chunk_of(Record(buffer.getvalue(), [("content-type", b"image/png")])))
    np.testing.assert_allclose(decoded.ready.data[0, ..., 0], PIXELS, atol=0.01)


def test_windows_and_single_observations_are_told_apart() -> None:
    decoded = decoder(SEQUENCE).decode(chunk_of(raw(WINDOW), npy(WINDOW[0]), json('{"data": [1, 2.5]}')))
    assert decoded.rejected == []
    assert decoded.ready.index.tolist() == [0]
    assert decoded.observations.index.tolist() == [1, 2]
    np.testing.assert_array_equal(decoded.observations.data, [WINDOW[0], [1, 2.5]])


def test_a_chunk_of_raw_records_is_one_array_over_one_buffer() -> None:
    decoded = decoder().decode(chunk_of(*[raw(PIXELS) for _ in range(7)]))
    base = decoded.ready.data
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert base.size == 7 * 24
    assert isinstance(base.base, bytes)


def test_mixed_encodings_keep_the_order_of_the_chunk() -> None:
    pictures = [PIXELS + i for i in range(6)]
    records = [raw(pictures[0]), npy(pictures[1]), raw(pictures[2]), json("{"), picture(pictures[4]), raw(pictures[5])]
    decoded = decoder().decode(chunk_of(*records))
    assert decoded.ready.index.tolist() == [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(decoded.ready.data[:, 0, 0, 0], [0, 1, 2, 4, 5])
    assert [rejected.index for rejected in decoded.rejected] == [3]


def npy_header(text: bytes) -> bytes:
    """The beginning of a .npy file whose header is `text`."""
    text = text.ljust(117) + b"\n"
    return np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text


HUGE = npy_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000, 6), }")
LIES = npy_header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (4, 6), }")


@pytest.mark.parametrize(
    ("record", "error", "says"),
    [
        (Record(None), DecodeError, "value: is empty"),
        (Record(b""), DecodeError, "value: is empty"),
        (Record(b"x" * 2001), LimitError, "value: 2001 bytes are more than limits.max_record_bytes=2000"),
        (Record(b"x", (), b"k" * 65), LimitError, "key: 65 bytes are more than limits.max_key_bytes=64"),
        (Record(b"x", [("h", b"x" * 600)]), LimitError, "headers: 601 bytes are more than limits.max_header_bytes=500"),
        (Record(b"x", [("content-type", b"text/html")]), ContentTypeError, "content-type: 'text/html' isn't one of"),
        (Record(b"{}", (), b"\xff"), DecodeError, "key: not UTF-8"),
        (json("{"), DecodeError, "value: not JSON"),
        (json("[]"), DecodeError, '"data" field'),
        (json('{"data": [[1, null]]}'), DecodeError, "data: expected nested lists of numbers"),
        (json('{"data": [[1], [1, 2]]}'), ShapeError, "data: rows of unequal length"),
        (json('{"data": [[1, 2]]}'), ShapeError, "shape: [1,2], but the detector takes [4,6,1] or [4,6]"),
        (json('{"data": [[1]], "timestamp": "soon"}'), DecodeError, "timestamp: 'soon' isn't an RFC 3339 time"),
        (json(f'{{"data": {(PIXELS.astype(int) * 100).tolist()}}}'), ValueRangeError, "data: value 300"),
        (raw(PIXELS[:3]), ShapeError, "shape: [3,6]"),
        (Record(b"short", raw(PIXELS).headers), ShapeError, "value: 5 bytes, but shape [4,6] of uint8 takes 24"),
        (Record(b"x", [*raw(PIXELS).headers[:1], ("shape", b"4,-6")]), DecodeError, "header shape: '4,-6'"),
        (Record(b"x", [*raw(PIXELS).headers[:1], ("shape", b"9" * 400)]), DecodeError, "header shape: '999"),
        (Record(b"x", [*raw(PIXELS).headers[:1], ("shape", b"0,6")]), LimitError, "header shape: '0,6'"),
        (Record(b"x", [*raw(PIXELS).headers[:1], ("dtype", b"object")]), ShapeError, "dtype: object"),
        (Record(b"x", [*raw(PIXELS).headers[:1], ("dtype", b"no")]), DecodeError, "header dtype: 'no'"),
        (raw(np.full((4, 6), np.nan)), ValueRangeError, "data: value nan at position 0"),
        (raw(np.full((4, 6), 1.5)), ValueRangeError, "data: value 1.5 at position 0; it must be a number from 0 to 1"),
        (npy(np.array([{}, 1], object)), ShapeError, "dtype: object"),
        (npy(PIXELS.astype("complex64")), ShapeError, "dtype: complex64"),
        (Record(HUGE, npy(PIXELS).headers), LimitError, "shape: [4000000000,6] is more than limits.max_pixels=100"),
        (Record(LIES + b"12", npy(PIXELS).headers), DecodeError, "2 bytes behind the .npy header, but it promises 24"),
        (Record(npy_header(b"{'descr': ("), npy(PIXELS).headers), DecodeError, "value: "),
        (Record(npy_header(b"{[]: 1}"), npy(PIXELS).headers), DecodeError, "value: "),
        (Record(npy_header(b"{1: 2, 'a': 3}"), npy(PIXELS).headers), DecodeError, "value: "),
        (Record(npy_header(b"(" * 90), npy(PIXELS).headers), DecodeError, "value: "),
        (Record(b"nonsense", npy(PIXELS).headers), DecodeError, "value: not a .npy file"),
        (Record(picture(PIXELS).value[:40], picture(PIXELS).headers), DecodeError, "value: not a readable image/png"),
        (
            Record(picture(PIXELS, "jpeg").value[:300], picture(PIXELS, "jpeg").headers),
            DecodeError,
            "value: not a readable image/jpeg",
        ),
        (Record(picture(PIXELS).value, picture(PIXELS, "jpeg").headers), DecodeError, "not a readable image/jpeg"),
        (picture(PIXELS.T), ShapeError, "value: a picture 6 high and 4 wide, but the detector takes 4 × 6"),
        (picture(np.zeros((11, 10), np.uint8)), LimitError, "10×11 pixels is more than limits.max_pixels=100"),
    ],
)
def test_what_is_wrong_is_said_and_its_mates_are_read(record: Record, error: type[Exception], says: str) -> None:
    limits = {"max_record_bytes": 2000, "max_key_bytes": 64, "max_header_bytes": 500, "max_pixels": 100}
    decoded = decoder(**limits).decode(chunk_of(raw(PIXELS), record, npy(PIXELS)))
    assert decoded.ready.index.tolist() == [0, 2]
    (rejected,) = decoded.rejected
    assert (rejected.index, rejected.stage, type(rejected.error)) == (1, "decode", error)
    assert says in str(rejected.error)


@pytest.mark.parametrize(
    ("record", "error", "says"),
    [
        (raw(np.full((5, 2), np.inf, np.float32)), ValueRangeError, "data: value inf"),
        (raw(np.zeros((5, 3), np.float32)), ShapeError, "takes windows [5,2] or single observations [2]"),
        (raw(np.zeros((9, 2), np.float32)), LimitError, "shape: 9 steps are more than limits.max_length=8"),
        (picture(PIXELS), ContentTypeError, "this topic's detector takes sequences"),
        (json('{"data": [1e300, 0]}'), ValueRangeError, "data: value 1e+300"),
    ],
)
def test_wrong_sequences_are_named(record: Record, error: type[Exception], says: str) -> None:
    decoded = decoder(SEQUENCE, max_length=8).decode(chunk_of(record))
    (rejected,) = decoded.rejected
    assert type(rejected.error) is error
    assert says in str(rejected.error)


def test_a_lying_header_takes_no_memory() -> None:
    record = Record(HUGE, npy(PIXELS).headers)
    tracemalloc.start()
    try:
        decoded = decoder().decode(chunk_of(record))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(decoded.rejected) == 1
    assert peak < 1 << 20


def test_cloudevents_headers_and_json_fields_are_taken_over() -> None:
    events = [*raw(PIXELS).headers, ("ce_id", b"abc"), ("ce_time", b"2026-01-31T12:00:00+01:00")]
    named = json(f'{{"data": {PIXELS.tolist()}, "stream": "s", "timestamp": "2026-01-31T12:00:00Z"}}', key=None)
    decoded = decoder().decode(chunk_of(Record(PIXELS.tobytes(), events), named, raw(PIXELS, key=None)))
    assert decoded.ids == ["abc", None, None]
    assert decoded.streams == ["camera-1", "s", "default"]
    assert decoded.event_times.tolist() == [1769857200.0, 1769860800.0, 1_700_000_000.0]


@given(
    value=st.binary(max_size=300), content_type=st.sampled_from(["application/x-npy", "image/png", "application/json"])
)
def test_no_bytes_break_the_stream(value: bytes, content_type: str) -> None:
    prefix = {"application/x-npy": b"\x93NUMPY\x01\x00", "image/png": b"\x89PNG\r\n\x1a\n"}.get(content_type, b"")
    record = Record(prefix + value, [("content-type", content_type.encode())])
    decoded = decoder().decode(chunk_of(raw(PIXELS), record))
    assert len(decoded.ready.index) + len(decoded.rejected) == 2

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
from stream_app.headers import parse_time
from stream_app.records import Kind
from stream_app.settings import LimitSettings, SequenceSettings
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
        (json('{"data": [[1, null]]}'), DecodeError, "data: expected nested lists of numbers; null, text and booleans"),
        (json('{"data": [[1, true]]}'), DecodeError, "data: expected nested lists of numbers; null, text and booleans"),
        (json('{"data": {"a": 1}}'), DecodeError, "data: expected nested lists of numbers; null, text and booleans"),
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
        (json('{"data": [null, 1e300]}'), ValueRangeError, "data: value 1e+300 at position 1"),
        (
            json('{"data": [1, true]}'),
            DecodeError,
            "data: expected nested lists of numbers and null; text and booleans",
        ),
        (
            json('{"data": [null, "1"]}'),
            DecodeError,
            "data: expected nested lists of numbers and null; text and booleans",
        ),
        (json('{"data": [[1, null], [1]]}'), ShapeError, "data: rows of unequal length"),
        (json('{"data": [[1, null], 1]}'), ShapeError, "data: rows of unequal length"),
        (json('{"data": [1, [1]]}'), ShapeError, "data: rows of unequal length"),
        (json('{"data": [[[1], 1]]}'), ShapeError, "data: rows of unequal length"),
        (json(f'{{"data": {"[" * 90}1{"]" * 90}}}'), ShapeError, "data: lists are nested more than 3 deep"),
        (json('{"data": []}'), ShapeError, "shape: [0] has 0 features, but the detector has 2"),
        (json('{"data": null}'), ShapeError, "shape: []"),
        (
            json('{"data": [1, 2, 3]}'),
            ShapeError,
            "shape: [3] has 3 features, but the detector has 2; it takes windows",
        ),
        (npy(np.zeros((5, 1))), ShapeError, "shape: [5,1] has 1 feature, but the detector has 2; it takes windows"),
        (json('{"data": {"flow": 1}}'), ShapeError, "the detector doesn't know its features' names; publish lists in"),
        (json('{"timestamp": 5, "data": [1, 2]}'), DecodeError, "timestamp: expected RFC 3339 text"),
    ],
)
def test_wrong_sequences_are_named(record: Record, error: type[Exception], says: str) -> None:
    decoded = decoder(SEQUENCE, max_length=8).decode(chunk_of(record))
    (rejected,) = decoded.rejected
    assert type(rejected.error) is error
    assert says in str(rejected.error)


def test_null_is_a_missing_value_among_whole_numbers_and_others() -> None:
    window = "[[1, null], [2.5, 3], [null, 4], [5, 6], [7, 8]]"
    decoded = decoder(SEQUENCE).decode(chunk_of(json(f'{{"data": {window}}}'), json('{"data": [null, 2]}')))
    assert decoded.rejected == []
    np.testing.assert_array_equal(decoded.ready.data, [[[1, np.nan], [2.5, 3], [np.nan, 4], [5, 6], [7, 8]]])
    np.testing.assert_array_equal(decoded.observations.data, [[np.nan, 2]])


HOLES = np.array([[np.nan, 1.0], [2.0, 3.0], [4.0, np.nan], [5.0, 6.0], [7.0, 8.0]], np.float32)


def test_nan_in_bytes_is_a_missing_value_only_where_that_is_set() -> None:
    records = (raw(HOLES), raw(WINDOW), npy(HOLES), raw(np.full((5, 2), np.inf, np.float32)))
    strict = decoder(SEQUENCE).decode(chunk_of(*records))
    assert [each.index for each in strict.rejected] == [0, 2, 3]
    assert "sequence.allow_nan would take NaN for a missing value" in str(strict.rejected[0].error)
    assert "allow_nan" not in str(strict.rejected[2].error)
    lenient = Decoder(SEQUENCE, LimitSettings(), SequenceSettings(allow_nan=True)).decode(chunk_of(*records))
    assert [each.index for each in lenient.rejected] == [3]
    np.testing.assert_array_equal(lenient.ready.data, [HOLES, WINDOW, HOLES])


@pytest.mark.parametrize("allow_nan", [False, True])
@pytest.mark.parametrize("word", ["NaN", "-NaN", "nan", "Infinity", "-Infinity", "inf"])
@pytest.mark.parametrize("data", ["[1.0, {}]", "[[1, 2], [3, 4], [{}, 6], [7, 8], [9, 0]]"])
def test_nan_and_infinity_as_words_arent_json_whatever_is_set(data: str, word: str, allow_nan: bool) -> None:
    records = (json('{"data": [1, 2]}'), json(f'{{"data": {data.format(word)}}}'), json('{"data": [1, null]}'))
    decoded = Decoder(SEQUENCE, LimitSettings(), SequenceSettings(allow_nan=allow_nan)).decode(chunk_of(*records))
    assert decoded.observations.index.tolist() == [0, 2]
    (rejected,) = decoded.rejected
    assert isinstance(rejected.error, DecodeError)
    assert str(rejected.error).startswith("value: not JSON: ")
    assert str(rejected.error).endswith(
        "; NaN and Infinity aren't in JSON, whatever sequence.allow_nan is: a missing value of a sequence is null"
    )


@pytest.mark.parametrize("data", ["[1, nanny]", "[1, information]", '[1, "NaN"', "[1e999, NaN]"])
def test_json_that_is_broken_in_another_way_is_not_said_to_hold_nan(data: str) -> None:
    (rejected,) = decoder(SEQUENCE).decode(chunk_of(json(f'{{"data": {data}}}'))).rejected
    assert str(rejected.error).startswith("value: not JSON: ")
    assert "Infinity aren't" not in str(rejected.error)


def test_nan_in_a_picture_is_an_error_whatever_is_set() -> None:
    lenient = Decoder(IMAGE, LimitSettings(), SequenceSettings(allow_nan=True))
    (rejected,) = lenient.decode(chunk_of(raw(np.full((4, 6), np.nan)))).rejected
    assert str(rejected.error) == "data: value nan at position 0; it must be a number from 0 to 1"


def test_more_missing_values_than_allowed_are_refused_with_share_limit_and_setting() -> None:
    records = (json('{"data": [null, 1]}'), json('{"data": [null, null]}'), raw(np.full(2, np.nan, np.float32)))
    sequence = SequenceSettings(allow_nan=True)
    half = Decoder(SEQUENCE, LimitSettings(), sequence).decode(chunk_of(*records))
    assert [(each.index, type(each.error)) for each in half.rejected] == [(1, ValueRangeError), (2, ValueRangeError)]
    says = "data: 2 of 2 values are missing, a share of 1; at most sequence.max_missing=0.5 may be"
    assert {str(each.error) for each in half.rejected} == {says}
    for share, read in ((0.0, []), (0.4, []), (1.0, [0, 1, 2])):
        sequence = SequenceSettings(allow_nan=True, max_missing=share)
        assert (
            Decoder(SEQUENCE, LimitSettings(), sequence).decode(chunk_of(*records)).observations.index.tolist() == read
        )


NAMED = InputSpec(Kind.SEQUENCE, (5, 2), ("flow", "pressure"))
LONG_NAMES = "{" + ", ".join(f'"{letter * 50}": 1' for letter in "abcdefghij") + "}"


def test_an_object_by_feature_name_is_read_in_the_detectors_order() -> None:
    steps = ", ".join(f'{{"pressure": {-step}, "flow": {step}}}' for step in range(5))
    observation = json('{"data": {"pressure": null, "flow": 1.5}, "timestamp": "2026-01-31T12:00:00Z"}')
    decoded = decoder(NAMED).decode(chunk_of(json(f'{{"data": [{steps}]}}'), observation, json('{"data": [1, 2]}')))
    assert decoded.rejected == []
    np.testing.assert_array_equal(decoded.ready.data, [[[step, -step] for step in range(5)]])
    np.testing.assert_array_equal(decoded.observations.data, [[1.5, np.nan], [1, 2]])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ('{"flow": 1}', "data: missing pressure; the detector's features are flow, pressure"),
        ('{"flow": 1, "pressure": 2, "heat": 3}', "data: unknown heat; the detector's features are flow, pressure"),
        ('{"heat": 1, "Flow": 2}', "data: unknown heat, Flow; missing flow, pressure; the detector's features are"),
        ('[{"flow": 1, "pressure": 2}, {"flow": 1}]', "data[1]: missing pressure"),
        ('[{"flow": 1, "pressure": 2}, [1, 2]]', "data[1]: list among objects by feature name"),
        ("[1, 2, 3]", "shape: [3] has 3 features, but the detector has 2 (flow, pressure)"),
        ('[{"flow": 1, "pressure": 2}]', "shape: [1,2], but the detector takes windows [5,2]"),
        (
            LONG_NAMES,
            f"data: unknown {', '.join(letter * 40 + '…' for letter in 'abcdefgh')} and 2 more; missing flow, pressure",
        ),
    ],
)
def test_wrong_names_are_all_said_in_one_error(data: str, says: str) -> None:
    (rejected,) = decoder(NAMED).decode(chunk_of(json(f'{{"data": {data}}}'))).rejected
    assert isinstance(rejected.error, ShapeError)
    assert says in str(rejected.error)


def test_a_value_that_is_no_number_is_an_error_by_name_too() -> None:
    (rejected,) = decoder(NAMED).decode(chunk_of(json('{"data": {"flow": "1", "pressure": {}}}'))).rejected
    assert isinstance(rejected.error, DecodeError)


def event(value: str, *headers: tuple[str, bytes], version: bytes = b"1.0") -> Record:
    """A CloudEvent in binary mode."""
    return Record(value.encode(), [("ce_specversion", version), ("ce_id", b"7"), *headers], None)


def test_a_cloudevent_in_binary_mode_may_hold_the_bare_data() -> None:
    json_type = ("content-type", b"application/json; charset=utf-8")
    records = (
        event("[1, null]"),
        event('{"pressure": 4, "flow": 3}', json_type),
        event('{"data": [5, 6], "timestamp": "2026-01-31T12:00:00Z"}', ("ce_time", b"2026-01-31T11:00:00Z")),
        event('{"pressure": 8, "flow": 7, "timestamp": "2026-01-31T12:00:00Z", "stream": "pump"}', version=b"1.1"),
        event('{"data": {"pressure": 10, "flow": 9}}', ("CE_Time", b"2026-01-31T11:00:00Z"), json_type),
        Record(WINDOW[0].tobytes(), [*raw(WINDOW[0]).headers, ("ce_specversion", b"1.0")]),
    )
    decoded = decoder(NAMED).decode(chunk_of(*records))
    assert decoded.rejected == []
    np.testing.assert_array_equal(decoded.observations.data, [[1, np.nan], [3, 4], [5, 6], [7, 8], [9, 10], WINDOW[0]])
    assert decoded.ids == ["7"] * 5 + [None]
    assert decoded.streams[3] == "pump"
    assert decoded.event_times.tolist() == [1_700_000_000.0] * 2 + [1769860800.0] * 2 + [1769857200.0, 1_700_000_000.0]
    assert decoded.timed.tolist() == [False, False, True, True, True, False]


@pytest.mark.parametrize(
    ("record", "error", "says"),
    [
        (event("[1, 2]", version=b"0.3"), DecodeError, "ce_specversion: '0.3'; CloudEvents 1.x are read"),
        (event("[1, 2]", version=b"1.x"), DecodeError, "ce_specversion: '1.x'"),
        (event("[1, 2]", ("ce_time", b"noon")), DecodeError, "ce_time: 'noon' isn't an RFC 3339 time"),
        (event("5"), DecodeError, 'value: without a "data" field'),
        (json("[1, 2]"), DecodeError, 'value: without a "data" field'),
        (json('{"flow": 1, "pressure": 2}'), DecodeError, 'value: without a "data" field'),
        (
            Record(b"{}", [("content-type", b"application/cloudevents+json; charset=utf-8")]),
            ContentTypeError,
            "content-type: 'application/cloudevents+json' is a CloudEvent in structured mode; binary mode is what is",
        ),
    ],
)
def test_cloudevents_that_are_not_understood_are_named(record: Record, error: type[Exception], says: str) -> None:
    (rejected,) = decoder(NAMED).decode(chunk_of(record)).rejected
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
    assert decoded.timed.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("timestamp", "says"),
    [
        ("0", "got 0"),
        ("-1", "got -1"),
        ("1767225600000", "got 1767225600000"),
        ("1e300", "got 1e+300"),
        ("-0.5", "got -0.5"),
        ("true", "got True"),
        ("false", "got False"),
        ('""', "got ''"),
        ("[]", "got list"),
        ("{}", "got dict"),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_a_timestamp_that_is_no_text_is_a_dead_letter_that_says_what_it_is(
    timestamp: str, says: str, bare: bool
) -> None:
    text = f'{{"flow": 1, "pressure": 2, "timestamp": {timestamp}}}'
    record = event(text) if bare else json(f'{{"data": [1, 2], "timestamp": {timestamp}}}')
    (rejected,) = decoder(NAMED).decode(chunk_of(record)).rejected
    assert isinstance(rejected.error, DecodeError)
    assert str(rejected.error).startswith("timestamp: expected RFC 3339 text")
    assert str(rejected.error).endswith(f"; {says}")


@pytest.mark.parametrize("text", [" ", "null", "-1", "1767225600", "-2026-01-01", "0000-01-01", "10000-01-01"])
def test_a_timestamp_of_another_text_is_a_dead_letter_that_quotes_it(text: str) -> None:
    (rejected,) = decoder(SEQUENCE).decode(chunk_of(json(f'{{"data": [1, 2], "timestamp": "{text}"}}'))).rejected
    assert isinstance(rejected.error, DecodeError)
    assert f"timestamp: {text!r} isn't an RFC 3339 time" in str(rejected.error)


def test_a_timestamp_of_null_is_the_same_as_none() -> None:
    ce_time = ("ce_time", b"2026-01-31T12:00:00Z")
    records = (
        json('{"data": [1, 2], "timestamp": null}'),
        json('{"data": [1, 2]}'),
        event('{"flow": 1, "pressure": 2, "timestamp": null}', ce_time),
        event('{"flow": 1, "pressure": 2}', ce_time),
    )
    decoded = decoder(NAMED).decode(chunk_of(*records))
    assert decoded.rejected == []
    assert decoded.event_times.tolist() == [1_700_000_000.0] * 2 + [1769860800.0] * 2
    assert decoded.timed.tolist() == [False, False, True, True]


def test_times_before_1970_are_times() -> None:
    decoded = decoder(SEQUENCE).decode(chunk_of(json('{"data": [1, 2], "timestamp": "1969-12-31T23:59:59Z"}')))
    assert decoded.rejected == []
    assert decoded.event_times.tolist() == [-1.0]
    assert decoded.timed.tolist() == [True]


@pytest.mark.parametrize(("stream", "says"), [("0", "0"), ('""', "''"), ("false", "False"), ("[]", "list")])
def test_a_stream_that_is_no_text_is_a_dead_letter_that_says_what_it_is(stream: str, says: str) -> None:
    record = json(f'{{"data": [1, 2], "stream": {stream}}}', key=None)
    (rejected,) = decoder(SEQUENCE).decode(chunk_of(record)).rejected
    assert isinstance(rejected.error, DecodeError)
    assert str(rejected.error) == f"stream: expected text, got {says}"


@given(
    value=st.binary(max_size=300), content_type=st.sampled_from(["application/x-npy", "image/png", "application/json"])
)
def test_no_bytes_break_the_stream(value: bytes, content_type: str) -> None:
    prefix = {"application/x-npy": b"\x93NUMPY\x01\x00", "image/png": b"\x89PNG\r\n\x1a\n"}.get(content_type, b"")
    record = Record(prefix + value, [("content-type", content_type.encode())])
    decoded = decoder().decode(chunk_of(raw(PIXELS), record))
    assert len(decoded.ready.index) + len(decoded.rejected) == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01t00:00:00z", 1767225600.0),
        ("2026-01-01 02:00:00.5+02:00", 1767225600.5),
        ("2026-01-01T00:00:00.123456789Z", 1767225600.123456),
        ("2026-01-01", 1767225600.0),
        ("2025-12-31T23:59:60Z", 1767225600.0),
        ("2025-12-31T23:59:60.25+00:00", 1767225600.25),
    ],
)
def test_times_are_read_as_rfc_3339_says(text, seconds):
    assert parse_time("timestamp", text) == seconds


@pytest.mark.parametrize(
    "text",
    ["2026-W01-1", "20260101T000000Z", "2026-01-01T00:00:61Z", "2026-13-01", "2026-01-01T00:00:00+25:00", "٢٠٢٦-01-01"],
)
def test_other_times_of_iso_8601_are_refused(text):
    with pytest.raises(DecodeError, match="isn't an RFC 3339 time, like"):
        parse_time("timestamp", text)


@pytest.mark.parametrize(
    ("size", "shape", "says"),
    [
        (
            16,
            None,
            "value: 16 bytes, but shape [5,2] of float32 takes 40: they are 4 values, not 10; it takes",
        ),
        (16, b"2", "value: 16 bytes, but shape [2] of float32 takes 8: they are 4 values, not 2"),
        (15, None, "value: 15 bytes, but shape [5,2] of float32 takes 40"),
    ],
)
def test_raw_bytes_of_a_wrong_number_of_sensors_are_counted_in_values(size, shape, says):
    headers = [("content-type", b"application/octet-stream"), *([("shape", shape)] if shape else [])]
    (rejected,) = decoder(NAMED).decode(chunk_of(Record(bytes(size), headers))).rejected
    assert says in str(rejected.error)
    assert ("they are" in str(rejected.error)) == (size == 16)


def test_a_bare_cloudevent_may_have_a_feature_called_data():
    spec = InputSpec(Kind.SEQUENCE, (3, 2), ("data", "flow"))
    records = (event('{"flow": 1, "data": 2}'), event('{"data": {"flow": 3, "data": 4}}'), event('{"data": [6, 5]}'))
    decoded = decoder(spec).decode(chunk_of(*records))
    assert decoded.rejected == []
    assert decoded.observations.data.tolist() == [[2, 1], [4, 3], [6, 5]]

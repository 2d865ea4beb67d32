"""Avro records: their schemas from a registry over HTTP, and whose fault it is when that doesn't work."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from stream_app import avro as avro_module
from stream_app.clock import Clock, ManualClock
from stream_app.decode import Decoder, InputSpec
from stream_app.errors import (
    ContentTypeError,
    DecodeError,
    SchemaRegistryFault,
    SettingsError,
    ShapeError,
    ValueRangeError,
    WorkerFault,
)
from stream_app.records import Decoded, Kind
from stream_app.settings import LimitSettings, SchemaRegistrySettings, SequenceSettings, load_settings
from tests.schema_registry import Server, running
from tests.unit.stream_app.raw import Record, chunk_of
from tests.unit.stream_app.raw import json as json_record

NAMED = InputSpec(Kind.SEQUENCE, (5, 2), ("flow", "pressure"))
UNNAMED = InputSpec(Kind.SEQUENCE, (5, 2))


def reading(**fields: Any) -> dict[str, Any]:
    """The schema of a record with these fields."""
    return {"type": "record", "name": "Reading", "fields": [{"name": n, "type": t} for n, t in fields.items()]}


MILLISECONDS = {"type": "long", "logicalType": "timestamp-millis"}
SCHEMAS = {
    1: reading(data={"type": "array", "items": ["null", "float"]}),
    2: reading(
        data={"type": "array", "items": {"type": "array", "items": "double"}},
        timestamp=["null", "string"],
        stream=["null", "string"],
    ),
    3: reading(data={"type": "map", "values": ["null", "double", "int"]}, timestamp=MILLISECONDS),
    4: reading(pressure=["null", "double"], flow="float", timestamp=MILLISECONDS, stream="string"),
    5: {"type": "array", "items": "float"},
    6: reading(data={"type": "array", "items": "null"}),
    7: reading(next=["null", "Reading"]),
    8: reading(data={"type": "array", "items": reading(nothing="null") | {"name": "Nothing"}}),
    9: reading(data="a type that nobody knows"),
}
ANSWERS = {number: {"schema": json.dumps(schema)} for number, schema in SCHEMAS.items()} | {
    20: {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"},
    21: {"schema": json.dumps(SCHEMAS[1]), "references": [{"name": "Other", "subject": "other", "version": 1}]},
    22: {"schema": "no JSON"},
    30: ["no object"],
    31: {"schema": None},
}

# Written with fastavro 1.13: {"data": [1.5, null]}, [1.5, NaN], [1.5, infinity].
OBSERVATION = bytes.fromhex("00 00000001 04 02 0000c03f 00 00")
WITH_NAN = bytes.fromhex("00 00000001 04 02 0000c03f 02 0000c07f 00")
WITH_INFINITY = bytes.fromhex("00 00000001 04 02 0000c03f 02 0000807f 00")
# {"data": [[0, 0], [0.25, -0.25], [0.5, -0.5], [0.75, -0.75], [1, -1]], "timestamp": "2026-01-31T12:00:00Z",
#  "stream": "pump-2"}
WINDOW = bytes.fromhex(
    "00 00000002 0a 04 0000000000000000 0000000000000000 00 04 000000000000d03f 000000000000d0bf 00 04 000000000000e03f"
    "000000000000e0bf 00 04 000000000000e83f 000000000000e8bf 00 04 000000000000f03f 000000000000f0bf 00 00"
    "02 28 323032362d30312d33315431323a30303a30305a 02 0c 70756d702d32"
)
# {"data": {"pressure": null, "flow": 2}, "timestamp": 2026-01-31 12:00 UTC}
BY_NAME = bytes.fromhex("00 00000003 04 10 7072657373757265 00 08 666c6f77 02 0000000000000040 00 80f8e4be8267")
# {"pressure": 3.5, "flow": 1.5, "timestamp": 2026-01-31 12:00:00.250 UTC, "stream": "pump-3"}
FLAT = bytes.fromhex("00 00000004 02 0000000000000c40 0000c03f f4fbe4be8267 0c 70756d702d33")
LIST = bytes.fromhex("00 00000005 04 0000c03f 00000040 00")  # [1.5, 2]
NOON = 1769860800.0
RETRY_AFTER = 20.0


@pytest.fixture(scope="module")
def registry() -> Iterator[Server]:
    with running(ANSWERS) as server:
        yield server


def decoder(
    server: Server,
    spec: InputSpec = NAMED,
    user: str = "",
    sequence: SequenceSettings | None = None,
    clock: Clock | None = None,
) -> Decoder:
    settings = SchemaRegistrySettings(
        url=SecretStr(f"http://{user}127.0.0.1:{server.server_port}/apis/"), retry_after=RETRY_AFTER
    )
    return Decoder(spec, LimitSettings(), sequence, settings, clock)


def avro(value: bytes, content_type: str = "avro/binary", key: bytes | None = None) -> Record:
    return Record(value, [("content-type", content_type.encode())], key)


def numbered(number: int) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + b"\0"


def rejected(decoded: Decoded) -> Exception:
    (only,) = decoded.rejected
    return only.error


@pytest.mark.parametrize("content_type", ["avro/binary", "application/avro", "application/vnd.confluent.avro"])
def test_an_observation_is_read_and_null_is_a_missing_value(registry: Server, content_type: str) -> None:
    decoded = decoder(registry, UNNAMED).decode(chunk_of(avro(OBSERVATION, content_type)))
    assert decoded.rejected == []
    np.testing.assert_array_equal(decoded.observations.data, [[1.5, np.nan]])
    assert decoded.timed.tolist() == [False]


def test_without_a_content_type_a_zero_byte_first_is_avro_and_all_else_is_json(registry: Server) -> None:
    event = [("ce_specversion", b"1.0"), ("ce_id", b"7")]
    records = (Record(OBSERVATION), json_record('{"data": [2, 3]}'), Record(FLAT, [("other", b"x")]))
    decoded = decoder(registry).decode(chunk_of(*records, Record(BY_NAME, event)))
    assert decoded.rejected == []
    np.testing.assert_array_equal(decoded.observations.data, [[1.5, np.nan], [2, 3], [1.5, 3.5], [2, np.nan]])
    assert decoded.event_times[2:].tolist() == [NOON + 0.25, NOON]
    assert decoded.ids == [None, None, None, "7"]


def test_a_value_of_one_zero_byte_is_told_what_avro_takes(registry: Server) -> None:
    error = rejected(decoder(registry).decode(chunk_of(Record(b"\0"))))
    assert "value: begins with 00; Avro comes in Confluent's wire format" in str(error)


@pytest.mark.parametrize(
    "headers",
    [
        [("content-type", b"application/json")],
        [("shape", b"2")],
        [("dtype", b"uint8")],
    ],
)
def test_headers_that_say_something_else_are_believed_and_the_registry_isnt_asked(
    headers: list[tuple[str, bytes]],
) -> None:
    with running(ANSWERS) as server:
        error = rejected(decoder(server).decode(chunk_of(Record(OBSERVATION, headers))))
        assert server.asked == []
    assert str(error).startswith("value: not JSON: ")
    assert "SCHEMA_REGISTRY" not in str(error)


def test_raw_bytes_may_begin_with_a_zero_byte(registry: Server) -> None:
    values = np.array([0.0, 2.5], np.float32)
    headers = [("content-type", b"application/octet-stream"), ("shape", b"2"), ("dtype", b"float32")]
    decoded = decoder(registry).decode(chunk_of(Record(values.tobytes(), headers)))
    np.testing.assert_array_equal(decoded.observations.data, [values])


def test_without_a_registry_a_zero_byte_first_is_no_json_and_both_ways_out_are_named() -> None:
    error = rejected(Decoder(NAMED, LimitSettings()).decode(chunk_of(Record(OBSERVATION))))
    assert isinstance(error, DecodeError)
    assert str(error).startswith("value: not JSON: ")
    assert "GANOMALY_SCHEMA_REGISTRY__URL says where its schema is, a header content-type" in str(error)


def test_a_window_comes_with_its_time_and_its_stream(registry: Server) -> None:
    decoded = decoder(registry, UNNAMED).decode(chunk_of(avro(WINDOW), avro(WINDOW, key=b"key")))
    assert decoded.rejected == []
    steps = np.arange(5) / 4
    np.testing.assert_array_equal(decoded.ready.data[0], np.stack([steps, -steps], axis=1))
    assert decoded.streams == ["pump-2", "key"]
    assert decoded.event_times.tolist() == [NOON, NOON]
    assert decoded.timed.tolist() == [True, True]


def test_a_map_and_fields_of_the_record_itself_are_read_by_feature_name(registry: Server) -> None:
    decoded = decoder(registry).decode(chunk_of(avro(BY_NAME), avro(FLAT)))
    assert decoded.rejected == []
    np.testing.assert_array_equal(decoded.observations.data, [[2, np.nan], [1.5, 3.5]])
    assert decoded.event_times.tolist() == [NOON, NOON + 0.25]
    assert decoded.streams == ["default", "pump-3"]
    assert decoded.timed.all()


def test_fields_that_are_no_features_are_named(registry: Server) -> None:
    spec = InputSpec(Kind.SEQUENCE, (5, 2), ("flow", "heat"))
    error = rejected(decoder(registry, spec).decode(chunk_of(avro(FLAT))))
    assert isinstance(error, ShapeError)
    assert str(error) == "data: unknown pressure; missing heat; the detector's features are flow, heat"


def test_nan_is_a_missing_value_where_that_is_set_and_infinity_never(registry: Server) -> None:
    records = (avro(OBSERVATION), avro(WITH_NAN), avro(WITH_INFINITY))
    strict = decoder(registry).decode(chunk_of(*records))
    assert [each.index for each in strict.rejected] == [1, 2]
    assert "data: value nan at position 1" in str(strict.rejected[0].error)
    lenient = decoder(registry, sequence=SequenceSettings(allow_nan=True)).decode(chunk_of(*records))
    assert lenient.observations.index.tolist() == [0, 1]
    error = rejected(lenient)
    assert isinstance(error, ValueRangeError)
    assert "data: value inf at position 1" in str(error)


def test_a_schema_is_fetched_once() -> None:
    with running(ANSWERS) as server:
        reader = decoder(server)
        for _ in range(2):
            assert reader.decode(chunk_of(avro(OBSERVATION), avro(OBSERVATION), avro(FLAT))).rejected == []
        assert server.asked == [("/apis/schemas/ids/1", None), ("/apis/schemas/ids/4", None)]


@pytest.mark.parametrize(
    ("number", "says"),
    [(40, "value: no schema 40 in the registry at 127.0.0.1:"), (20, "PROTOBUF"), (22, "schema 22 can't be used")],
)
def test_a_burst_of_records_without_a_schema_asks_once_and_later_again(number: int, says: str) -> None:
    clock = ManualClock()
    with running(ANSWERS) as server:
        reader = decoder(server, UNNAMED, clock=clock)
        burst = [avro(numbered(number)[:5] + OBSERVATION[5:]) for _ in range(50)]
        for _ in range(2):
            decoded = reader.decode(chunk_of(*burst))
            assert len(decoded.rejected) == len(burst)
            assert all(says in str(each.error) and isinstance(each.error, DecodeError) for each in decoded.rejected)
        assert len(server.asked) == 1
        server.answers[number] = ANSWERS[1]
        clock.advance(RETRY_AFTER - 0.1)
        assert len(reader.decode(chunk_of(*burst)).rejected) == len(burst)
        assert len(server.asked) == 1
        clock.advance(0.2)
        assert reader.decode(chunk_of(*burst)).rejected == []
        assert len(server.asked) == 2


def test_a_schema_that_is_still_unknown_later_is_asked_for_once_in_each_while() -> None:
    clock = ManualClock()
    with running(ANSWERS) as server:
        reader = decoder(server, clock=clock)
        for _ in range(3):
            reader.decode(chunk_of(*[avro(numbered(40)) for _ in range(5)]))
            clock.advance(RETRY_AFTER)
        assert len(server.asked) == 3


def test_of_many_unknown_schemas_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro_module, "_KEPT", 2)
    with running(ANSWERS) as server:
        reader = decoder(server, clock=ManualClock())
        for number in (40, 41, 42, 42, 41, 40):
            reader.decode(chunk_of(avro(numbered(number))))
        assert [path.rpartition("/")[2] for path, _ in server.asked] == ["40", "41", "42", "40"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (numbered(404), "value: no schema 404 in the registry at 127.0.0.1:"),
        (b'{"data": [1, 2]}', "value: begins with 7b 22 64 61 74; Avro comes in Confluent's wire format"),
        (b"\0\0", "value: begins with 00 00; "),
        (OBSERVATION[:8], "value: not what schema 1 says: EOFError"),
        (OBSERVATION + b"12", "value: 2 bytes behind what schema 1 says"),
        (LIST, "value: schema 5 is of list; expected a record"),
        (numbered(6), "value: schema 6 can't be used: ValueError: an array of values that take no bytes"),
        (numbered(7), "value: schema 7 can't be used: ValueError: Reading contains itself"),
        (numbered(8), "value: schema 8 can't be used: ValueError: an array of values that take no bytes"),
        (numbered(9), "value: schema 9 can't be used: UnknownType"),
        (numbered(20), "value: schema 20 is one of PROTOBUF, not of Avro"),
        (numbered(21), "value: schema 21 refers to other schemas"),
        (numbered(22), "value: schema 22 can't be used: JSONDecodeError"),
    ],
)
def test_what_the_record_must_answer_for_is_a_dead_letter(registry: Server, value: bytes, says: str) -> None:
    decoded = decoder(registry).decode(chunk_of(avro(OBSERVATION), avro(value), avro(FLAT)))
    assert decoded.observations.index.tolist() == [0, 2]
    error = rejected(decoded)
    assert isinstance(error, DecodeError)
    assert says in str(error)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (500, "answers 500 Internal Server Error"),
        (503, "answers 503 Service Unavailable"),
        (30, "answers with something else"),
        (31, "answers with something else"),
    ],
)
def test_a_registry_that_gives_no_schema_ends_the_worker(registry: Server, number: int, says: str) -> None:
    with pytest.raises(SchemaRegistryFault, match=says) as fault:
        decoder(registry).decode(chunk_of(avro(OBSERVATION), avro(numbered(number))))
    assert isinstance(fault.value, WorkerFault)
    assert f"schema registry at 127.0.0.1:{registry.server_port}: schema {number}: " in str(fault.value)


def test_a_registry_out_of_reach_ends_the_worker_and_keeps_the_password_to_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes a connection, and says nothing
        settings = SchemaRegistrySettings(
            url=SecretStr(f"http://user:hunter2@127.0.0.1:{silent.getsockname()[1]}"), timeout=0.05
        )
        reader = Decoder(NAMED, LimitSettings(), schema_registry=settings)
        with pytest.raises(SchemaRegistryFault, match="timed out") as fault:
            reader.decode(chunk_of(avro(OBSERVATION)))
    with pytest.raises(SchemaRegistryFault, match="refused") as refused:
        reader.decode(chunk_of(avro(OBSERVATION)))
    assert "hunter2" not in f"{fault.value} {refused.value} {settings!r}"


def test_user_and_password_of_the_url_are_sent() -> None:
    with running(ANSWERS) as server:
        assert decoder(server, user="key:p%40ss@").decode(chunk_of(avro(OBSERVATION))).rejected == []
        assert server.asked == [("/apis/schemas/ids/1", "Basic a2V5OnBAc3M=")]


@pytest.mark.parametrize("url", ["ftp://host", "http://", "hunter2", "http://user:hunter2/x@host"])
def test_a_url_that_is_none_is_named_without_what_it_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANOMALY_SCHEMA_REGISTRY__URL", url)
    with pytest.raises(SettingsError, match=r"SCHEMA_REGISTRY__URL: .*http:// or https:// and name") as error:
        load_settings()
    assert "hunter2" not in str(error.value)


def test_without_a_registry_the_setting_is_named() -> None:
    error = rejected(Decoder(NAMED, LimitSettings()).decode(chunk_of(avro(OBSERVATION))))
    assert isinstance(error, ContentTypeError)
    assert "GANOMALY_SCHEMA_REGISTRY__URL" in str(error)


def test_without_the_extra_it_is_named(registry: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastavro", None)
    decoded = decoder(registry).decode(chunk_of(json_record('{"data": [1, 2]}'), avro(OBSERVATION)))
    error = rejected(decoded)
    assert isinstance(error, ContentTypeError)
    assert "pip install 'ganomaly-stream[avro]'" in str(error)


@given(number=st.integers(1, 5), body=st.binary(max_size=60))
def test_no_bytes_break_the_stream(registry: Server, number: int, body: bytes) -> None:
    decoded = decoder(registry).decode(chunk_of(avro(numbered(number)[:5] + body)))
    assert len(decoded.observations.index) + len(decoded.ready.index) + len(decoded.rejected) == 1

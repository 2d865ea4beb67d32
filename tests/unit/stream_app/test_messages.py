"""Files become messages that the worker's own decoder reads back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

from stream_app.decode import JSON, NPY, RAW, Decoder, InputSpec
from stream_app.errors import UsageError
from stream_app.messages import Message, encode_row, open_source
from stream_app.records import Kind
from stream_app.settings import LimitSettings
from tests.unit.stream_app.raw import Record, chunk_of

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 1), dtype=np.uint8)
IMAGE_SPEC = InputSpec(Kind.IMAGE, (8, 10, 1))
FLOW_SPEC = InputSpec(Kind.SEQUENCE, (4, 2))
CSV = "timestamp,flow,pressure,label\n2026-01-31T12:00:00+01:00,1.5,2,0\n\n1769857200,3.25,-4,1\n"


def decoded(messages: list[Message], spec: InputSpec):
    result = Decoder(spec, LimitSettings()).decode(chunk_of(*(Record(m.value, m.headers) for m in messages)))
    assert result.rejected == []
    return result


def read(path: Path, content_type: str | None = None) -> list[Message]:
    source = open_source(path, content_type)
    messages = list(source.messages())
    assert len(messages) == source.total
    return messages


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "pictures.npz", x=PICTURES, y=[0, 1, 0])
    return tmp_path / "pictures.npz"


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    (tmp_path / "flow.csv").write_text(CSV)
    return tmp_path / "flow.csv"


@pytest.mark.parametrize("content_type", [None, RAW, NPY, JSON, "image/png"])
def test_pictures_are_read_back_as_they_were_in_order(npz: Path, content_type: str | None):
    messages = read(npz, content_type)
    np.testing.assert_array_equal(decoded(messages, IMAGE_SPEC).ready.data, PICTURES)


def test_float_pictures_keep_their_values(tmp_path: Path):
    np.savez(tmp_path / "x.npz", x=(PICTURES / 255.0).astype(np.float32))
    np.testing.assert_allclose(decoded(read(tmp_path / "x.npz"), IMAGE_SPEC).ready.data, PICTURES, atol=1e-4)


def test_raw_bytes_say_their_shape_and_dtype(npz: Path):
    message = read(npz)[0]
    assert message.value == PICTURES[0].tobytes()
    assert message.headers == [("content-type", RAW.encode()), ("shape", b"8,10,1"), ("dtype", b"uint8")]


@pytest.mark.parametrize("content_type", [None, NPY, JSON])
def test_lines_become_observations_with_their_times_and_without_their_labels(csv_file: Path, content_type: str | None):
    result = decoded(read(csv_file, content_type), FLOW_SPEC)
    np.testing.assert_array_equal(result.observations.data, [[1.5, 2.0], [3.25, -4.0]])
    np.testing.assert_array_equal(result.event_times, [1769857200.0, 1769857200.0])


def test_the_time_of_a_json_record_is_in_its_body(csv_file: Path):
    message = read(csv_file, JSON)[0]
    assert orjson.loads(message.value) == {"data": [1.5, 2.0], "timestamp": "2026-01-31T11:00:00.000000Z"}


def test_a_folder_gives_its_pictures_and_arrays_by_name_as_they_are(tmp_path: Path):
    Image.fromarray(PICTURES[1][..., 0]).save(tmp_path / "b.png")
    np.save(tmp_path / "a.npy", PICTURES[0])
    (tmp_path / "notes.txt").write_text("not a picture")
    messages = read(tmp_path)
    np.testing.assert_array_equal(decoded(messages, IMAGE_SPEC).ready.data, PICTURES[:2])
    assert messages[1].value == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "content_type", "message"),
    [
        ("gone.npz", None, None, "there is no such file or folder"),
        ("x.txt", "1", None, r"expected a folder, or a file that ends in \.npz"),
        ("x.npz", "no zip", None, r"not a readable \.npz file"),
        ("x.csv", "a,b\n1,2\n3,x\n", None, r"line 3, column b: 'x' is not a number"),
        ("x.csv", "a\n1\n", "image/png", "rows of .* can be application/octet-stream"),
        ("x.csv", "a\n1\n", "text/plain", "--content-type text/plain: it must be one of"),
        ("x.png", "", "image/jpeg", "is published as it is, as image/png"),
    ],
)
def test_what_can_t_be_published_is_named(tmp_path: Path, name, content, content_type, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        list(open_source(tmp_path / name, content_type).messages())


@pytest.mark.parametrize(
    "arrays", [{"y": np.zeros(3)}, {"x": np.array(["a"])}, {"x": np.zeros((0, 2))}, {"x": np.float64(1)}]
)
def test_an_npz_without_rows_of_numbers_is_refused(tmp_path: Path, arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UsageError, match=r"x\.npz: "):
        open_source(tmp_path / "x.npz")


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"there is no \.png"):
        open_source(tmp_path)


def test_what_png_can_t_hold_is_refused():
    with pytest.raises(UsageError, match=r"\[8, 8\] of float64"):
        encode_row(np.zeros((8, 8)), "image/png")


def test_a_missing_value_is_null_unless_another_content_type_was_asked_for(tmp_path: Path):
    (tmp_path / "flow.csv").write_text("a,b\n1,\n2,3\n")
    holed, whole = read(tmp_path / "flow.csv")
    assert (holed.headers, holed.value) == ([("content-type", JSON.encode())], b'{"data":[1.0,null]}')
    assert dict(whole.headers)["content-type"] == RAW.encode()
    assert dict(read(tmp_path / "flow.csv", RAW)[0].headers)["content-type"] == RAW.encode()


def test_what_is_infinite_is_no_missing_value():
    message = encode_row(np.array([np.inf, np.nan, -np.inf], np.float32), JSON)
    largest = np.finfo(np.float64).max
    assert orjson.loads(message.value)["data"] == [largest, None, -largest]


def test_times_keep_their_microseconds():
    message = encode_row(np.zeros(1, np.float32), RAW, 1_700_000_000.000123)
    assert dict(message.headers)["ce_time"] == b"2023-11-14T22:13:20.000123Z"


def test_columns_are_taken_by_name_where_names_are_given(tmp_path: Path):
    file = tmp_path / "flow.csv"
    file.write_text("timestamp,b,a\n0,1,2\n")
    (message,) = open_source(file, features=("a", "b")).messages()
    assert np.frombuffer(message.value, np.float32).tolist() == [2.0, 1.0]
    with pytest.raises(UsageError, match=r"features a, c, in any order; missing c, unknown b$"):
        open_source(file, features=("a", "c"))


def test_a_series_of_one_feature_may_be_a_plain_array(tmp_path: Path):
    np.savez(tmp_path / "x.npz", x=np.arange(3.0))
    assert [dict(message.headers)["shape"] for message in read(tmp_path / "x.npz")] == [b"1"] * 3

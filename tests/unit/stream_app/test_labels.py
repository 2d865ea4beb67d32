"""Messages on the topic of labels: what is one, and what is said of the others."""

from __future__ import annotations

import json

import pytest

from stream_app.events import encode
from stream_app.labels import MAX_BYTES, parse_label
from tests.unit.stream_app.test_events import LABEL


def test_a_label_comes_back_as_it_was_published() -> None:
    label = parse_label(json.dumps(LABEL).encode())

    assert parse_label(encode(label)) == label
    assert (label.by, label.note, label.score) == ("", "", 4.25)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "value: is empty"),
        (b"", "value: is empty"),
        (b"{", "Invalid JSON"),
        (b"[]", "value: Input should be an object"),
        (b" " * (MAX_BYTES + 1), f"value: {MAX_BYTES + 1} bytes, a label has at most {MAX_BYTES}"),
        (json.dumps(LABEL | {"label": "fine"}).encode(), "label: Input should be 'normal', 'anomaly' or 'none'"),
        (json.dumps(LABEL | {"offset": 8}).encode(), "is not that of detector, topic, partition and offset"),
        (
            json.dumps(LABEL | {"offset": -1, "score": -2}).encode(),
            "offset: Input should be greater than or equal to 0",
        ),
        (json.dumps(LABEL | {"at": "2026-13-01T00:00:00.000Z"}).encode(), "at: Value error, month must be in 1..12"),
        (json.dumps(LABEL | {"schema_version": 2}).encode(), "schema_version: Input should be 1"),
        (json.dumps({}).encode(), "id: Field required; detector: Field required"),
    ],
    ids=str,
)
def test_what_is_no_label_is_refused_with_the_field_and_what_it_must_be(value: bytes | None, says: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_label(value)
    assert says in str(error.value)

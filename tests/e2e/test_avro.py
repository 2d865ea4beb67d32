"""Avro through a real worker, as Confluent's serializers send it: with a schema's id, and without a content type."""

from __future__ import annotations

import asyncio
import io
import json

import fastavro
import numpy as np

from stream_app.topics import ensure_topics
from tests.e2e.conftest import WINDOW
from tests.e2e.test_observations import scores_of, windows_of
from tests.e2e.test_stream import bodies, count, read, topics
from tests.schema_registry import running

SCHEMA = {
    "type": "record",
    "name": "Reading",
    "fields": [{"name": "data", "type": {"type": "array", "items": "float"}}],
}
KNOWN, UNKNOWN = 7, 8
UNREADABLE = 10  # records of a schema that the registry doesn't know


def reading(row: np.ndarray, schema: int) -> dict:
    """A row of the series, in the wire format."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, SCHEMA, {"data": row.tolist()})
    return {"value": b"\0" + schema.to_bytes(4, "big") + body.getvalue(), "key": "main", "partition": 0}


async def test_records_of_confluents_serializers_are_scored_and_an_unknown_schema_is_asked_for_once(
    client, stream_settings, running_worker, flow, registry_url
):
    rows = range(WINDOW + 5)
    records = [reading(flow[row], KNOWN) for row in rows]
    records[WINDOW:WINDOW] = [reading(flow[0], UNKNOWN)] * UNREADABLE
    with running({KNOWN: {"schema": json.dumps(SCHEMA)}}) as server:
        url = f"http://127.0.0.1:{server.server_port}/apis"
        settings = stream_settings(scores={"publish": True}, schema_registry={"url": url})
        await ensure_topics(settings)
        _, sequences = topics(settings)
        await asyncio.to_thread(client.publish, sequences, records)
        async with running_worker(settings):
            events = bodies(await read(client, settings.topics.scores, count(len(rows) - WINDOW + 1)))
            dead = await read(client, settings.topics.dead_letter, count(UNREADABLE))
    expected = scores_of(registry_url, windows_of(flow, range(WINDOW - 1, len(rows))))
    np.testing.assert_allclose([event["score"] for event in events], expected, atol=1e-5)
    reasons = {dict(letter.headers())["__connect.errors.exception.message"].decode() for letter in dead}
    assert reasons == {f"value: no schema {UNKNOWN} in the registry at 127.0.0.1:{server.server_port}"}
    assert sorted(path for path, _ in server.asked) == [f"/apis/schemas/ids/{number}" for number in (KNOWN, UNKNOWN)]

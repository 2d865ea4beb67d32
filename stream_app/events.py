"""What the product publishes: the one definition of scored events and alerts, and of their JSON Schema.

The schemas in `stream_app/schemas/` are made from this file by

    python -m stream_app.events

Readers of older or newer releases look at `schema_version`: it rises when a field changes its meaning or goes away.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stream_app.records import Kind

SCHEMA_VERSION: Literal[1] = 1
SCHEMA_FOLDER = Path(__file__).parent / "schemas"
_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_FIRST_SECOND = -62_135_596_800.0  # 0001-01-01T00:00:00Z, the first a four-digit year can say
_LAST_SECOND = 253_402_300_799.0  # 9999-12-31T23:59:59Z

Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Index = Annotated[int, Field(ge=0)]
EventId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Timestamp = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
        json_schema_extra={"format": "date-time"},
        description="RFC 3339, UTC, milliseconds",
    ),
]


class EpisodeState(StrEnum):
    """What an alert does to its episode."""

    OPEN = "open"
    UPDATE = "update"
    CLOSE = "close"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordRef(_Part):
    """Where the scored record is. For a window of single observations: the newest of them."""

    topic: str = Field(description="topic the record was read from")
    partition: Index = Field(description="its partition")
    offset: Index = Field(description="its offset in the partition")
    timestamp: Timestamp = Field(description="event time of the record; RFC 3339, UTC, milliseconds")
    id: str | None = Field(description="the record's `ce_id` header, where it has one")


class ModelRef(_Part):
    """The weights that gave the score."""

    name: str = Field(description="detector")
    version: str = Field(description="version of the detector in the registry")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the weights")


class PolicyRef(_Part):
    """How the threshold came about."""

    name: str = Field(description="threshold policy")
    target_rate: Annotated[float, Field(gt=0, lt=1)] = Field(description="share of normal records that may alert")
    observations: Index = Field(description="scores of this stream that the threshold has learned from")
    warm: bool = Field(description="false while the stream's own scores are still blended with the model's calibration")


class ScoreEvent(_Part):
    """One scored record."""

    schema_version: Literal[1] = Field(default=SCHEMA_VERSION, description="version of this layout")
    id: EventId = Field(
        description="hash of detector, topic, partition and offset: the same whenever it is scored again"
    )
    stream: str = Field(description="the stream's name: the record's key")
    kind: Kind = Field(description="what the detector takes")
    is_anomaly: bool = Field(description="whether the score is above the threshold")
    score: NotNegative = Field(
        description="-log10 of the share of held-out normal records that score as high: 2 is one in a hundred, "
        "3 one in a thousand"
    )
    threshold: NotNegative = Field(
        description="the stream's threshold when the record was judged, on the scale of the score"
    )
    severity: Annotated[int, Field(ge=0, le=100)] = Field(
        description="0 at the threshold; each step of 1 of the score above it halves the distance to 100"
    )
    record: RecordRef = Field(description="the record that was scored")
    model: ModelRef = Field(description="the weights that gave the score")
    policy: PolicyRef = Field(description="how the threshold came about")
    raw: dict[str, Finite] = Field(
        description="evidence before calibration, by name (latent distance, reconstruction error, …)"
    )
    degraded: bool = Field(
        description="true when Redis could not be reached: the threshold may lack other workers' learning"
    )
    scored_at: Timestamp = Field(description="when the record was scored; RFC 3339, UTC, milliseconds")


class ImageEvidence(_Part):
    """Where in the picture the anomaly is."""

    heat_map_png: str = Field(
        description="PNG, 8-bit grey, base64; longer side at most 64 pixels; 0 is none, 255 the picture's worst place",
        json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"},
    )
    peak: NotNegative = Field(description="value of the heat map at its worst place")
    box: Annotated[tuple[Index, Index, Index, Index], Field()] = Field(
        description="worst region in pixels of the record: x0, y0, x1, y1, the right and lower ends exclusive"
    )


class Contribution(_Part):
    """One value of a window."""

    step: Index = Field(description="step of the window, 0 the oldest")
    feature: Index = Field(description="feature (column) of the record")
    value: NotNegative = Field(description="its contribution to the score")


class SequenceEvidence(_Part):
    """Which steps and features of the window made the score."""

    steps: list[NotNegative] = Field(
        description="contribution of each step (or of runs of `steps_per_entry` steps), summed over features"
    )
    steps_per_entry: Annotated[int, Field(ge=1)] = Field(
        description="steps that one entry of `steps` sums up; 1 unless the window is long"
    )
    features: list[NotNegative] = Field(
        description="contribution of each feature, summed over steps; empty where there are too many"
    )
    top: list[Contribution] = Field(description="the largest single contributions, largest first")
    contributions: list[list[NotNegative]] | None = Field(
        description="all of them, [step][feature]; null where the window is too large for a message"
    )


class Alert(ScoreEvent):
    """A scored record that crossed its threshold, or that ends an episode."""

    episode_id: EventId | None = Field(description="id of the alert that opened the episode; null outside of episodes")
    state: EpisodeState | None = Field(
        description="open, update (crossings) or close (the normal record that ends it); "
        "null for a record that is only published because all are"
    )
    evidence: ImageEvidence | SequenceEvidence | None = Field(
        description="where the anomaly is; null when off, for normal records, and where it makes the message too large"
    )


SCHEMAS: dict[str, type[BaseModel]] = {"alert.schema.json": Alert, "score.schema.json": ScoreEvent}


def event_id(detector: str, topic: str, partition: int, offset: int) -> str:
    """32 hex digits that depend on the arguments only, so that a replay gives the same ids (BLAKE2b, RFC 7693)."""
    # The length keeps detector "a:b" of topic "c" apart from detector "a" of topic "b:c".
    name = f"{len(detector)}:{detector}:{topic}:{partition}:{offset}"
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def rfc3339(seconds: float) -> str:
    """Seconds since the Unix epoch as UTC with milliseconds, within the years 1 to 9999.

    Times beyond become the nearest of these years, so that a wrong clock never costs an event. ValueError for NaN.
    """
    within = min(max(seconds, _FIRST_SECOND), _LAST_SECOND)
    return datetime.fromtimestamp(within, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def encode(event: ScoreEvent) -> bytes:
    """The event as UTF-8 JSON, without blanks, in the order of its fields."""
    return event.model_dump_json().encode()


def json_schema(event: type[BaseModel]) -> dict[str, Any]:
    """The event's JSON Schema, draft 2020-12."""
    return {"$schema": _SCHEMA_DIALECT, **event.model_json_schema(mode="serialization")}


def write_schemas(folder: Path = SCHEMA_FOLDER) -> list[Path]:
    """Writes every schema into the folder and returns the files."""
    files = []
    for name, event in SCHEMAS.items():
        file = folder / name
        file.write_text(json.dumps(json_schema(event), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        files.append(file)
    return files


if __name__ == "__main__":
    sys.stdout.writelines(f"{file}\n" for file in write_schemas())

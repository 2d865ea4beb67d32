"""What is published beside records: the one definition of scored events, alerts and labels, and of their JSON Schema.

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

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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


def _is_a_time(value: str) -> str:
    datetime.fromisoformat(value)  # the pattern alone lets the 13th month through
    return value


Timestamp = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
        json_schema_extra={"format": "date-time"},
        description="RFC 3339, UTC, milliseconds",
    ),
    AfterValidator(_is_a_time),
]


class EpisodeState(StrEnum):
    """What an alert does to its episode."""

    OPEN = "open"
    UPDATE = "update"
    CLOSE = "close"
    SHIFT = "shift"


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
    """How the threshold came about. A stream that nothing is known of starts cold: `warm` is false."""

    name: str = Field(description="threshold policy")
    target_rate: Annotated[float, Field(gt=0, lt=1)] = Field(description="share of normal records that may alert")
    observations: Index = Field(description="scores of this stream that the threshold has learned from")
    min_observations: Annotated[int, Field(ge=1)] = Field(
        description="scores from which on the threshold is the stream's own: below it is blended, by the share of them "
        "that there are, with the model's calibration, which alone decides at 0"
    )
    warm: bool = Field(
        description="false in the cold start, before min_observations scores are learned; true from there on, and "
        "after a lasting shift"
    )
    labels: Index = Field(
        default=0, description="people's labels of this stream's records that the threshold heeds, of whatever model"
    )
    shift: Finite = Field(
        default=0.0, description="by how much they have moved the threshold from the one that was learned"
    )


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


class EpisodeRef(_Part):
    """What the episode has come to with this record."""

    since: Timestamp = Field(description="event time of its first anomalous record; RFC 3339, UTC, milliseconds")
    anomalous: Annotated[int, Field(ge=1)] = Field(description="its anomalous records so far")
    worst_score: NotNegative = Field(description="the highest score among them")
    severity: Annotated[int, Field(ge=0, le=100)] = Field(
        description="grows with the worst score and with the length: as `severity`, of the largest excess over the "
        "threshold plus log10 of the anomalous records"
    )


class Alert(ScoreEvent):
    """What is told of an episode, with the record that it is told at."""

    episode_id: EventId | None = Field(
        description="id of the event that the episode opened with; null outside of episodes"
    )
    state: EpisodeState | None = Field(
        description="open; update (it has grown, or began again after its close); close (the normal record that ends "
        "it); shift (the anomalous record that ends it: the stream has changed for good, and its threshold is learned "
        "anew from the episode's records); null for a record that is only published because all are"
    )
    episode: EpisodeRef | None = Field(description="what the episode has come to; null where episode_id is")
    evidence: ImageEvidence | SequenceEvidence | None = Field(
        description="where the anomaly is; null when off, for normal records, and where it makes the message too large"
    )


class UpdateAction(StrEnum):
    """What happened to a version."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    SHADOW = "shadow"
    UNSHADOW = "unshadow"


class ModelUpdate(_Part):
    """A version that came into service, or that scores beside the one in service from now on, or no longer.

    The message's key is the detector, or DETECTOR/shadow.
    """

    schema_version: Literal[1] = Field(default=SCHEMA_VERSION, description="version of this layout")
    detector: str = Field(description="detector that it is about")
    version: str = Field(description="version of the detector in the registry")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="digest of the version's weights")
    action: UpdateAction = Field(
        description="promote or rollback: in service now; shadow: scores beside the version in service, and nothing of "
        "it is published; unshadow: no longer"
    )
    at: Timestamp = Field(description="when it happened; RFC 3339, UTC, milliseconds")
    by: str = Field(default="", description="who did it")
    reason: str = Field(default="", description="why, for people")


class LabelKind(StrEnum):
    """What somebody says that a record was. None takes back what was said before."""

    NORMAL = "normal"
    ANOMALY = "anomaly"
    NONE = "none"


class Label(_Part):
    """What somebody says that a record was. The message's key is the stream; of one record, the newest label holds."""

    schema_version: Literal[1] = Field(default=SCHEMA_VERSION, description="version of this layout")
    id: EventId = Field(description="of the record's event or alert: hash of detector, topic, partition and offset")
    detector: str = Field(description="detector that scores the record's topic: the event's model.name")
    topic: str = Field(description="topic of the record")
    partition: Index = Field(description="its partition")
    offset: Index = Field(description="its offset in the partition")
    stream: str = Field(description="the record's stream")
    label: LabelKind = Field(description="normal, anomaly, or none: takes back what was said before")
    score: NotNegative | None = Field(
        default=None,
        description="the event's score, whichever model gave it: scores are calibrated, and mean the same for all; "
        "null where it isn't known, and then the label does nothing to the threshold",
    )
    threshold: NotNegative | None = Field(default=None, description="the event's threshold; null where it isn't known")
    at: Timestamp = Field(description="when it was said; RFC 3339, UTC, milliseconds")
    by: Annotated[str, Field(max_length=256)] = Field(default="", description="who said it")
    note: Annotated[str, Field(max_length=4096)] = Field(default="", description="why, for people")

    @model_validator(mode="after")
    def _is_the_records_id(self) -> Label:
        wanted = event_id(self.detector, self.topic, self.partition, self.offset)
        if self.id != wanted:
            msg = f"id {self.id} is not that of detector, topic, partition and offset, which is {wanted}"
            raise ValueError(msg)
        return self


SCHEMAS: dict[str, type[BaseModel]] = {
    "alert.schema.json": Alert,
    "label.schema.json": Label,
    "model-update.schema.json": ModelUpdate,
    "score.schema.json": ScoreEvent,
}


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


def encode(event: BaseModel) -> bytes:
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

"""What is known about a version of a detector: how to build it, what it was made from, how to read its scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from model.calibration import Calibration, read_sketch
from model.config import ImageConfig, Kind, Profile, SequenceConfig
from model.errors import ManifestError, first_fault
from model.gate_report import GateReport
from model.reference import Reference

SCHEMA_VERSION = 2
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]


class Known(BaseModel):
    """What is known of the records of a stream from offset `first` to `last` of a partition.

    They belong to an `episode` of alerts, or to one that ended as a `shift`; or they were labelled.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["episode", "shift", "normal", "anomaly"]
    partition: int = Field(ge=0)
    stream: str
    first: int = Field(ge=0)
    last: int = Field(ge=0)


class TrainingData(BaseModel):
    """Where the normal records came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    rows: int = Field(ge=0, description="normal records or windows that were there to learn from")
    sha256: Sha256 = Field("", description="of the file, or of the records in order")
    topic: str | None = None
    offsets: dict[str, tuple[int, int]] | None = Field(
        None, description="partition to the first offset that was looked at and the one after the last"
    )
    champion: str | None = Field(None, description="the version whose scores said what to leave out")
    profile: Profile = Field(Profile.ACCURATE, description="of those scores")
    seed: int | None = Field(None, description="of the draw among the records")
    choice: dict[str, float] = Field({}, description="the settings that decided what is kept, by name")
    known: tuple[Known, ...] = Field((), description="what alerts and labels said of the records, at that time")
    counts: dict[str, int] = Field({}, description="what became of the records that were looked at")


class TrainingRun(BaseModel):
    """How the networks were trained. The same run on the same data gives the same weights on the same machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = Field(None, ge=1, description="steps to make at most; None where time was the limit")
    objective: str
    from_version: str | None = Field(None, description="whose weights it began with")
    threads: int = Field(1, ge=1, description="of torch; with another number sums are rounded differently")


class Manifest(BaseModel):
    """`manifest.json`. `version` and `sha256` (of the weights) are set by the registry when it saves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[2] = 2
    name: Name
    version: str = ""
    kind: Kind
    created_at: datetime
    config: dict[str, Any]
    input_shape: tuple[int, ...]
    features: tuple[str, ...] | None = Field(None, description="names of a sequence's columns, in their order")
    metrics: dict[str, float] = {}
    training_data: TrainingData
    run: TrainingRun | None = None
    calibration: Calibration
    score_sketch: str = Field(
        description="base64 of a REQ sketch of the calibrated scores of held-out normals: what normal looked like at "
        "training, to hold a stream's scores (drift) or another version's (the gate) against. A new stream's threshold "
        "needs none of it: as scores are calibrated, it is −log10 of the target rate"
    )
    inputs: Reference | None = Field(None, description="what records and scores were like at training, in bins (drift)")
    sha256: Sha256 = ""
    parent: str | None = Field(None, description="the champion at the time of training")
    gate: GateReport | None = Field(None, description="what it showed before it was saved; None where nobody asked")
    seed: int = 0
    seconds: float = Field(0.0, ge=0)
    libraries: dict[str, str] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Manifest:
        if self.input_shape != self.network().input_shape:
            raise ValueError(f"input_shape {self.input_shape} is not that of the config, {self.network().input_shape}")
        if self.features is not None:
            self._check_features(self.features)
        return self

    def _check_features(self, names: tuple[str, ...]) -> None:
        if self.kind is not Kind.SEQUENCE:
            raise ValueError("features are of sequences; a picture has none")
        if len(names) != self.input_shape[1]:
            raise ValueError(f"{len(names)} features are named, but the detector takes {self.input_shape[1]}")
        if len(set(names)) != len(names) or not all(names):
            raise ValueError("features: each needs a name of its own")

    @field_validator("score_sketch")
    @classmethod
    def _is_a_sketch(cls, value: str) -> str:
        if read_sketch(value).is_empty():
            raise ValueError("the sketch is empty")
        return value

    def score_quantiles(self, shares: Sequence[float]) -> list[float]:
        """The calibrated scores that these shares (0…1) of the held-out normals do not exceed."""
        return list(read_sketch(self.score_sketch).get_quantiles(list(shares), True))

    def network(self) -> ImageConfig | SequenceConfig:
        """The networks' configuration."""
        return (ImageConfig if self.kind is Kind.IMAGE else SequenceConfig).from_json(self.config)

    @classmethod
    def parse(cls, data: bytes, where: str) -> Manifest:
        """From the bytes of a file at `where`. Raises ManifestError when they are no manifest this release can read."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ManifestError(f"{where}: {first_fault(error, 'the whole')} (this release reads schema 2)") from error


def is_name(value: str) -> bool:
    """Whether a detector or a version may have this name."""
    return re.fullmatch(NAME_PATTERN, value) is not None


def check_name(value: str, what: str) -> str:
    """A name that is safe as a folder. Raises ManifestError with the rule otherwise."""
    if not is_name(value):
        raise ManifestError(
            f"{what} {value!r}: 1 to 128 letters, digits, '.', '_' or '-', and a letter or digit to begin with"
        )
    return value

"""What is known about a version of a detector: how to build it, what it was made from, how to read its scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from model.calibration import Calibration, read_sketch
from model.config import ImageConfig, Kind, SequenceConfig
from model.errors import ManifestError

SCHEMA_VERSION = 2
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]


class TrainingData(BaseModel):
    """Where the normal records came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    rows: int = Field(ge=0, description="normal records or windows that were there to learn from")
    sha256: Sha256 = Field("", description="of the file, or of the records in order")
    topic: str | None = None
    offsets: dict[str, tuple[int, int]] | None = Field(None, description="partition to first and last offset")


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
    metrics: dict[str, float] = {}
    training_data: TrainingData
    calibration: Calibration
    score_sketch: str = Field(
        description="base64 of a REQ sketch of the calibrated scores of held-out normals: what normal looked like at "
        "training, to hold a stream's scores (drift) or another version's (the gate) against. A new stream's threshold "
        "needs none of it: as scores are calibrated, it is −log10 of the target rate"
    )
    sha256: Sha256 = ""
    parent: str | None = Field(None, description="the champion at the time of training")
    seed: int = 0
    seconds: float = Field(0.0, ge=0)
    libraries: dict[str, str] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Manifest:
        if self.input_shape != self.network().input_shape:
            raise ValueError(f"input_shape {self.input_shape} is not that of the config, {self.network().input_shape}")
        return self

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
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise ManifestError(f"{where}: {field}: {first['msg']} (this release reads schema 2)") from error


def check_name(value: str, what: str) -> str:
    """A name that is safe as a folder. Raises ManifestError with the rule otherwise."""
    if not re.fullmatch(NAME_PATTERN, value):
        raise ManifestError(
            f"{what} {value!r}: 1 to 128 letters, digits, '.', '_' or '-', and a letter or digit to begin with"
        )
    return value

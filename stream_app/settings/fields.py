"""What sections are made of: the kinds of numbers in them, and the base of all."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
TargetRate = Annotated[float, Field(gt=0, lt=0.5)]
AlertsPerDay = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A section of the settings: unknown names are errors, and a wrong value is not repeated in the message."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

"""What the gate found of a new version: a verdict for each rule, kept in the manifest."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(allow_inf_nan=False)]


class RuleVerdict(BaseModel):
    """One rule. A rule that could not be judged has no figure, has passed, and says why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    figure: Number | None = Field(None, description="of the challenger")
    reference: Number | None = Field(
        None, description="of the champion, or of the anchor where `why` says so, on the same records"
    )
    limit: Number | None = Field(None, description="the worst figure that passes")
    passed: bool
    why: str = Field(description="what was measured on how many records, or what was not and why")

    def __str__(self) -> str:
        """A line for people."""
        parts = [
            f"{name} {value:.4g}"
            for name, value in (("", self.figure), ("champion", self.reference), ("limit", self.limit))
            if value is not None
        ]
        said = ", ".join(part.strip() for part in parts)
        return f"{self.rule} {'passed' if self.passed else 'FAILED'}: {said + '; ' if said else ''}{self.why}"


class GateReport(BaseModel):
    """All rules, in the order they were judged. `champion` is the version it was compared with, None without one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: str | None = None
    rules: tuple[RuleVerdict, ...] = Field(min_length=1)

    @property
    def refused_by(self) -> tuple[str, ...]:
        """The rules that failed."""
        return tuple(rule.rule for rule in self.rules if not rule.passed)

    @property
    def passed(self) -> bool:
        """Whether no rule failed."""
        return not self.refused_by

    def why_refused(self) -> str:
        """A line for each rule that failed."""
        return "\n".join(str(rule) for rule in self.rules if not rule.passed)

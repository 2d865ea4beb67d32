"""Whether the worker is ready: by its progress, not by the life of its process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Health:
    """What `/readyz` says.

    `scoring` are topics with a detector in service, `waiting` those whose detector has no champion.
    """

    assigned: bool  # the broker has told us our partitions (there may be none)
    scoring: tuple[str, ...]
    waiting: tuple[str, ...]
    stalled_for: float  # seconds since a chunk was done, while some are in hand; 0 otherwise
    stalled_after: float
    lag: int  # records in the log that are not done yet
    ending: bool = False
    models: dict[str, str] = field(default_factory=dict)  # detector → version
    refused: dict[str, dict[str, str]] = field(default_factory=dict)  # detector → version, reason and error
    from_cache: tuple[str, ...] = ()  # detectors whose version the registry has not confirmed
    registry_error: str | None = None  # why it can't be reached

    @property
    def reasons(self) -> list[str]:
        """Why the worker isn't ready, in words; empty when it is."""
        reasons = []
        if self.ending:
            reasons.append("the worker is ending")
        if not self.assigned:
            reasons.append("the broker has not assigned partitions yet")
        if not self.scoring:
            reasons.append("no route has a champion; train one with `ganomaly-stream train`")
        if self.stalled_for > self.stalled_after:
            reasons.append(f"records wait and none was done for {self.stalled_for:.0f} s")
        return reasons

    @property
    def ready(self) -> bool:
        """At least one route scores, and what it was given gets done."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ready": self.ready,
            "reasons": self.reasons,
            "scoring": list(self.scoring),
            "waiting_for_champion": list(self.waiting),
            "models": self.models,
            "refused_versions": self.refused,
            "from_cache": list(self.from_cache),
            "registry_error": self.registry_error,
            "lag": self.lag,
        }

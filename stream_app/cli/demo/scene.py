"""What the demo publishes, and what is true of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

NORMAL = ""


class Due(Enum):
    """What the worker owes for a record."""

    SCORE = "score"
    DEAD_LETTER = "dead letter"
    NOTHING = "nothing"  # an observation before its stream's first full window


@dataclass(frozen=True, slots=True)
class Planned:
    """One record, and its truth: empty for a normal one, otherwise what is wrong with it."""

    topic: str
    stream: str
    id: str
    value: bytes
    headers: list[tuple[str, bytes]] = field(repr=False)
    truth: str
    due: Due = Due.SCORE

    def all_headers(self) -> list[tuple[str, bytes]]:
        """With the id that comes back in the events."""
        return [*self.headers, ("ce_id", self.id.encode())]

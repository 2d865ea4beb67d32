"""Dead letters: the record as it came, with the reason in Kafka Connect's header names; and the fuse.

Source of the names: Apache Kafka, KIP-298 "Error Handling in Connect", section "Dead Letter Queue".
"""

from __future__ import annotations

from collections import deque

from stream_app.errors import FuseBlown
from stream_app.records import RawRecord, TopicPartition
from stream_app.settings import DeadLetterSettings

Headers = list[tuple[str, bytes]]
PREFIX = "__connect.errors."


def dead_letter_headers(record: RawRecord, stage: str, error: Exception) -> Headers:
    """The record's own headers, and behind them why it could not be scored."""
    reason = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "stage": stage,
        "exception.class.name": type(error).__name__,
        "exception.message": str(error),
    }
    return [*record.headers, *((PREFIX + name, text.encode()) for name, text in reason.items())]


def without_value(record: RawRecord, headers: Headers) -> Headers:
    """Headers for when the broker finds the letter too large: they say that the value stayed where the record is."""
    note = f"{len(record.value or b'')} bytes are more than the broker takes; they are at the record's own offset"
    return [*headers, (PREFIX + "value.omitted", note.encode())]


class Fuse:
    """Blows when so many records are dead-lettered that the worker or the topic must be wrong, not the records.

    `max_run` counts dead letters in a row in one partition, `max_share` is of the last `window` records of all
    partitions, once there are so many.
    """

    def __init__(self, settings: DeadLetterSettings) -> None:
        self._settings = settings
        self._runs: dict[TopicPartition, int] = {}
        self._recent: deque[tuple[int, int]] = deque()  # (records, dead letters) of each chunk
        self._records = 0
        self._dead = 0

    def check(self, tp: TopicPartition, outcome: list[bool], reason: str) -> None:
        """Takes the records of a chunk in order, true for each dead letter; `reason` is an example.

        Raises FuseBlown; nothing of the chunk may then be published or committed.
        """
        run = self._runs.get(tp, 0)
        for dead in outcome:
            run = run + 1 if dead else 0
            if run > self._settings.max_run:
                raise FuseBlown(
                    f"{run} dead letters in a row in partition {tp.partition} of {tp.topic}, more than "
                    f"dead_letter.max_run={self._settings.max_run}; the last reason: {reason}. "
                    "Check what is published there, and which detector the route names"
                )
        self._runs[tp] = run
        self._check_share(len(outcome), sum(outcome), reason)

    def _check_share(self, records: int, dead: int, reason: str) -> None:
        self._recent.append((records, dead))
        self._records += records
        self._dead += dead
        while self._recent and self._records - self._recent[0][0] >= self._settings.window:
            old_records, old_dead = self._recent.popleft()
            self._records -= old_records
            self._dead -= old_dead
        if self._records >= self._settings.window and self._dead > self._settings.max_share * self._records:
            raise FuseBlown(
                f"{self._dead} of the last {self._records} records were dead letters, more than "
                f"dead_letter.max_share={self._settings.max_share:g}; the last reason: {reason}. "
                "Check what is published, and which detector the route names"
            )

"""The topic of labels: what people say that records were. It is small, and read from its beginning by whoever needs it.

The key is the stream's name, so that what is said of a stream stays in order; of one record the newest label holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pydantic import ValidationError

from stream_app import metrics
from stream_app.clock import Clock
from stream_app.events import Label, LabelKind
from stream_app.history import bounds, follow, read_range
from stream_app.label_book import LabelBook
from stream_app.log import get_logger
from stream_app.records import RawRecord
from stream_app.settings import Settings

__all__ = ["Label", "LabelFollower", "LabelKind", "parse_label", "read_labels"]

log = get_logger(__name__)

MAX_BYTES = 1 << 16  # of a label
_EXPIRY_INTERVAL = 10.0  # seconds


def parse_label(value: bytes | None) -> Label:
    """Reads a message of the topic. Raises ValueError that names the field and what it must be."""
    if not value:
        raise ValueError("value: is empty")
    if len(value) > MAX_BYTES:
        raise ValueError(f"value: {len(value)} bytes, a label has at most {MAX_BYTES}")
    try:
        return Label.model_validate_json(value)
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}" for each in error.errors())
        raise ValueError("; ".join(wrong)) from None


async def read_labels(settings: Settings) -> list[Label]:
    """The labels in force, the oldest first: of each record the newest, unless it takes the label back.

    Reads the whole topic up to where it ends now; messages that are no labels are skipped and said. Empty where there
    is no such topic. Raises BrokerUnavailable.
    """
    book = LabelBook()
    for tp, (first, end) in (await bounds(settings, settings.topics.labels)).items():
        async for chunk in read_range(settings, tp, first, end):
            _take(book, chunk.records)
    return book.labels()


class LabelFollower:
    """Keeps a book of the labels, for as long as it runs: those there are, and then what comes.

    Only labels within `labels.horizon` are kept, and `labels.per_stream` of a stream. While the broker is away, those
    that are here go on to count.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.book = LabelBook(settings.labels.horizon, settings.labels.per_stream)
        self._settings = settings
        self._clock = clock
        self._caught_up = asyncio.Event()

    async def run(self) -> None:
        """Follows the topic for ever."""
        expired = self._clock.monotonic()
        async for records in follow(self._settings, self._settings.topics.labels):
            _take(self.book, records, self._clock.time())
            if not records:
                self._caught_up.set()
            if self._clock.monotonic() - expired >= _EXPIRY_INTERVAL or not self._caught_up.is_set():
                self.book.expire(self._clock.time())
                expired = self._clock.monotonic()
            metrics.LABELS.set(len(self.book))

    async def catch_up(self) -> None:
        """Returns when the labels that there are have been read, after `labels.start_timeout` seconds at the latest."""
        timeout = self._settings.labels.start_timeout
        try:
            await asyncio.wait_for(self._caught_up.wait(), timeout)
            log.info("labels were read", labels=len(self.book))
        except TimeoutError:
            log.warning("labels could not all be read yet; they count as soon as they are", waited=timeout)


def _take(book: LabelBook, records: Iterable[RawRecord], now: float = float("inf")) -> None:
    """Adds the labels among the records to the book. What is none is counted, and the first is said."""
    unreadable = 0
    for record in records:
        try:
            book.add(parse_label(record.value), record.partition, record.timestamp / 1000.0, now)
        except ValueError as error:
            if not unreadable:
                place = f"{record.topic}/{record.partition}/{record.offset}"
                log.warning("not a label; it is skipped, and so are more like it", place=place, error=str(error))
            unreadable += 1
    metrics.LABELS_UNREADABLE.inc(unreadable)

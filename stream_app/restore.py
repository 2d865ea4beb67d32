"""What was saved of a stream, as far as it is good for the detector and the assignment of now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from stream_app import metrics
from stream_app.completeness import Completeness
from stream_app.decode import InputSpec
from stream_app.episodes import Episode
from stream_app.log import get_logger
from stream_app.settings import Settings
from stream_app.state import StreamState
from stream_app.tail import Tail
from stream_app.threshold import StreamThreshold

log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Saved:
    """A stream as it was saved; `tail` is None where its window begins anew, `offset` is -1 where its offsets do."""

    threshold: StreamThreshold
    episode: Episode
    tail: Tail | None
    offset: int
    overwrites: bool


class Restorer:
    """Reads the states of a partition's streams for an assignment that begins with the offset `start`.

    A part that can't be read begins anew, and costs the others nothing: an upgrade may change the format of one. Each
    is counted; the log has the first of each part.
    """

    def __init__(self, settings: Settings, spec: InputSpec, start: int, completeness: Completeness) -> None:
        self._settings = settings
        self._spec = spec
        self._start = start
        self._completeness = completeness
        self._said: set[str] = set()

    def restore(self, name: str, state: StreamState) -> Saved:
        """The stream as far as its state can be used; what of it can't be is said in the log."""
        settings = self._settings.threshold.of(name)
        threshold = self._part(
            "threshold",
            name,
            lambda: StreamThreshold.from_bytes(state.threshold, settings),
            lambda: StreamThreshold(settings),
        )
        episode = self._part(
            "episode",
            name,
            lambda: Episode.from_bytes(state.episode, self._settings.alerts),
            lambda: Episode(self._settings.alerts),
        )
        if self._start < state.floor:
            log.warning(
                "a stream has learned beyond where this assignment begins: the group was put back, or the topic made "
                "again; its threshold goes on, its offsets and its window begin anew",
                stream=name,
                begins=self._start,
                learned=state.offset,
            )
            return Saved(threshold, episode, None, -1, overwrites=True)
        return Saved(threshold, episode, self._tail(name, state), state.offset, overwrites=False)

    def _tail(self, name: str, state: StreamState) -> Tail | None:
        if not state.tail or not self._completeness.is_whole(state.offset):
            return None
        tail = self._part("window", name, lambda: Tail.from_bytes(state.tail), lambda: None)
        if tail is None or tail.rows.shape[1] == self._spec.shape[1]:
            return tail
        log.warning(
            "the observations saved of a stream have another number of features; its window begins anew",
            stream=name,
            saved=tail.rows.shape[1],
            detector=self._spec.shape[1],
        )
        return None

    def _part(self, part: str, name: str, read: Callable[[], T], begin: Callable[[], T]) -> T:
        try:
            return read()
        except ValueError as error:
            metrics.STATES_CORRUPT.labels(part).inc()
            if part not in self._said:
                self._said.add(part)
                log.warning(
                    f"a stream's saved {part} can't be read and begins anew; others of the partition are only counted",
                    stream=name,
                    error=str(error),
                )
            return begin()

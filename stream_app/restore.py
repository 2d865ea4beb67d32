"""What was saved of a stream, as far as it is good for the detector and the assignment of now."""

from __future__ import annotations

from dataclasses import dataclass

from stream_app.decode import InputSpec
from stream_app.episodes import Episode
from stream_app.log import get_logger
from stream_app.settings import Settings
from stream_app.state import StreamState
from stream_app.tail import Tail
from stream_app.threshold import StreamThreshold

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """A stream as it was saved; `tail` is None where its window begins anew, `offset` is -1 where its offsets do."""

    threshold: StreamThreshold
    episode: Episode
    tail: Tail | None
    offset: int
    overwrites: bool


def restore(name: str, state: StreamState, settings: Settings, spec: InputSpec, start: int) -> Saved | None:
    """Reads the state of a stream for an assignment that begins with the offset `start`.

    None where it can't be read. What of it can't be used is said in the log.
    """
    try:
        threshold = StreamThreshold.from_bytes(state.threshold, settings.threshold.of(name))
        episode = Episode.from_bytes(state.episode, settings.alerts)
        tail = Tail.from_bytes(state.tail) if state.tail else None
    except ValueError as error:
        log.warning("a stream's saved state can't be read; it begins anew", stream=name, error=str(error))
        return None
    if start < state.floor:
        log.warning(
            "a stream has learned beyond where this assignment begins: the group was put back, or the topic made "
            "again; its threshold goes on, its offsets and its window begin anew",
            stream=name,
            begins=start,
            learned=state.offset,
        )
        return Saved(threshold, episode, None, -1, overwrites=True)
    if tail is not None and tail.rows.shape[1] != spec.shape[1]:
        log.warning(
            "the observations saved of a stream have another number of features; its window begins anew",
            stream=name,
            saved=tail.rows.shape[1],
            detector=spec.shape[1],
        )
        tail = None
    return Saved(threshold, episode, tail, state.offset, overwrites=False)

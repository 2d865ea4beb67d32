"""What alerts and labels say of records: which are not normal, and where a stream has changed for good."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from model.manifest import Known
from stream_app.events import Alert, EpisodeState, Label, LabelKind
from stream_app.history import bounds, first_since, read_range
from stream_app.log import get_logger
from stream_app.settings import Settings
from training.refresh.readings import Ranges
from training.refresh.sampling import by_stream

log = get_logger(__name__)

ENDS = (EpisodeState.CLOSE, EpisodeState.SHIFT)


class _Told(NamedTuple):
    """An alert of an episode."""

    offset: int
    state: EpisodeState | None


def known_by_labels(labels: Iterable[Label], detector: str, topic: str, ranges: Ranges) -> list[Known]:
    """The labels that are about records of the detector within the ranges."""
    return [
        Known(
            what="anomaly" if each.label is LabelKind.ANOMALY else "normal",
            partition=each.partition,
            stream=each.stream,
            first=each.offset,
            last=each.offset,
        )
        for each in labels
        if each.label is not LabelKind.NONE
        and (each.detector, each.topic) == (detector, topic)
        and _is_within(each.partition, each.offset, ranges)
    ]


async def read_episodes(settings: Settings, detector: str, topic: str, ranges: Ranges, since: float) -> list[Known]:
    """The episodes of the detector's alerts about records within the ranges; of alerts published `since` that time.

    Raises BrokerUnavailable.
    """
    alerts: list[Alert] = []
    ends = await bounds(settings, settings.topics.alerts)
    for tp, first in (await first_since(settings, settings.topics.alerts, since)).items():
        async for chunk in read_range(settings, tp, first, ends[tp][1]):
            for record in chunk.records:
                try:
                    alert = Alert.model_validate_json(record.value or b"")
                except ValidationError as error:
                    log.warning("not an alert; passed over", offset=record.offset, error=str(error).splitlines()[0])
                    continue
                if alert.model.name == detector and alert.record.topic == topic:
                    alerts.append(alert)
    return known_by_alerts(alerts, ranges)


def known_by_alerts(alerts: Iterable[Alert], ranges: Ranges) -> list[Known]:
    """Episodes from the first to the last record that was told of them.

    One that was not told to have ended goes on to the end of the range, unless its stream has had another since: what
    of it is not told, its worker has lost. One whose beginning is not told began before the range did.
    """
    told: defaultdict[tuple[int, str], defaultdict[str, list[_Told]]] = defaultdict(lambda: defaultdict(list))
    for alert in alerts:
        place = alert.record
        if place.partition in ranges and (alert.episode_id or alert.is_anomaly):
            of_stream = told[place.partition, alert.stream]
            of_stream[alert.episode_id or alert.id].append(_Told(place.offset, alert.state))
    found = []
    for (partition, stream), episodes in told.items():
        newest = max(max(each)[0] for each in episodes.values())
        for each in episodes.values():
            first, end = ranges[partition]
            episode = _episode(partition, stream, sorted(each), first, end, newest)
            if episode.last >= first and episode.first < end:
                found.append(episode)
    return sorted(found, key=lambda each: (each.partition, each.first, each.stream))


def _episode(partition: int, stream: str, told: Sequence[_Told], begin: int, end: int, newest: int) -> Known:
    first, last = told[0].offset, told[-1].offset
    states = [each.state for each in told]
    if EpisodeState.OPEN not in states and any(states):
        first = min(begin, first)
    if states[-1] not in ENDS and any(states) and last == newest:
        last = max(last, end - 1)
    what = "shift" if EpisodeState.SHIFT in states else "episode"
    return Known(what=what, partition=partition, stream=stream, first=first, last=last)


def _is_within(partition: int, offset: int, ranges: Ranges) -> bool:
    first, end = ranges.get(partition, (0, 0))
    return first <= offset < end


class Marks(NamedTuple):
    """What is known of each of `n` records: masks `[n]`, and how often its stream had changed for good before it."""

    in_episode: NDArray[np.bool_]
    anomalous: NDArray[np.bool_]
    normal: NDArray[np.bool_]
    changes: NDArray[np.int64]


def mark(
    known: Iterable[Known],
    offsets: NDArray[np.int64],
    streams: NDArray[np.int64],
    numbers: Mapping[tuple[int, str], int],
) -> Marks:
    """Of records `[n]`, in order within a stream, by offset and number of the stream; partition and name tell these.

    A label counts for more than an episode.
    """
    count = len(offsets)
    in_episode, anomalous, normal = (np.zeros(count, np.bool_) for _ in range(3))
    marks = Marks(in_episode, anomalous, normal, np.zeros(count, np.int64))
    masks = {"episode": marks.in_episode, "anomaly": marks.anomalous, "normal": marks.normal}
    index = {int(streams[each[0]]): each for each in by_stream(streams)}
    nothing = np.zeros(0, np.int64)
    for each in known:
        own = index.get(numbers.get((each.partition, each.stream), -1), nothing)
        first, end = np.searchsorted(offsets[own], [each.first, each.last + 1])
        if each.what == "shift":
            marks.changes[own[first:]] += 1
        else:
            masks[each.what][own[first:end]] = True
    marks.in_episode[marks.anomalous | marks.normal] = False
    return marks

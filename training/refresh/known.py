"""What alerts and labels say of records: which are not normal, and where a stream has changed for good."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from model.manifest import Known
from stream_app.episodes import LENGTH_FACTOR
from stream_app.events import Alert, EpisodeState, Label, LabelKind
from stream_app.history import bounds, first_since, read_range
from stream_app.log import get_logger
from stream_app.settings import Settings
from training.refresh.readings import Ranges

log = get_logger(__name__)

ENDS = (EpisodeState.CLOSE, EpisodeState.SHIFT)
SPARSE = 0.25  # share of anomalous records below which what lies between them counts as normal

Rows = Mapping[tuple[int, str], NDArray[np.int64]]


class _Told(NamedTuple):
    """An alert of an episode; `anomalous`: how many records had been so until then, 0 where that is not told."""

    offset: int
    state: EpisodeState | None
    is_anomaly: bool
    anomalous: int


def known_by_labels(labels: Iterable[Label], detector: str, topic: str, ranges: Ranges) -> list[Known]:
    """The labels that are about records of the detector within the ranges."""
    found = (known_by_label(each, detector, topic) for each in labels)
    return [each for each in found if each is not None and _is_within(each.partition, each.first, ranges)]


def known_by_label(label: Label, detector: str, topic: str) -> Known | None:
    """What a label says, if it is about a record of the detector from this topic."""
    if label.label is LabelKind.NONE or (label.detector, label.topic) != (detector, topic):
        return None
    return Known(
        what="anomaly" if label.label is LabelKind.ANOMALY else "normal",
        partition=label.partition,
        stream=label.stream,
        first=label.offset,
        last=label.offset,
    )


async def read_episodes(
    settings: Settings, detector: str, topic: str, ranges: Ranges, offsets: Rows, since: float
) -> list[Known]:
    """What the detector's alerts, of those published `since` that time, say of records within the ranges.

    `offsets` are as in `known_by_alerts`. Raises BrokerUnavailable.
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
    return known_by_alerts(alerts, ranges, offsets)


def known_by_alerts(alerts: Iterable[Alert], ranges: Ranges, offsets: Rows) -> list[Known]:
    """Episodes, each from where it begins to where it closes; one that begins again is another one.

    One that was not told to have ended goes on to the end of the range, unless its stream has had another since: what
    of it is not told, its worker has lost. One whose beginning is not told began before the range did.

    Of one whose records are mostly normal only those are known that an alert is about. On a stream of tens of records
    a second a false alarm is never far from the next, and their episode would take the stream's whole day with it; of
    what else scores high in it, `suspects` says what is too high. `offsets` of partition and stream are those of the
    records, in order, that this share is of.
    """
    told: defaultdict[tuple[int, str], defaultdict[str, list[_Told]]] = defaultdict(lambda: defaultdict(list))
    for alert in alerts:
        place = alert.record
        if place.partition in ranges and (alert.episode_id or alert.is_anomaly):
            anomalous = alert.episode.anomalous if alert.episode else 0
            each = _Told(place.offset, alert.state, alert.is_anomaly, anomalous)
            told[place.partition, alert.stream][alert.episode_id or alert.id].append(each)
    found: list[Known] = []
    for (partition, stream), episodes in told.items():
        newest = max(max(each)[0] for each in episodes.values())
        begin, end = ranges[partition]
        own = offsets.get((partition, stream), np.zeros(0, np.int64))
        for of_episode in episodes.values():
            for what, first, last in _spans(sorted(set(of_episode)), begin, end, newest, own):
                if last >= begin and first < end:
                    found.append(Known(what=what, partition=partition, stream=stream, first=first, last=last))
    return sorted(found, key=lambda each: (each.partition, each.first, each.stream))


def _spans(
    told: Sequence[_Told], begin: int, end: int, newest: int, own: NDArray[np.int64]
) -> Iterator[tuple[Literal["episode", "shift"], int, int]]:
    """What an episode is of the records with the offsets `own`, with its first and its last record."""
    closes = [number for number, each in enumerate(told) if each.state is EpisodeState.CLOSE]
    before = 0  # anomalous records of the parts that came earlier
    for start, stop in pairwise(sorted({0, len(told), *(number + 1 for number in closes)})):
        part = told[start:stop]
        first, last = part[0].offset, part[-1].offset
        has_states, has_ended = any(each.state for each in part), part[-1].state in ENDS
        if not start and has_states and all(each.state is not EpisodeState.OPEN for each in told):
            first = min(begin, first)
        if has_states and not has_ended and last == newest:
            last = max(last, end - 1)
        if part[-1].state is EpisodeState.SHIFT:
            yield "shift", first, last
            return
        # As long as no other alert comes there may be so many times as many as were told.
        anomalous = (part[-1].anomalous - before) * (1 if has_ended else LENGTH_FACTOR)
        before = part[-1].anomalous
        records = np.searchsorted(own, last, "right") - np.searchsorted(own, first)
        if 0 < anomalous < SPARSE * records:
            yield from (("episode", each.offset, each.offset) for each in part if each.is_anomaly)
        else:
            yield "episode", first, last


def _is_within(partition: int, offset: int, ranges: Ranges) -> bool:
    first, end = ranges.get(partition, (0, 0))
    return first <= offset < end


class Marks(NamedTuple):
    """What is known of each of `n` records: masks `[n]`, and how often its stream had changed for good before it."""

    in_episode: NDArray[np.bool_]
    anomalous: NDArray[np.bool_]
    normal: NDArray[np.bool_]
    changes: NDArray[np.int64]


def mark(known: Iterable[Known], offsets: NDArray[np.int64], rows: Rows) -> Marks:
    """Of records `[n]` by their offsets; `rows` of partition and stream are the indices of its records, in order.

    A label counts for more than an episode.
    """
    count = len(offsets)
    in_episode, anomalous, normal = (np.zeros(count, np.bool_) for _ in range(3))
    marks = Marks(in_episode, anomalous, normal, np.zeros(count, np.int64))
    masks = {"episode": marks.in_episode, "anomaly": marks.anomalous, "normal": marks.normal}
    nothing = np.zeros(0, np.int64)
    for each in known:
        own = rows.get((each.partition, each.stream), nothing)
        first, end = np.searchsorted(offsets[own], [each.first, each.last + 1])
        if each.what == "shift":
            marks.changes[own[first:]] += 1
        else:
            masks[each.what][own[first:end]] = True
    marks.in_episode[marks.anomalous | marks.normal] = False
    return marks

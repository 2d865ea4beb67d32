"""Events on the topics of alerts and of scores, looked for from the newest back: they are mostly wanted soon after."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import orjson

from stream_app.errors import UsageError
from stream_app.events import event_id
from stream_app.history import bounds, read_range
from stream_app.records import TopicPartition
from stream_app.settings import Settings

STEP = 5_000  # offsets of a partition that are read at a time
MOST_NAMED = 5  # ids in an error

Event = dict[str, Any]
Progress = Callable[[int, int], None]  # offsets read so far, offsets there are


async def find_events(settings: Settings, ids: Sequence[str], tell: Progress) -> list[Event]:
    """The alerts of these ids, or of these beginnings of ids, in their order.

    Raises UsageError for one that is not on the topic, or is the beginning of several of those read on the way;
    BrokerUnavailable.
    """
    found: dict[str, dict[str, Event]] = {each: {} for each in dict.fromkeys(ids)}
    topic = settings.topics.alerts
    async for _, events in backwards(settings, topic, [each.encode() for each in found], tell):
        for event in events:
            for beginning, of_it in found.items():
                if event["id"].startswith(beginning):
                    of_it.setdefault(event["id"], event)
        if all(found.values()):
            break
    for beginning, of_it in found.items():
        if not of_it:
            raise UsageError(_missing(f"no alert {beginning}", topic))
        if len(of_it) > 1:
            some = ", ".join(sorted(of_it)[:MOST_NAMED])
            raise UsageError(f"{beginning} is the beginning of {len(of_it)} ids, give more of it: {some}")
    return [next(iter(of_it.values())) for of_it in found.values()]


async def find_episode(settings: Settings, episode: str, tell: Progress) -> list[Event]:
    """The anomalous records that the alerts of an episode tell of, the oldest first.

    `episode` is its id or the beginning of it. Raises UsageError where there is none, or several; BrokerUnavailable.
    """
    found: dict[str, Event] = {}
    topic = settings.topics.alerts
    async for _, events in backwards(settings, topic, [episode.encode()], tell):
        for event in events:
            if (event.get("episode_id") or "").startswith(episode):
                found.setdefault(event["id"], event)
        if any(each["id"] == each["episode_id"] for each in found.values()):
            break  # it opened here, and its alerts are all in one partition
    episodes = {each["episode_id"] for each in found.values()}
    if not episodes:
        raise UsageError(_missing(f"no episode {episode}", topic))
    if len(episodes) > 1:
        some = ", ".join(sorted(episodes)[:MOST_NAMED])
        raise UsageError(f"{episode} is the beginning of {len(episodes)} ids, give more of it: {some}")
    return sorted((each for each in found.values() if each["is_anomaly"]), key=lambda each: each["record"]["offset"])


async def find_score(
    settings: Settings, detector: str, tp: TopicPartition, offset: int, tell: Progress
) -> Event | None:
    """What the topic of scores tells of a record; None where nothing is told of it. Raises BrokerUnavailable."""
    identity, came_later = event_id(detector, *tp, offset), False
    async for _, events in backwards(settings, settings.topics.scores, [tp.topic.encode()], tell, like=tp.partition):
        ours = [each for each in events if (each["record"]["topic"], each["record"]["partition"]) == tp]
        for event in ours:
            if event["id"] == identity:
                return event
        came_later = came_later or any(each["record"]["offset"] > offset for each in ours)
        if came_later and any(each["record"]["offset"] < offset for each in ours):
            return None  # they are in the order of their records, and a replay repeats all from somewhere on
    return None


async def backwards(
    settings: Settings, topic: str, holding: Iterable[bytes], tell: Progress, *, like: int | None = None
) -> AsyncIterator[tuple[TopicPartition, list[Event]]]:
    """The events that hold one of some bytes, a run of offsets at a time, the newest first in all partitions alike.

    With `like`, only those about records of that partition: their events are in the one of the same number, in turns
    where there are fewer. `tell` is called with the progress.
    """
    there = await bounds(settings, topic)
    if like is not None and there:
        there = {tp: where for tp, where in there.items() if tp.partition == like % len(there)}
    ends = {tp: end for tp, (_, end) in there.items()}
    total, done, wanted = sum(end - first for first, end in there.values()), 0, tuple(holding)
    tell(0, total)
    while any(ends[tp] > first for tp, (first, _) in there.items()):
        for tp, (first, _) in there.items():
            end, ends[tp] = ends[tp], max(first, ends[tp] - STEP)
            if end > ends[tp]:
                values = [
                    record.value
                    async for chunk in read_range(settings, tp, ends[tp], end)
                    for record in chunk.records
                    if record.value and any(each in record.value for each in wanted)
                ]
                done += end - ends[tp]
                tell(done, total)
                yield tp, [event for value in reversed(values) if (event := _read(value)) is not None]


def _read(value: bytes) -> Event | None:
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    is_event = isinstance(event, dict) and {"id", "record", "model", "stream", "score", "threshold"} <= event.keys()
    return event if is_event else None


def _missing(what: str, topic: str) -> str:
    return (
        f"{what} on topic {topic}, as far back as the broker still has it. `ganomaly-stream watch --from-beginning` "
        "shows what there is; a record can also be named by --topic, --partition and --offset"
    )

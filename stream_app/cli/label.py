"""`label`: says what records were."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from stream_app.cli.common import ConfigOption, JsonOption, console, print_json, progress, user_name
from stream_app.clock import SystemClock
from stream_app.errors import UsageError
from stream_app.events import Label, LabelKind, encode, event_id, rfc3339
from stream_app.settings import Settings, load_settings

if TYPE_CHECKING:
    from stream_app.cli.search import Event, Progress

_ID = re.compile(r"[0-9a-f]{8,32}")
_STYLES = {LabelKind.NORMAL: "green", LabelKind.ANOMALY: "bold red", LabelKind.NONE: "dim"}


def label(
    alerts: Annotated[
        list[str] | None,
        typer.Argument(metavar="ALERT_ID...", help="As `watch` shows them: at least 8 digits of an alert's id."),
    ] = None,
    normal: Annotated[bool, typer.Option("--normal", help="They were normal.")] = False,
    anomaly: Annotated[bool, typer.Option("--anomaly", help="They were anomalies.")] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back what was said of them.")] = False,
    episode: Annotated[
        str | None, typer.Option("--episode", metavar="ID", help="The anomalous records of an episode's alerts.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="T", help="A record that raised no alert: its topic …")
    ] = None,
    partition: Annotated[int | None, typer.Option("--partition", min=0, help="… its partition …")] = None,
    offset: Annotated[int | None, typer.Option("--offset", min=0, help="… and its offset.")] = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why, for people.", show_default=False)] = "",
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="NAME", help="Who says so.", show_default="you, as the system knows you"),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the labels that are in force.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say of alerts, or of other records, that they were normal or anomalies.

    A label moves its stream's threshold within seconds, by at most GANOMALY_LABELS__MAX_SHIFT; it counts when a new
    model is examined, and goes into its training. Of one record, the newest label holds.

    Example: ganomaly-stream label 655890c1397b --normal --note "the cleaner"
    """
    from stream_app.cli.kafka import silence_client

    silence_client()
    settings = load_settings(config)
    place = (topic, partition, offset)
    if list_:
        _check_alone(
            bool(alerts or episode or normal or anomaly or withdraw or any(each is not None for each in place))
        )
        asyncio.run(_list(settings, json))
        return
    said = _check_said(normal, anomaly, withdraw)
    _check_which(alerts, episode, place)
    with progress(json) as bar:
        task = bar.add_task("look for it", total=None)
        events = asyncio.run(
            _find(settings, alerts, episode, place, lambda done, all_: bar.update(task, completed=done, total=all_))
        )
    labels = [_label(event, said, note, user_name() if by is None else by) for event in events]
    asyncio.run(_publish(settings, labels))
    for each in labels:
        print_json(each.model_dump(mode="json")) if json else console.print(line(each), soft_wrap=True)
    if not json:
        for hint in hints(labels, settings.labels.max_shift):
            console.print(hint, style="yellow", markup=False, soft_wrap=True)


def line(each: Label) -> Text:
    """A label for people: what was said of which record of which stream, and how it had scored."""
    return Text.assemble(
        ("taken back" if each.label is LabelKind.NONE else each.label.value, _STYLES[each.label]),
        f"  {each.stream}  {_score(each)}  ",
        (f"{each.topic}/{each.partition}/{each.offset}", "dim"),
        (f"  {each.id[:12]}", "dim"),
    )


def hints(labels: Sequence[Label], max_shift: float) -> list[str]:
    """What labels can't do to their streams' thresholds, in words."""
    unknown = sum(each.score is None for each in labels if each.label is not LabelKind.NONE)
    distances = [
        (each.score - each.threshold) * (1 if each.label is LabelKind.NORMAL else -1)
        for each in labels
        if each.label is not LabelKind.NONE and each.score is not None and each.threshold is not None
    ]
    found = []
    if unknown:
        found.append(
            f"note: {unknown} of them with an unknown score (GANOMALY_SCORES__PUBLISH=true publishes them): the "
            "threshold stays, the next model is examined and trained with it"
        )
    if distances and max(distances) > max_shift:
        found.append(
            f"note: up to {max(distances):.2f} from the threshold, and labels move it by at most "
            f"labels.max_shift={max_shift:g}: records like these are judged as before until a model has learned better"
        )
    return found


def _score(each: Label) -> str:
    if each.score is None:
        return "score unknown"
    return f"score {each.score:.2f}" + ("" if each.threshold is None else f" / {each.threshold:.2f}")


def _check_alone(others: bool) -> None:
    if others:
        raise UsageError("--list shows all labels; it goes with --config and --json only")


def _check_said(normal: bool, anomaly: bool, withdraw: bool) -> LabelKind:
    given = [kind for kind, is_given in zip(LabelKind, (normal, anomaly, withdraw), strict=True) if is_given]
    if len(given) != 1:
        raise UsageError("say what they were with one of --normal, --anomaly and --withdraw")
    return given[0]


def _check_which(alerts: list[str] | None, episode: str | None, place: tuple[object, ...]) -> None:
    is_place = any(each is not None for each in place)
    if bool(alerts) + (episode is not None) + is_place != 1:
        raise UsageError("name alerts by their ids, or one --episode, or a record by --topic, --partition and --offset")
    if is_place and None in place:
        raise UsageError("--topic, --partition and --offset name a record together")
    for each in [*(alerts or ()), *([episode] if episode is not None else [])]:
        if not _ID.fullmatch(each):
            raise UsageError(f"{each}: an id has 32 digits 0-9a-f; give at least the first 8")


async def _find(
    settings: Settings, alerts: list[str] | None, episode: str | None, place: tuple[Any, ...], tell: Progress
) -> list[Event]:
    from stream_app.cli.search import find_episode, find_events

    if alerts:
        return await find_events(settings, alerts, tell)
    if episode is not None:
        return await find_episode(settings, episode, tell)
    return [await _find_record(settings, place, tell)]


async def _find_record(settings: Settings, place: tuple[Any, ...], tell: Progress) -> Event:
    """What is known of a record: its event where scores are published; else its stream, without a score."""
    from stream_app.cli.search import find_score
    from stream_app.decode import stream_of
    from stream_app.history import bounds, read_range
    from stream_app.records import TopicPartition

    topic, partition, offset = place
    if topic not in settings.routes:
        raise UsageError(f"--topic {topic}: no detector scores it; with these settings {', '.join(settings.routes)}")
    detector, tp = settings.routes[topic], TopicPartition(topic, partition)
    event = await find_score(settings, detector, tp, offset, tell)
    if event is not None:
        return event
    first, end = (await bounds(settings, topic)).get(tp, (0, 0))
    is_there = first <= offset < end
    chunks = [chunk async for chunk in read_range(settings, tp, offset, offset + 1)] if is_there else []
    if not chunks:
        raise UsageError(f"{topic}/{partition}/{offset}: the broker has no such record, or not any more")
    return {
        "id": event_id(detector, topic, partition, offset),
        "stream": stream_of(chunks[0].records[0]),
        "record": {"topic": topic, "partition": partition, "offset": offset},
        "model": {"name": detector},
        "score": None,
        "threshold": None,
    }


def _label(event: Event, said: LabelKind, note: str, by: str) -> Label:
    record = event["record"]
    return Label(
        id=event["id"],
        detector=event["model"]["name"],
        topic=record["topic"],
        partition=record["partition"],
        offset=record["offset"],
        stream=event["stream"],
        label=said,
        score=event["score"],
        threshold=event["threshold"],
        at=rfc3339(SystemClock().time()),
        by=by,
        note=note,
    )


async def _publish(settings: Settings, labels: list[Label]) -> None:
    from stream_app.cli.kafka import ensure_topic
    from stream_app.kafka import broker_errors, producing

    topic = settings.topics.labels
    await ensure_topic(settings, topic)
    async with producing(settings.kafka) as producer:
        with broker_errors(settings.kafka):
            sent = [await producer.send(topic, encode(each), each.stream.encode()) for each in labels]
            await asyncio.gather(*sent)


async def _list(settings: Settings, json: bool) -> None:
    from stream_app.labels import read_labels

    labels = await read_labels(settings)
    if json:
        for each in labels:
            print_json(each.model_dump(mode="json"))
        return
    if not labels:
        console.print(
            f"no labels on topic {settings.topics.labels}; `ganomaly-stream label` publishes them", markup=False
        )
        return
    table = Table(Column("when (UTC)", no_wrap=True), "stream", "label", "score", "record", "alert", "by", "note")
    for each in labels:
        when, place = each.at[:19].replace("T", " "), f"{each.topic}/{each.partition}/{each.offset}"
        said = Text(each.label.value, _STYLES[each.label])
        score = _score(each).removeprefix("score ")
        table.add_row(when, Text(each.stream), said, score, place, each.id[:12], Text(each.by), Text(each.note))
    console.print(table)

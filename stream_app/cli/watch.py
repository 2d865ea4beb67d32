"""`watch`: follows the alerts."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.text import Text

from stream_app.cli.common import ConfigOption, JsonOption, console, error_console, print_json
from stream_app.errors import GanomalyError
from stream_app.settings import Settings, load_settings

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

BAR = 10  # characters
ID_DIGITS = 12  # of an event's id: enough to tell one from a billion others
_STYLES = {"open": "bold red", "update": "red", "close": "green", "shift": "bold yellow"}
_POLL = 0.2  # seconds


def watch(
    topic: Annotated[
        str | None,
        typer.Option("--topic", metavar="TOPIC", help="Which topic.", show_default="GANOMALY_TOPICS__ALERTS"),
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Show what is in the topic already, too.")
    ] = False,
    count: Annotated[int | None, typer.Option("--count", min=1, help="End after so many.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0.0, help="End after so many seconds.")] = None,
    stream: Annotated[str | None, typer.Option("--stream", metavar="NAME", help="Of this stream only.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Follow the alerts, one line each.

    It joins no consumer group, so that it takes nothing from anybody. With --count and --timeout together it fails
    (exit code 1) when there were fewer in that time. Also reads the topics of scores and of dead letters.

    Example: ganomaly-stream watch --from-beginning --stream camera-1
    """
    from stream_app.cli.kafka import silence_client

    silence_client()
    settings = load_settings(config)
    follower = Follower(topic or settings.topics.alerts, stream, count, json)
    asyncio.run(follower.run(settings, from_beginning, timeout))
    if count is not None and follower.seen < count:
        raise GanomalyError(f"--timeout {timeout:g}: {follower.seen} of {count} came in that time on {follower.topic}")


class Follower:
    """Prints the events of a topic until enough were seen."""

    def __init__(self, topic: str, stream: str | None, count: int | None, json: bool) -> None:
        self.topic = topic
        self.seen = 0
        self._stream = stream
        self._count = count
        self._json = json

    async def run(self, settings: Settings, from_beginning: bool, timeout: float | None) -> None:
        """Returns after `timeout` seconds, or when `count` events were printed."""
        from stream_app.cli.kafka import ensure_topic, following
        from stream_app.kafka import broker_errors
        from stream_app.topics import required_topics

        if self.topic in required_topics(settings):  # whoever watches before the first worker starts waits for it
            await ensure_topic(settings, self.topic)
        async with following(settings.kafka, [self.topic], from_beginning=from_beginning) as consumer:
            if not self._json:
                error_console.print(f"following {self.topic}; Ctrl-C ends", style="dim", markup=False)
            deadline = None if timeout is None else time.monotonic() + timeout
            while self._wants_more() and (deadline is None or time.monotonic() < deadline):
                with broker_errors(settings.kafka):
                    fetched = await consumer.getmany(timeout_ms=round(_POLL * 1000))
                for record in sorted((r for run in fetched.values() for r in run), key=lambda r: r.timestamp):
                    if self._wants_more():
                        self._show(record)

    def _wants_more(self) -> bool:
        return self._count is None or self.seen < self._count

    def _show(self, record: ConsumerRecord) -> None:
        event = read_event(record)
        if self._stream is not None and event.get("stream") != self._stream:
            return
        self.seen += 1
        if self._json:
            print_json(event)
        else:
            console.print(line(event, ID_DIGITS), soft_wrap=True)


def read_event(record: ConsumerRecord) -> dict[str, Any]:
    """A scored event as it was published; for a dead letter, where it came from and why it could not be scored."""
    with suppress(orjson.JSONDecodeError, TypeError):
        event = orjson.loads(record.value)
        if isinstance(event, dict) and "score" in event:
            return event
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    reason = {name.rsplit("errors.", 1)[1]: text for name, text in headers.items() if "connect.errors." in name}
    stream = record.key.decode(errors="replace") if record.key else "default"
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return {"stream": stream, **place, "bytes": len(record.value or b""), "dead_letter": reason or None}


def line(event: dict[str, Any], digits: int = 0) -> Text:
    """An event for people: when, whose, what happened, score against threshold, severity, which record, since when.

    With so many digits of its id, if any.
    """
    if "dead_letter" in event:
        reason = event["dead_letter"]
        if reason is None:
            what = f"{event['topic']}/{event['partition']}/{event['offset']}"
            return Text(f"{what}: {event['bytes']} bytes that are neither an event nor a dead letter", "yellow")
        place = f"{reason.get('topic', '?')}/{reason.get('partition', '?')}/{reason.get('offset', '?')}"
        return Text.assemble(
            ("dead letter", "yellow"), f"  {event['stream']:<16} {place}  {reason.get('exception.message', '')}"
        )
    record = event["record"]
    state = event.get("state") or ("anomaly" if event["is_anomaly"] else "normal")
    filled = round(event["severity"] / 100 * BAR)
    return Text.assemble(
        (record["timestamp"].replace("T", " "), "dim"),
        f"  {event['stream']:<16} ",
        (f"{state:<7}", _STYLES.get(state, "")),
        f" score {event['score']:6.2f} / {event['threshold']:.2f}  ",
        ("█" * filled + "░" * (BAR - filled), _STYLES.get(state, "")),
        f" {event['severity']:3d}  ",
        (f"{record['topic']}/{record['partition']}/{record['offset']}", "dim"),
        (f"  {event['id'][:digits]}" if digits else "", "dim"),
        _length(event.get("episode")),
        ("  without Redis", "yellow") if event.get("degraded") else "",
    )


def _length(episode: dict[str, Any] | None) -> str:
    if episode is None or episode["anomalous"] == 1:
        return ""
    return f"  {episode['anomalous']} anomalous since {episode['since'].replace('T', ' ')}"

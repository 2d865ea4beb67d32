"""`publish`: a file's rows into a topic, in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_app.cli.common import ConfigOption, JsonOption, console, error_console, print_json, progress
from stream_app.errors import BrokerUnavailable, UsageError
from stream_app.settings import Settings, load_settings

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer
    from rich.progress import Progress, TaskID

    from stream_app.messages import Message, Source

LINGER = 0.005  # seconds the producer waits for a fuller batch
IN_FLIGHT = 1000  # records sent that the broker has not acknowledged yet
_FRAME_BYTES = 1 << 16  # what a request takes beside the record


def publish(
    topic: Annotated[str, typer.Option("--topic", metavar="TOPIC", help="Made when it is missing.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="FILE", help=".npz, .csv, .png, .jpg, .npy, or a folder of pictures and .npy files."
        ),
    ],
    stream: Annotated[
        str | None,
        typer.Option("--stream", metavar="KEY", help="Name of the stream, e.g. of the camera.", show_default="no key"),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Records a second.", show_default="as fast as possible")
    ] = None,
    content_type: Annotated[
        str | None,
        typer.Option(
            "--content-type",
            metavar="TYPE",
            help="Of rows: application/octet-stream, application/x-npy, application/json or image/png.",
            show_default="application/octet-stream; JSON for a row with missing values",
        ),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Publish the rows of a file as records.

    A row of an .npz file's array x is one record; a line of a .csv file is one observation, its column `timestamp` the
    record's time. With --rate 10, ten records are sent a second.

    Example: ganomaly-stream publish --topic records.images --data pictures.npz --stream camera-1 --rate 10
    """
    from stream_app.cli.kafka import silence_client
    from stream_app.messages import open_source

    if rate is not None and not 0 < rate < float("inf"):
        raise UsageError(f"--rate {rate:g}: it must be above 0")
    silence_client()
    settings = load_settings(config)
    source = open_source(data, content_type)
    if topic not in settings.routes and not json:
        error_console.print(
            f"note: with these settings no worker scores topic {topic}; it scores {', '.join(settings.routes)}",
            markup=False,
            soft_wrap=True,
        )
    with progress(json) as bar:
        task = bar.add_task(f"publish to {topic}", total=source.total)
        count, seconds = asyncio.run(_publish(settings, topic, source, stream, rate, bar, task))
    pace = count / seconds if seconds > 0 else 0.0
    if json:
        print_json({"topic": topic, "stream": stream, "records": count, "seconds": seconds, "records_per_second": pace})
    else:
        console.print(f"{count} records published to {topic} in {seconds:.1f} s ({pace:,.0f} a second)", markup=False)


async def _publish(
    settings: Settings,
    topic: str,
    source: Source,
    stream: str | None,
    rate: float | None,
    bar: Progress,
    task: TaskID,
) -> tuple[int, float]:
    """Returns how many records the broker has acknowledged, and in how many seconds."""
    from stream_app.cli.kafka import ensure_topic
    from stream_app.kafka import broker_errors, producing

    made = await ensure_topic(settings, topic)
    if made and not bar.disable:
        bar.console.print(f"made topics {', '.join(made)}", markup=False, soft_wrap=True)
    largest = settings.limits.max_record_bytes + settings.limits.max_header_bytes + _FRAME_BYTES
    async with producing(settings.kafka, max_bytes=largest, linger=0.0 if rate else LINGER) as producer:
        started = time.monotonic()
        line = _InFlight(producer, topic, None if stream is None else stream.encode())
        try:
            with broker_errors(settings.kafka):
                for number, message in enumerate(source.messages()):
                    if rate:
                        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                    await line.send(message)
                    bar.update(task, completed=line.acknowledged)
                await line.wait()
        except (UsageError, BrokerUnavailable) as error:
            done = f"{line.acknowledged} of {source.total} records were published before"
            raise type(error)(f"{error} ({done})") from error
        return line.acknowledged, time.monotonic() - started


class _InFlight:
    """Records on their way: sent in order, and no more of them at once than `IN_FLIGHT`."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, key: bytes | None) -> None:
        self.acknowledged = 0
        self._producer = producer
        self._topic = topic
        self._key = key
        self._waiting: deque[asyncio.Future[object]] = deque()

    async def send(self, message: Message) -> None:
        """Sends a record and counts what has been acknowledged meanwhile."""
        sent = await self._producer.send(self._topic, message.value, self._key, headers=message.headers)
        self._waiting.append(sent)
        while self._waiting and (self._waiting[0].done() or len(self._waiting) >= IN_FLIGHT):
            await self._acknowledge()

    async def wait(self) -> None:
        """Returns when all are acknowledged."""
        while self._waiting:
            await self._acknowledge()

    async def _acknowledge(self) -> None:
        await self._waiting.popleft()
        self.acknowledged += 1

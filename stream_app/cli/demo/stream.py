"""The demo's live part: publishes what is planned at its pace, and listens to what the worker says about it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from stream_app.cli.demo.account import Account
from stream_app.cli.demo.process import DemoFailed
from stream_app.cli.demo.scene import Planned
from stream_app.cli.kafka import following
from stream_app.kafka import producing
from stream_app.settings import Settings

PATIENCE = 30.0  # seconds from the last record published until everything about it must have come
_POLL = 0.05  # seconds

Show = Callable[[dict[str, Any]], None]


class LiveStream:
    """The streams of all topics at once. `check` raises when the worker is gone; `on_alert` is told of each alert."""

    def __init__(self, settings: Settings, accounts: Mapping[str, Account], check: Callable[[], None], on_alert: Show):
        self._settings = settings
        self._accounts = accounts
        self._check = check
        self._on_alert = on_alert
        self._published = 0

    async def run(self, rate: float, on_progress: Callable[[int, int], None]) -> None:
        """Publishes everything, `rate` records a second and topic, and returns when everything about it has come.

        `on_progress` is told how many records are published and how many are done. Raises DemoFailed when something is
        missing at the end.
        """
        topics = self._settings.topics
        watched = [topics.alerts, topics.scores, topics.dead_letter]
        async with (
            following(self._settings.kafka, watched) as consumer,
            producing(self._settings.kafka) as producer,
        ):
            publishing = [
                asyncio.create_task(self._publish(producer, account.planned.values(), rate))
                for account in self._accounts.values()
            ]
            try:
                await self._listen(consumer, publishing, on_progress)
            finally:
                for task in publishing:
                    task.cancel()

    async def go_on(self, rate: float) -> None:
        """Publishes the same again and again, for whoever looks at the page, until cancelled."""
        async with producing(self._settings.kafka) as producer:
            planned = [list(account.planned.values()) for account in self._accounts.values()]
            for records in itertools.zip_longest(*(itertools.cycle(each) for each in planned)):
                self._check()
                for record in records:
                    await _send(producer, record)
                await asyncio.sleep(1.0 / rate)

    async def _publish(self, producer: AIOKafkaProducer, planned: Iterable[Planned], rate: float) -> None:
        started = time.monotonic()
        for number, record in enumerate(planned):
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            self._accounts[record.topic].note_published(record, time.monotonic())
            await _send(producer, record)
            self._published += 1

    async def _listen(
        self, consumer: AIOKafkaConsumer, publishing: list[asyncio.Task[None]], on_progress: Callable[[int, int], None]
    ) -> None:
        deadline = None
        while publishing or self._outstanding():
            for fetched in (await consumer.getmany(timeout_ms=round(_POLL * 1000))).values():
                for record in fetched:
                    self._note(record, time.monotonic())
            for task in [task for task in publishing if task.done()]:
                task.result()
                publishing.remove(task)
            if not publishing and deadline is None:
                deadline = time.monotonic() + PATIENCE
            if deadline is not None and time.monotonic() > deadline:
                raise DemoFailed(
                    f"{self._outstanding()} records have no answer {PATIENCE:.0f} s after the last was sent"
                )
            self._check()
            on_progress(self._published, sum(len(each.scored | each.dead) for each in self._accounts.values()))

    def _note(self, record: ConsumerRecord, now: float) -> None:
        topics = self._settings.topics
        if record.topic == topics.dead_letter:
            headers = {name: value.decode(errors="replace") for name, value in record.headers}
            topic, name, event = headers["__connect.errors.topic"], headers["ce_id"], {}
        else:
            event = orjson.loads(record.value)
            topic, name = event["record"]["topic"], event["record"]["id"]
        account = self._accounts.get(topic)
        if account is None or name not in account.planned:
            return  # of an earlier stream: the embedded broker's "end" of a topic is where its last batch begins
        if record.topic == topics.dead_letter:
            account.note_dead(name, now)
        elif record.topic == topics.scores:
            account.note_scored(event, now)
        else:
            account.note_alert(event, now)
            self._on_alert(event)

    def _outstanding(self) -> int:
        return sum(len(account.outstanding) for account in self._accounts.values())


async def _send(producer: AIOKafkaProducer, record: Planned) -> None:
    await producer.send(record.topic, record.value, record.stream.encode(), headers=record.all_headers())

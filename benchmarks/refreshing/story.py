"""The story of a refresh: a worker and a trainer run as processes, records are published, and what is said is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from rich.progress import Progress

from model.registry import Registry
from refreshing.scenario import Line, Phase, Published
from stream_app.cli.demo.process import WorkerProcess
from stream_app.cli.kafka import following
from stream_app.decode import RAW
from stream_app.errors import GanomalyError
from stream_app.kafka import producing
from stream_app.local import EmbeddedServers
from stream_app.messages import encode_row
from stream_app.settings import Settings, load_settings
from stream_app.topics import ensure_topics
from training.data import from_arrays
from training.loop import train

TOPIC, DETECTOR, STREAM = "records.line", "line", b"camera-1"
SETTINGS = {
    "GANOMALY_TRAINER__ON_DRIFT": "true",
    # Days in minutes: by default, anomalies a second apart are one episode, of which nothing is learned, and a stream
    # has shifted for good only after hours.
    "GANOMALY_ALERTS__COOL_DOWN": "0",
    "GANOMALY_THRESHOLD__SHIFT_AFTER_SECONDS": "0",
    "GANOMALY_TRAINER__POLL_INTERVAL": "1",
    "GANOMALY_SCORES__PUBLISH": "true",
    "GANOMALY_WORKER__TORCH_THREADS": "1",  # worker, trainer, broker and publisher share a small machine
    "GANOMALY_HTTP__PORT": "0",
    "GANOMALY_LOG__FORMAT": "json",
}


class RefreshFailed(GanomalyError):
    """The new version did not come into service; the message says where it stopped."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Records before the change and after the new version is in service, and how many a second.

    `seconds` is the time of learning, each time; `patience` what the new version may take from the change on.
    """

    before: int
    after: int
    rate: float
    seconds: float
    patience: float


@dataclass(slots=True)
class Account:
    """Everything published, and what was said of it, by the place in the stream; `began`: where in it things happened.

    `told` is what the trainer printed, an event a line.
    """

    published: list[Published] = field(default_factory=list)
    scored: dict[int, dict[str, Any]] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)

    def of(self, first: int, end: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Scores, whether each crossed its threshold, and whether it is a planted anomaly, of records in a range."""
        places = [place for place in range(first, end) if place in self.scored]
        events = [self.scored[place] for place in places]
        return (
            np.array([event["score"] for event in events]),
            np.array([event["is_anomaly"] for event in events], np.bool_),
            np.array([self.published[place].is_anomaly for place in places], np.bool_),
        )


def tell(folder: Path, line: Line, pace: Pace, settings: Mapping[str, str], bar: Progress) -> Account:
    """Trains the first version and lets everything happen, with embedded servers, and `settings` besides the defaults.

    Raises RefreshFailed, and what a worker or a trainer that ends raises.
    """
    registry = Registry(str(folder / "models"))
    task = bar.add_task("learning the first version", total=None)
    train(from_arrays(line.history, "image"), "image", registry, DETECTOR, pace.seconds)
    bar.remove_task(task)
    own = {"registry.url": str(folder / "models"), "routes": {TOPIC: DETECTOR}, "kafka.partitions": 1}
    with EmbeddedServers(load_settings(None, own)) as servers:
        variables = {
            **servers.environment(),
            **SETTINGS,
            **settings,
            "GANOMALY_ROUTES": orjson.dumps({TOPIC: DETECTOR}).decode(),
            "GANOMALY_REGISTRY__URL": str(folder / "models"),
            "GANOMALY_REGISTRY__CACHE": str(folder / "cache"),
            "GANOMALY_KAFKA__PARTITIONS": "1",
            "GANOMALY_TRAINER__SECONDS": str(pace.seconds),
        }
        log = folder / "trainer.log"
        with (
            WorkerProcess(variables, [], "", folder / "worker.log") as worker,
            WorkerProcess(variables, ["--json"], "", log, "schedule") as trainer,
        ):
            story = _Story(servers.settings, line, registry, pace, [worker, trainer], bar)
            try:
                account = asyncio.run(story.run())
            except RefreshFailed as error:
                raise RefreshFailed(f"{error}. The trainer told:\n{log.read_text()}") from error
        account.told = [event for text in log.read_text().splitlines() if (event := _event(text)) is not None]
    return account


class _Story:
    """Publishes phase after phase, and listens."""

    def __init__(
        self,
        settings: Settings,
        line: Line,
        registry: Registry,
        pace: Pace,
        processes: Sequence[WorkerProcess],
        bar: Progress,
    ) -> None:
        self._settings = settings
        self._line = line
        self._first = registry.champion(DETECTOR)
        self._pace = pace
        self._processes = processes
        self._bar = bar
        self._account = Account()

    async def run(self) -> Account:
        account, pace = self._account, self._pace
        await ensure_topics(self._settings)
        async with following(self._settings.kafka, [self._settings.topics.scores], from_beginning=True) as consumer:
            listening = asyncio.create_task(self._listen(consumer))
            try:
                await self._publish(Phase.BEFORE, pace.before, lambda: False)
                account.began["change"] = len(account.published)
                await self._publish(Phase.CHANGED, None, self._is_replaced)
                account.began["swap"] = min(place for place in account.scored if self._is_new(place))
                await self._publish(Phase.AFTER, pace.after, lambda: False)
                await self._until_scored()
            finally:
                listening.cancel()
        return account

    async def _publish(self, phase: Phase, count: int | None, done: Callable[[], bool]) -> None:
        published, started = 0, time.monotonic()
        task = self._bar.add_task(f"publishing: {phase}", total=count)
        async with producing(self._settings.kafka) as producer:
            while published != count and not done():
                for process in self._processes:
                    process.check()
                if count is None and time.monotonic() > started + self._pace.patience:
                    raise RefreshFailed(f"no new version was in service {self._pace.patience:.0f} s after the change")
                record = self._line.next(phase)
                message = encode_row(record.picture, RAW)
                await producer.send_and_wait(TOPIC, message.value, STREAM, headers=message.headers)
                self._account.published.append(record)
                published += 1
                self._bar.advance(task)
                await asyncio.sleep(max(0.0, started + published / self._pace.rate - time.monotonic()))

    async def _listen(self, consumer: Any) -> None:
        async for message in consumer:
            event = orjson.loads(message.value)
            self._account.scored[event["record"]["offset"]] = event

    def _is_new(self, place: int) -> bool:
        return bool(self._account.scored[place]["model"]["version"] != self._first)

    def _is_replaced(self) -> bool:
        newest = max(self._account.scored, default=-1)
        return newest >= 0 and self._is_new(newest)

    async def _until_scored(self) -> None:
        deadline, account = time.monotonic() + 60.0, self._account
        while len(account.scored) < len(account.published):
            if time.monotonic() > deadline:
                raise RefreshFailed(f"{len(account.scored)} of {len(account.published)} records were scored")
            await asyncio.sleep(0.1)


def _event(text: str) -> dict[str, Any] | None:
    """A line of the trainer's output, unless it is one of its log."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and "detector" in found else None

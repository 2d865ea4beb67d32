"""The `demo` command: train, start a worker, stream, follow, and give an account."""

from __future__ import annotations

import asyncio
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn

from stream_app.cli.common import ConfigOption, JsonOption, console, error_console, print_json, user_name
from stream_app.cli.demo.process import DemoFailed, WorkerProcess
from stream_app.settings import Settings, load_settings

if TYPE_CHECKING:
    from stream_app.cli.demo.account import Account
    from training.data import Dataset

IMAGES, SEQUENCES = "records.images", "records.sequences"
# Two normal records in a hundred may alert. The default, one in a thousand, is for streams of more than a minute.
TARGET_RATE = 0.02
RATE = 80.0  # records a second of each topic
SLOW_RATE = 5.0  # once the account is given
TOLD = 12  # alerts shown one by one


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the account, in a terminal too.")] = False,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1.0, max=3600.0, help="For training: two thirds for pictures.")
    ] = 24.0,
    unseen: Annotated[
        int | None, typer.Option("--unseen", min=0, max=9, help="Digit that training never shows.", show_default="4")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Train, stream and find real anomalies, on embedded servers.

    Two detectors learn from handwritten digits and from the flow in a water main. A worker then watches four cameras
    and the rest of the flow, with anomalies among them, and at the end you see what was found, missed and falsely
    raised. In a terminal the worker and its page stay until Ctrl-C.

    Example: ganomaly-stream demo --once
    """
    from stream_app.cli.demo.pictures import UNSEEN
    from stream_app.cli.kafka import silence_client

    silence_client()
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # the worker is ended in order either way
    staying = sys.stdout.isatty() and not once and not json
    with _folder() as folder:
        Demo(folder, config, UNSEEN if unseen is None else unseen, seed, json).run(seconds, staying)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for the models and the worker's log, that is kept only when something fails."""
    folder = Path(tempfile.mkdtemp(prefix="ganomaly-demo-"))
    try:
        yield folder
    except (Exception, SystemExit):
        error_console.print(f"the models and the worker's log are in {folder}", markup=False, soft_wrap=True)
        raise
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


class Demo:
    """One run, in its folder."""

    def __init__(self, folder: Path, config: Path | None, unseen: int, seed: int, json: bool) -> None:
        self._folder = folder
        self._config = config
        self._unseen = unseen
        self._seed = seed
        self._json = json
        self._started = time.monotonic()
        self._told = 0

    def run(self, seconds: float, staying: bool) -> None:
        """All of it. Raises DemoFailed, or any of our errors, where it does not get through."""
        from stream_app.cli.demo.report import summary, table
        from stream_app.local import EmbeddedServers

        given = self._settings()
        self._say("Starting an embedded Kafka broker and Redis …")
        with EmbeddedServers(given) as servers:
            settings = servers.settings
            accounts, burst = self._prepare(settings, seconds)
            variables = {**servers.environment(), **self._variables(settings)}
            arguments = ["--config", str(self._config)] if self._config else []
            url = f"http://{settings.http.host}:{settings.http.port}/"
            self._say(f"Starting a worker, its page is {url} …")
            with WorkerProcess(variables, arguments, url, self._folder / "worker.log") as worker:
                worker.await_ready()
                self._say(f"Publishing {_count(accounts)} records, {RATE:.0f} a second of each kind. The first alerts:")
                self._stream(settings, accounts, worker, RATE)
                self._say(f"And a burst of {_count(burst)} pictures, as fast as they go …")
                self._stream(settings, burst, worker, math.inf)
                _check(accounts, burst)
                result = summary(accounts[IMAGES], accounts[SEQUENCES], burst[IMAGES])
                result["seconds"] = time.monotonic() - self._started
                if self._json:
                    print_json(result)
                else:
                    console.print(table(result))
                    console.print(f"All in {result['seconds']:.0f} s.")
                    _where_next()
                if staying:
                    self._stay(settings, accounts, worker)
                if code := worker.stop():
                    raise DemoFailed(f"the worker ended with exit code {code} after SIGTERM")

    def _settings(self) -> Settings:
        """The user's settings, but for what the demo is about."""
        overrides: dict[str, Any] = {
            "routes": {IMAGES: "images", SEQUENCES: "sequences"},
            "registry.url": str(self._folder / "models"),
            "registry.cache": "",
            "scores.publish": True,
            "threshold.target_rate": TARGET_RATE,
            "alerts.open_after": 1,  # so that every anomalous record is in an episode
            "alerts.open_within": 1,
            "kafka.create_topics": True,
        }
        settings = load_settings(self._config, overrides)
        if _is_free(settings.http.host, settings.http.port):
            return settings
        return load_settings(self._config, {**overrides, "http.port": _free_port(settings.http.host)})

    def _variables(self, settings: Settings) -> dict[str, str]:
        """What differs from the user's settings, for the worker."""
        from orjson import dumps

        return {
            "GANOMALY_ROUTES": dumps(settings.routes).decode(),
            "GANOMALY_REGISTRY__URL": settings.registry.url,
            "GANOMALY_REGISTRY__CACHE": settings.registry.cache,
            "GANOMALY_SCORES__PUBLISH": "true",
            "GANOMALY_THRESHOLD__TARGET_RATE": str(TARGET_RATE),
            "GANOMALY_ALERTS__OPEN_AFTER": str(settings.alerts.open_after),
            "GANOMALY_ALERTS__OPEN_WITHIN": str(settings.alerts.open_within),
            "GANOMALY_HTTP__PORT": str(settings.http.port),
            "GANOMALY_LOG__FORMAT": "json",
        }

    def _prepare(self, settings: Settings, seconds: float) -> tuple[dict[str, Account], dict[str, Account]]:
        """Trains both detectors and plans what is published at a steady pace, and in a burst."""
        from stream_app.cli.demo import flow, pictures
        from stream_app.cli.demo.account import Account
        from training.data import from_arrays

        normal, watched, hidden = pictures.split_digits(self._unseen, self._seed)
        self._say(
            f"Pictures: {len(normal)} handwritten digits to learn from, without any {self._unseen}; "
            f"{len(watched)} others for the cameras"
        )
        digits = from_arrays(normal, "image", source="scikit-learn's digits")
        self._train(settings, digits, "images", seconds * 2 / 3)
        learned, before, after = flow.split_flow(flow.load_flow())
        self._say(
            f"Water flow: {len(learned.values)} hours of {learned.times[0]:%d %B} to {learned.times[-1]:%d %B %Y} to "
            f"learn from; the {len(before.values) + len(after.values)} hours before and after to watch"
        )
        quiet = from_arrays(learned.values, "sequence", window=flow.WINDOW, source="river's WaterFlow")
        self._train(settings, quiet, "sequences", seconds / 3)
        seen = pictures.plan_pictures(IMAGES, watched, hidden, self._seed)
        hours = [
            *flow.plan_flow(SEQUENCES, "main-in-march", before),
            *flow.plan_flow(SEQUENCES, "main-in-may", after),
        ]
        burst = pictures.plan_burst(IMAGES, watched)
        return {IMAGES: Account.of(seen), SEQUENCES: Account.of(hours)}, {IMAGES: Account.of(burst)}

    def _train(self, settings: Settings, dataset: Dataset, name: str, seconds: float) -> None:
        from model.registry import Registry
        from training.learn import Progress as State
        from training.loop import train

        with self._bar("{task.fields[note]}") as bar:
            task = bar.add_task(f"  learning, {seconds:.0f} s", total=1.0, note="")

            def show(state: State) -> None:
                losses = "  ".join(f"{loss} {value:.2f}" for loss, value in state.losses.items())
                bar.update(task, completed=state.share, note=f"step {state.step}  {losses}")

            result = train(
                dataset,
                dataset.kind,
                Registry(settings.registry.url),
                name,
                seconds,
                self._seed,
                settings.worker.device,
                show,
                by=user_name(),
            )
        self._say(f"  detector {name} is in service after {result.metrics['steps']:.0f} steps")

    def _stream(self, settings: Settings, accounts: dict[str, Account], worker: WorkerProcess, rate: float) -> None:
        from stream_app.cli.demo.stream import LiveStream

        live = LiveStream(settings, accounts, worker.check, self._tell)
        with self._bar("{task.completed} done, {task.fields[alerts]} alerts") as bar:
            task = bar.add_task("  streaming", total=_count(accounts), alerts=0)

            def show(published: int, done: int) -> None:
                alerts = sum(account.alerts for account in accounts.values())
                bar.update(task, completed=done, alerts=alerts)

            asyncio.run(live.run(rate, show))

    def _stay(self, settings: Settings, accounts: dict[str, Account], worker: WorkerProcess) -> None:
        from stream_app.cli.demo.stream import LiveStream

        console.print(f"\nThe streams go on, {SLOW_RATE:.0f} records a second. The worker's page: {worker.url}")
        console.print("Ctrl-C ends.")
        try:
            asyncio.run(LiveStream(settings, accounts, worker.check, self._tell).go_on(SLOW_RATE))
        except KeyboardInterrupt:
            console.print("Ending the worker …")

    def _tell(self, event: dict[str, Any]) -> None:
        from stream_app.cli.watch import line

        if self._json or event["state"] != "open":
            return
        self._told += 1
        if self._told <= TOLD:
            console.print("  ", line(event), sep="", soft_wrap=True)
        elif self._told == TOLD + 1:
            console.print("  … and so on")

    def _say(self, text: str) -> None:
        if not self._json:
            console.print(text, markup=False, soft_wrap=True)

    def _bar(self, note: str) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn(note, style="dim"),
            console=console,
            disable=self._json or not console.is_terminal,
            transient=True,
        )


def _count(accounts: dict[str, Account]) -> int:
    return sum(len(account.planned) for account in accounts.values())


def _check(accounts: dict[str, Account], burst: dict[str, Account]) -> None:
    """Raises DemoFailed unless every record ended as it should and something was found."""
    for topic, account in [*accounts.items(), *burst.items()]:
        if not account.in_order:
            raise DemoFailed(
                f"{topic}: {len(account.scored)} scored and {len(account.dead)} dead-lettered are not as due"
            )
    for topic, account in accounts.items():
        if not account.alerts:
            raise DemoFailed(f"{topic}: nothing was found")


def _where_next() -> None:
    console.print(
        "\nWhere to go next:\n"
        "  ganomaly-stream local            a broker and Redis to try with\n"
        "  ganomaly-stream train --help     a detector from your own file\n"
        "  ganomaly-stream worker --help    scores what is published\n"
        "  README.md                        a program of 20 lines: a picture in, its alert out",
        markup=False,
        soft_wrap=True,
    )


def _is_free(host: str, port: int) -> bool:
    from stream_app.cli.checks import State, check_http
    from stream_app.settings import HttpSettings

    if port == 0:
        return False
    return check_http(Settings.model_construct(http=HttpSettings(host=host, port=port)))[0].state is State.OK


def _free_port(host: str) -> int:
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as candidate:
        candidate.bind((host, 0))
        return int(candidate.getsockname()[1])

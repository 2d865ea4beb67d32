"""`schedule`: trains detectors anew when the clock, the stream or a person says so."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Annotated, Any
from wsgiref.simple_server import WSGIServer

import typer
from prometheus_client import start_http_server
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from stream_app.cli.common import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    RegistryOption,
    console,
    error_console,
    print_json,
    user_name,
)
from stream_app.errors import GanomalyError, UsageError, WorkerFault
from stream_app.settings import Settings, load_settings

_STYLES = {"promoted": "bold green", "refused": "yellow", "failed": "bold red", "trouble": "red"}


def schedule(
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="DETECTOR", help="Which detector; repeats.", show_default="all of the routes"),
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron", metavar="'M H D M W'", help="When, by the clock.", show_default="GANOMALY_TRAINER__CRON"
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option("--timezone", metavar="ZONE", help="Of --cron.", show_default="GANOMALY_TRAINER__TIMEZONE"),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Begin with a run.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Run what is due, and end.")] = False,
    run_now: Annotated[
        bool, typer.Option("--run-now", help="Ask the trainer that is running already for a run, and end.")
    ] = False,
    registry: RegistryOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Retrain detectors from their streams whenever a run is due.

    It follows them until SIGTERM or Ctrl-C. What a run makes is held against the version in service and replaces it
    only if it is not worse. Several may run at once: one of them trains, and another takes over from one that died.
    With --once the exit code is 1 when a run failed.

    Example: ganomaly-stream schedule --cron '30 3 * * *' --timezone Europe/Berlin
    """
    settings = load_settings(
        config,
        {
            "registry.url": registry,
            "worker.device": device,
            "trainer.cron": cron,
            "trainer.timezone": timezone,
        },
    )
    if run_now and (now or once):
        raise UsageError("--run-now asks a trainer that is running; --now and --once are for one that begins")
    names = list(dict.fromkeys(name or settings.routes.values()))
    from stream_app.cli.kafka import silence_client
    from stream_app.log import configure

    configure(settings.log)
    silence_client()
    view = View(json)
    with view.bar:
        failed = asyncio.run(_schedule(settings, names, view, now=now, once=once, run_now=run_now))
    if failed:
        raise GanomalyError(failed)


async def _schedule(settings: Settings, names: list[str], view: View, *, now: bool, once: bool, run_now: bool) -> str:
    """Why a run of `--once` came to nothing; empty otherwise."""
    from model.registry import Registry
    from stream_app.clock import SystemClock
    from training.refresh.job import PARTS
    from training.refresh.scheduler import Scheduler

    scheduler = Scheduler(settings, names, Registry(settings.registry.url), PARTS, SystemClock(), view.show)
    by = f"{user_name()} on {socket.gethostname()}"
    if now or run_now:
        for name in names:
            await scheduler.ask(name, by)
            if run_now:
                view.show({"event": "asked", "detector": name, "by": by})
    if run_now:
        await scheduler.close()
        return ""
    if settings.trainer.http_port:
        serve_metrics(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, scheduler.stop)
    await scheduler.run(once)
    failures = [result.why for result in scheduler.results if result.outcome == "failed"]
    return "; ".join([*failures, *scheduler.troubles.values()]) if once else ""


def serve_metrics(settings: Settings) -> WSGIServer:
    """On `trainer.http_port`, in a thread of its own. Raises WorkerFault when the port is taken."""
    from stream_app import metrics

    port, host = settings.trainer.http_port, settings.http.host
    try:
        server, _ = start_http_server(port, host, metrics.REGISTRY)
    except OSError as error:
        raise WorkerFault(
            f"GANOMALY_TRAINER__HTTP_PORT={port}: can't listen on {host}: {error.strerror}. Give another, or 0 for none"
        ) from error
    return server


class View:
    """Shows what happens: lines on standard output, and how far a stage is in a bar on standard error."""

    def __init__(self, json: bool) -> None:
        self._json = json
        self._tasks: dict[str, TaskID] = {}
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[told]}", style="dim"),
            console=error_console,
            disable=json or not error_console.is_terminal,
            transient=True,
        )

    def show(self, event: dict[str, Any]) -> None:
        """One event."""
        if event["event"] == "stage" and event["state"] == "progress":
            self._advance(event)
            return
        if event["event"] == "stage" and (task := self._tasks.pop(event["detector"], None)) is not None:
            self.bar.remove_task(task)
        if self._json:
            print_json(event)
        else:
            console.print(line(event), soft_wrap=True)

    def _advance(self, event: dict[str, Any]) -> None:
        detector = event["detector"]
        if detector not in self._tasks:
            self._tasks[detector] = self.bar.add_task(f"{event['stage']} {detector}", total=1.0, told="")
        self.bar.update(self._tasks[detector], completed=event["share"], told=event.get("told", ""))


def line(event: dict[str, Any]) -> Text:
    """An event for people."""
    match event["event"]:
        case "follows":
            fires = f"the clock fires next at {event['next_firing']}" if event["next_firing"] else "no clock is set"
            what, style = f"follows {', '.join(event['topics'])}; {fires}", "dim"
        case "asked":
            what, style = "a run is asked for: the trainer that follows the detector begins at its next look", ""
        case "due":
            what, style = f"a run is due ({event['trigger']}): {event['why']}", "bold"
        case "stage" if event["state"] == "begins":
            what, style = f"{event['stage']} begins", "dim"
        case "stage":
            passed = "" if event["passed"] else "not passed: "
            what, style = f"{event['stage']} took {event['seconds']:.1f} s; {passed}{event['why']}", ""
        case "finished":
            version = event["version"] or "no version"
            what = f"{event['outcome']} after {event['seconds']:.0f} s: {version}: {event['why']}"
            style = _STYLES.get(event["outcome"], "")
        case other:
            what, style = event["why"], _STYLES.get(other, "yellow")
    return Text.assemble((f"{event['detector']:<16} ", "bold"), (what, style))

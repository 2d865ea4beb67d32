"""`train`: a detector from a file, once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from model.config import Kind
from stream_app.cli.common import (
    ConfigOption,
    DataOption,
    DeviceOption,
    JsonOption,
    NameOption,
    RegistryOption,
    check_input,
    console,
    error_console,
    print_json,
)
from stream_app.errors import UsageError
from stream_app.settings import load_settings

if TYPE_CHECKING:
    from training.learn import Progress as State
    from training.loop import TrainResult


def train(
    kind: Annotated[Kind, typer.Option("--kind", help="What the rows are.")],
    data: DataOption,
    name: NameOption,
    registry: RegistryOption = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Time for learning; saving takes a few more.")] = 80.0,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: DeviceOption = None,
    window: Annotated[
        int | None,
        typer.Option("--window", min=4, max=4096, help="Steps of a window cut from a series.", show_default="64"),
    ] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="bce, feature-matching, lsgan, hinge, mocc or cd.", metavar="NAME")
    ] = "feature-matching",
    generator: Annotated[
        str | None,
        typer.Option("--generator", help="Of pictures: conv, or lstm (row by row).", show_default="conv"),
    ] = None,
    attention: Annotated[
        bool | None,
        typer.Option("--attention/--no-attention", help="Of pictures: attention in the generator.", show_default="no"),
    ] = None,
    from_version: Annotated[
        str | None,
        typer.Option("--from-version", metavar="V", help="Start from the weights of this version of the detector."),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Train a detector and put it in service.

    It learns from the rows that are normal: those whose y (or label) is 0, or all where there are no labels. Rows whose
    y is 1 teach it what labelled anomalies are like; a third of them is kept to measure with.

    Under torchrun the processes share the work, and the first one reports:
    torchrun --nproc-per-node 2 --no-python ganomaly-stream train …

    Example: ganomaly-stream train --kind image --data normal.npz --registry models --name images --seconds 60
    """
    if kind is Kind.IMAGE and window is not None:
        raise UsageError(f"--window {window}: pictures have no window; it is for --kind sequence")
    check_input("--data", data)
    from model.registry import Registry
    from training.data import load
    from training.distributed import launched_rank
    from training.loop import train as learn

    settings = load_settings(config, {"registry.url": registry, "worker.device": device})
    dataset = load(data, kind, window)
    silent = json or launched_rank() > 0
    if not silent:
        error_console.print(f"{data}: {dataset.clean.sum()} normal of {len(dataset)} {kind} records", markup=False)
    with _progress(silent) as bar:
        result = learn(
            dataset,
            kind,
            Registry(settings.registry.url),
            name,
            seconds,
            seed,
            settings.worker.device,
            _shown_in(bar, f"train {name}"),
            objective=objective,
            generator=generator,
            attention=attention,
            from_version=from_version,
        )
    if launched_rank() > 0:
        return
    if json:
        print_json({"version": result.version, "path": result.path, "metrics": result.metrics})
    else:
        _report(name, result)


def _shown_in(bar: Progress, what: str) -> Callable[[State], None]:
    task = bar.add_task(what, total=1.0, losses="")

    def show(state: State) -> None:
        bar.update(task, completed=state.share, losses=describe(state))

    return show


def describe(state: State) -> str:
    """Time left, rate, step and losses, in a line."""
    parts = [f"step {state.step}", *(f"{loss} {value:.3f}" for loss, value in state.losses.items())]
    if state.remaining is not None:
        parts = [f"{timedelta(seconds=round(state.remaining))} left", f"{state.rate:.3g} steps/s", *parts]
    return "  ".join(parts)


def _report(name: str, result: TrainResult) -> None:
    table = Table(
        "measured on records it did not learn from", "", title=f"{name} {result.version}", title_justify="left"
    )
    for metric, value in result.metrics.items():
        table.add_row(metric, f"{value:.4g}")
    console.print(table)
    console.print(f"ended as {result.stopped}", markup=False, soft_wrap=True)
    console.print(f"saved in {result.path}", markup=False, soft_wrap=True)
    if result.champion:
        instead = f", in place of {result.replaced}" if result.replaced else ""
        console.print(f"in service from now on{instead}", markup=False, soft_wrap=True)


def _progress(silent: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[losses]}", style="dim"),
        console=error_console,
        disable=silent or not error_console.is_terminal,
    )

"""`train`: a detector from a file, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
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
    seconds: Annotated[float, typer.Option("--seconds", help="Time for learning; saving takes a few more.")] = 60.0,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: DeviceOption = None,
    window: Annotated[
        int | None,
        typer.Option("--window", min=4, max=4096, help="Steps of a window cut from a series.", show_default="64"),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Train a detector and put it in service.

    It learns from the rows that are normal: those whose y (or label) is 0, or all where there are no labels.

    Example: ganomaly-stream train --kind image --data normal.npz --registry models --name images --seconds 60
    """
    if kind is Kind.IMAGE and window is not None:
        raise UsageError(f"--window {window}: pictures have no window; it is for --kind sequence")
    check_input("--data", data)
    from model.registry import Registry
    from training.data import load
    from training.loop import train as learn

    settings = load_settings(config, {"registry.url": registry, "worker.device": device})
    dataset = load(data, kind, window)
    if not json:
        error_console.print(f"{data}: {dataset.clean.sum()} normal of {len(dataset)} {kind} records", markup=False)
    with _progress(json) as bar:
        result = learn(
            dataset,
            kind,
            Registry(settings.registry.url),
            name,
            seconds,
            seed,
            settings.worker.device,
            _shown_in(bar, f"train {name}"),
        )
    if json:
        print_json({"version": result.version, "path": result.path, "metrics": result.metrics})
    else:
        _report(name, result)


def _shown_in(bar: Progress, what: str) -> Callable[[State], None]:
    task = bar.add_task(what, total=1.0, losses="")

    def show(state: State) -> None:
        losses = "  ".join(f"{loss} {value:.3f}" for loss, value in state.losses.items())
        bar.update(task, completed=state.share, losses=f"step {state.step}  {losses}")

    return show


def _report(name: str, result: TrainResult) -> None:
    table = Table(
        "measured on records it did not learn from", "", title=f"{name} {result.version}", title_justify="left"
    )
    for metric, value in result.metrics.items():
        table.add_row(metric, f"{value:.4g}")
    console.print(table)
    console.print(f"saved in {result.path}", markup=False, soft_wrap=True)
    if result.champion:
        instead = f", in place of {result.replaced}" if result.replaced else ""
        console.print(f"in service from now on{instead}", markup=False, soft_wrap=True)


def _progress(json: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}", style="dim"),
        console=error_console,
        disable=json or not error_console.is_terminal,
    )

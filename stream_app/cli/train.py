"""`train`: a detector from a file or from what a topic carries, once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from model.config import ImageConfig, Kind
from stream_app.cli.common import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    NameOption,
    RegistryOption,
    check_input,
    console,
    error_console,
    print_json,
    user_name,
)
from stream_app.errors import UsageError
from stream_app.settings import load_settings

if TYPE_CHECKING:
    from model.registry import Registry
    from stream_app.settings import Settings
    from training.data import Dataset
    from training.learn import Progress as State
    from training.loop import TrainResult


def train(
    name: NameOption,
    kind: Annotated[
        Kind | None,
        typer.Option("--kind", help="What the rows are; of a topic, what the version in service takes."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help=".npz with rows x and labels y, or .csv; a line an observation."),
    ] = None,
    from_stream: Annotated[
        str | None, typer.Option("--from-stream", metavar="TOPIC", help="Train on the newest records of a topic.")
    ] = None,
    from_manifest: Annotated[
        str | None,
        typer.Option("--from-manifest", metavar="V", help="Train this version, which came from a topic, again."),
    ] = None,
    registry: RegistryOption = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Time for learning; saving takes a few more.")] = 100.0,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    device: DeviceOption = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            min=4,
            max=4096,
            help="Steps of a window cut from a series.",
            show_default="96, less of a short series",
        ),
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

    It learns from the rows of a file that are normal: those whose y (or label) is 0, or all where there are no labels.
    Rows whose y is 1 teach it what labelled anomalies are like; a third of them is kept to measure with.

    Of a topic it learns from the newest records (GANOMALY_SNAPSHOT__…), without those that alerts, labels or the
    version in service hold for anomalous. What it read is in the manifest, so that --from-manifest can read it again:
    that makes a version with the same data and, on the same machine, the same weights, and leaves the one in service.

    Under torchrun the processes share the work, and the first one reports:
    torchrun --nproc-per-node 2 --no-python ganomaly-stream train …

    Example: ganomaly-stream train --kind image --data normal.npz --registry models --name images --seconds 60
    """
    if kind is Kind.IMAGE and window is not None:
        raise UsageError(f"--window {window}: pictures have no window; it is for --kind sequence")
    _check_source(kind, data, from_stream, from_manifest)
    from model.registry import Registry
    from training.distributed import launched_rank
    from training.loop import train as learn

    settings = load_settings(config, {"registry.url": registry, "worker.device": device})
    found, silent = Registry(settings.registry.url), json or launched_rank() > 0
    order = _Order(kind, seconds, seed, objective, generator, attention, from_version)
    if from_manifest is not None:
        dataset, order = _again(settings, found, name, from_manifest, silent)
    elif from_stream is not None:
        dataset = _of_stream(settings, found, from_stream, name, order, window, silent)
    else:
        assert data is not None
        assert kind is not None
        dataset = _of_file(data, kind, window, silent)
    with _progress(silent) as bar:
        result = learn(
            dataset,
            dataset.kind,
            found,
            name,
            order.seconds,
            order.seed,
            settings.worker.device,
            _shown_in(bar, f"train {name}"),
            steps=order.steps,
            promote=from_manifest is None,
            objective=order.objective,
            generator=order.generator,
            attention=order.attention,
            from_version=order.from_version,
            by=user_name(),
        )
    if launched_rank() > 0:
        return
    if result.promotion is not None:
        from stream_app.cli.updates import tell_workers

        tell_workers(settings, found, name, result.promotion)
    same = None if from_manifest is None else _same_weights(found, name, from_manifest, result.version)
    if json:
        again = {} if same is None else {"same_weights": same}
        print_json({"version": result.version, "path": result.path, "metrics": result.metrics, **again})
    else:
        _report(name, result)
        if same is not None:
            verdict = "the same weights as" if same else "other weights than"
            console.print(f"{verdict} {from_manifest}, from the same data", markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Order:
    """How to train."""

    kind: Kind | None
    seconds: float
    seed: int
    objective: str
    generator: str | None
    attention: bool | None
    from_version: str | None
    steps: int | None = None


def _check_source(kind: Kind | None, data: Path | None, from_stream: str | None, from_manifest: str | None) -> None:
    given = [name for name, value in _sources(data, from_stream, from_manifest).items() if value is not None]
    if len(given) != 1:
        told = " and ".join(given) or "none"
        raise UsageError(f"one of --data, --from-stream and --from-manifest says what to train on, not {told}")
    if data is not None:
        if kind is None:
            raise UsageError(f"--kind: what the rows of {data} are, {' or '.join(Kind)}")
        check_input("--data", data)
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(f"{given[0]}: processes of torchrun would read different records; train them from a file")


def _sources(data: Path | None, from_stream: str | None, from_manifest: str | None) -> dict[str, object]:
    return {"--data": data, "--from-stream": from_stream, "--from-manifest": from_manifest}


def _of_file(data: Path, kind: Kind, window: int | None, silent: bool) -> Dataset:
    from training.data import load

    dataset = load(data, kind, window)
    if not silent:
        error_console.print(f"{data}: {dataset.clean.sum()} normal of {len(dataset)} {kind} records", markup=False)
    return dataset


def _of_stream(
    settings: Settings, registry: Registry, topic: str, name: str, order: _Order, window: int | None, silent: bool
) -> Dataset:
    from stream_app.cli.train_stream import describe_counts, read_stream

    snapshot = read_stream(
        settings, registry, topic, name, kind=order.kind, window=window, seed=order.seed, silent=silent
    )
    if not silent:
        error_console.print(describe_counts(topic, snapshot.counts), markup=False, soft_wrap=True)
    return snapshot.dataset


def _again(settings: Settings, registry: Registry, name: str, version: str, silent: bool) -> tuple[Dataset, _Order]:
    """What a version was trained on, and how."""
    import torch

    from stream_app.cli.train_stream import read_again

    manifest = registry.manifest(name, version)
    run, config = manifest.run, manifest.network()
    if run is not None:
        torch.set_num_threads(run.threads)  # the choice among the records is by scores, too
    snapshot = read_again(settings, registry, manifest, silent)
    assert run is not None  # as it has offsets
    pictures = config if isinstance(config, ImageConfig) else None
    order = _Order(
        manifest.kind,
        max(manifest.seconds, 1.0),
        manifest.seed,
        run.objective,
        pictures.generator if pictures else None,
        pictures.attention if pictures else None,
        run.from_version,
        run.steps,
    )
    return snapshot.dataset, order


def _same_weights(registry: Registry, name: str, version: str, again: str) -> bool:
    return registry.manifest(name, version).sha256 == registry.manifest(name, again).sha256


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
    if result.gate is not None and not result.gate.passed:
        console.print(f"refused by the gate:\n{result.gate.why_refused()}", markup=False, soft_wrap=True)
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

"""`evaluate`: how well a detector tells labelled anomalies from normal records."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from model.config import Kind
from stream_app.cli.common import (
    ConfigOption,
    DataOption,
    DeviceOption,
    JsonOption,
    NameOption,
    RegistryOption,
    VersionOption,
    console,
    error_console,
    print_json,
    ProfileOption,
)
from stream_app.settings import load_settings

if TYPE_CHECKING:
    from training.evaluate import Evaluation


def evaluate(
    name: NameOption,
    data: DataOption,
    registry: RegistryOption = None,
    version: VersionOption = None,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="FILE", help="Normal records for the baselines, e.g. the training file."),
    ] = None,
    device: DeviceOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a detector, and simple methods beside it, on a labelled file.

    The file must hold records that the detector was not trained on, normal and anomalous ones. f1 is at the threshold
    that a new stream begins with; it follows from GANOMALY_THRESHOLD__TARGET_RATE.

    Example: ganomaly-stream evaluate --registry models --name images --data test.npz
    """
    from model.registry import Registry
    from training.data import load
    from training.evaluate import evaluate as measure

    settings = load_settings(config, {"registry.url": registry, "worker.device": device, "worker.profile": profile})
    detector = Registry(settings.registry.url).load(name, version, settings.worker.device, settings.worker.profile)
    window = detector.input_shape[0] if detector.kind is Kind.SEQUENCE else None
    dataset = load(data, detector.kind, window)
    normal = load(reference, detector.kind, window) if reference else None
    with nullcontext() if json else error_console.status(f"measure {name}") as status:
        result = measure(
            detector,
            dataset,
            normal,
            target_rate=settings.threshold.target_rate,
            on_progress=lambda method: status.update(f"measure {method}") if status else None,
        )
    if json:
        print_json({"name": name, "version": detector.version, **result.to_json()})
    else:
        console.print(_table(f"{name} {detector.version} on {data}", result))
        console.print(result.protocol, style="dim", markup=False)


def _table(what: str, result: Evaluation) -> Table:
    title = f"{what}: {result.normal} normal, {result.anomalous} anomalous"
    table = Table("method", "auroc", "auprc", "f1", "threshold", "records/s", title=escape(title), title_justify="left")
    for row in result.rows:
        figures = [f"{value:.3f}" for value in (row.auroc, row.auprc, row.f1)]
        table.add_row(
            row.method,
            *figures,
            f"{row.threshold:.2f}",
            f"{row.records_per_second:,.0f}",
            style="bold" if row is result.model else "",
        )
    return table

"""`evaluate`: how well a detector tells labelled anomalies from normal records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    ProfileOption,
    RegistryOption,
    VersionOption,
    console,
    error_console,
    print_json,
)
from stream_app.errors import UsageError
from stream_app.files import read_kinds
from stream_app.settings import load_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.detector import Detector
    from training.data import Dataset
    from training.evaluate import ChangedRow, Evaluation, Row


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
    robustness: Annotated[
        bool, typer.Option("--robustness", help="The same on records that have changed a little.")
    ] = False,
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="DIR", help="ROC, PR, histogram and examples as PNG.")
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a detector, and simple methods beside it, on a labelled file.

    The file must hold records that the detector was not trained on, normal and anomalous ones. F1, precision, recall
    and false alarms are at the threshold that a new stream begins with; it follows from
    GANOMALY_THRESHOLD__TARGET_RATE. Where the file has an array kind (as `corrupt` writes it), each kind of anomaly is
    measured too.

    Example: ganomaly-stream evaluate --registry models --name images --data test.npz
    """
    if plots is not None:
        _check_plots(plots)
    from model.registry import Registry
    from training.data import load
    from training.evaluate import evaluate as measure

    settings = load_settings(config, {"registry.url": registry, "worker.device": device, "worker.profile": profile})
    detector = Registry(settings.registry.url).load(name, version, settings.worker.device, settings.worker.profile)
    window = detector.input_shape[0] if detector.kind is Kind.SEQUENCE else None
    dataset = load(data, detector.kind, window)
    normal = load(reference, detector.kind, window) if reference else None
    kinds = read_kinds(data, len(dataset))
    with nullcontext() if json else error_console.status(f"measure {name}") as status:
        result = measure(
            detector,
            dataset,
            normal,
            target_rate=settings.threshold.target_rate,
            kinds=kinds,
            robustness=robustness,
            on_progress=lambda method: status.update(f"measure {method}") if status else None,
        )
        files = [] if plots is None else _draw(plots, detector, dataset, result, kinds)
    if json:
        figures = {"plots": files} if plots else {}
        print_json({"name": name, "version": detector.version, **result.to_json(), **figures})
        return
    for table in _tables(f"{name} {detector.version} on {data}", result):
        console.print(table)
    console.print(f"budget: false alarms on {result.budget:.2%} of the normal records", style="dim", markup=False)
    console.print(result.protocol, style="dim", markup=False)
    for file in files:
        console.print(file, markup=False, soft_wrap=True)


def _check_plots(folder: Path) -> None:
    """Says what is missing before anything slow begins."""
    from training.plots import available

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--plots {folder}: is a file; name a folder")
    if not folder.parent.is_dir():
        raise UsageError(f"--plots {folder}: there is no folder {folder.parent}")
    if not available():
        raise UsageError("--plots: matplotlib is not installed; pip install 'ganomaly-stream[plots]'")


def _draw(
    folder: Path, detector: Detector, dataset: Dataset, result: Evaluation, kinds: NDArray[np.str_] | None
) -> list[str]:
    from training.report import figures, write_figures

    files = figures(detector, dataset, result, kinds)
    write_figures(folder, files)
    return [str(folder / name) for name in files]


def _tables(what: str, result: Evaluation) -> Iterator[Table]:
    title = f"{what}: {result.normal} normal, {result.anomalous} anomalous"
    yield _methods(title, result)
    yield _credible(result)
    if result.model.kinds:
        yield _kinds(result)
    if result.robustness:
        yield _robustness(result)


def _methods(title: str, result: Evaluation) -> Table:
    columns = ("method", "auroc", "auprc", "f1", "false alarms", "threshold", "records/s")
    table = Table(*columns, title=escape(title), title_justify="left")
    for row in result.rows:
        table.add_row(
            row.method,
            *(f"{value:.3f}" for value in (row.auroc, row.auprc, row.f1)),
            f"{row.false_alarm_rate:.2%}",
            f"{row.threshold:.2f}",
            f"{row.records_per_second:,.0f}",
            style="bold" if row is result.model else "",
        )
    return table


def _credible(result: Evaluation) -> Table:
    columns = ("method", "auroc", "precision", "recall", "false alarms")
    table = Table(*columns, title="where these figures lie, with 95 % certainty", title_justify="left")
    for row in result.rows:
        each = ["…".join(f"{end:.3f}" for end in row.credible[name]) for name in ("auroc", "precision", "recall")]
        alarms = "…".join(f"{end:.2%}" for end in row.credible["false_alarm_rate"])
        table.add_row(row.method, *each, alarms, style="bold" if row is result.model else "")
    return table


def _kinds(result: Evaluation) -> Table:
    others = result.rows[1:]
    columns = ("kind", "records", "recall", "auroc", "best simple method")
    table = Table(*columns, title="by kind of anomaly", title_justify="left")
    for kind, own in result.model.kinds.items():
        best = max(others, key=lambda row: row.kinds[kind].auroc)
        simple = f"{best.kinds[kind].auroc:.3f} {best.method}"
        table.add_row(escape(kind), f"{own.records:,}", f"{own.recall:.3f}", f"{own.auroc:.3f}", simple)
    return table


def _robustness(result: Evaluation) -> Table:
    columns = ("change", "recall", "false alarms", "auroc", "best simple method")
    table = Table(*columns, title="on records that have changed a little", title_justify="left")
    unchanged: Mapping[str, Row | ChangedRow] = {row.method: row for row in result.rows}
    for change, rows in {"none": unchanged, **result.robustness}.items():
        own = rows[result.model.method]
        name, best = max(
            ((method, row) for method, row in rows.items() if row is not own), key=lambda item: item[1].auroc
        )
        figures = (f"{own.recall:.3f}", f"{own.false_alarm_rate:.2%}", f"{own.auroc:.3f}")
        table.add_row(change, *figures, f"{best.auroc:.3f} {name}")
    return table

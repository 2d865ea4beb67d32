"""`score`: a file through the same code as the stream."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

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
    check_input,
    check_output,
    console,
    print_json,
    progress,
)
from stream_app.errors import UsageError
from stream_app.settings import load_settings

if TYPE_CHECKING:
    from model.detector import Detector
    from stream_app.offline import ScoredRow

COLUMNS = ("index", "score", "threshold", "is_anomaly")


def score(
    name: NameOption,
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", metavar="OUT.csv", help="A row for each row of the file, in order.")],
    registry: RegistryOption = None,
    version: VersionOption = None,
    warm_up: Annotated[int, typer.Option("--warm-up", metavar="N", min=0, help="The first N rows are history.")] = 0,
    heatmaps: Annotated[
        Path | None, typer.Option("--heatmaps", metavar="FILE.npz", help="Where in each row the evidence is.")
    ] = None,
    device: DeviceOption = None,
    profile: ProfileOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Score a file's rows in order, as the stream would.

    The threshold learns row after row. Rows of the history (--warm-up) teach it and are never called anomalous. Score
    and threshold are empty until a sequence's first full window.

    Example: ganomaly-stream score --registry models --name images --data pictures.npz --out scores.csv
    """
    check_input("--data", data)
    check_output("--out", out)
    if heatmaps is not None:
        check_output("--heatmaps", heatmaps)
    settings = load_settings(config, {"registry.url": registry, "worker.device": device, "worker.profile": profile})
    from model.registry import Registry
    from stream_app.offline import score_rows

    detector = Registry(settings.registry.url).load(name, version, settings.worker.device, settings.worker.profile)
    rows = _rows_as_published(data, detector)
    if warm_up > len(rows):
        raise UsageError(f"--warm-up {warm_up}: {data} has only {len(rows)} rows")
    results = score_rows(detector, rows, settings, heat_maps=heatmaps is not None)
    maps: list[NDArray[np.float32]] = []
    if heatmaps is not None:
        results = _keeping_maps(results, maps, np.zeros(detector.input_shape[:2], np.float32))
    with progress(json) as bar:
        scored, anomalies = _write(out, bar.track(results, total=len(rows), description="scoring"), warm_up)
    if heatmaps is not None:
        np.savez_compressed(heatmaps, heatmaps=np.stack(maps))
    if json:
        counts = {"rows": len(rows), "scored": scored, "anomalies": anomalies}
        print_json({**counts, "out": str(out), "version": detector.version})
    else:
        console.print(f"{anomalies} of {scored} scored rows are anomalous; {out} has all {len(rows)}", markup=False)


def _rows_as_published(data: Path, detector: Detector) -> NDArray[Any]:
    """Pictures `[N, H, W, C]` uint8 or float32 in 0…1, windows `[N, T, F]`, or a series' observations `[N, F]`."""
    from training.data import load

    dataset = load(data, detector.kind, detector.input_shape[0] if detector.kind is Kind.SEQUENCE else None)
    if dataset.series is not None:
        return dataset.series
    if dataset.kind is Kind.IMAGE and dataset.x.dtype != np.uint8:
        return dataset.x / np.float32(255.0)
    return dataset.x


def _keeping_maps(
    results: Iterator[ScoredRow], maps: list[NDArray[np.float32]], empty: NDArray[np.float32]
) -> Iterator[ScoredRow]:
    for result in results:
        maps.append(empty if result.heat_map is None else result.heat_map)
        yield result


def _write(out: Path, results: Iterable[ScoredRow], warm_up: int) -> tuple[int, int]:
    """Returns how many rows have a score, and how many of them are anomalous."""
    scored = anomalies = 0
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for result in results:
            line = _line(result, history=result.index < warm_up)
            writer.writerow(line)
            scored += result.verdict is not None
            anomalies += line[3]
    return scored, anomalies


def _line(result: ScoredRow, history: bool) -> tuple[int, str, str, int]:
    verdict = result.verdict
    if verdict is None:
        return result.index, "", "", 0
    is_anomaly = int(verdict.is_anomaly and not history)
    return result.index, f"{verdict.score:.7g}", f"{verdict.threshold:.7g}", is_anomaly

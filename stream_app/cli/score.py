"""`score`: a file through the same code as the stream."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from model.config import Kind
from stream_app.cli.common import ConfigOption, JsonOption, console, print_json, progress
from stream_app.errors import UsageError
from stream_app.settings import load_settings

if TYPE_CHECKING:
    from stream_app.offline import ScoredRow

COLUMNS = ("index", "score", "threshold", "is_anomaly")


def score(
    name: Annotated[str, typer.Option(metavar="DETECTOR", help="Which detector.")],
    data: Annotated[Path, typer.Option(metavar="FILE", help=".npz or .csv")],
    out: Annotated[Path, typer.Option(metavar="OUT.csv", help="A row for each row of the file, in order.")],
    registry: Annotated[str | None, typer.Option(metavar="URL", help="Where the models are.")] = None,
    version: Annotated[str | None, typer.Option(metavar="V", help="The champion otherwise.")] = None,
    warm_up: Annotated[int, typer.Option(metavar="N", min=0, help="The first N rows are history.")] = 0,
    heatmaps: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Where in each row the evidence is.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, …")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Score a file's rows in order, as the stream would.

    The threshold learns row after row. Rows of the history (--warm-up) teach it and are never called anomalous. Score
    and threshold are empty until a sequence's first full window.

    Example: ganomaly-stream score --registry models --name images --data pictures.npz --out scores.csv
    """
    settings = load_settings(config, {"registry.url": registry, "worker.device": device})
    from model.registry import Registry
    from stream_app.offline import score_rows
    from training.data import load

    detector = Registry(settings.registry.url).load(name, version, settings.worker.device)
    window = detector.input_shape[0] if detector.kind is Kind.SEQUENCE else None
    dataset = load(data, detector.kind, window)
    rows = dataset.x if dataset.series is None else dataset.series
    if warm_up > len(rows):
        raise UsageError(f"--warm-up {warm_up}: {data} has only {len(rows)} rows")
    if dataset.kind is Kind.IMAGE and rows.dtype != np.uint8:
        rows = rows / np.float32(255.0)  # as a publisher has it
    results = score_rows(detector, rows, settings, heat_maps=heatmaps is not None)
    maps: list[NDArray[np.float32]] = []
    anomalies = scored = 0
    with out.open("w", newline="") as file, progress(json) as bar:
        task = bar.add_task("scoring", total=len(rows))
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for result in results:
            line = _line(result, history=result.index < warm_up)
            writer.writerow(line)
            scored += line[1] != ""
            anomalies += line[3]
            if heatmaps is not None:
                empty = np.zeros(detector.input_shape[:2], np.float32)
                maps.append(result.heat_map if result.heat_map is not None else empty)
            bar.advance(task)
    if heatmaps is not None:
        np.savez_compressed(heatmaps, heatmaps=np.stack(maps))
    summary = {
        "rows": len(rows),
        "scored": scored,
        "anomalies": anomalies,
        "out": str(out),
        "version": detector.version,
    }
    if json:
        print_json(summary)
    else:
        console.print(f"{anomalies} of {scored} scored rows are anomalous; {out} has all {len(rows)}", markup=False)


def _line(result: ScoredRow, history: bool) -> tuple[int, str, str, int]:
    verdict = result.verdict
    if verdict is None:
        return result.index, "", "", 0
    is_anomaly = int(verdict.is_anomaly and not history)
    return result.index, f"{verdict.score:.7g}", f"{verdict.threshold:.7g}", is_anomaly

"""`score`: a file through the same code as the stream."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from stream_app.errors import ShapeError, UsageError
from stream_app.settings import load_settings

if TYPE_CHECKING:
    from model.detector import Detector
    from stream_app.messages import Source
    from stream_app.offline import ScoredRow

COLUMNS = ("index", "score", "threshold", "is_anomaly")


@dataclass(slots=True)
class Tally:
    """What became of the rows."""

    rows: int = 0
    scored: int = 0
    anomalies: int = 0
    refused: int = 0
    duplicates: int = 0  # observations that were there already: dropped
    first_refusal: str = ""  # names the row and the reason


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
    and threshold are empty until a sequence's first full window, and for rows that would be dead letters of the stream
    if they were published now, or duplicates. Columns of a .csv file are taken by the names of the detector's features.

    Example: ganomaly-stream score --registry models --name images --data pictures.npz --out scores.csv
    """
    check_input("--data", data)
    check_output("--out", out)
    if heatmaps is not None:
        check_output("--heatmaps", heatmaps)
    settings = load_settings(config, {"registry.url": registry, "worker.device": device, "worker.profile": profile})
    from model.registry import Registry
    from stream_app.offline import score_messages

    detector = Registry(settings.registry.url).load(name, version, settings.worker.device, settings.worker.profile)
    source = _open(data, detector)
    if warm_up > source.total:
        raise UsageError(f"--warm-up {warm_up}: {data} has only {source.total} rows")
    scored = score_messages(detector, source.messages(), settings, heatmaps is not None, timed=source.timed)
    results = _checked(scored, data)
    maps: list[NDArray[np.float32]] = []
    if heatmaps is not None:
        results = _keeping_maps(results, maps, np.zeros(detector.input_shape[:2], np.float32))
    with progress(json) as bar:
        tally = _write(out, bar.track(results, total=source.total, description="scoring"), warm_up)
    if heatmaps is not None:
        np.savez_compressed(heatmaps, heatmaps=np.stack(maps))
    if json:
        counts = {key: getattr(tally, key) for key in ("rows", "scored", "anomalies", "refused", "duplicates")}
        print_json({**counts, "out": str(out), "version": detector.version})
    else:
        _say(tally, out)


def _say(tally: Tally, out: Path) -> None:
    told = f"{tally.anomalies} of {tally.scored} scored rows are anomalous; {out} has all {tally.rows}"
    console.print(told, markup=False)
    if tally.refused:
        told = f"{tally.refused} rows have no score, as the stream would refuse them: {tally.first_refusal}"
        console.print(told, markup=False, style="yellow")
    if tally.duplicates:
        told = f"{tally.duplicates} rows have no score, as they are duplicates: the same values at the same time"
        console.print(told, markup=False, style="yellow")


def _open(data: Path, detector: Detector) -> Source:
    """The file as `publish` sends it, but the columns of a `.csv` in the order of the detector's features."""
    from stream_app.files import csv_features
    from stream_app.messages import open_source

    is_table = data.suffix.lower() == ".csv"
    if is_table and detector.kind is Kind.IMAGE:
        raise UsageError(f"{data}: a file of image records ends in .npz")
    # Columns without names of their own, as a detector without names, are taken as they stand.
    names = csv_features(data) if is_table else []
    has_names = all(names) and len(set(names)) == len(names)
    return open_source(data, features=detector.manifest.features if is_table and has_names else None)


def _checked(results: Iterator[ScoredRow], data: Path) -> Iterator[ScoredRow]:
    """Raises UsageError where the first row has another shape than the detector takes: then all have."""
    for result in results:
        if result.index == 0 and isinstance(result.refused, ShapeError):
            raise UsageError(f"{data}: {result.refused}") from result.refused
        yield result


def _keeping_maps(
    results: Iterator[ScoredRow], maps: list[NDArray[np.float32]], empty: NDArray[np.float32]
) -> Iterator[ScoredRow]:
    for result in results:
        maps.append(empty if result.heat_map is None else result.heat_map)
        yield result


def _write(out: Path, results: Iterable[ScoredRow], warm_up: int) -> Tally:
    """Writes a line for each result; there is no file until all are written."""
    tally, part = Tally(), out.with_name(f"{out.name}.part")
    try:
        with part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for result in results:
                line = _line(result, history=result.index < warm_up)
                writer.writerow(line)
                _count(tally, result, is_anomaly=bool(line[3]))
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    return tally


def _count(tally: Tally, result: ScoredRow, is_anomaly: bool) -> None:
    tally.rows += 1
    tally.scored += result.verdict is not None
    tally.anomalies += is_anomaly
    tally.duplicates += result.is_duplicate
    if result.refused is not None:
        tally.refused += 1
        tally.first_refusal = tally.first_refusal or f"row {result.index}: {result.refused}"


def _line(result: ScoredRow, history: bool) -> tuple[int, str, str, int]:
    verdict = result.verdict
    if verdict is None:
        return result.index, "", "", 0
    is_anomaly = int(verdict.is_anomaly and not history)
    return result.index, f"{verdict.score:.7g}", f"{verdict.threshold:.7g}", is_anomaly

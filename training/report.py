"""An evaluation as figures in a folder: curves, the histogram of scores, the best and the worst examples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.detector import Detector
from training import plots
from training.data import Dataset
from training.evaluate import DETECTOR, Evaluation
from training.plots import Example
from training.split import meets

SHOWN = 8  # pictures a row
SHOWN_WINDOWS = 4


def figures(
    detector: Detector, dataset: Dataset, result: Evaluation, kinds: NDArray[np.str_] | None = None
) -> dict[str, bytes]:
    """PNG files by name. Raises UsageError where matplotlib is not installed."""
    own, labels = result.scores[DETECTOR], result.labels
    groups = {"normal": own[labels == 0], "anomalous": own[labels == 1]}
    return {
        "roc.png": plots.roc(labels, result.scores),
        "precision-recall.png": plots.precision_recall(labels, result.scores),
        "histogram.png": plots.histogram(groups, {"threshold": result.model.threshold}),
        "examples.png": plots.examples(best_and_worst(detector, dataset, labels, own, kinds)),
    }


def write_figures(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files; the folder is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def best_and_worst(
    detector: Detector,
    dataset: Dataset,
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    kinds: NDArray[np.str_] | None = None,
) -> dict[str, list[Example]]:
    """The anomalies that score highest and lowest, and the normal records that do."""
    anomalous, normal = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    chosen = extremes({"anomalies": anomalous, "normal records": normal}, scores)
    return {title: examples(detector, dataset, index, scores, kinds) for title, index in chosen.items()}


def extremes(groups: Mapping[str, NDArray[np.int64]], scores: NDArray[np.floating]) -> dict[str, NDArray[np.int64]]:
    """Each group of indices twice, from its highest score downwards and from its lowest upwards, by title."""
    chosen: dict[str, NDArray[np.int64]] = {}
    for name, index in groups.items():
        ascending = index[np.argsort(scores[index], kind="stable")]
        chosen |= {f"{name} with the highest scores": ascending[::-1], f"{name} with the lowest scores": ascending}
    return chosen


def examples(
    detector: Detector,
    dataset: Dataset,
    index: NDArray[np.int64],
    scores: NDArray[np.floating],
    kinds: NDArray[np.str_] | None = None,
) -> list[Example]:
    """The first of the records `index` of `dataset`, as many as are shown, with heat maps and captions.

    `scores` are of every record of `dataset`, `[N]`.
    """
    index = _apart(index, SHOWN if len(dataset.input_shape) == 3 else SHOWN_WINDOWS, dataset)
    records = np.ascontiguousarray(dataset.x[index])
    heat = detector.localize(records)
    names = ["" if kinds is None else f"{kinds[row]} " for row in index]
    return [
        Example(record, map_, f"{name}#{row}\n{scores[row]:.2f}")
        for record, map_, name, row in zip(records, heat, names, index.tolist(), strict=True)
    ]


def _apart(index: NDArray[np.int64], count: int, dataset: Dataset) -> NDArray[np.int64]:
    """The first `count`; of windows ones that share no observation, as neighbours look alike."""
    if dataset.spans is None:
        return index[:count]
    chosen: list[int] = []
    for row in index.tolist():
        if not chosen or not meets(dataset.spans[[row]], dataset.spans[chosen])[0]:
            chosen.append(row)
        if len(chosen) == count:
            break
    return np.array(chosen, dtype=np.int64)

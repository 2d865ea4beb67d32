"""How well a detector, and the simple methods beside it, tell labelled anomalies from normal records.

ganomaly-stream evaluate --registry models --name images --data test.npz
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from model.calibration import Tail
from model.config import Kind
from model.detector import Detector
from stream_app.errors import UsageError
from training.baselines import BASELINES, Score, flat
from training.data import Dataset

TARGET_RATE = 1e-3
MIN_OF_A_CLASS = 2
MIN_REFERENCE = 40
LN10 = float(np.log(10.0))

CROSS_FITTED = (
    "baselines are fitted on half of the normal records of this file and score the other half, both ways round; "
    "anomalies are shared out between the two"
)
BY_REFERENCE = "baselines are fitted on the normal records of the reference"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One method. `threshold` is in the unit of all scores: −log10 of the share of normal records as high."""

    method: str
    auroc: float
    auprc: float
    f1: float
    threshold: float
    records_per_second: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The detector first, then the baselines, on the same records. `protocol`: what the baselines were fitted on."""

    rows: tuple[Row, ...]
    normal: int
    anomalous: int
    protocol: str

    @property
    def model(self) -> Row:
        """The detector's own row."""
        return self.rows[0]

    def to_json(self) -> dict[str, Any]:
        """The detector's figures at the top, the baselines' below `baselines` by name."""
        own, *others = (asdict(row) for row in self.rows)
        own.pop("method")
        named = {row.pop("method"): row for row in others}
        counts = {"normal": self.normal, "anomalous": self.anomalous, "protocol": self.protocol}
        return {**own, "baselines": named, **counts}


def evaluate(
    detector: Detector,
    dataset: Dataset,
    reference: Dataset | None = None,
    *,
    target_rate: float = TARGET_RATE,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measures on every record of `dataset`, which must hold normal and anomalous ones.

    The threshold is the one a new stream begins with: −log10(`target_rate`). The baselines need normal records to be
    fitted on: those of `reference` (the training file), or else of `dataset` itself by two-fold cross-fitting, which
    favours them, as their normal records are then surely from the same source. Their scores are calibrated as the
    detector's are.
    `on_progress` is called with the name of each method before it runs. Raises UsageError for unusable data.
    """
    labels = _labels(dataset, detector)
    say = on_progress or (lambda _: None)
    threshold = float(-np.log10(target_rate))
    say(detector.name)
    detector.warm_up(256)
    started = time.perf_counter()
    own = detector.score(dataset.x).score
    rows = [_row("ganomaly", labels, own.astype(np.float64), threshold, time.perf_counter() - started)]
    folds = _folds(dataset, labels) if reference is None else None
    for name in BASELINES:
        say(name)
        scores, seconds = _baseline(name, dataset, reference, folds, seed)
        rows.append(_row(name, labels, scores, threshold, seconds))
    protocol = CROSS_FITTED if reference is None else BY_REFERENCE
    return Evaluation(tuple(rows), int((labels == 0).sum()), int(labels.sum()), protocol)


def _labels(dataset: Dataset, detector: Detector) -> NDArray[np.int64]:
    if dataset.kind != detector.kind or dataset.input_shape != detector.input_shape:
        raise UsageError(
            f"{dataset.source} holds {dataset.kind} records of shape {list(dataset.input_shape)}, but {detector.name} "
            f"takes {detector.kind} records of shape {list(detector.input_shape)}"
        )
    if dataset.y is None:
        raise UsageError(f"{dataset.source}: there are no labels (y, or a column label) to evaluate against")
    for value, what in ((0, "normal"), (1, "anomalous")):
        if (count := int((dataset.y == value).sum())) < MIN_OF_A_CLASS:
            raise UsageError(f"{dataset.source}: {count} {what} records; at least {MIN_OF_A_CLASS} are needed")
    return dataset.y


def _row(method: str, labels: NDArray[np.int64], scores: Floats, threshold: float, seconds: float) -> Row:
    return Row(
        method=method,
        auroc=float(roc_auc_score(labels, scores)),
        auprc=float(average_precision_score(labels, scores)),
        f1=float(f1_score(labels, scores >= threshold, zero_division=0.0)),
        threshold=threshold,
        records_per_second=len(labels) / max(seconds, 1e-9),
    )


def _folds(dataset: Dataset, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 or 1 per record. The normal records of a series are cut in the middle; everything else takes turns."""
    fold = np.zeros(len(labels), dtype=np.int64)
    for value in (0, 1):
        index = np.flatnonzero(labels == value)
        turns = np.arange(len(index))
        in_order = value == 0 and dataset.kind is Kind.SEQUENCE
        fold[index] = turns * 2 // max(1, len(index)) if in_order else turns % 2
    return fold


def _baseline(
    name: str, dataset: Dataset, reference: Dataset | None, folds: NDArray[np.int64] | None, seed: int
) -> tuple[Floats, float]:
    """Calibrated scores of every record, and the seconds that scoring took."""
    if reference is not None or folds is None:
        source = reference or dataset
        score = _fit(name, source, np.flatnonzero(source.clean), seed)
        started = time.perf_counter()
        return score(dataset.x), time.perf_counter() - started
    scores, seconds = np.empty(len(dataset)), 0.0
    for fold in (0, 1):
        score = _fit(name, dataset, np.flatnonzero(dataset.clean & (folds != fold)), seed)
        asked = folds == fold
        records = dataset.x[asked]
        started = time.perf_counter()
        scores[asked] = score(records)
        seconds += time.perf_counter() - started
    return scores, seconds


def _fit(name: str, dataset: Dataset, normal: NDArray[np.int64], seed: int) -> Callable[[NDArray[Any]], Floats]:
    """A baseline fitted on four of five of the records and calibrated on the fifth."""
    if len(normal) < MIN_REFERENCE:
        raise UsageError(
            f"{dataset.source}: {len(normal)} normal records to fit baselines on; at least {MIN_REFERENCE} are needed"
        )
    held = np.arange(len(normal)) * 5 // len(normal) == 4
    order = normal if dataset.kind is Kind.SEQUENCE else np.random.default_rng(seed).permutation(normal)
    records = dataset.x[order[~held]]
    prepare = flat(dataset.kind, records)
    score: Score = BASELINES[name](prepare(records), seed)
    tail = Tail.fit(score(prepare(dataset.x[order[held]])))
    return lambda asked: tail.surprise(score(prepare(asked))) / LN10

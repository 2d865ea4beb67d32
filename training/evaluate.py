"""How well a detector, and the simple methods beside it, tell labelled anomalies from normal records.

ganomaly-stream evaluate --registry models --name images --data test.npz
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from model.calibration import Tail
from model.config import Kind
from model.detector import Detector
from stream_app.errors import UsageError
from training import credible
from training.baselines import BASELINES, Score, flat
from training.credible import Interval
from training.data import Dataset
from training.robustness import conditions

TARGET_RATE = 1e-3
MIN_OF_A_CLASS = 2
MIN_REFERENCE = 40
LN10 = float(np.log(10.0))
DETECTOR = "ganomaly"

CROSS_FITTED = (
    "baselines are fitted on half of the normal records of this file and score the other half, both ways round; "
    "anomalies are shared out between the two"
)
BY_REFERENCE = "baselines are fitted on the normal records of the reference"

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Records = NDArray[Any]
ScoreAll = Callable[[Records], Floats]  # the file's records, as they are or changed, `[N, …]`, to scores `[N]`


@dataclass(frozen=True, slots=True)
class KindRow:
    """One kind of anomaly against all normal records. `recall` is at the threshold."""

    records: int
    auroc: float
    auprc: float
    recall: float


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """One method on records that have changed a little, at the same threshold."""

    auroc: float
    auprc: float
    recall: float
    false_alarm_rate: float


@dataclass(frozen=True, slots=True)
class Row:
    """One method. `threshold` is in the unit of all scores: −log10 of the share of normal records as high.

    `f1`, `precision`, `recall` and `false_alarm_rate` (of normal records) are at the threshold. `credible` holds the
    central 95 % of the posteriors of auroc, precision, recall and false_alarm_rate.
    """

    method: str
    auroc: float
    auprc: float
    f1: float
    threshold: float
    records_per_second: float
    precision: float
    recall: float
    false_alarm_rate: float
    credible: Mapping[str, Interval]
    kinds: Mapping[str, KindRow] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All but the name; `kinds` only where there are any."""
        data = asdict(self)
        del data["method"]
        data["credible"] = {name: list(interval) for name, interval in self.credible.items()}
        return data if self.kinds else {key: value for key, value in data.items() if key != "kinds"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The detector first, then the baselines, on the same records.

    `protocol`: what the baselines were fitted on. `budget`: the false-alarm rate that the threshold is for.
    `robustness`: rows by condition and method, where asked for. `labels` `[N]` and `scores` `[N]` by method are what
    all of it was made from.
    """

    rows: tuple[Row, ...]
    protocol: str
    budget: float
    robustness: Mapping[str, Mapping[str, ChangedRow]]
    labels: Labels
    scores: Mapping[str, Floats]

    @property
    def model(self) -> Row:
        """The detector's own row."""
        return self.rows[0]

    @property
    def normal(self) -> int:
        """Records labelled normal."""
        return int((self.labels == 0).sum())

    @property
    def anomalous(self) -> int:
        """Records labelled anomalous."""
        return int(self.labels.sum())

    def to_json(self) -> dict[str, Any]:
        """The detector's figures at the top, the baselines' below `baselines` by name."""
        own, *others = self.rows
        counts = {"normal": self.normal, "anomalous": self.anomalous}
        named = {"baselines": {row.method: row.to_json() for row in others}}
        whole = own.to_json() | named | counts | {"protocol": self.protocol, "budget": self.budget}
        if not self.robustness:
            return whole
        changed = {
            condition: {method: asdict(row) for method, row in rows.items()}
            for condition, rows in self.robustness.items()
        }
        return whole | {"robustness": changed}


def evaluate(
    detector: Detector,
    dataset: Dataset,
    reference: Dataset | None = None,
    *,
    target_rate: float = TARGET_RATE,
    seed: int = 0,
    kinds: NDArray[np.str_] | None = None,
    robustness: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measures on every record of `dataset`, which must hold normal and anomalous ones.

    The threshold is the one a new stream begins with: −log10(`target_rate`). The baselines need normal records to be
    fitted on: those of `reference` (the training file), or else of `dataset` itself by two-fold cross-fitting, which
    favours them, as their normal records are then surely from the same source. Their scores are calibrated as the
    detector's are. `kinds` `[N]` says what kind each anomaly is. With `robustness` all is measured again on records
    that have changed a little (`training.robustness`); nothing is fitted or calibrated anew.
    `on_progress` is called with the name of each method before it runs. Raises UsageError for unusable data.
    """
    labels = _labels(dataset, detector)
    say = on_progress or (lambda _: None)
    threshold = float(-np.log10(target_rate))
    changed = conditions(dataset, seed) if robustness else {}
    rows: list[Row] = []
    scores: dict[str, Floats] = {}
    robust: dict[str, dict[str, ChangedRow]] = {condition: {} for condition in changed}
    for method, ready in _methods(detector, dataset, reference, labels, seed):
        shown = detector.name if method == DETECTOR else method
        say(shown)
        score = ready()
        started = time.perf_counter()
        scores[method] = score(dataset.x)
        seconds = time.perf_counter() - started
        rows.append(_row(method, labels, scores[method], threshold, seconds, kinds, seed))
        for condition, records in changed.items():
            say(f"{shown}, {condition}")
            robust[condition][method] = _changed_row(labels, score(records()), threshold)
    protocol = CROSS_FITTED if reference is None else BY_REFERENCE
    return Evaluation(tuple(rows), protocol, target_rate, robust, labels, scores)


def _methods(
    detector: Detector, dataset: Dataset, reference: Dataset | None, labels: Labels, seed: int
) -> Iterator[tuple[str, Callable[[], ScoreAll]]]:
    """Names, and what makes each ready to score."""
    yield DETECTOR, partial(_warm, detector)
    folds = _folds(dataset, labels) if reference is None else None
    for name in BASELINES:
        yield name, partial(_baseline, name, dataset, reference, folds, seed)


def _warm(detector: Detector) -> ScoreAll:
    detector.warm_up(256)
    return lambda records: detector.score(records).score.astype(np.float64)


def _labels(dataset: Dataset, detector: Detector) -> Labels:
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


def _row(
    method: str,
    labels: Labels,
    scores: Floats,
    threshold: float,
    seconds: float,
    kinds: NDArray[np.str_] | None,
    seed: int,
) -> Row:
    alarm = scores >= threshold
    found, missed = int(alarm[labels == 1].sum()), int((~alarm[labels == 1]).sum())
    false, quiet = int(alarm[labels == 0].sum()), int((~alarm[labels == 0]).sum())
    return Row(
        method=method,
        auroc=float(roc_auc_score(labels, scores)),
        auprc=float(average_precision_score(labels, scores)),
        f1=float(f1_score(labels, alarm, zero_division=0.0)),
        threshold=threshold,
        records_per_second=len(labels) / max(seconds, 1e-9),
        precision=found / max(1, found + false),
        recall=found / (found + missed),
        false_alarm_rate=false / (false + quiet),
        credible={
            "auroc": credible.auroc(labels, scores, seed),
            "precision": credible.rate(found, found + false),
            "recall": credible.rate(found, found + missed),
            "false_alarm_rate": credible.rate(false, false + quiet),
        },
        kinds=_kinds(labels, scores, threshold, kinds),
    )


def _kinds(labels: Labels, scores: Floats, threshold: float, kinds: NDArray[np.str_] | None) -> dict[str, KindRow]:
    rows: dict[str, KindRow] = {}
    if kinds is None:
        return rows
    for name in np.unique(kinds[labels == 1]).tolist():
        of_kind = (labels == 1) & (kinds == name)
        shown = of_kind | (labels == 0)
        rows[name] = KindRow(
            records=int(of_kind.sum()),
            auroc=float(roc_auc_score(of_kind[shown], scores[shown])),
            auprc=float(average_precision_score(of_kind[shown], scores[shown])),
            recall=float((scores[of_kind] >= threshold).mean()),
        )
    return rows


def _changed_row(labels: Labels, scores: Floats, threshold: float) -> ChangedRow:
    return ChangedRow(
        auroc=float(roc_auc_score(labels, scores)),
        auprc=float(average_precision_score(labels, scores)),
        recall=float((scores[labels == 1] >= threshold).mean()),
        false_alarm_rate=float((scores[labels == 0] >= threshold).mean()),
    )


def _folds(dataset: Dataset, labels: Labels) -> Labels:
    """0 or 1 per record. The normal records of a series are cut in the middle; everything else takes turns."""
    fold = np.zeros(len(labels), dtype=np.int64)
    for value in (0, 1):
        index = np.flatnonzero(labels == value)
        turns = np.arange(len(index))
        in_order = value == 0 and dataset.kind is Kind.SEQUENCE
        fold[index] = turns * 2 // max(1, len(index)) if in_order else turns % 2
    return fold


def _baseline(name: str, dataset: Dataset, reference: Dataset | None, folds: Labels | None, seed: int) -> ScoreAll:
    """Calibrated scores of the file's records, by what each of them may be judged by."""
    if reference is not None or folds is None:
        source = reference or dataset
        return _fit(name, source, np.flatnonzero(source.clean), seed)
    fitted = [_fit(name, dataset, np.flatnonzero(dataset.clean & (folds != fold)), seed) for fold in (0, 1)]

    def score(records: Records) -> Floats:
        scores = np.empty(len(records))
        for fold in (0, 1):
            scores[folds == fold] = fitted[fold](records[folds == fold])
        return scores

    return score


def _fit(name: str, dataset: Dataset, normal: NDArray[np.int64], seed: int) -> ScoreAll:
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

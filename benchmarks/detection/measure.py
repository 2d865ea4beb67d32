"""One training of the product, measured: through its public path, as `train` and `score` take it."""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from detection.protocols import Case, Material
from model.calibration import join
from model.config import Kind, Profile
from model.detector import Detector, Scores, build, place
from model.registry import Registry
from stream_app.errors import UsageError
from stream_app.offline import score_rows
from stream_app.settings import Settings, ThresholdSettings
from stream_app.threshold import StreamThreshold
from training.data import Dataset, from_arrays
from training.loop import train

BUDGETS = (0.01, 0.001)  # false alarms per normal record
TIMED = 256  # records scored at once where cost is measured
ROUNDS = 7

Figures = dict[str, Any]
Floats = NDArray[np.floating]


class CpuClock:
    """Training is paid in seconds of this process's CPU, so that a busy machine changes no figure."""

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of CPU since the process began."""
        return time.process_time()


def measure(case: Case, material: Material, seed: int, seconds: float) -> Figures:
    """Trains a detector for `seconds` of CPU and returns what the page and its tables are made of.

    Raises UsageError for an option that this release's training does not take.
    """
    if unknown := sorted(set(case.options) - set(inspect.signature(train).parameters)):
        raise UsageError(f"{case.protocol} {case.name}: training takes no {', '.join(unknown)}")
    dataset = _training_file(case, material)
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(folder)
        options: dict[str, Any] = {**case.options, "clock": CpuClock()}
        trained = train(dataset, material.kind, registry, "bench", seconds, seed, "cpu", **options)
        detector = registry.load("bench", device="cpu")
    figures: Figures = {
        "train_seconds": detector.manifest.seconds,
        "steps": trained.metrics.get("steps"),
        "parameters": _parameters(detector),
    }
    scored = _score_pictures if material.kind is Kind.IMAGE else _score_series
    scores, y, part = scored(detector, material)
    figures |= quality(scores.score, y, part)
    figures["alarms"] = false_alarms(scores.score, y, material.kind, detector.input_shape[0])
    figures |= _evidence(detector, scores, y, part)
    figures["cost"] = cost(detector, _records(material, detector))
    if _differ(detector):
        detector.profile = Profile.FAST
        fast, _, _ = scored(detector, material)
        figures["fast"] = quality(fast.score, y, part)
        detector.profile = Profile.ACCURATE
    if material.masks is not None:
        figures["pixels"] = pixels(detector.localize(_pictures(material.test[material.y == 1])), material)
    return figures


def quality(scores: Floats, y: NDArray[np.int64], part: NDArray[np.str_]) -> Figures:
    """AUROC and AUPRC of all anomalies against the normal records, and of each part of them."""
    normal = y == 0
    parts = {
        name: {
            "auroc": float(roc_auc_score(y[chosen], scores[chosen])),
            "auprc": float(average_precision_score(y[chosen], scores[chosen])),
        }
        for name in sorted(set(part[~normal].tolist()))
        if (chosen := normal | (part == name)).any()
    }
    return {
        "auroc": float(roc_auc_score(y, scores)),
        "auprc": float(average_precision_score(y, scores)),
        "parts": parts,
        "normal": int(normal.sum()),
        "anomalous": int((~normal).sum()),
    }


def false_alarms(scores: Floats, y: NDArray[np.int64], kind: Kind, window: int) -> Figures:
    """Alarms on fresh normal records by budget: by the calibration alone, and by the stream's own threshold.

    The threshold sees pictures that are all normal, and a series as it is, its anomalies included. Of a series those
    observations count whose window holds nothing anomalous.
    """
    normal = y == 0
    if kind is Kind.SEQUENCE:
        anomalous = np.concatenate([np.zeros(window, dtype=np.int64), y]).cumsum()
        normal = anomalous[window:] == anomalous[:-window]
    shown = scores[normal] if kind is Kind.IMAGE else scores
    counts: Figures = {"normal": int(normal.sum())}
    for budget in BUDGETS:
        _, alarms = StreamThreshold(ThresholdSettings(target_rate=budget)).judge_many(shown, np.arange(len(shown)))
        by_stream = alarms if kind is Kind.IMAGE else alarms[normal]
        by_calibration = scores[normal] >= -np.log10(budget)
        counts[str(budget)] = {"calibration": int(by_calibration.sum()), "stream": int(by_stream.sum())}
    return counts


def cost(detector: Detector, records: NDArray[Any]) -> Figures:
    """Time of a score by profile over that of the plain encoder–decoder–encoder, measured in turns; records a second.

    What is plain has the same networks, only nothing remembered, and reads the same records.
    """
    plain = place(build(detector.manifest.network()), detector.device).eval()
    batch = torch.from_numpy(np.ascontiguousarray(records))

    @torch.inference_mode()
    def forward() -> None:
        prepared = plain.prepare(batch)
        whole = getattr(plain, "whole", None)
        _, output = plain.generate(prepared if whole is None else whole(prepared))
        plain.encoder2(output)

    def scored(profile: Profile) -> Callable[[], None]:
        def score() -> None:
            detector.profile = profile
            detector.score(records)

        return score

    ways: dict[str, Callable[[], None]] = {"plain": forward, **{str(profile): scored(profile) for profile in Profile}}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            if turn:  # the first pays for allocations
                times[name].append(time.process_time() - started)
    detector.profile = Profile.ACCURATE
    return {
        str(profile): {
            "ratio": median(a / b for a, b in zip(times[str(profile)], times["plain"], strict=True)),
            "records_per_second": len(records) / median(times[str(profile)]),
        }
        for profile in Profile
    }


def pixels(maps: Floats, material: Material) -> Figures:
    """AUROC and AUPRC of the pixels of heat maps `[n, H, W]` of the defective pictures: all, and by kind of defect."""
    assert material.masks is not None
    masks, part = material.masks[material.y == 1], material.part[material.y == 1]
    chosen = {"all": np.ones(len(part), dtype=bool)} | {name: part == name for name in sorted(set(part.tolist()))}
    return {
        name: {
            "auroc": float(roc_auc_score(masks[rows].ravel(), maps[rows].ravel())),
            "auprc": float(average_precision_score(masks[rows].ravel(), maps[rows].ravel())),
        }
        for name, rows in chosen.items()
    }


def _training_file(case: Case, material: Material) -> Dataset:
    return from_arrays(material.train, material.kind, y=material.train_y, source=f"{case.protocol} {case.name}")


def _pictures(pictures: NDArray[Any]) -> NDArray[Any]:
    return pictures[..., None] if pictures.ndim == 3 else pictures


def _score_pictures(detector: Detector, material: Material) -> tuple[Scores, NDArray[np.int64], NDArray[np.str_]]:
    return detector.score(_pictures(material.test)), material.y, material.part


def _score_series(detector: Detector, material: Material) -> tuple[Scores, NDArray[np.int64], NDArray[np.str_]]:
    """The rows after the history, as `ganomaly-stream score` scores them: in order, the history before them."""
    verdicts = [row.verdict for row in score_rows(detector, material.test, Settings())][material.history :]
    scores = np.array([verdict.score for verdict in verdicts if verdict], dtype=np.float32)
    assert len(scores) == len(verdicts)
    names = verdicts[0].raw if verdicts[0] else {}
    raw = {name: np.array([verdict.raw[name] for verdict in verdicts if verdict], dtype=np.float32) for name in names}
    return Scores(scores, raw), material.y[material.history :], material.part[material.history :]


def _records(material: Material, detector: Detector) -> NDArray[Any]:
    if material.kind is Kind.IMAGE:
        return np.resize(_pictures(material.test), (TIMED, *detector.input_shape))
    windows = from_arrays(material.test, material.kind, window=detector.input_shape[0]).x
    return np.ascontiguousarray(windows[:TIMED])


def _evidence(detector: Detector, scores: Scores, y: NDArray[np.int64], part: NDArray[np.str_]) -> Figures:
    """AUROC of each evidence alone, and of the score without it; the rule that joins them is the product's own."""
    calibration = detector.manifest.calibration
    used = calibration.joint[Profile.ACCURATE].evidence
    surprise = {name: calibration.evidence[name].surprise(scores.raw[name]) for name in used}

    def auroc(values: Floats) -> dict[str, float]:
        found = quality(values, y, part)
        return {"all": found["auroc"], **{name: figures["auroc"] for name, figures in found["parts"].items()}}

    alone = {name: auroc(scores.raw[name]) for name in scores.raw}
    without: Mapping[str, dict[str, float]] = {}
    if len(used) > 1:
        without = {
            name: auroc(join({other: surprise[other] for other in used if other != name}, used)) for name in used
        }
    return {"used": list(used), "alone": alone, "without": without}


def _differ(detector: Detector) -> bool:
    joint = detector.manifest.calibration.joint
    return joint[Profile.FAST].evidence != joint[Profile.ACCURATE].evidence


def _parameters(detector: Detector) -> int:
    return sum(weight.numel() for weight in build(detector.manifest.network()).parameters())

"""Training of a detector, from a dataset to a version in the registry.

ganomaly-stream train --kind image --data normal.npz --registry models --name images --seconds 60
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed

import numpy as np
import torch
from numpy.typing import NDArray

from model.calibration import Fitted, calibrate, write_sketch
from model.config import ImageConfig, Kind, SequenceConfig
from model.detector import Floats, Network, pick_device, place, raw_evidence
from model.errors import TrainingError
from model.image import ImageGanomaly
from model.manifest import Manifest, TrainingData
from model.registry import Registry
from model.sequence import SequenceGanomaly
from stream_app.clock import Clock, SystemClock
from training.card import write_card
from training.data import Dataset
from training.split import Indices, Split, split
from training.steps import ImageStep, SequenceStep, Step

# The evidence that makes the score. What is left out is reported all the same: the reconstruction error of pictures
# falls where an anomaly is simpler than the normal ones, and the latent distance of windows was near chance on short
# histories.
USED = {
    Kind.IMAGE: ("latent", "projection", "map"),
    Kind.SEQUENCE: ("reconstruction", "mahalanobis", "neighbours"),
}
WARM_UP_STEPS = 30
REPORT_EVERY = 0.25  # seconds


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is. `share` runs from 0 to 1; `losses` are those of the last step."""

    share: float
    step: int
    elapsed: float
    losses: dict[str, float]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A new version, and what was measured on records that it did not learn from."""

    version: str
    path: str
    metrics: dict[str, float]
    champion: bool
    replaced: str | None  # the champion before, if any


def train(
    dataset: Dataset,
    kind: str,
    registry: Registry,
    name: str,
    seconds: float = 60.0,
    seed: int = 0,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
    *,
    steps: int | None = None,
    promote: bool = True,
    clock: Clock | None = None,
) -> TrainResult:
    """Trains on the normal records of `dataset`, saves a version, and puts it in service.

    The new version becomes the champion whether or not there was one; `promote=False` leaves the pointer alone.
    `seconds` is the time for gradient steps; what comes after (memory, calibration, saving) takes a little more. With
    `steps` so many are made however long they take, and the same seed gives the same weights on the same machine.
    Records labelled anomalous are never learned from; where there are any, `metrics` tells how well they were told from
    the held-out normal ones. Raises TrainingError when there is too little data, or the networks diverge or collapse;
    nothing is saved then.
    """
    if kind != dataset.kind:
        raise TrainingError(f"{dataset.source} holds {dataset.kind} records, not {kind}")
    if not (math.isfinite(seconds) and seconds > 0) or (steps is not None and steps < 1):
        raise TrainingError(f"seconds must be above 0 and steps at least 1, not {seconds} and {steps}")
    clock = clock or SystemClock()
    started, created = clock.monotonic(), datetime.fromtimestamp(clock.time(), UTC)
    trained = _train(dataset, pick_device(device), seconds, steps, seed, clock, on_progress)
    manifest = Manifest(
        name=name,
        kind=dataset.kind,
        created_at=created,
        config=trained.network.config.to_json(),
        input_shape=trained.network.config.input_shape,
        metrics=trained.metrics,
        training_data=TrainingData(source=dataset.source, rows=int(dataset.clean.sum()), sha256=dataset.sha256),
        calibration=trained.fitted.calibration,
        score_sketch=write_sketch(trained.fitted.scores),
        parent=registry.champion(name),
        seed=seed,
        seconds=round(clock.monotonic() - started, 3),
        libraries={package: installed(package) for package in ("torch", "numpy", "datasketches", "safetensors")},
    )
    version = registry.save(manifest, trained.network, write_card(manifest, trained.raw))
    if promote:
        registry.promote(name, version)
    return TrainResult(version, registry.path(name, version), trained.metrics, promote, manifest.parent)


@dataclass(frozen=True, slots=True)
class _Trained:
    """Networks ready for service; `raw` is the evidence of the held-out normal records, `[n]` by name."""

    network: Network
    fitted: Fitted
    raw: dict[str, Floats]
    metrics: dict[str, float]


def _train(
    dataset: Dataset,
    device: torch.device,
    seconds: float,
    steps: int | None,
    seed: int,
    clock: Clock,
    on_progress: Callable[[Progress], None] | None,
) -> _Trained:
    parts = split(dataset, np.random.default_rng(seed))
    with _seeded(seed):
        network, step = _set_up(dataset, parts, device, seed)
        taken = _learn(network, step, seconds, steps, clock, on_progress)
    _remember(network, dataset, parts.train, device, seed)
    fitted, raw = _calibrate(network, dataset, parts, device)
    if dataset.kind is Kind.SEQUENCE:
        # A series drifts, so that what was held out belongs to the normal ones as well. The calibration was made
        # without it: scores of later normal windows come out lower by that, never higher.
        _remember(network, dataset, np.flatnonzero(dataset.clean), device, seed)
    metrics = {
        "steps": float(taken),
        "train_records": float(len(parts.train)),
        "held_out_records": float(len(parts.held_out)),
        "held_out_above_2": float((fitted.scores >= 2.0).mean()),
        **_labelled(network, dataset, fitted, device),
    }
    return _Trained(network, fitted, raw, metrics)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Initial weights from `seed`; the caller's own random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _set_up(dataset: Dataset, parts: Split, device: torch.device, seed: int) -> tuple[Network, Step]:
    if dataset.kind is Kind.IMAGE:
        return _set_up_image(dataset, parts, device, seed)
    return _set_up_sequence(dataset, parts, device, seed)


def _set_up_image(dataset: Dataset, parts: Split, device: torch.device, seed: int) -> tuple[Network, Step]:
    height, width, channels = dataset.input_shape
    config = ImageConfig.for_shape(height, width, channels)
    network = ImageGanomaly(replace(config, memory=min(config.memory, len(parts.train))))
    pictures = dataset.x[parts.train]
    low, high = np.percentile(pictures[:: max(1, len(pictures) // 1000)], [0.1, 99.9])
    if high <= low:
        raise TrainingError(f"{dataset.source}: the normal pictures are all of one brightness, {low:g}")
    network.low, network.high = torch.tensor(float(low)), torch.tensor(float(high))
    place(network, device)
    return network, ImageStep(network, pictures, device, seed)


def _set_up_sequence(dataset: Dataset, parts: Split, device: torch.device, seed: int) -> tuple[Network, Step]:
    length, features = dataset.input_shape
    config = SequenceConfig.for_shape(length, features)
    network = SequenceGanomaly(replace(config, memory=min(config.memory, int(dataset.clean.sum()))))
    windows = dataset.x[parts.train]
    # Windows of a series overlap, so that the newest observation of each gives every observation once.
    rows = windows[:, -1] if dataset.series is not None else windows.reshape(-1, features)
    if float(np.ptp(rows, axis=0).max()) == 0.0:
        raise TrainingError(f"{dataset.source}: no feature of the normal observations ever changes")
    network.fit_scaling(torch.from_numpy(np.ascontiguousarray(rows)))
    place(network, device)
    return network, SequenceStep(network, dataset.x, parts.train, device, seed)


def _learn(
    network: Network,
    step: Step,
    seconds: float,
    steps: int | None,
    clock: Clock,
    on_progress: Callable[[Progress], None] | None,
) -> int:
    """The loop. Returns the number of steps it took."""
    network.train()
    started, reported, taken = clock.monotonic(), 0.0, 0
    while True:
        elapsed = clock.monotonic() - started
        share = elapsed / seconds if steps is None else taken / steps
        if share >= 1.0:
            break
        losses = step(min(1.0, (taken + 1) / WARM_UP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * share)))
        taken += 1
        if not all(math.isfinite(value) for value in losses.values()):
            raise TrainingError(f"training diverged at step {taken}: {losses}; nothing was saved")
        if on_progress and (elapsed - reported >= REPORT_EVERY or taken == 1):
            reported = elapsed
            on_progress(Progress(share, taken, elapsed, losses))
    network.eval()
    if on_progress:
        on_progress(Progress(1.0, taken, clock.monotonic() - started, losses))
    return taken


def _remember(network: Network, dataset: Dataset, index: Indices, device: torch.device, seed: int) -> None:
    chosen = np.sort(np.random.default_rng(seed).permutation(index)[: network.config.memory])
    network.remember(network.prepare(torch.from_numpy(np.ascontiguousarray(dataset.x[chosen])).to(device)))


def _calibrate(
    network: Network, dataset: Dataset, parts: Split, device: torch.device
) -> tuple[Fitted, dict[str, Floats]]:
    raw = raw_evidence(network, dataset.x[parts.held_out], device)
    if wrong := [name for name, values in raw.items() if not np.isfinite(values).all()]:
        raise TrainingError(
            f"training diverged: {', '.join(wrong)} of held-out records is not finite; nothing was saved"
        )
    try:
        return calibrate(raw, USED[dataset.kind]), raw
    except ValueError as error:
        raise TrainingError(
            f"training collapsed: held-out records can't be told apart ({error}); nothing was saved"
        ) from error


def _labelled(network: Network, dataset: Dataset, fitted: Fitted, device: torch.device) -> dict[str, float]:
    """AUROC of the labelled anomalies of the file against the held-out normal records; neither was learned from."""
    if dataset.y is None or not dataset.y.any():
        return {}
    anomalous = np.flatnonzero(dataset.y)[:5000]
    scores = fitted.calibration.score(raw_evidence(network, dataset.x[anomalous], device))
    return {"auroc": auroc(fitted.scores, scores)}


def auroc(normal: NDArray[np.float32], anomalous: NDArray[np.float32]) -> float:
    """Chance that an anomalous record scores higher than a normal one; ties count half."""
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, anomalous, side="left")
    up_to = np.searchsorted(ordered, anomalous, side="right")
    return float((below + up_to).mean() / (2.0 * len(ordered)))

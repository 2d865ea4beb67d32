"""Training of a detector, from a dataset to a version in the registry.

ganomaly-stream train --kind image --data normal.npz --registry models --name images --seconds 60
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as installed

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.calibration import Fitted, calibrate, write_sketch
from model.config import Kind
from model.detector import Detector, Floats, Network, pick_device, raw_evidence
from model.errors import TrainingError
from model.gate_report import GateReport
from model.lineage import Promotion
from model.manifest import Manifest, TrainingData, TrainingRun
from model.objectives import DEFAULT_OBJECTIVE
from model.registry import Registry
from stream_app.clock import Clock, SystemClock
from training.card import MOST_MEASURED, draw, write_card
from training.co_training import MOST_NORMAL, learn_labels
from training.collapse import check_finite
from training.cross_fit import held_out_evidence, later_evidence
from training.data import Dataset
from training.distributed import Workers, joined, own_device
from training.learn import Budget, CurvePoint, Learned, Progress, learn
from training.likeness import reference_of
from training.parts import Parts, divide
from training.sequence_step import enough_steps
from training.split import Indices, Split
from training.start import Recipe, start
from training.steps import Step

# The evidence of windows is on a logarithmic scale; a factor of a half more often than not is drift, not an anomaly.
LEAST_SCALE = {Kind.IMAGE: 0.0, Kind.SEQUENCE: 0.4}
FIRST_STEPS, TIMED_STEPS = 3, 10  # of a trial: the first ones cost more
SAMPLE = 256  # training records whose codes and reconstructions must differ


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A new version, and what was measured on records that it did not learn from.

    `promotion` is how it came into service, None where it didn't; `curve` are the losses on the way, `stopped` is why
    the learning ended.
    """

    version: str
    path: str
    metrics: dict[str, float]
    promotion: Promotion | None
    curve: list[CurvePoint] = field(repr=False)
    stopped: str
    gate: GateReport | None = None  # what `examine` found; a version it refused is saved, and not promoted

    @property
    def champion(self) -> bool:
        """Whether it is in service."""
        return self.promotion is not None

    @property
    def replaced(self) -> str | None:
        """The version that was in service before, if it is now and there was one."""
        return self.promotion.replaced if self.promotion else None


def train(
    dataset: Dataset,
    kind: str,
    registry: Registry,
    name: str,
    seconds: float = 100.0,
    seed: int = 0,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
    *,
    steps: int | None = None,
    promote: bool = True,
    clock: Clock | None = None,
    objective: str = DEFAULT_OBJECTIVE,
    generator: str | None = None,
    attention: bool | None = None,
    from_version: str | None = None,
    examine: Callable[[Detector], GateReport] | None = None,
    by: str = "",
) -> TrainResult:
    """Trains on the normal records of `dataset`, saves a version, and puts it in service.

    The new version becomes the champion whether or not there was one; `promote=False` leaves the pointer alone, and so
    does an `examine` that refuses it. That is called before the version is saved, so that its report is in the manifest
    and on the card; a refused version is saved all the same, for people to look at. `by` is who trains, for the
    lineage, which also says on what.
    `seconds` is the time for gradient steps; what comes after (memory, calibration, saving) takes a little more. With
    `steps` so many are made however long they take, and the same seed gives the same weights on the same machine. It
    ends earlier where a validation loss no longer falls. For records of a stream, which can be read again, the seconds
    are first turned into steps, so that the version can be made again. `objective`, `generator`, `attention` and
    `from_version` are those of `training.start.Recipe`.

    Records labelled anomalous are never rebuilt. Where there are any, two thirds of them teach the encoder of pictures
    what to tell from normal ones, and an evidence of their own; `metrics` tells how well the others were found. Under
    torchrun every process calls this with the same arguments and gets the same result; the first one saves.

    Raises TrainingError when there is too little data, or the networks diverge or collapse, and UsageError for what
    can't be asked; nothing is saved then.
    """
    if kind != dataset.kind:
        raise TrainingError(f"{dataset.source} holds {dataset.kind} records, not {kind}")
    if not (math.isfinite(seconds) and seconds > 0) or (steps is not None and steps < 1):
        raise TrainingError(f"seconds must be above 0 and steps at least 1, not {seconds} and {steps}")
    recipe = Recipe(objective, generator, attention, from_version)
    recipe.check(dataset.kind)
    clock = clock or SystemClock()
    started, created = clock.monotonic(), datetime.fromtimestamp(clock.time(), UTC)
    target = pick_device(own_device(device))
    with joined(target) as workers:
        job = _Job(dataset, recipe, registry, name, target, seed, workers, promote, examine, by)
        budget = Budget(seconds, steps, clock)
        network, parts, learned = _learn(job, budget, on_progress)
        result = None
        if workers.first:
            trained = _finish(job, network, parts, learned)
            run = TrainingRun(
                steps=budget.steps, objective=objective, from_version=from_version, threads=torch.get_num_threads()
            )
            seconds = round(clock.monotonic() - started, 3)
            result = _save(job, trained, parts, learned, run, created, seconds)
        result = workers.agree(result)
    assert result is not None
    return result


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be trained."""

    dataset: Dataset
    recipe: Recipe
    registry: Registry
    name: str
    device: torch.device
    seed: int
    workers: Workers
    promote: bool
    examine: Callable[[Detector], GateReport] | None
    by: str


@dataclass(frozen=True, slots=True)
class _Trained:
    """Networks ready for service; `raw` is the evidence of the held-out normal records, `[n]` by name."""

    network: Network
    fitted: Fitted
    raw: dict[str, Floats]
    metrics: dict[str, float]


def _learn(job: _Job, budget: Budget, on_progress: Callable[[Progress], None] | None) -> tuple[Network, Parts, Learned]:
    parts = divide(job.dataset, np.random.default_rng(job.seed))
    if job.dataset.kind is Kind.SEQUENCE:
        budget.enough = enough_steps(len(parts.fit))
    sample = parts.train[np.linspace(0, len(parts.train) - 1, min(SAMPLE, len(parts.train))).astype(np.int64)]
    if budget.steps is None and job.dataset.origin is not None:
        budget.steps = _steps_within(job, parts, budget)
    with _seeded(job.seed):
        network, step = _start(job, parts)
        learned = learn(network, step, _records(job, sample), budget, job.workers, on_progress)
    return network, parts, learned


def _start(job: _Job, parts: Parts) -> tuple[Network, Step]:
    return start(job.dataset, parts, job.recipe, job.registry, job.name, job.device, job.seed, job.workers)


def _steps_within(job: _Job, parts: Parts, budget: Budget) -> int:
    """How many steps there is time for, by a trial.

    The learning rate falls with the share of the budget that is used. Of steps it is the same in every run, so that
    what was learned from a stream can be repeated.
    """
    with _seeded(job.seed):
        network, step = _start(job, parts)
        network.train()
        for _ in range(FIRST_STEPS):
            step(0.0)
        started = budget.clock.monotonic()
        for _ in range(TIMED_STEPS):
            step(0.0)
        pace = TIMED_STEPS / max(budget.clock.monotonic() - started, 1e-6)
    steps = max(1, math.floor(budget.seconds * pace))
    return steps if budget.enough is None else min(steps, budget.enough)


def _finish(job: _Job, network: Network, parts: Parts, learned: Learned) -> _Trained:
    """Memory, labels, calibration and measures."""
    dataset = job.dataset
    check_finite(network)
    raw = _held_out_evidence(job, network, parts)
    fitted = _calibrate(network, dataset, raw, _later_evidence(job, network))
    if dataset.kind is Kind.SEQUENCE:
        # A series drifts, so that what was held out belongs to the normal ones as well. The calibration was made
        # without it: scores of later normal windows come out lower by that, never higher.
        _remember(job, network, np.flatnonzero(dataset.clean))
    metrics = {
        "steps": float(learned.steps),
        "best_step": float(learned.kept),
        "train_records": float(len(parts.train)),
        "validation_records": float(len(parts.watched)),
        "held_out_records": float(len(parts.held_out)),
        "held_out_above_2": float((fitted.scores >= 2.0).mean()),
        **_measured(job, network, parts, fitted),
    }
    return _Trained(network, fitted, raw, metrics)


def _save(
    job: _Job,
    trained: _Trained,
    parts: Parts,
    learned: Learned,
    run: TrainingRun,
    created: datetime,
    seconds: float,
) -> TrainResult:
    data, config, champion = job.dataset, trained.network.config, job.registry.champion(job.name)
    origin = data.origin or TrainingData(source=data.source, rows=int(data.clean.sum()), sha256=data.sha256)
    manifest = Manifest(
        name=job.name,
        kind=data.kind,
        created_at=created,
        config=config.to_json(),
        input_shape=config.input_shape,
        features=data.features,
        metrics=trained.metrics,
        training_data=origin,
        run=run,
        calibration=trained.fitted.calibration,
        score_sketch=write_sketch(trained.fitted.scores),
        inputs=reference_of(data, trained.fitted.scores),
        parent=job.recipe.from_version or (champion if data.origin is None else data.origin.champion),
        seed=job.seed,
        seconds=seconds,
        libraries={package: installed(package) for package in ("torch", "numpy", "datasketches", "safetensors")},
    )
    detector = Detector(manifest, trained.network, job.device)
    report = job.examine(detector) if job.examine is not None else None
    manifest = manifest.model_copy(update={"gate": report})
    promote = job.promote and (report is None or report.passed)
    figures = draw(detector, data, parts, trained.fitted.scores, learned.curve, learned.kept)
    card = write_card(manifest, trained.raw, figures)
    version = job.registry.save(manifest, trained.network, card, figures)
    why = f"trained on {data.source}"
    promotion = job.registry.promote(job.name, version, by=job.by, reason=why) if promote else None
    path = job.registry.path(job.name, version)
    return TrainResult(version, path, trained.metrics, promotion, learned.curve, learned.stopped, report)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Initial weights from `seed`; the caller's own random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _records(job: _Job, index: Indices) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(job.dataset.x[index])).to(job.device)


def _remember(job: _Job, network: Network, index: Indices) -> None:
    chosen = np.sort(np.random.default_rng(job.seed).permutation(index)[: network.config.memory])
    network.remember(network.prepare(_records(job, chosen)))


def _learn_labels(job: _Job, network: Network, parts: Parts) -> None:
    if len(parts.labelled):
        random = torch.Generator(job.device).manual_seed(job.seed)
        normal = np.random.default_rng(job.seed).permutation(parts.train)[:MOST_NORMAL]
        learn_labels(network, _records(job, normal), _records(job, parts.labelled), random)


def _held_out_evidence(job: _Job, network: Network, parts: Parts) -> dict[str, Floats]:
    dataset = job.dataset
    if dataset.kind is Kind.IMAGE:
        _remember(job, network, parts.train)
        _learn_labels(job, network, parts)
        return raw_evidence(network, dataset.x[parts.held_out], job.device)
    _learn_labels(job, network, parts)
    return held_out_evidence(
        dataset,
        Split(parts.train, parts.held_out),
        lambda index: _remember(job, network, index),
        lambda index: raw_evidence(network, dataset.x[index], job.device),
    )


def _later_evidence(job: _Job, network: Network) -> dict[str, Floats] | None:
    if job.dataset.kind is Kind.IMAGE:
        return None
    return later_evidence(
        job.dataset,
        lambda index: _remember(job, network, index),
        lambda index: raw_evidence(network, job.dataset.x[index], job.device),
    )


def _calibrate(network: Network, dataset: Dataset, raw: dict[str, Floats], later: dict[str, Floats] | None) -> Fitted:
    if wrong := [name for name, values in raw.items() if not np.isfinite(values).all()]:
        raise TrainingError(
            f"training diverged: {', '.join(wrong)} of held-out records is not finite; nothing was saved"
        )
    try:
        return calibrate(raw, network.profiles, least_scale=LEAST_SCALE[dataset.kind], later=later)
    except ValueError as error:
        raise TrainingError(
            f"training collapsed: held-out records can't be told apart ({error}); nothing was saved"
        ) from error


def _measured(job: _Job, network: Network, parts: Parts, fitted: Fitted) -> dict[str, float]:
    """AUROC of labelled anomalies against the held-out normal records; neither was learned from."""
    if not len(parts.measured):
        return {}
    records = job.dataset.x[parts.measured[:MOST_MEASURED]]
    scores = fitted.calibration.score(raw_evidence(network, records, job.device))
    return {
        "labelled_records": float(len(parts.labelled)),
        "measured_anomalies": float(len(records)),
        "auroc": auroc(fitted.scores, scores),
    }


def auroc(normal: NDArray[np.float32], anomalous: NDArray[np.float32]) -> float:
    """Chance that an anomalous record scores higher than a normal one; ties count half."""
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, anomalous, side="left")
    up_to = np.searchsorted(ordered, anomalous, side="right")
    return float((below + up_to).mean() / (2.0 * len(ordered)))

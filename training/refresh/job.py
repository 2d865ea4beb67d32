"""Makes a version: a snapshot of the topic, training, and the gate. Runs in a process of its own.

A version is saved only while the trainer's token is the highest: one that was overtaken leaves nothing behind.
"""

from __future__ import annotations

import asyncio

import torch

from model.detector import Detector
from model.errors import RegistryError
from model.gate_report import GateReport
from model.lineage import Promotion
from model.registry import Registry
from stream_app.clock import SystemClock
from stream_app.drift import read_drift
from stream_app.errors import ModelNotFound
from stream_app.labels import read_labels
from stream_app.log import configure, get_logger
from stream_app.settings import Settings
from stream_app.updates import publish_update, update_of
from training.learn import Progress
from training.loop import TrainResult, train
from training.refresh.child import Report
from training.refresh.gate import GateEvidence, examine
from training.refresh.refresh import Job, Made, Parts, Verdict
from training.refresh.shadow import run_shadow
from training.refresh.snapshot import Looking, Snapshot, take_snapshot
from training.refresh.stage import Stage

log = get_logger(__name__)


def make(job: Job, report: Report) -> Made:
    """A version from the topic's own records; the token is its seed.

    Raises ModelNotFound without a champion, StaleToken when another trainer has taken over, and what the stages raise.
    """
    settings, registry = job.settings, Registry(job.settings.registry.url)
    configure(settings.log)
    if settings.trainer.torch_threads:
        torch.set_num_threads(settings.trainer.torch_threads)
    version = registry.champion(job.detector)
    if version is None:
        raise ModelNotFound(
            f"detector {job.detector} has no champion, and nothing says what a record of {job.topic} is for it: train "
            "the first one with `ganomaly-stream train`"
        )
    champion = registry.load(job.detector, version, settings.worker.device, settings.worker.profile)
    snapshot = _snapshot(job, champion, report)
    result, gate = _train(job, champion, snapshot, registry, report)
    sha256 = registry.manifest(job.detector, result.version).sha256
    offsets = {partition: end for partition, (_, end) in snapshot.ranges.items()}
    return Made(result.version, sha256, version, gate.refused_by, gate.why_refused(), offsets)


def _snapshot(job: Job, champion: Detector, report: Report) -> Snapshot:
    stage = Stage("snapshot", report)

    def look(looking: Looking) -> None:
        part = 0.5 * looking.done / max(looking.total, 1)
        stage.is_at(part if looking.what == "score" else 0.5 + part)

    async def take() -> Snapshot:
        labels = await read_labels(job.settings)
        return await take_snapshot(
            job.settings, job.topic, job.detector, champion, labels=labels, seed=job.token, on_progress=look
        )

    snapshot = asyncio.run(take())
    stage.done(True, ", ".join(f"{count} {what}" for what, count in snapshot.counts.items()))
    return snapshot


def _train(
    job: Job, champion: Detector, snapshot: Snapshot, registry: Registry, report: Report
) -> tuple[TrainResult, GateReport]:
    settings, stages, found = job.settings, [Stage("train", report)], []
    x, y = snapshot.labelled
    evidence = GateEvidence(snapshot.fresh.x, x, y)

    def learning(progress: Progress) -> None:
        stages[0].is_at(progress.share, f"step {progress.step}")

    def judge(challenger: Detector) -> GateReport:
        stages[0].done(True, "trained")
        gate = Stage("gate", report)
        # As the workers would have it score.
        served = Detector(challenger.manifest, challenger.network, challenger.device, settings.worker.profile)
        verdict = examine(
            served,
            champion,
            evidence,
            settings.gate,
            anchor=_anchor(job, champion, registry),
            target_rate=settings.threshold.target_rate,
        )
        why = verdict.why_refused() or f"all {len(verdict.rules)} rules passed"
        gate.done(verdict.passed, why, verdict.rules)
        registry.fence(job.detector, job.token)
        found.append(verdict)
        return verdict

    result = train(
        snapshot.dataset,
        champion.kind,
        registry,
        job.detector,
        settings.trainer.seconds,
        job.token,
        settings.worker.device,
        learning,
        promote=False,
        examine=judge,
    )
    return result, found[0]


def _anchor(job: Job, champion: Detector, registry: Registry) -> Detector | None:
    """What a person last put in service, where that is another than the champion and can still be loaded."""
    version = registry.lineage(job.detector).anchor()
    if version in (None, champion.version):
        return None
    try:
        return registry.load(job.detector, version, str(champion.device), champion.profile)
    except RegistryError as error:
        log.warning("the anchor can't be loaded", detector=job.detector, version=version, error=str(error))
        return None


async def shadow(job: Job, made: Made, report: Report) -> Verdict:
    """Has the workers hold it against the champion on live records. Raises what `run_shadow` does."""

    def seen(share: float, told: str) -> None:
        report({"stage": "shadow", "state": "progress", "share": share, "told": told})

    outcome = await run_shadow(job.settings, job.detector, made.version, SystemClock(), tell=seen)
    return Verdict(outcome.passed, outcome.why, outcome.refused_by, outcome.waits, outcome.rules)


async def announce(settings: Settings, detector: str, sha256: str, promotion: Promotion) -> None:
    """Tells the workers who is in service. Raises BrokerUnavailable."""
    await publish_update(settings, update_of(detector, promotion, sha256))


async def drift(settings: Settings, detector: str) -> str | None:
    """Why the drift from what the champion was trained on asks for a run, if it does. Raises RedisUnavailable."""
    champion = await asyncio.to_thread(Registry(settings.registry.url).champion, detector)
    report = await read_drift(settings.redis, settings.kafka.group_id, detector, settings.drift, version=champion)
    return report.fires(settings.drift)


PARTS = Parts(make, shadow, announce, drift)

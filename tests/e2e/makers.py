"""Stand-ins for the process that makes a version: each fails, or takes its time, in its own way."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime

from model.errors import TrainingError
from model.registry import Registry
from training.refresh.child import Report
from training.refresh.refresh import Job, Made


def save_again(registry: Registry, name: str) -> str:
    """The champion once more, as a version made now."""
    detector = registry.load(name, device="cpu")
    manifest = detector.manifest.model_copy(update={"created_at": datetime.now(UTC)})
    return registry.save(manifest, detector.network, "a copy")


def copy(job: Job, report: Report, refused_by: tuple[str, ...] = ()) -> Made:
    """A new version with the champion's weights."""
    report({"stage": "train", "state": "begins"})
    registry = Registry(job.settings.registry.url)
    champion = registry.champion(job.detector)
    registry.fence(job.detector, job.token)
    version = save_again(registry, job.detector)
    report({"stage": "train", "state": "done", "passed": True, "why": "a copy", "seconds": 0.0})
    sha256 = registry.manifest(job.detector, version).sha256
    return Made(version, sha256, champion, refused_by, "; ".join(refused_by), {0: 7})


def refused(job: Job, report: Report) -> Made:
    """One that the gate refuses."""
    return copy(job, report, ("false_alarms",))


def collapsing(job: Job, report: Report) -> Made:
    """Training that comes to nothing."""
    raise TrainingError("training collapsed: every reconstruction is the same; nothing was saved")


def surprising(job: Job, report: Report) -> Made:
    """An error that nobody foresaw."""
    return copy(job, report)[0]


def dying(job: Job, report: Report) -> Made:
    """A process that runs out of memory, say."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def endless(job: Job, report: Report) -> Made:
    """Training that is still at it."""
    report({"stage": "train", "state": "begins", "pid": os.getpid()})
    time.sleep(600)
    raise AssertionError

"""One run: a new version is made, proven and put in service; what each stage came to is told, whatever it was.

Snapshot, training and the gate are one process of their own (`make`), because they take the machine's time and memory
and may be ended at any moment. What follows is here: shadow, promotion under the fencing token, and the news to the
workers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from model.gate_report import RuleVerdict
from model.lineage import Promotion
from model.registry import Registry
from stream_app.clock import Clock
from stream_app.errors import ChampionChanged, GanomalyError, StaleToken
from stream_app.log import get_logger
from stream_app.settings import Settings
from training.refresh.child import ChildFailed, Report, run_in_child
from training.refresh.memory import Offsets, Outcome
from training.refresh.stage import Stage
from training.refresh.triggers import Due

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """What a process that makes a version is told."""

    settings: Settings
    detector: str
    topic: str
    token: int


@dataclass(frozen=True, slots=True)
class Made:
    """A version that was saved, and how it fared at the gate. `champion` is the version it was compared with.

    `offsets`: partition → end of what was read of the topic.
    """

    version: str
    sha256: str
    champion: str | None
    refused_by: tuple[str, ...]
    why: str
    offsets: dict[int, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a stage came to. `waits`: it is for a person to decide. `rules` are those that it was judged by."""

    passed: bool
    why: str
    refused_by: tuple[str, ...] = ()
    waits: bool = False
    rules: tuple[RuleVerdict, ...] = ()


class StageResult(BaseModel):
    """One stage of a run."""

    model_config = ConfigDict(frozen=True)

    stage: str
    passed: bool
    why: str
    seconds: float
    rules: tuple[RuleVerdict, ...] = ()


class RunResult(BaseModel):
    """What became of a run. `offsets` is what it has seen of the topics, empty where it read none."""

    model_config = ConfigDict(frozen=True)

    detector: str
    token: int
    trigger: str
    due: str
    started_at: datetime
    seconds: float
    outcome: Outcome
    why: str
    version: str | None = None
    champion: str | None = None
    refused_by: tuple[str, ...] = ()
    stages: tuple[StageResult, ...] = ()
    offsets: Offsets = {}


Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of. `make` runs in a process of its own, so it is a function of a module."""

    make: Callable[[Job, Report], Made]
    shadow: Callable[[Job, Made, Report], Awaitable[Verdict]]
    announce: Callable[[Settings, str, str, Promotion], Awaitable[None]]  # detector, SHA-256 of the weights
    drift: Callable[[Settings, str], Awaitable[str | None]]  # why a detector's streams ask for a run, if they do


@dataclass(slots=True)
class Run:
    """One run of one detector, under a lease whose token is in the job."""

    job: Job
    due: Due
    registry: Registry
    parts: Parts
    clock: Clock
    emit: Emit
    turn: asyncio.Lock  # of this machine: one detector is trained at a time
    made: Made | None = None
    stages: list[StageResult] = field(default_factory=list)

    async def run(self) -> RunResult:
        """Goes through the stages; raises nothing but CancelledError: whatever goes wrong is in the result."""
        at, started = datetime.fromtimestamp(self.clock.time(), UTC), self.clock.monotonic()
        try:
            outcome, verdict = await self._stages()
        except ChildFailed as error:
            outcome, verdict = Outcome.FAILED, Verdict(False, f"{error.cause}: {error}")
        except (GanomalyError, OSError) as error:
            outcome, verdict = Outcome.FAILED, Verdict(False, f"{type(error).__name__}: {error}")
        except Exception as error:
            log.error("a run failed in a way that was not foreseen", detector=self.job.detector, exc_info=error)
            outcome, verdict = Outcome.FAILED, Verdict(False, f"{type(error).__name__}: {error}")
        return self.result(outcome, verdict, at, self.clock.monotonic() - started)

    def result(self, outcome: Outcome, verdict: Verdict, at: datetime, seconds: float) -> RunResult:
        """As it stands now."""
        made = self.made
        return RunResult(
            detector=self.job.detector,
            token=self.job.token,
            trigger=self.due.trigger,
            due=self.due.why,
            started_at=at,
            seconds=round(seconds, 3),
            outcome=outcome,
            why=verdict.why,
            version=made.version if made else None,
            champion=made.champion if made else None,
            refused_by=verdict.refused_by,
            stages=tuple(self.stages),
            offsets={self.job.topic: made.offsets} if made else {},
        )

    async def _stages(self) -> tuple[Outcome, Verdict]:
        settings = self.job.settings
        async with self.turn:
            made = await run_in_child(self.parts.make, self.job, report=self._told, niceness=settings.trainer.nice)
        self.made = made
        if made.refused_by:
            return Outcome.REFUSED, Verdict(False, made.why, made.refused_by)
        verdict = await self._timed("shadow", self.parts.shadow(self.job, made, self._told))
        if verdict.waits:
            return Outcome.WAITING, verdict
        if not verdict.passed:
            return Outcome.REFUSED, verdict
        # Once begun it is brought to its end: the token keeps a stale trainer out, and who is promoted is announced.
        ending = asyncio.ensure_future(self._timed("promote", self._put_in_service(made, verdict)))
        try:
            verdict = await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait({ending})
            verdict = ending.result()
        return (Outcome.PROMOTED if verdict.passed else Outcome.WAITING), verdict

    async def _put_in_service(self, made: Made, shadow: Verdict) -> Verdict:
        name = self.job.detector
        try:
            promotion = await asyncio.to_thread(self._promote, made, shadow)
        except ChampionChanged as error:
            return Verdict(
                False,
                f"{error}; {made.version} was held against {made.champion}: "
                f"`ganomaly-stream models promote {name} {made.version}` puts it in service all the same",
                waits=True,
            )
        try:
            async with asyncio.timeout(self.job.settings.worker.publish_timeout):
                await self.parts.announce(self.job.settings, name, made.sha256, promotion)
        except (GanomalyError, OSError) as error:  # a TimeoutError is an OSError
            return Verdict(True, f"in service; workers see it at their next look, as it can't be announced: {error}")
        return Verdict(True, f"in service in place of {promotion.replaced or 'none'}")

    def _promote(self, made: Made, shadow: Verdict) -> Promotion:
        return self.registry.promote(
            self.job.detector,
            made.version,
            by=f"schedule on {socket.gethostname()}",
            reason=f"{self.due.trigger}: {self.due.why}; shadow: {shadow.why}",
            token=self.job.token,
            expected=made.champion,
        )

    async def _timed(self, stage: str, work: Awaitable[Verdict]) -> Verdict:
        told = Stage(stage, self._told, self.clock.monotonic)
        verdict = await work
        told.done(verdict.passed, verdict.why, verdict.rules)
        return verdict

    def _told(self, event: dict[str, Any]) -> None:
        if event.get("state") == "done":
            self.stages.append(StageResult.model_validate(event))
        self.emit({"event": "stage", "detector": self.job.detector, **event})


async def claim(registry: Registry, detector: str, token: int) -> bool:
    """Makes a new token known to the registry; false when the registry knows a higher one.

    From then on nobody with a lower token can publish. Raises RegistryError.
    """
    try:
        await asyncio.to_thread(registry.fence, detector, token)
    except StaleToken:
        return False
    return True

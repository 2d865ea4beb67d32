"""Follows detectors and trains them anew when a run is due. What goes wrong is told and tried again, never the end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

from model.registry import Registry
from stream_app import metrics
from stream_app.clock import Clock
from stream_app.errors import GanomalyError, ModelNotFound, RedisUnavailable, UsageError
from stream_app.history import bounds
from stream_app.kafka import end_tasks
from stream_app.log import get_logger
from stream_app.redis_client import connect
from stream_app.settings import Settings
from training.refresh.lease import Lease
from training.refresh.memory import Memory, Offsets, Outcome, Remembered
from training.refresh.refresh import Emit, Job, Parts, Run, RunResult, Verdict, claim
from training.refresh.triggers import Due, Seen, Triggers, count_new, ends_of

log = get_logger(__name__)

_LED_TO_NOTHING = frozenset({Outcome.FAILED, Outcome.STOPPED})


class Scheduler:
    """Trains detectors, one at a time, until it is stopped.

    `emit` is called with what happens: dicts with `event` (follows, due, stage, finished, held, waits, trouble) and
    `detector`. `results` are those of the runs that ended, `troubles` what keeps a detector from being looked at.
    """

    def __init__(
        self, settings: Settings, detectors: list[str], registry: Registry, parts: Parts, clock: Clock, emit: Emit
    ) -> None:
        """Raises SettingsError for a cron expression that can't be used, and UsageError for an unknown detector."""
        topics = {name: [topic for topic, of in settings.routes.items() if of == name] for name in detectors}
        if unknown := [name for name in detectors if not topics[name]]:
            known = ", ".join(sorted(set(settings.routes.values())))
            raise UsageError(f"detector {unknown[0]} scores no topic (GANOMALY_ROUTES); there are {known}")
        self._settings = settings
        self._topics = topics
        self._registry = registry
        self._parts = parts
        self._clock = clock
        self._emit = emit
        self._triggers = Triggers(settings.trainer)
        self._client = connect(settings.redis)
        self._ending = asyncio.Event()
        self._turn = asyncio.Lock()
        self._told: dict[str, str] = {}
        self._drifting_since: dict[str, Offsets] = {}  # where the topics ended when drift was first seen
        self.results: list[RunResult] = []
        self.troubles: dict[str, str] = {}

    def stop(self) -> None:
        """Ends what is running, gives the lease up, and lets `run` return."""
        self._ending.set()

    async def run(self, once: bool = False) -> None:
        """Follows the detectors until `stop`; with `once` looks at each once, and runs what is due."""
        try:
            async with asyncio.TaskGroup() as group:
                for detector in self._topics:
                    group.create_task(self._follow(detector, once))
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends the connections; `run` does it at its end."""
        await self._client.aclose()

    async def ask(self, detector: str, by: str) -> None:
        """Asks whoever follows a detector for a run. Raises RedisUnavailable."""
        await self._memory(detector).request(by, self._settings.trainer.make_up_within)

    async def _follow(self, detector: str, once: bool) -> None:
        fires = self._triggers.next_firing(self._clock.time())
        self._emit(
            {
                "event": "follows",
                "detector": detector,
                "topics": self._topics[detector],
                "next_firing": None if fires is None else datetime.fromtimestamp(fires, UTC).isoformat(),
            }
        )
        while not self._ending.is_set():
            try:
                await self._look(detector)
                self.troubles.pop(detector, None)
            except Exception as error:
                if not isinstance(error, GanomalyError | OSError):
                    log.error("this was not foreseen", detector=detector, exc_info=error)
                self.troubles[detector] = f"{type(error).__name__}: {error}"
                self._tell("trouble", detector, self.troubles[detector])
            if once:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.trainer.poll_interval):
                    await self._ending.wait()

    def _tell(self, event: str, detector: str, why: str) -> None:
        """Once for as long as it lasts."""
        if self._told.get(detector) != why:
            self._told[detector] = why
            self._emit({"event": event, "detector": detector, "why": why})

    async def _look(self, detector: str) -> None:
        if await self._due(detector) is None:
            self._told.pop(detector, None)
            return
        if await asyncio.to_thread(self._registry.champion, detector) is None:
            await self._wait_for_champion(detector)
            return
        lease = self._lease(detector)
        known_token = (await asyncio.to_thread(self._registry.lineage, detector)).token
        if not await lease.acquire(above=known_token):
            self._tell("held", detector, f"another trainer holds the lease: {await lease.holder()}")
            return
        try:
            # What was due may have been done by whoever held the lease until now.
            if (found := await self._due(detector)) and await claim(self._registry, detector, lease.token):
                await self._train(lease, detector, *found)
        finally:
            with suppress(RedisUnavailable):  # it expires by itself
                await lease.release()

    async def _wait_for_champion(self, detector: str) -> None:
        """Nothing says what the records of its topics are: it is followed until there is a first version.

        Raises ModelNotFound where a person asked for a run, who is not to wait for it.
        """
        why = (
            "there is no version in service to refresh; train the first one with `ganomaly-stream train --name "
            f"{detector}`"
        )
        if by := await self._memory(detector).requested(take=True):
            raise ModelNotFound(f"the run that {by} asked for can't be made: {why}")
        self._tell("waits", detector, why)

    async def _due(self, detector: str) -> tuple[Due, Remembered, str] | None:
        """Why a run is due, what is remembered, and the topic to learn from."""
        memory, now = self._memory(detector), self._clock.time()
        known = await memory.read(now)
        asked = await memory.requested()
        counts = await self._count(detector, known) if self._settings.trainer.after_records else {}
        drift = await self._lasting_drift(detector) if self._settings.trainer.on_drift else None
        seen = Seen(sum(counts.values()), drift, asked)
        due = self._triggers.due(now, known, seen)
        if due is None:
            return None
        topics = self._topics[detector]
        if len(topics) > 1 and not counts:
            counts = await self._count(detector, known)
        return due, known, max(topics, key=lambda topic: counts.get(topic, 0))

    async def _count(self, detector: str, known: Remembered) -> dict[str, int]:
        """Records of each topic since the last run, or since the snapshot that the champion learned from."""
        seen = known.offsets or await asyncio.to_thread(self._learned_from, detector)
        return {topic: count_new(held, seen.get(topic, {})) for topic, held in (await self._held(detector)).items()}

    async def _lasting_drift(self, detector: str) -> str | None:
        """Why drift asks for a run, once enough has come since it was first seen for the change to be learned from."""
        why = await self._parts.drift(self._settings, detector)
        if why is None:
            self._drifting_since.pop(detector, None)
            return None
        held = await self._held(detector)
        since = self._drifting_since.setdefault(detector, ends_of(held))
        records = sum(count_new(ranges, since.get(topic, {})) for topic, ranges in held.items())
        return f"{why}; {records} records since" if records >= self._settings.trainer.drift_records else None

    async def _held(self, detector: str) -> dict[str, dict[int, tuple[int, int]]]:
        """What the broker has of each topic: the first offset of each partition, and the end."""
        return {
            topic: {place.partition: ends for place, ends in (await bounds(self._settings, topic)).items()}
            for topic in self._topics[detector]
        }

    def _learned_from(self, detector: str) -> Offsets:
        champion = self._registry.champion(detector)
        if champion is None:
            return {}
        data = self._registry.manifest(detector, champion).training_data
        if not data.topic or not data.offsets:
            return {}
        return {data.topic: {int(number): end for number, (_, end) in data.offsets.items()}}

    async def _train(self, lease: Lease, detector: str, due: Due, known: Remembered, topic: str) -> None:
        memory, now, token = self._memory(detector), self._clock.time(), lease.token
        began = {"outcome": Outcome.RUNNING, "trigger": due.trigger, "attempts": known.attempts + 1}
        if not await memory.write(token, **began, started_at=now, finished_at=None, handled=now):
            return
        if due.trigger == "hand":
            await memory.requested(take=True)
        self._emit({"event": "due", "detector": detector, "trigger": due.trigger, "why": due.why, "token": token})
        job = Job(self._settings, detector, topic, token)
        with metrics.TRAINER_RUNNING.labels(detector).track_inprogress():
            run = Run(job, due, self._registry, self._parts, self._clock, self._emit, self._turn)
            result = await self._under(lease, run)
        self._drifting_since.pop(detector, None)
        self.results.append(result)
        count_run(result, self._clock.time())
        self._emit({"event": "finished", **result.model_dump(mode="json", exclude={"stages", "offsets"})})
        attempts = 0
        if result.outcome in _LED_TO_NOTHING:
            attempts = known.attempts + (result.outcome is Outcome.FAILED)
        refusals = known.refusals if result.outcome in _LED_TO_NOTHING else 0
        if result.outcome is Outcome.REFUSED:
            refusals = known.refusals + 1
        counts = {"attempts": attempts, "refusals": refusals}
        ended = {"outcome": result.outcome, "finished_at": self._clock.time(), **counts}
        offsets = {} if result.outcome in _LED_TO_NOTHING else {"offsets": known.offsets | result.offsets}
        await memory.write(token, **ended, **offsets, run=result.model_dump(mode="json"))

    async def _under(self, lease: Lease, run: Run) -> RunResult:
        """The run, for as long as the lease is ours and nobody stops us."""
        at, started = datetime.fromtimestamp(self._clock.time(), UTC), self._clock.monotonic()
        running = asyncio.create_task(run.run())
        keeping, stopping = asyncio.create_task(lease.keep()), asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({running, keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await end_tasks(running)
            if not running.cancelled():
                return running.result()
            seconds = self._clock.monotonic() - started
            if keeping.done():
                verdict = Verdict(False, f"the lease is lost: {keeping.result()}; the run was ended")
                return run.result(Outcome.FAILED, verdict, at, seconds)
            return run.result(Outcome.STOPPED, Verdict(False, "the trainer was told to end"), at, seconds)
        finally:
            await end_tasks(running, keeping, stopping)

    def _memory(self, detector: str) -> Memory:
        return Memory(self._client, self._settings.redis, self._settings.kafka.group_id, detector)

    def _lease(self, detector: str) -> Lease:
        settings = self._settings
        ttl = settings.trainer.lease_ttl
        return Lease(self._client, settings.redis, settings.kafka.group_id, detector, ttl, self._clock)


def count_run(result: RunResult, now: float) -> None:
    """Into the trainer's metrics; `now` in seconds since the Unix epoch."""
    metrics.TRAINER_RUNS.labels(result.detector, result.outcome.name.lower()).inc()
    metrics.TRAINER_LAST_RUN.labels(result.detector, result.outcome.name.lower()).set(now)
    metrics.TRAINER_RUN_SECONDS.labels(result.detector).set(result.seconds)
    for rule in result.refused_by:
        metrics.TRAINER_REFUSED.labels(result.detector, rule).inc()

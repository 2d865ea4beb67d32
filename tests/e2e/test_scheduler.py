"""Whatever becomes of a run, the scheduler goes on, and who is in service is somebody who may be."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

from model.registry import Registry
from stream_app.clock import SystemClock
from stream_app.errors import UsageError
from stream_app.redis_client import connect
from stream_app.topics import ensure_topics
from tests.e2e import makers
from training.data import from_arrays
from training.loop import train
from training.refresh.memory import Memory, Outcome
from training.refresh.refresh import Parts, Verdict
from training.refresh.scheduler import Scheduler

DETECTOR = "sequences"
QUICK = {"poll_interval": 0.1, "lease_ttl": 10.0, "min_pause": 0.0, "retry_after": 0.3}


async def passing(job, made, report):
    return Verdict(True, "as good live")


async def failing(job, made, report):
    return Verdict(False, "alerts 9 times as often", ("alert_factor",))


async def undecided(job, made, report):
    return Verdict(True, "waits for `models promote`", waits=True)


class Office:
    """Schedulers that share a registry, a Redis and a broker; what each told is in `events`."""

    def __init__(self, settings) -> None:
        self.settings = settings
        self.registry = Registry(settings.registry.url)
        self.announced = []
        self.drifted = {}
        self.events = []

    async def announce(self, settings, detector, sha256, promotion):
        self.announced.append(promotion.version)

    async def drift(self, settings, detector):
        return self.drifted.get(detector)

    def scheduler(self, make, shadow=passing, settings=None) -> Scheduler:
        parts = Parts(make, shadow, self.announce, self.drift)
        return Scheduler(settings or self.settings, [DETECTOR], self.registry, parts, SystemClock(), self.events.append)

    @contextlib.asynccontextmanager
    async def running(self, *arguments, **options):
        scheduler = self.scheduler(*arguments, **options)
        running = asyncio.create_task(scheduler.run())
        try:
            yield scheduler
        finally:
            scheduler.stop()
            await asyncio.wait_for(running, 20)

    async def until(self, event: str, count: int = 1):
        """The last of so many events of a kind."""
        async with asyncio.timeout(60):
            while len(found := [item for item in self.events if item["event"] == event]) < count:
                await asyncio.sleep(0.02)
        return found[count - 1]

    async def until_training(self, count: int = 1) -> int:
        """The process that trains."""
        async with asyncio.timeout(60):
            while len(found := [item["pid"] for item in self.events if "pid" in item]) < count:
                await asyncio.sleep(0.02)
        return found[-1]

    async def ask(self) -> None:
        await self.remember(lambda memory: memory.request("anna", 60))

    async def known(self):
        return await self.remember(lambda memory: memory.read(0.0))

    async def remember(self, use):
        client = connect(self.settings.redis)
        try:
            return await use(Memory(client, self.settings.redis, self.settings.kafka.group_id, DETECTOR))
        finally:
            await client.aclose()

    def versions(self) -> list[str]:
        return [manifest.version for manifest in self.registry.versions(DETECTOR)]


@pytest.fixture(scope="session")
def champion(tmp_path_factory) -> Registry:
    """A detector of windows that has hardly learned: whether it is any good is not asked here."""
    registry = Registry(str(tmp_path_factory.mktemp("champion")))
    windows = np.random.default_rng(0).normal(size=(300, 16, 1)).astype(np.float32)
    train(from_arrays(windows, "sequence"), "sequence", registry, DETECTOR, steps=2, device="cpu")
    return registry


@pytest.fixture
def office(settings_factory, champion, tmp_path) -> Office:
    """With a registry of the test's own."""
    url, version = str(tmp_path / "models"), champion.champion(DETECTOR)
    own = Registry(url)
    own.store(DETECTOR, version, champion.fetch(DETECTOR, version))
    own.promote(DETECTOR, version)
    return Office(settings_factory(registry={"url": url}, trainer=QUICK))


def is_gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "\nState:\tZ" in status.read_text()


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while not is_gone(pid):
            await asyncio.sleep(0.02)


async def test_a_run_puts_a_new_version_in_service_and_announces_it(office):
    before = office.registry.champion(DETECTOR)
    async with office.running(makers.copy):
        await office.ask()
        finished = await office.until("finished")
    assert finished["outcome"] == "promoted", finished["why"]
    new = office.registry.champion(DETECTOR)
    assert new == finished["version"] != before
    assert office.announced == [new]
    entry = office.registry.lineage(DETECTOR).entries[-1]
    assert (entry.version, entry.replaced, entry.token) == (new, before, finished["token"])
    assert entry.by.startswith("schedule on")
    assert "anna" in entry.reason
    known = await office.known()
    assert known.outcome is Outcome.PROMOTED
    assert known.offsets == {topic: {0: 7} for topic, name in office.settings.routes.items() if name == DETECTOR}
    assert [stage["stage"] for stage in known.run["stages"]] == ["train", "shadow", "promote"]


async def test_of_two_schedulers_one_makes_one_version_of_one_firing(office):
    await office.remember(lambda memory: memory.write(0, handled=1.0))  # a firing was missed
    settings = office.settings.model_copy(
        update={"trainer": office.settings.trainer.model_copy(update={"cron": "* * * * *", "min_pause": 600.0})}
    )
    before = office.versions()
    async with office.running(makers.copy, settings=settings), office.running(makers.copy, settings=settings):
        finished = await office.until("finished")
        await asyncio.sleep(1.0)  # ten looks of either
    assert finished["trigger"] == "clock"
    assert len(office.versions()) == len(before) + 1
    assert office.announced == [finished["version"]]


async def test_drift_is_a_reason_once_enough_came_after_it_to_learn_from(office, client):
    await ensure_topics(office.settings)
    [topic] = [topic for topic, name in office.settings.routes.items() if name == DETECTOR]
    records = [{"value": b"x", "partition": 0} for _ in range(12)]
    office.drifted[DETECTOR] = "score of all streams together drifts"
    changes = {"on_drift": True, "drift_records": 10, "min_pause": 600.0}
    trainer = office.settings.trainer.model_copy(update=changes)
    await asyncio.to_thread(client.publish, topic, records)  # what came before the drift does not count
    async with office.running(makers.copy, settings=office.settings.model_copy(update={"trainer": trainer})):
        await asyncio.sleep(1.0)  # ten looks
        assert [event for event in office.events if event["event"] == "due"] == []
        await asyncio.to_thread(client.publish, topic, records)
        due = await office.until("due")
        assert (await office.until("finished"))["outcome"] == "promoted"
    assert due["trigger"] == "drift"
    assert office.drifted[DETECTOR] in due["why"]


async def test_records_are_counted_from_the_end_of_the_last_run(office, client):
    await ensure_topics(office.settings)
    [topic] = [topic for topic, name in office.settings.routes.items() if name == DETECTOR]
    trainer = office.settings.trainer.model_copy(update={"after_records": 10})
    settings = office.settings.model_copy(update={"trainer": trainer})
    async with office.running(makers.copy, settings=settings):
        await asyncio.to_thread(client.publish, topic, [{"value": b"x", "partition": 0} for _ in range(12)])
        due = await office.until("due")
        await office.until("finished")  # the stand-in says that it has read up to offset 7
        await asyncio.to_thread(client.publish, topic, [{"value": b"x", "partition": 0} for _ in range(6)])
        again = await office.until("due", 2)
        await office.until("finished", 2)
    assert (due["trigger"], due["why"].split()[0]) == ("records", "12")
    assert (again["trigger"], again["why"].split()[0]) == ("records", "11")


async def test_a_version_that_is_refused_is_kept_and_who_is_in_service_stays(office):
    before, lineage = office.registry.champion(DETECTOR), office.registry.lineage(DETECTOR)
    for make, shadow, rule in ((makers.refused, passing, "false_alarms"), (makers.copy, failing, "alert_factor")):
        office.events.clear()
        async with office.running(make, shadow):
            await office.ask()
            finished = await office.until("finished")
        assert finished["outcome"] == "refused"
        assert finished["refused_by"] == [rule]
        assert finished["version"] in office.versions()
        assert office.registry.champion(DETECTOR) == before
        assert office.registry.lineage(DETECTOR).entries == lineage.entries
        assert (await office.known()).attempts == 0
    assert (await office.known()).refusals == 2
    assert office.announced == []
    async with office.running(makers.copy):
        await office.ask()
        assert (await office.until("finished", 2))["outcome"] == "promoted"
    assert (await office.known()).refusals == 0


async def test_a_version_may_wait_for_a_person(office):
    before = office.registry.champion(DETECTOR)
    async with office.running(makers.copy, undecided):
        await office.ask()
        finished = await office.until("finished")
    assert finished["outcome"] == "waiting for a person"
    assert office.registry.champion(DETECTOR) == before


async def test_who_a_person_put_in_service_meanwhile_stays_there(office):
    other = makers.save_again(office.registry, DETECTOR)

    async def meanwhile(job, made, report):
        office.registry.promote(DETECTOR, other, by="anna")
        return Verdict(True, "as good live")

    async with office.running(makers.copy, meanwhile):
        await office.ask()
        finished = await office.until("finished")
    assert finished["outcome"] == "waiting for a person"
    assert "put in service meanwhile" in finished["why"]
    assert office.registry.champion(DETECTOR) == other


async def test_a_person_wins_also_while_the_weights_of_the_new_version_are_read(office, monkeypatch):
    other, verified = makers.save_again(office.registry, DETECTOR), office.registry._verified

    def slowly(name, version):
        found = verified(name, version)
        Registry(office.settings.registry.url).promote(DETECTOR, other, by="anna")
        return found

    monkeypatch.setattr(office.registry, "_verified", slowly)
    async with office.running(makers.copy):
        await office.ask()
        finished = await office.until("finished")
    assert finished["outcome"] == "waiting for a person"
    assert f"{other} was put in service meanwhile" in finished["why"]
    assert office.registry.champion(DETECTOR) == other
    assert office.announced == []


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (makers.collapsing, "TrainingError: training collapsed"),
        (makers.surprising, "TypeError"),
        (makers.dying, "signal 9"),
    ],
)
async def test_a_run_that_fails_is_told_and_tried_again_after_a_pause(office, make, why):
    before = office.registry.champion(DETECTOR)
    async with office.running(make):
        await office.ask()
        first = await office.until("finished")
        second = await office.until("finished", 2)
    assert first["outcome"] == second["outcome"] == "failed"
    assert why in first["why"]
    assert (first["trigger"], second["trigger"]) == ("hand", "retry")
    assert office.registry.champion(DETECTOR) == before
    assert (await office.known()).attempts == 2
    async with office.running(makers.copy):
        done = await office.until("finished", 3)
    assert (done["trigger"], done["outcome"]) == ("retry", "promoted")
    assert (await office.known()).attempts == 0


async def test_who_is_stopped_in_the_middle_leaves_the_run_to_the_next(office):
    await office.remember(lambda memory: memory.write(0, handled=1.0))
    trainer = office.settings.trainer.model_copy(update={"cron": "* * * * *"})
    settings = office.settings.model_copy(update={"trainer": trainer})
    async with office.running(makers.endless, settings=settings):
        training = await office.until_training()
    assert is_gone(training)
    assert (await office.until("finished"))["outcome"] == "stopped"
    async with office.running(makers.copy, settings=settings):
        finished = await office.until("finished", 2)
    assert (finished["trigger"], finished["outcome"]) == ("takeover", "promoted")


async def test_a_run_is_ended_before_the_lease_has_expired_that_could_not_be_renewed(office):
    before = office.registry.champion(DETECTOR)
    async with office.running(makers.endless):
        await office.ask()
        training = await office.until_training()
        client = connect(office.settings.redis)
        keys = [key async for key in client.scan_iter(f"{office.settings.redis.prefix}:*:{DETECTOR}:lease")]
        await client.set(keys[0], "another")
        await client.aclose()
        finished = await office.until("finished")
        assert is_gone(training)
    assert finished["outcome"] == "failed"
    assert "the lease is lost" in finished["why"]
    assert office.registry.champion(DETECTOR) == before


async def test_the_publication_of_a_stale_trainer_is_refused(office):
    before = office.registry.champion(DETECTOR)

    async def overtaken(job, made, report):
        office.registry.fence(DETECTOR, job.token + 1)  # another has taken over, and we don't know
        return Verdict(True, "as good live")

    async with office.running(makers.copy, overtaken):
        await office.ask()
        finished = await office.until("finished")
    assert finished["outcome"] == "failed"
    assert finished["why"].startswith("StaleToken")
    assert office.registry.champion(DETECTOR) == before
    assert office.announced == []


async def test_the_process_that_trains_is_nice_and_is_gone_with_the_scheduler(office):
    async with office.running(makers.endless):
        await office.ask()
        training = await office.until_training()
        assert os.getpriority(os.PRIO_PROCESS, training) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    await until_gone(training)


async def test_redis_that_is_away_is_told_once_and_asked_again(office):
    away = office.settings.redis.model_copy(update={"url": type(office.settings.redis.url)("redis://127.0.0.1:9/0")})
    async with office.running(makers.copy, settings=office.settings.model_copy(update={"redis": away})) as scheduler:
        trouble = await office.until("trouble")
        await asyncio.sleep(0.5)
        assert DETECTOR in scheduler.troubles
    assert "RedisUnavailable" in trouble["why"]
    assert [item["event"] for item in office.events] == ["follows", "trouble"]


async def test_a_registry_that_can_t_be_read_is_told_and_asked_again(office):
    broken = Path(office.settings.registry.url, DETECTOR, "lineage.json")
    kept = await asyncio.to_thread(broken.read_bytes)
    await asyncio.to_thread(broken.write_text, "{")
    async with office.running(makers.copy):
        await office.ask()
        assert "lineage.json" in (await office.until("trouble"))["why"]
        await asyncio.to_thread(broken.write_bytes, kept)
        assert (await office.until("finished"))["outcome"] == "promoted"


async def test_a_detector_without_a_champion_waits_for_its_first_version(office, champion, tmp_path):
    office.registry = Registry(str(tmp_path / "none"))
    cron = office.settings.trainer.model_copy(update={"cron": "* * * * *"})
    settings = office.settings.model_copy(update={"trainer": cron})
    await office.remember(lambda memory: memory.read(0.0))  # so that the clock's firings were missed
    async with office.running(makers.copy, settings=settings) as scheduler:
        assert f"ganomaly-stream train --name {DETECTOR}" in (await office.until("waits"))["why"]
        await asyncio.sleep(0.5)
        assert scheduler.troubles == {}
        assert [item["event"] for item in office.events] == ["follows", "waits"]
        await office.ask()
        assert "the run that anna asked for can't be made" in (await office.until("trouble"))["why"]
        version = champion.champion(DETECTOR)
        office.registry.store(DETECTOR, version, champion.fetch(DETECTOR, version))
        office.registry.promote(DETECTOR, version)
        assert (await office.until("due"))["trigger"] == "clock"


async def test_a_detector_that_scores_nothing_is_a_mistake(office):
    parts = Parts(makers.copy, passing, office.announce, office.drift)
    with pytest.raises(UsageError, match="images, sequences"):
        Scheduler(office.settings, ["imagse"], office.registry, parts, SystemClock(), print)

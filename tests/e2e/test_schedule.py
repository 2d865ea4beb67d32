"""`ganomaly-stream schedule` as processes: who dies, who is suspended, who takes over, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest

from model.registry import Registry
from stream_app.redis_client import connect
from stream_app.topics import ensure_topics
from tests.e2e.test_scheduler import champion as champion
from tests.e2e.test_scheduler import is_gone
from tests.e2e.test_stream import raw_window
from training.refresh.memory import Memory

DETECTOR = "sequences"
TTL = 8.0  # on a busy machine a process may not get to renew a shorter one
# Not how good a version is, but who makes one: the gate lets all pass that it can.
LENIENT = {
    "labelled_margin": 1.0,
    "synthetic_margin": 1.0,
    "false_alarm_factor": 1e6,
    "calibration_distance": 1.0,
    "latency_factor": 1e6,
    "agreement": -1.0,
}
NO_SHADOW = {"min_rows": 0}  # there is no worker
pytestmark = pytest.mark.timeout(400)  # several processes begin, each with torch


@pytest.fixture
async def settings(settings_factory, champion, tmp_path, client):
    """A champion in a registry of the test's own, and a stream of windows like those that it was trained on."""
    url, version = str(tmp_path / "models"), champion.champion(DETECTOR)
    registry = Registry(url)
    registry.store(DETECTOR, version, champion.fetch(DETECTOR, version))
    registry.promote(DETECTOR, version)
    trainer = {
        "poll_interval": 0.2,
        "lease_ttl": TTL,
        "seconds": 1.0,
        "cron": "* * * * *",
        "min_pause": 3600.0,
        "nice": 0,
    }
    snapshot = {"min_records": 100, "leave_out": 0.0}
    made = settings_factory(registry={"url": url}, trainer=trainer, snapshot=snapshot, gate=LENIENT, shadow=NO_SHADOW)
    await ensure_topics(made)
    windows = np.random.default_rng(1).normal(size=(400, 16, 1)).astype(np.float32)
    records = [raw_window(window, key=f"pump-{at % 8}", partition=at % 4) for at, window in enumerate(windows)]
    await asyncio.to_thread(client.publish, topic_of(made), records)
    await miss_a_firing(made)
    return made


def topic_of(settings) -> str:
    return next(topic for topic, name in settings.routes.items() if name == DETECTOR)


async def miss_a_firing(settings) -> None:
    """As if a trainer had last looked an hour ago."""
    redis = connect(settings.redis)
    memory = Memory(redis, settings.redis, settings.kafka.group_id, DETECTOR)
    await memory.write(0, handled=time.time() - 3600)
    await redis.aclose()


class Trainer:
    """A process, and what it printed."""

    def __init__(self, environment, folder, number: int) -> None:
        self._out = folder / f"trainer-{number}.jsonl"
        command = [sys.executable, "-c", "from stream_app.cli.main import main; main()", "schedule"]
        with self._out.open("wb") as out, (folder / f"trainer-{number}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--name", DETECTOR, "--json"], env=environment, stdout=out, stderr=log
            )

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self._out.read_bytes().splitlines()]

    async def until(self, **fields) -> dict:
        """The first event that has them."""
        async with asyncio.timeout(150):
            while not (found := [event for event in self.events() if fields.items() <= event.items()]):
                assert self.process.poll() is None, self.events()
                await asyncio.sleep(0.05)
        return found[0]

    def training(self) -> psutil.Process:
        """The process in which it trains."""
        [found] = [
            child for child in psutil.Process(self.process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        return found


@pytest.fixture
def start(environment_of, tmp_path):
    """Starts trainers."""
    trainers = []

    def start(settings, **changes) -> Trainer:
        trainer = settings.trainer.model_copy(update=changes)
        environment = environment_of(settings.model_copy(update={"trainer": trainer}))
        trainers.append(Trainer(environment, tmp_path, len(trainers)))
        return trainers[-1]

    yield start
    for trainer in trainers:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(trainer.process.pid).children():
                child.kill()
        trainer.process.kill()
        trainer.process.wait()


def versions(settings) -> list[str]:
    return [manifest.version for manifest in Registry(settings.registry.url).versions(DETECTOR)]


async def test_two_schedulers_make_one_version_of_one_firing_and_end_when_they_are_told_to(settings, start):
    [before] = versions(settings)
    trainers = [start(settings), start(settings)]
    for trainer in trainers:
        await trainer.until(event="follows")
    done = [asyncio.create_task(trainer.until(event="finished")) for trainer in trainers]
    await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(2.0)  # ten looks of the other
    assert len(versions(settings)) == 2
    finished = [event for trainer in trainers for event in trainer.events() if event["event"] == "finished"]
    assert [(event["outcome"], event["trigger"]) for event in finished] == [("promoted", "clock")], finished
    registry = Registry(settings.registry.url)
    assert registry.champion(DETECTOR) == finished[0]["version"] != before
    assert [entry.token for entry in registry.lineage(DETECTOR).entries] == [None, finished[0]["token"]]
    for task in done:
        task.cancel()
    await asyncio.gather(*done, return_exceptions=True)
    for trainer in trainers:
        trainer.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(trainer.process.wait, 20) == 0


async def test_a_holder_killed_in_the_middle_of_training_is_taken_over_from(settings, start):
    first = start(settings, seconds=3600.0)
    await first.until(event="stage", stage="train", state="begins")
    second = start(settings)
    await second.until(event="held")
    training = first.training()
    first.process.kill()
    first.process.wait()
    finished = await second.until(event="finished")
    assert (finished["outcome"], finished["trigger"]) == ("promoted", "takeover"), finished
    assert is_gone(training.pid)
    assert len(versions(settings)) == 2
    assert Registry(settings.registry.url).champion(DETECTOR) == finished["version"]


async def test_a_suspended_holder_that_wakes_after_another_took_over_leaves_nothing_behind(settings, start):
    first = start(settings, seconds=3600.0)
    await first.until(event="stage", stage="train", state="begins")
    training = first.training()
    first.process.send_signal(signal.SIGSTOP)
    training.suspend()
    second = start(settings)
    finished = await second.until(event="finished")
    assert (finished["outcome"], finished["trigger"]) == ("promoted", "takeover"), finished
    assert len(versions(settings)) == 2
    first.process.send_signal(signal.SIGCONT)
    training.resume()
    lost = await first.until(event="finished")
    assert lost["outcome"] == "failed"
    assert "lease is lost" in lost["why"]
    assert is_gone(training.pid)
    assert len(versions(settings)) == 2
    assert Registry(settings.registry.url).champion(DETECTOR) == finished["version"]


async def test_training_that_outlives_the_lease_unseen_saves_nothing(settings, start):
    """The trainer stays suspended; the process that trains wakes, and comes to its end."""
    first = start(settings, seconds=20.0)
    await first.until(event="stage", stage="train", state="begins")
    training = first.training()
    first.process.send_signal(signal.SIGSTOP)
    training.suspend()
    second = start(settings)
    finished = await second.until(event="finished")
    assert finished["outcome"] == "promoted", finished
    training.resume()
    async with asyncio.timeout(90):
        while not is_gone(training.pid):
            await asyncio.sleep(0.1)
    assert len(versions(settings)) == 2
    assert Registry(settings.registry.url).champion(DETECTOR) == finished["version"]


async def test_ctrl_c_in_the_middle_of_training_ends_it_and_gives_the_lease_up(settings, start):
    first = start(settings, seconds=3600.0)
    await first.until(event="stage", stage="train", state="begins")
    training = first.training()
    first.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(first.process.wait, 20) == 0
    assert is_gone(training.pid)
    assert first.events()[-1]["outcome"] == "stopped"
    redis = connect(settings.redis)
    assert [key async for key in redis.scan_iter(f"{settings.redis.prefix}:*:lease")] == []
    await redis.aclose()

"""A challenger in shadow in a real worker: it is compared on live records, and nothing of it reaches anybody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.registry import Registry
from stream_app.clock import SystemClock
from stream_app.metrics import REGISTRY
from stream_app.settings import Settings
from stream_app.shadow import add_up, read_comparisons
from stream_app.topics import ensure_topics
from training.data import load
from training.loop import train
from training.refresh.shadow import run_shadow

RAW = ("content-type", b"application/octet-stream")
QUICK = {
    "share": 1.0,
    "max_cost": 1.0,
    "min_rows": 120,
    "timeout": 90.0,
    "report_interval": 0.2,
    "poll_interval": 0.2,
    "cost_factor": 10.0,  # the machine does other things meanwhile
}


@pytest.fixture(scope="session")
def challengers(registry_url: str) -> dict[str, str]:
    """Versions of the detector of pictures that are not in service: another seed, and one whose scores are all NaN."""
    registry, folder = Registry(registry_url), Path(registry_url).parent
    sound = train(load(folder / "digits.npz", "image"), "image", registry, "images", steps=40, seed=1, promote=False)
    broken = registry.load("images", sound.version)
    with torch.no_grad():
        for weight in broken.network.parameters():
            weight.fill_(torch.nan)
    spoilt = registry.save(broken.manifest.model_copy(update={"parent": sound.version}), broken.network, "")
    return {"sound": sound.version, "broken": spoilt}


def pictures(digits, count: int) -> list[dict]:
    rows = [*digits.normal, *digits.anomalous]
    return [
        {"value": rows[i % len(rows)].tobytes(), "headers": [RAW], "key": f"camera-{i % 8}", "partition": i % 4}
        for i in range(count)
    ]


@contextlib.asynccontextmanager
async def flowing(client, worker, settings: Settings, records: list[dict]):
    """A few records at a time into one partition, the next when those are done: a stream with time to spare.

    Yields a list to which each record published is added; it has ended when the block has.
    """
    sent, ending = [], asyncio.Event()

    async def flow() -> None:
        topic, *_ = settings.routes
        for first in range(0, len(records), 20):
            some = [record | {"partition": 0} for record in records[first : first + 20]]
            await asyncio.to_thread(client.publish, topic, some)
            sent.extend(some)
            await until(lambda: worker.health().lag == 0 and worker.scoring.busy_for() == 0.0)
            if ending.is_set():
                return

    task = asyncio.create_task(flow())
    try:
        yield sent
    finally:
        ending.set()
        await task


async def seen(settings: Settings, version: str):
    return await read_comparisons(settings.redis, settings.kafka.group_id, "images", version)


async def until(met: Callable[[], object], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not met():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_shadow_compares_on_live_records_and_only_the_champion_is_heard(
    client, stream_settings, running_worker, digits, challengers, registry_url
):
    settings = stream_settings(scores={"publish": True}, shadow=QUICK, threshold={"target_rate": 0.02})
    await ensure_topics(settings)
    champion = Registry(registry_url).champion("images")
    told: list[tuple[float, str]] = []

    def tell(share: float, text: str) -> None:
        told.append((share, text))

    async with running_worker(settings) as worker:
        async with flowing(client, worker, settings, pictures(digits, 3000)):
            outcome = await run_shadow(settings, "images", challengers["sound"], SystemClock(), tell=tell)
        assert outcome.passed, outcome.why
        await until(lambda: not worker.challengers.versions)  # the trainer has ended it
        (comparison,) = await seen(settings, challengers["sound"])
    assert told[-1][0] == 1.0
    assert comparison.rows >= QUICK["min_rows"]
    assert (comparison.champion, comparison.challenger) == (champion, challengers["sound"])
    assert comparison.champion_alerts > 0  # an unseen digit is in the stream
    assert comparison.challenger_alerts > 0
    assert add_up([comparison]).agreement() > 0.3
    scored = client.read(settings.topics.scores, lambda found: len(found) >= comparison.rows)
    alerts = client.read(settings.topics.alerts, lambda found: len(found) >= 1)
    assert {json.loads(message.value())["model"]["version"] for message in [*scored, *alerts]} == {champion}
    offsets = [(event["record"]["partition"], event["record"]["offset"]) for event in map(_body, scored)]
    assert len(offsets) == len(set(offsets))


def _body(message) -> dict:
    return json.loads(message.value())


async def test_a_worker_that_starts_later_takes_up_the_running_shadow(
    client, stream_settings, running_worker, digits, challengers
):
    settings = stream_settings(shadow=QUICK)
    await ensure_topics(settings)
    shadow = asyncio.create_task(run_shadow(settings, "images", challengers["sound"], SystemClock()))
    await asyncio.sleep(1.0)
    async with running_worker(settings) as worker:
        await until(lambda: worker.challengers.versions == {"images": challengers["sound"]})
        async with flowing(client, worker, settings, pictures(digits, 3000)):
            outcome = await shadow
        assert outcome.passed, outcome.why


async def test_a_version_that_somebody_puts_in_service_meanwhile_ends_it(
    stream_settings, challengers, registry_url, tmp_path
):
    url = str(tmp_path / "models")
    await asyncio.to_thread(shutil.copytree, registry_url, url)
    settings = stream_settings(registry={"url": url}, shadow=QUICK)
    shadow = asyncio.create_task(run_shadow(settings, "images", challengers["sound"], SystemClock()))
    await asyncio.sleep(1.0)
    assert not shadow.done()
    Registry(url).promote("images", challengers["broken"], by="anna")
    outcome = await asyncio.wait_for(shadow, 30.0)
    assert (outcome.passed, outcome.waits) == (False, True)
    assert f"{challengers['broken']} was put in service meanwhile" in outcome.why


async def test_a_challenger_that_gives_nan_is_reported_and_the_worker_goes_on(
    client, stream_settings, running_worker, digits, challengers
):
    settings = stream_settings(scores={"publish": True}, shadow=QUICK)
    await ensure_topics(settings)
    async with running_worker(settings) as worker:
        async with flowing(client, worker, settings, pictures(digits, 3000)) as sent:
            outcome = await run_shadow(settings, "images", challengers["broken"], SystemClock())
            there = len(sent)
            await until(lambda: len(sent) >= there + 40)
        scored = await asyncio.to_thread(client.read, settings.topics.scores, lambda found: len(found) >= len(sent))
        assert worker.health().ready
    assert (outcome.passed, outcome.refused_by) == (False, ("sound",))
    assert "finite" in outcome.why
    assert len(scored) == len(sent)
    assert worker.exit_code == 0


async def test_under_load_the_challenger_is_what_is_left_out(
    client, stream_settings, running_worker, digits, challengers
):
    """Records that were there before the worker: all are scored, and the challenger hardly gets a turn."""
    settings = stream_settings(
        scores={"publish": True}, shadow=QUICK | {"min_rows": 1_000_000}, batch={"max_batch": 32}
    )
    await ensure_topics(settings)
    topic, *_ = settings.routes
    shadow = asyncio.create_task(run_shadow(settings, "images", challengers["sound"], SystemClock()))
    async with running_worker(settings) as worker:
        await until(lambda: worker.challengers.versions == {"images": challengers["sound"]})
        await asyncio.to_thread(client.publish, topic, pictures(digits, 4000))
        scored = await asyncio.to_thread(client.read, settings.topics.scores, lambda found: len(found) >= 4000)
        shadow.cancel()
        await asyncio.gather(shadow, return_exceptions=True)
        await until(lambda: not worker.challengers.versions)
    (comparison,) = await seen(settings, challengers["sound"])
    assert len(scored) == 4000
    assert comparison.skipped_load > 4 * comparison.rows
    skipped = REGISTRY.get_sample_value("ganomaly_shadow_skipped_total", {"detector": "images", "reason": "load"})
    assert skipped >= comparison.skipped_load

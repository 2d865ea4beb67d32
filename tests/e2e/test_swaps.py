"""New versions come into service under full flow, go out of it again, and are refused when they are no good."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import shutil
import threading
import time
import urllib.request
import weakref
from collections import Counter, defaultdict
from datetime import timedelta

import pytest

from model.detector import Detector
from model.registry import CHAMPION, WEIGHTS, Registry
from stream_app.events import event_id
from stream_app.topics import ensure_topics
from stream_app.updates import publish_update, update_of
from tests.e2e.test_faults import free_port
from tests.e2e.test_faults import worker_process as worker_process
from tests.e2e.test_stream import bodies, count, raw_picture, read, topics

PARTITIONS = 4
SWAPS, SECONDS = 10, 5.0
PAUSE = 0.2  # seconds between two hundreds of records, which a worker beside other work keeps up with


@pytest.fixture
def models(tmp_path, registry_url):
    """A registry of its own, with one version of each detector."""
    shutil.copytree(registry_url, tmp_path / "models")
    return Registry(str(tmp_path / "models"))


def another(registry, name="images", change=None):
    """Saves a version like the champion, with its first bias moved by a hair, and returns its name."""
    detector, others = registry.load(name, device="cpu"), registry.versions(name)
    state = detector.network.state_dict()
    key = next(key for key in state if key.endswith("bias"))
    state[key] = state[key] + 1e-6 * len(others)
    if change is not None:
        change(state)
    detector.network.load_state_dict(state)
    later = others[-1].created_at + timedelta(seconds=1)
    return registry.save(detector.manifest.model_copy(update={"created_at": later}), detector.network, "# card")


def in_service(worker):
    return worker.health().models["images"]


async def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def flow_of(client, topic, pictures):
    """Records on every partition for as long as the block lasts; yields the list of what was published."""
    published: list[int] = []
    stopping = asyncio.Event()

    async def publish():
        while not stopping.is_set():
            records = [
                raw_picture(pictures[(len(published) + at) % len(pictures)], key=f"camera-{at}", partition=partition)
                for at in range(25)
                for partition in range(PARTITIONS)
            ]
            await asyncio.to_thread(client.publish, topic, records)
            published.extend(range(len(records)))
            await asyncio.sleep(PAUSE)

    publishing = asyncio.create_task(publish())
    try:
        yield published
    finally:
        stopping.set()
        await publishing


async def test_versions_that_take_over_under_full_flow_score_every_record_once_and_each_batch_alone(
    client, stream_settings, running_worker, digits, models, tmp_path, monkeypatch
):
    settings = stream_settings(scores={"publish": True}, registry={"url": str(tmp_path / "models")})
    await ensure_topics(settings)
    images, _ = topics(settings)
    versions = [models.champion("images"), *(another(models) for _ in range(3))]
    batches: list[tuple[str, int]] = []
    score = Detector.score

    def noted(detector, inputs):
        if threading.current_thread().name == "scoring":
            batches.append((detector.version, len(inputs)))
        return score(detector, inputs)

    monkeypatch.setattr(Detector, "score", noted)
    async with running_worker(settings) as worker:
        async with flow_of(client, images, digits.normal) as published:
            await read(client, settings.topics.scores, count(200))
            began = time.monotonic()
            for turn in range(1, SWAPS + 1):
                version = versions[turn % len(versions)]
                await asyncio.to_thread(models.promote, "images", version)
                await until(lambda version=version: in_service(worker) == version)
                await asyncio.sleep(max(0.0, began + turn * SECONDS / SWAPS - time.monotonic()))
        events = bodies(await read(client, settings.topics.scores, count(len(published)), 120.0))

    offsets, scored_by = defaultdict(list), Counter()
    for event in events:
        partition, offset = event["record"]["partition"], event["record"]["offset"]
        assert event["id"] == event_id("images", images, partition, offset)
        offsets[partition].append(offset)
        scored_by[event["model"]["version"]] += 1
    assert offsets == {partition: list(range(len(published) // PARTITIONS)) for partition in range(PARTITIONS)}
    assert set(scored_by) == set(versions)
    rows = Counter()
    for version, size in batches:
        rows[version] += size
    assert rows == scored_by  # each batch went to one detector, and its events name that one
    sha256 = {version: models.load("images", version, device="cpu").sha256 for version in versions}
    assert {event["model"]["version"]: event["model"]["sha256"] for event in events} == sha256


async def test_a_swap_alone_moves_no_threshold(
    client, stream_settings, running_worker, digits, models, tmp_path, registry_url
):
    """Held against a worker of another group, which scores the same records and knows of no other version."""
    settings = stream_settings(scores={"publish": True}, registry={"url": str(tmp_path / "models")})
    await ensure_topics(settings)
    images, _ = topics(settings)
    control = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"group_id": f"{settings.kafka.group_id}-control"}),
            "topics": settings.topics.model_copy(update={"scores": f"{settings.topics.scores}-control"}),
            "registry": settings.registry.model_copy(update={"url": registry_url}),
        }
    )
    await ensure_topics(control)
    twin = another(models)
    half = [raw_picture(digits.normal[i], key="camera", partition=0) for i in range(200)]
    async with running_worker(settings) as worker:
        await asyncio.to_thread(client.publish, images, half)
        await read(client, settings.topics.scores, count(200))
        models.promote("images", twin)
        await until(lambda: in_service(worker) == twin)
        await asyncio.to_thread(client.publish, images, half)
        events = bodies(await read(client, settings.topics.scores, count(400)))
    async with running_worker(control):
        calm = bodies(await read(client, control.topics.scores, count(400)))
    assert [event["model"]["version"] == twin for event in events] == [False] * 200 + [True] * 200
    assert events[200]["threshold"] == pytest.approx(calm[200]["threshold"], rel=1e-4)
    assert calm[200]["threshold"] != calm[0]["threshold"]  # it is the stream's own by then
    assert [event["id"] for event in events] == [event["id"] for event in calm]


async def test_the_version_before_leaves_the_memory_though_its_streams_fall_silent(
    client, stream_settings, running_worker, digits, models, tmp_path
):
    settings = stream_settings(scores={"publish": True}, registry={"url": str(tmp_path / "models")})
    await ensure_topics(settings)
    images, _ = topics(settings)
    records = [raw_picture(digits.normal[i], partition=i % PARTITIONS) for i in range(200)]
    async with running_worker(settings) as worker:
        await asyncio.to_thread(client.publish, images, records)
        await read(client, settings.topics.scores, count(200))
        alive = [weakref.ref(worker._detectors._detectors["images"])]
        for _ in range(3):
            version = another(models)
            models.promote("images", version)
            await until(lambda version=version: in_service(worker) == version)
            alive.append(weakref.ref(worker._detectors._detectors["images"]))
        await asyncio.sleep(0.5)
        gc.collect()
        assert [each() is not None for each in alive] == [False, False, False, True]


def tamper(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def truncate(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4096])


def remove(folder):
    shutil.rmtree(folder)


def poison(state):
    key = next(key for key in state if key.endswith("weight"))
    state[key] = state[key] * float("nan")


async def test_a_worker_goes_on_with_its_version_whatever_is_published_beside_it(
    client, stream_settings, running_worker, digits, models, tmp_path
):
    settings = stream_settings(scores={"publish": True}, registry={"url": str(tmp_path / "models")})
    await ensure_topics(settings)
    images, _ = topics(settings)
    good, folder = models.champion("images"), tmp_path / "models" / "images"
    bad = [("not_finite", another(models, change=poison))]
    damages = [("digest", tamper), ("digest", truncate), ("missing", remove)]
    damaged = [another(models) for _ in damages]
    for version, (reason, damage) in zip(damaged, damages, strict=True):
        damage(folder / version)
        bad.append((reason, version))
    async with running_worker(settings) as worker, flow_of(client, images, digits.normal) as published:
        await until(lambda: worker.health().models)
        for reason, version in bad:
            (folder / CHAMPION).write_text(version)

            def is_refused(reason=reason, version=version):
                refused = worker.health().as_dict()["refused_versions"].get("images", {})
                return (refused.get("version"), refused.get("reason")) == (version, reason)

            await until(is_refused)
            assert worker.health().ready
    assert worker.exit_code == 0
    async with running_worker(settings):  # starts from what was kept: the champion is still the last of the bad ones
        events = bodies(await read(client, settings.topics.scores, count(len(published))))
    assert {event["model"]["version"] for event in events} == {good}
    assert len({event["id"] for event in events}) == len(published)


def version_of(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return json.load(answer)["models"].get("images")
    except OSError:
        return None


async def test_a_rollback_takes_effect_in_two_workers_within_5_seconds(
    stream_settings, worker_process, models, tmp_path
):
    old = models.champion("images")
    new = another(models)
    models.promote("images", new)
    ports = [free_port() for _ in range(2)]
    # They poll too rarely to notice by themselves: the topic of updates tells them.
    settings = stream_settings(registry={"url": str(tmp_path / "models"), "poll_interval": 600.0})
    await ensure_topics(settings)
    for port in ports:
        worker_process(settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})}))

    async def all_serve(version, seconds):
        deadline = time.monotonic() + seconds
        while {await asyncio.to_thread(version_of, port) for port in ports} != {version}:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    await all_serve(new, 90.0)
    began = time.monotonic()
    promotion = await asyncio.to_thread(models.rollback, "images")
    await publish_update(settings, update_of("images", promotion, "0" * 64))
    await all_serve(old, 5.0)
    assert time.monotonic() - began < 5.0

"""Drift as a worker tells it: in its metrics, in Redis, and in `models show`."""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from model.registry import Registry
from stream_app import metrics
from stream_app.cli.main import app
from stream_app.drift import read_drift
from stream_app.errors import RedisUnavailable
from stream_app.topics import ensure_topics
from training.data import from_arrays
from training.loop import train

RAW = ("content-type", b"application/octet-stream")
RECORDS = 300


def gauge(name, **labels):
    return metrics.REGISTRY.get_sample_value(f"ganomaly_drift_{name}", labels)


async def until(condition, timeout=60.0):
    """The first answer of `condition` that holds."""
    deadline = time.monotonic() + timeout
    while not (found := await condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    return found


def stream_of(name, pictures):
    """Its records, all on one partition."""
    partition = sum(name.encode()) % 2
    return [{"value": picture.tobytes(), "headers": [RAW], "key": name, "partition": partition} for picture in pictures]


@pytest.fixture
def drift_settings(stream_settings):
    return stream_settings(
        kafka={"partitions": 2},
        drift={"interval": 0.3, "min_records": 100, "window": 400},
        alerts={"evidence": False},
    )


async def publish(client, topic, streams):
    records = [record for name, pictures in streams.items() for record in stream_of(name, pictures)]
    await asyncio.to_thread(client.publish, topic, records)


async def test_dimmed_cameras_are_told_apart_from_steady_ones(
    client, drift_settings, running_worker, digits, environment_of, monkeypatch
):
    settings = drift_settings
    await ensure_topics(settings)
    topic = next(iter(settings.routes))
    steady = np.resize(digits.normal, (RECORDS, 8, 8))
    streams = {f"steady-{number}": np.roll(steady, number * 40, 0) for number in range(4)}
    streams |= {f"dim-{number}": (np.roll(steady, number * 40, 0) * 0.6).astype(np.uint8) for number in range(2)}
    await publish(client, topic, streams)

    async def all_judged():
        report = await read_drift(settings.redis, settings.kafka.group_id, "images", settings.drift)
        return report if report.judged == len(streams) else None

    async with running_worker(settings):
        report = await until(all_judged)
        assert gauge("streams", topic=topic, what="any") == 2
        assert gauge("streams", topic=topic, what="brightness") == 2
        assert gauge("psi_max", topic=topic, what="brightness") > settings.drift.psi
        assert gauge("ks_max", topic=topic, what="brightness") > settings.drift.ks
    version = Registry(settings.registry.url).champion("images")
    assert (report.version, report.streams, report.drifting) == (version, 6, 2)
    assert {each.stream for each in report.worst} == {"dim-0", "dim-1"}
    assert "2 of 6 streams drift" in report.fires(settings.drift)

    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    shown = await asyncio.to_thread(CliRunner().invoke, app, ["models", "show", "images"])
    assert shown.exit_code == 0, shown.output
    assert "2 of 6 streams" in shown.output
    assert "dim-0" in shown.output
    as_json = await asyncio.to_thread(CliRunner().invoke, app, ["models", "show", "images", "--json"])
    drift = json.loads(as_json.stdout)["drift"]
    assert drift["drifting"] == 2
    assert drift["statistics"]["brightness"]["drifting"] == 2


async def test_a_swap_measures_against_the_new_manifest(client, drift_settings, running_worker, digits, tmp_path):
    registry = Registry(str(tmp_path))
    dim = (digits.train * 0.6).astype(np.uint8)
    first = train(from_arrays(digits.train, "image"), "image", registry, "images", steps=20, device="cpu")
    second = train(from_arrays(dim, "image"), "image", registry, "images", steps=20, device="cpu", promote=False)
    changed = drift_settings.registry.model_copy(update={"url": str(tmp_path)})
    settings = drift_settings.model_copy(update={"registry": changed})
    await ensure_topics(settings)
    topic = next(iter(settings.routes))
    pictures = np.resize((digits.normal * 0.6).astype(np.uint8), (RECORDS, 8, 8))

    def judged_by(version):
        async def judged():
            report = await read_drift(settings.redis, settings.kafka.group_id, "images", settings.drift)
            return report if (report.version, report.judged) == (version, 1) else None

        return judged

    async with running_worker(settings) as worker:
        await publish(client, topic, {"camera": pictures})
        before = await until(judged_by(first.version))
        worker.scoring.use("images", registry.load("images", second.version, device="cpu"))
        await publish(client, topic, {"camera": pictures})
        after = await until(judged_by(second.version))
    assert before.statistics["brightness"].drifting == 1
    assert after.statistics["brightness"].drifting == 0
    assert after.statistics["brightness"].records <= settings.drift.window + RECORDS


async def test_a_redis_that_is_away_is_said_and_costs_no_record(
    client, drift_settings, running_worker, digits, environment_of, monkeypatch
):
    away = drift_settings.redis.model_copy(update={"url": SecretStr("redis://127.0.0.1:1/0"), "timeout": 0.2})
    settings = drift_settings.model_copy(update={"redis": away})
    await ensure_topics(settings)
    topic = next(iter(settings.routes))
    await publish(client, topic, {"camera": np.resize(digits.normal, (RECORDS, 8, 8))})

    async def told():
        return gauge("psi_max", topic=topic, what="brightness")

    async with running_worker(settings) as worker:
        await until(told)
        assert gauge("streams", topic=topic, what="any") == 0
    assert worker.exit_code == 0
    with pytest.raises(RedisUnavailable):
        await read_drift(settings.redis, settings.kafka.group_id, "images")
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    shown = await asyncio.to_thread(CliRunner().invoke, app, ["models", "show", "images"])
    assert shown.exit_code == 0
    assert "drift: unknown; Redis at 127.0.0.1:1" in shown.output.replace("\n", " ")

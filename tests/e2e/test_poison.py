"""A stream with anomalies in it, from the topic to the next version: a worse one never scores it."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from model.registry import Registry
from stream_app.cli.train_stream import read_again
from stream_app.topics import ensure_topics
from tests.e2e.test_stream import RAW, bodies, count, raw_picture, read, topics
from tests.e2e.test_swaps import until
from training.data import from_arrays
from training.loop import auroc, train

pytestmark = pytest.mark.timeout(300)  # worker, trainer and training share the machine

UNSEEN = (3, 9)
PLACES = ((-1, 0), (0, 0), (0, 1))
STEPS = 40  # of the first version
APART = 60.0  # seconds between two records, by their own times: longer ago than an episode that is reopened
LEARNED = 0.02  # most of what is learned from that is anomalous; measured are 0.4 % where 20 % of the stream are
# Measured are 0.02 of AUROC less, and 0.56 of the share that was found before. With all of the stream learned from,
# gate and shadow let it pass: then it is 0.43 less (0.2 where 5 % are anomalous), and 0.06 of that share.
WORSE = 0.04
STILL_FOUND = 1 / 3
# The gate's and the shadow's own limits, but for those that ask how much else the machine does, and how much there is.
SECTIONS = {
    "scores": {"publish": True},
    "threshold": {"target_rate": 0.02},
    "snapshot": {"min_records": 200},  # of what episodes leave: where every fifth is anomalous they hardly end
    "trainer": {"seconds": 8.0, "nice": 0},
    "gate": {"latency_factor": 10.0},
    "shadow": {"share": 1.0, "max_cost": 1.0, "min_rows": 200, "timeout": 90.0, "cost_factor": 10.0}
    | {"report_interval": 0.2, "poll_interval": 0.2},
}

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Line:
    """Digits `[N, 10, 10]` in parts that share none: two of them are anomalous, and none of those is in `history`."""

    history: Pictures
    normal: Pictures
    anomalous: Pictures
    held_out: Pictures
    held_out_anomalous: Pictures

    @staticmethod
    def poisoned(normal: Pictures, anomalous: Pictures, share: float) -> tuple[Pictures, NDArray[np.bool_]]:
        """Pictures in the order of a stream, of which a share is anomalous, and which these are."""
        planted = anomalous[: round(len(normal) * share / (1.0 - share))]
        order = np.random.default_rng(1).permutation(len(normal) + len(planted))
        return np.concatenate([normal, planted])[order], order >= len(normal)

    def auroc_of(self, registry: Registry, version: str) -> float:
        """AUROC on pictures that neither stream nor history holds."""
        detector = registry.load("images", version, device="cpu")
        parts = self.held_out[..., np.newaxis], self.held_out_anomalous[..., np.newaxis]
        return auroc(*(detector.score(part).score for part in parts))


@pytest.fixture(scope="module")
def line() -> Line:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    padded = np.pad(np.round(bunch.images * (255 / 16)).astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    # Each at several places of the frame `[10, 10]`, side by side: parts are of digits, so that they share none.
    pictures = np.stack([np.roll(padded, place, axis=(1, 2)) for place in PLACES], axis=1)
    strange, random = np.isin(bunch.target, UNSEEN), np.random.default_rng(0)
    normal, anomalous = (pictures[random.permutation(np.flatnonzero(each))] for each in (~strange, strange))
    parts = normal[:400], normal[400:1040], anomalous[:160], normal[1040:], anomalous[160:]
    return Line(*(part.reshape(-1, 10, 10) for part in parts))


@pytest.fixture(scope="module")
def first_version(tmp_path_factory, line) -> str:
    """A registry whose detector has seen no anomaly."""
    url = str(tmp_path_factory.mktemp("first") / "models")
    train(from_arrays(line.history, "image"), "image", Registry(url), "images", steps=STEPS, device="cpu")
    return url


def records_of(pictures: Pictures, key: str, began: float) -> list[dict]:
    """Of four cameras in turn, a while apart by their own times; the id says which picture it is."""
    return [
        raw_picture(
            picture,
            key=f"{key}-{at % 4}",
            partition=at % 4,
            timestamp=round((began + APART * at) * 1000),
            headers=[RAW, ("ce_id", f"{key} {at}".encode())],
        )
        for at, picture in enumerate(pictures)
    ]


def of_phase(key: str, number: int):
    """Whether so many messages are about cameras of that name."""
    return lambda messages: sum(message.key().startswith(key.encode()) for message in messages) >= number


def found(events: list[dict], key: str, planted: NDArray[np.bool_]) -> float:
    """Share of the planted anomalies that are above the threshold of their stream."""
    ids = {f"{key} {at}" for at in np.flatnonzero(planted)}
    about = [event["is_anomaly"] for event in events if event["record"]["id"] in ids]
    assert len(about) == len(ids)
    return float(np.mean(about))


async def refreshed(environment, flow) -> dict:
    """What `ganomaly-stream schedule` makes of the stream, with records that come during the shadow; its last event."""
    command = [sys.executable, "-c", "from stream_app.cli.main import main; main()", "schedule"]
    process = await asyncio.create_subprocess_exec(
        *command, "--now", "--once", "--name", "images", "--json", env=environment, stdout=subprocess.PIPE
    )
    last, flowing = {}, None
    try:
        async for text in process.stdout:
            last = json.loads(text)
            if last.get("stage") == "shadow" and flowing is None:
                flowing = asyncio.create_task(flow())
        assert await process.wait() == 0, last
    finally:
        if flowing is not None:
            flowing.cancel()
            await asyncio.gather(flowing, return_exceptions=True)
        if process.returncode is None:
            process.kill()
    return last


@pytest.mark.parametrize("share", [0.2, 0.05])
async def test_a_stream_with_anomalies_in_it_does_not_teach_the_version_that_takes_over_to_miss_them(
    share, client, stream_settings, running_worker, environment_of, line, first_version, tmp_path
):
    url = str(tmp_path / "models")
    shutil.copytree(first_version, url)
    settings, registry = stream_settings(registry={"url": url}, **SECTIONS), Registry(url)
    await ensure_topics(settings)
    images, _ = topics(settings)
    scores, first = settings.topics.scores, registry.champion("images")
    pictures, planted = line.poisoned(line.normal, line.anomalous, share)
    later, later_planted = line.poisoned(line.held_out, line.held_out_anomalous, share)

    async def flow():
        records = records_of(later, "live", time.time())
        for at in itertools.cycle(range(0, len(records), 4)):
            await asyncio.to_thread(client.publish, images, records[at : at + 4])
            await asyncio.sleep(0.02)

    async with running_worker(settings) as worker:
        records = records_of(pictures, "before", time.time() - APART * len(pictures))
        await asyncio.to_thread(client.publish, images, records)
        before = bodies(await read(client, scores, count(len(pictures))))
        run = await refreshed(environment_of(settings), flow)
        champion = registry.champion("images")
        await until(lambda: worker.health().models["images"] == champion)
        await asyncio.to_thread(client.publish, images, records_of(later, "after", time.time()))
        after = bodies(await read(client, scores, of_phase("after", len(later))))
        alerts = bodies(await read(client, settings.topics.alerts, of_phase("after", 1)))

    made = registry.manifest("images", run["version"])
    kept = await asyncio.to_thread(read_again, settings, registry, made, True)
    anomalous = {picture.tobytes() for picture in pictures[planted]}
    learned = np.mean([row.tobytes() in anomalous for row in kept.dataset.x])
    aurocs = {version: line.auroc_of(registry, version) for version in (first, champion)}
    shares = found(before, "before", planted), found(after, "after", later_planted)
    raised = [alert for alert in alerts if alert["stream"].startswith("after") and alert["is_anomaly"]]
    ids = {f"after {at}" for at in np.flatnonzero(later_planted)}
    assert (run["outcome"], champion) in (("promoted", run["version"]), ("refused", first)), run["why"]
    assert learned < LEARNED
    assert aurocs[champion] > aurocs[first] - WORSE
    assert shares[1] > STILL_FOUND * shares[0]
    assert {alert["model"]["version"] for alert in raised} == {champion}
    assert np.mean([alert["record"]["id"] in ids for alert in raised]) > 2 * share

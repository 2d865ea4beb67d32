"""Which version is in service: the champion, as soon as it can be used, and otherwise the one before."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from structlog.testing import capture_logs

from model.config import ImageConfig
from model.image import ImageGanomaly
from model.registry import CHAMPION, MANIFEST, WEIGHTS, Registry
from stream_app import metrics
from stream_app.clock import ManualClock
from stream_app.errors import Refusal
from stream_app.service import DetectorService
from stream_app.settings import Settings
from stream_app.versions import Versions, limit_torch_to_one_thread
from tests.unit.model.conftest import digits as digits
from tests.unit.model.conftest import image_parts as image_parts


class Bench:
    """A registry in a folder, and workers' services that look at it when told."""

    def __init__(self, folder: Path, parts):
        self.folder, self.cache = folder / "models", folder / "cache"
        self.registry = Registry(str(self.folder))
        self.parts = parts
        self.clock = ManualClock()
        self.services: list[DetectorService] = []
        self.used: list = []
        self.opened: list[str] = []
        self.saved = 0

    def save(self, promote=True, network=None, **changes):
        """A version that differs from the others by its name at least."""
        self.saved += 1
        created = self.parts.manifest.created_at + timedelta(seconds=self.saved)
        manifest = self.parts.manifest.model_copy(update={"created_at": created, **changes})
        version = self.registry.save(manifest, network or self.parts.network, "# card")
        if promote:
            self.registry.promote("unit", version)
        return version

    def point_to(self, version):
        (self.folder / "unit" / CHAMPION).write_text(version)

    def service(self, **registry):
        settings = Settings(
            routes={"records": "unit"},
            registry={"url": str(self.folder), "cache": str(self.cache), "poll_interval": 1.0} | registry,
            worker={"device": "cpu"},
        )
        scoring = SimpleNamespace(use=lambda _, detector: self.used.append(detector.version))
        store = SimpleNamespace(degraded=False)
        opened = lambda route: self.opened.append(route.topic)  # noqa: E731
        service = DetectorService(settings, scoring, store, self.clock, opened)
        self.services.append(service)
        return service

    def counted(self, reason):
        labels = {"detector": "unit", "reason": reason}
        return metrics.REGISTRY.get_sample_value("ganomaly_swaps_failed_total", labels) or 0.0


def info(version):
    return metrics.REGISTRY.get_sample_value("ganomaly_model_info", {"detector": "unit", "version": version})


@pytest.fixture
def bench(tmp_path, image_parts):
    bench = Bench(tmp_path, image_parts)
    yield bench
    for service in bench.services:
        service.close()


async def test_a_new_champion_takes_over_and_the_route_stays_open(bench):
    service = bench.service()
    await service.look()
    assert (service.waiting, bench.used, bench.opened) == (["records"], [], [])
    first = bench.save()
    await service.look()
    second = bench.save()
    await service.look()
    await service.look()
    assert bench.used == [first, second]
    assert bench.opened == ["records"]
    assert (service.waiting, service.versions, service.refused) == ([], {"unit": second}, {})
    assert (info(first), info(second)) == (None, 1.0)


async def test_going_back_takes_over_too(bench):
    service = bench.service()
    first, second = bench.save(), bench.save()
    await service.look()
    bench.registry.rollback("unit")
    await service.look()
    assert bench.used == [second, first]


def tamper(folder, _bench):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)


def truncate_weights(folder, _bench):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1000])


def truncate_manifest(folder, _bench):
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-1000])


def remove_weights(folder, _bench):
    (folder / WEIGHTS).unlink()


def remove_version(folder, _bench):
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def swap_weights(folder, bench):
    """Those of another network, with a digest that fits."""
    import hashlib

    from safetensors.torch import save as write_tensors

    weights = write_tensors({"first.weight": torch.zeros(3)})
    text = (folder / MANIFEST).read_text()
    manifest = bench.registry.versions("unit")[-1]
    (folder / MANIFEST).write_text(text.replace(manifest.sha256, hashlib.sha256(weights).hexdigest()))
    (folder / WEIGHTS).write_bytes(weights)


DAMAGES = [
    (tamper, Refusal.DIGEST, "SHA-256"),
    (truncate_weights, Refusal.DIGEST, "SHA-256"),
    (truncate_manifest, Refusal.MANIFEST, "manifest.json"),
    (remove_weights, Refusal.MISSING, "weights.safetensors"),
    (remove_version, Refusal.MISSING, "no version"),
    (swap_weights, Refusal.MANIFEST, "don't fit"),
]


@pytest.mark.parametrize(("damage", "reason", "says"), DAMAGES, ids=[damage.__name__ for damage, _, _ in DAMAGES])
async def test_a_damaged_version_leaves_the_old_one_in_service_and_is_said_once(bench, damage, reason, says):
    service = bench.service()
    first = bench.save()
    await service.look()
    second = bench.save(promote=False)
    damage(bench.folder / "unit" / second, bench)
    bench.point_to(second)
    before = bench.counted(reason)
    with capture_logs() as said:
        for _ in range(4):
            await service.look()
            bench.clock.advance(10.0)
    assert (bench.used, service.versions) == ([first], {"unit": first})
    errors = [entry for entry in said if entry["log_level"] == "error"]
    assert [(entry["version"], entry["in_service"], entry["reason"]) for entry in errors] == [(second, first, reason)]
    assert bench.counted(reason) - before == 1
    assert (service.refused["unit"]["version"], service.refused["unit"]["reason"]) == (second, reason)
    assert says in service.refused["unit"]["error"]
    third = bench.save()
    await service.look()
    assert (bench.used, service.refused) == ([first, third], {})


def poisoned(network, value):
    copy = ImageGanomaly(network.config)
    copy.load_state_dict(network.state_dict())
    with torch.no_grad():
        next(iter(copy.parameters())).view(-1)[0] = value
    return copy.eval()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_weights_that_are_not_finite_are_refused(bench, value):
    service = bench.service()
    first = bench.save()
    await service.look()
    second = bench.save(network=poisoned(bench.parts.network, value))
    await service.look()
    assert bench.used == [first]
    assert service.refused["unit"] == service.refused["unit"] | {"version": second, "reason": "not_finite"}


async def test_a_version_that_takes_other_records_is_refused_until_the_workers_start_anew(bench):
    service = bench.service()
    first = bench.save()
    await service.look()
    with torch.random.fork_rng():
        other = ImageGanomaly(ImageConfig(8, 8, 3, side=16, memory=200)).eval()
    other.remember(other.prepare(torch.zeros(200, 8, 8, 3, dtype=torch.uint8)))
    second = bench.save(network=other, config=other.config.to_json(), input_shape=(8, 8, 3))
    await service.look()
    assert bench.used == [first]
    assert service.refused["unit"]["reason"] == "shape"
    assert "takes images of shape [8, 8, 3]" in service.refused["unit"]["error"]
    assert f"{first}, which is in service, takes images of shape [8, 8, 1]" in service.refused["unit"]["error"]
    assert second in service.refused["unit"]["error"]
    later = bench.service()
    await later.look()
    assert later.versions == {"unit": second}


async def test_whatever_a_version_raises_the_old_one_stays(bench, monkeypatch):
    service = bench.service()
    first = bench.save()
    await service.look()
    bench.save()

    def out_of_memory(*_):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("model.detector.Detector.localize", out_of_memory)
    await service.look()
    assert bench.used == [first]
    assert service.refused["unit"]["reason"] == "failed"
    assert "CUDA out of memory" in service.refused["unit"]["error"]


async def test_a_version_that_was_mended_takes_over_after_a_pause(bench):
    service = bench.service()
    first = bench.save()
    await service.look()
    second = bench.save()
    weights = bench.folder / "unit" / second / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    await service.look()
    weights.write_bytes(whole)
    await service.look()
    assert bench.used == [first]  # tried at each look, a large one would be read all the time
    bench.clock.advance(1.0)
    await service.look()
    assert (bench.used, service.refused) == ([first, second], {})


async def test_without_a_registry_it_starts_from_what_was_kept_and_takes_the_registry_up_again(bench):
    earlier = bench.service()
    first = bench.save()
    await earlier.look()
    second = bench.save()
    away = bench.folder.rename(bench.folder.with_name("away"))
    bench.folder.symlink_to(bench.folder)  # reading there is an error, as on a share whose server is gone
    service = bench.service()
    with capture_logs() as said:
        await service.look()
        await service.look()
    assert (service.versions, service.from_cache, bench.opened) == ({"unit": first}, ("unit",), ["records"] * 2)
    assert [entry["log_level"] for entry in said] == ["warning", "info", "error"]
    assert metrics.REGISTRY.get_sample_value("ganomaly_model_from_cache", {"detector": "unit"}) == 1.0
    assert metrics.REGISTRY.get_sample_value("ganomaly_registry_reachable") == 0.0
    bench.folder.unlink()
    away.rename(bench.folder)
    await service.look()
    assert (service.versions, service.from_cache, service.registry_error) == ({"unit": second}, (), None)
    assert metrics.REGISTRY.get_sample_value("ganomaly_model_from_cache", {"detector": "unit"}) == 0.0
    assert metrics.REGISTRY.get_sample_value("ganomaly_registry_reachable") == 1.0


@pytest.mark.parametrize("leaves", ["nothing", "an empty folder"])
async def test_a_folder_that_is_not_mounted_is_a_registry_out_of_reach(bench, leaves):
    service = bench.service()
    first = bench.save()
    await service.look()
    away = bench.folder.rename(bench.folder.with_name("away"))
    if leaves == "an empty folder":
        bench.folder.mkdir()
    fresh = bench.service()
    for each in (service, fresh):
        await each.look()
        assert each.versions == {"unit": first}
        assert "is it mounted?" in each.registry_error
    assert (service.from_cache, fresh.from_cache) == ((), ("unit",))
    if bench.folder.exists():
        bench.folder.rmdir()
    away.rename(bench.folder)
    await fresh.look()
    assert (fresh.from_cache, fresh.registry_error) == ((), None)  # the same version, and nothing loaded for that
    assert bench.used == [first, first]


async def test_a_registry_that_does_not_answer_is_out_of_reach(bench, monkeypatch):
    first = bench.save()
    await bench.service().look()
    answer = threading.Event()
    asked = []
    champion = Versions.champion

    def slow(*arguments):
        asked.append(arguments)
        answer.wait(10)
        return champion(*arguments)

    monkeypatch.setattr(Versions, "champion", slow)
    service = bench.service(timeout=0.05)
    await service.look()
    await service.look()
    assert (service.versions, service.from_cache, len(asked)) == ({"unit": first}, ("unit",), 1)
    assert service.registry_error == "no answer within registry.timeout=0.05 s"
    answer.set()
    async with asyncio.timeout(10):
        while service.registry_error:
            await service.look()


async def test_a_worker_that_meets_a_damaged_champion_starts_from_what_was_kept(bench):
    first = bench.save()
    await bench.service().look()
    second = bench.save()
    truncate_weights(bench.folder / "unit" / second, bench)
    service = bench.service()
    await service.look()
    assert (service.versions, service.from_cache) == ({"unit": first}, ("unit",))
    assert (service.refused["unit"]["version"], service.refused["unit"]["reason"]) == (second, "digest")


async def test_what_was_kept_is_examined_as_well(bench):
    bench.save()
    await bench.service().look()
    for weights in bench.cache.rglob(WEIGHTS):
        weights.write_bytes(weights.read_bytes()[:-1])
    bench.folder.rename(bench.folder.with_name("away"))
    service = bench.service()
    with capture_logs() as said:
        await service.look()
    assert (service.versions, service.waiting) == ({}, ["records"])
    assert "SHA-256" in said[0]["error"]


async def test_a_cache_that_cannot_be_written_is_said_once_and_stops_nothing(bench, tmp_path):
    (tmp_path / "file").write_text("")
    service = bench.service(cache=str(tmp_path / "file"))
    with capture_logs() as said:
        for _ in range(2):
            version = bench.save()
            await service.look()
            assert service.versions == {"unit": version}
    assert [entry["event"] for entry in said if entry["log_level"] == "warning"] == [
        "versions can't be kept on this machine for a start without the registry"
    ]


def test_the_thread_that_loads_takes_one_core_and_leaves_the_others_to_torch():
    found = {}

    def ask(name, limit):
        if limit:
            limit_torch_to_one_thread()
        found[name] = torch.get_num_threads()

    def run(name, limit=False):
        thread = threading.Thread(target=ask, args=(name, limit))
        thread.start()
        thread.join()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run("loading", limit=True)
        run("scoring")
        assert found == {"loading": 1, "scoring": 3}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)

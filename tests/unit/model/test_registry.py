from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from model.errors import DigestMismatch, ManifestError, ModelNotFound, RegistryError
from model.registry import CHAMPION, MANIFEST, WEIGHTS, Registry
from tests.unit.model.conftest import Parts

FILES = {"weights.safetensors", "manifest.json", "card.md"}


@pytest.fixture(params=["folder", "memory"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    return Registry(str(tmp_path) if request.param == "folder" else f"memory://{uuid4().hex}")


def save(registry: Registry, parts: Parts, age: int = 0) -> str:
    created = datetime(2026, 5, 1, tzinfo=UTC) - timedelta(seconds=age)
    return registry.save(parts.manifest.model_copy(update={"created_at": created}), parts.network, "# card")


def test_an_empty_registry_has_nothing(anywhere: Registry) -> None:
    assert anywhere.detectors() == []
    assert anywhere.versions("images") == []
    assert anywhere.champion("images") is None
    with pytest.raises(ModelNotFound, match="no champion"):
        anywhere.load("images")
    with pytest.raises(ModelNotFound, match="no version"):
        anywhere.load("images", "v1")


def test_a_saved_version_loads_and_scores_the_same(anywhere: Registry, image_parts: Parts) -> None:
    version = save(anywhere, image_parts)
    detector = anywhere.load("unit", version, device="cpu")
    again = anywhere.load("unit", version, device="cpu")
    scores = detector.score(image_parts.records[:100]).score
    np.testing.assert_array_equal(again.score(image_parts.records[:100]).score, scores)
    assert anywhere.detectors() == ["unit"]
    assert [manifest.version for manifest in anywhere.versions("unit")] == [version]


def test_versions_are_listed_oldest_first(anywhere: Registry, image_parts: Parts) -> None:
    ages = [5, 100, 1]
    saved = {age: save(anywhere, image_parts, age) for age in ages}
    assert [manifest.version for manifest in anywhere.versions("unit")] == [saved[100], saved[5], saved[1]]
    assert sorted(saved.values()) == [saved[100], saved[5], saved[1]]


def test_saving_puts_nothing_in_service_and_promoting_does(anywhere: Registry, image_parts: Parts) -> None:
    old, new = save(anywhere, image_parts, 10), save(anywhere, image_parts)
    assert anywhere.champion("unit") is None
    for version in (new, old):
        anywhere.promote("unit", version)
        assert anywhere.champion("unit") == version
        assert anywhere.load("unit", device="cpu").version == version
    with pytest.raises(ModelNotFound, match="no version nonsense"):
        anywhere.promote("unit", "nonsense")
    assert anywhere.champion("unit") == old


def test_a_version_holds_three_files_and_leaves_no_litter(tmp_path: Path, image_parts: Parts) -> None:
    registry = Registry(str(tmp_path))
    version = save(registry, image_parts)
    registry.promote("unit", version)
    assert {file.name for file in Path(registry.path("unit", version)).iterdir()} == FILES
    assert {file.name for file in (tmp_path / "unit").iterdir()} == {version, CHAMPION}
    assert (tmp_path / "unit" / CHAMPION).read_text() == version


def test_the_same_version_is_not_written_twice(tmp_path: Path, image_parts: Parts) -> None:
    registry = Registry(str(tmp_path))
    version = save(registry, image_parts)
    with pytest.raises(RegistryError, match="can't be written"):
        save(registry, image_parts)
    assert {file.name for file in (tmp_path / "unit").iterdir()} == {version}


def test_weights_that_were_changed_are_refused(tmp_path: Path, image_parts: Parts) -> None:
    registry = Registry(str(tmp_path))
    version = save(registry, image_parts)
    weights = Path(registry.path("unit", version)) / WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DigestMismatch, match="SHA-256"):
        registry.load("unit", version)


def test_a_version_without_its_manifest_does_not_exist(tmp_path: Path, image_parts: Parts) -> None:
    registry = Registry(str(tmp_path))
    version = save(registry, image_parts)
    (Path(registry.path("unit", version)) / MANIFEST).unlink()
    assert registry.versions("unit") == []
    with pytest.raises(ModelNotFound):
        registry.load("unit", version)
    with pytest.raises(ModelNotFound):
        registry.promote("unit", version)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "schema_version"),
        ({"input_shape": [9, 9, 1]}, "input_shape"),
        ({"config": {}}, "missing"),
        ({"version": "other"}, "is of unit other"),
        ({"calibration": {}}, "calibration"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    tmp_path: Path, image_parts: Parts, change: dict[str, object], message: str
) -> None:
    registry = Registry(str(tmp_path))
    version = save(registry, image_parts)
    file = Path(registry.path("unit", version)) / MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ManifestError, match=message):
        registry.load("unit", version)
    file.write_text("{")
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        registry.load("unit", version)


def test_weights_of_other_networks_are_refused(tmp_path: Path, image_parts: Parts) -> None:
    registry = Registry(str(tmp_path))
    version = save(registry, image_parts)
    file = Path(registry.path("unit", version)) / MANIFEST
    manifest = json.loads(file.read_text())
    manifest["config"]["latent"] = 64
    file.write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match="don't fit"):
        registry.load("unit", version)


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", ".hidden", "a b", "x" * 129])
def test_names_that_could_leave_the_registry_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(ManifestError, match="letters, digits"):
        registry.versions(name)
    with pytest.raises(ManifestError, match="letters, digits"):
        registry.path("unit", name)


def test_a_scheme_nobody_knows_is_refused() -> None:
    with pytest.raises(RegistryError, match="nosuch"):
        Registry("nosuch://bucket/models")


def test_readers_never_see_half_a_version_or_an_empty_pointer(tmp_path: Path, image_parts: Parts) -> None:
    registry = Registry(str(tmp_path))
    registry.promote("unit", save(registry, image_parts, 1000))
    done, seen = threading.Event(), set()
    failures: list[object] = []

    def read() -> None:
        reader = Registry(str(tmp_path))
        while not done.is_set():
            try:
                champion = reader.champion("unit")
                for manifest in reader.versions("unit"):
                    files = {file.name for file in Path(reader.path("unit", manifest.version)).iterdir()}
                    if files != FILES:
                        failures.append(files)
                seen.add(reader.load("unit", champion, device="cpu").version)
            except Exception as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    for age in range(15, 0, -1):
        registry.promote("unit", save(registry, image_parts, age))
    done.set()
    for thread in readers:
        thread.join()
    assert failures == []
    assert seen

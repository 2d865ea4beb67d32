from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from model.errors import DigestMismatch, ManifestError, ModelNotFound, RegistryError, RolledBack, StaleToken
from model.lineage import Lineage
from model.registry import CHAMPION, LINEAGE, MANIFEST, WEIGHTS, Registry
from tests.unit.model.conftest import Parts

FILES = {"weights.safetensors", "manifest.json", "card.md"}


@pytest.fixture(params=["folder", "memory", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    if request.param == "folder":
        return Registry(str(tmp_path))
    return Registry(f"{request.getfixturevalue('s3') if request.param == 's3' else 'memory:/'}/{uuid4().hex}")


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
    assert {file.name for file in (tmp_path / "unit").iterdir()} == {version, CHAMPION, LINEAGE, ".lock"}
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


def test_what_is_put_in_service_and_taken_back_is_kept_in_the_lineage(anywhere: Registry, image_parts: Parts) -> None:
    first, second = save(anywhere, image_parts, 10), save(anywhere, image_parts)
    assert anywhere.lineage("unit") == Lineage()
    anywhere.promote("unit", first, by="ada", reason="the first")
    promoted = anywhere.promote("unit", second, token=4)
    back = anywhere.rollback("unit", by="bob", reason="too many alarms")
    assert (promoted.version, promoted.replaced, promoted.action, promoted.token) == (second, first, "promote", 4)
    assert (back.version, back.replaced, back.action, back.by) == (first, second, "rollback", "bob")
    assert anywhere.champion("unit") == first
    lineage = anywhere.lineage("unit")
    assert [entry.reason for entry in lineage.entries] == ["the first", "", "too many alarms"]
    assert lineage.entries[1:] == (promoted, back)
    assert lineage.rolled_back == {second}
    assert lineage.token == 4
    assert [item.version for item in anywhere.versions("unit")] == [first, second]


def test_a_stale_trainer_and_one_that_repeats_a_rolled_back_version_are_refused(
    anywhere: Registry, image_parts: Parts
) -> None:
    first, second = save(anywhere, image_parts, 10), save(anywhere, image_parts)
    anywhere.fence("unit", 7)
    with pytest.raises(StaleToken, match="token 6 is stale"):
        anywhere.promote("unit", first, token=6)
    with pytest.raises(StaleToken):
        anywhere.fence("unit", 6)
    assert anywhere.champion("unit") is None
    anywhere.promote("unit", first, token=7)
    anywhere.promote("unit", second, token=7)
    anywhere.rollback("unit")
    with pytest.raises(RolledBack, match=second):
        anywhere.promote("unit", second, token=8)
    assert anywhere.champion("unit") == first
    anywhere.promote("unit", second)
    anywhere.promote("unit", second, token=8)
    assert anywhere.champion("unit") == second


def test_going_back_passes_over_versions_that_are_gone_and_says_when_there_is_none(
    tmp_path: Path, image_parts: Parts
) -> None:
    registry = Registry(str(tmp_path))
    versions = [save(registry, image_parts, age) for age in (30, 20, 10)]
    with pytest.raises(ModelNotFound, match="no version to go back to"):
        registry.rollback("unit")
    for version in versions:
        registry.promote("unit", version)
    (Path(registry.path("unit", versions[1])) / MANIFEST).unlink()
    with pytest.raises(ModelNotFound, match=r"lacks manifest\.json"):
        registry.rollback("unit", versions[1])
    assert registry.rollback("unit").version == versions[0]
    with pytest.raises(RegistryError, match="in service already"):
        registry.rollback("unit", versions[0])
    with pytest.raises(ModelNotFound, match="models promote"):
        registry.rollback("unit")


def test_a_version_that_was_never_in_service_is_promoted_and_not_gone_back_to(
    registry: Registry, image_parts: Parts
) -> None:
    first, second = save(registry, image_parts, 10), save(registry, image_parts)
    registry.promote("unit", first)
    with pytest.raises(RegistryError, match="never in service"):
        registry.rollback("unit", second)
    with pytest.raises(ModelNotFound, match="no version nonsense"):
        registry.rollback("unit", "nonsense")
    assert registry.champion("unit") == first


def test_the_champion_of_a_registry_without_lineage_can_be_gone_back_to(tmp_path: Path, image_parts: Parts) -> None:
    registry = Registry(str(tmp_path))
    first, second = save(registry, image_parts, 10), save(registry, image_parts)
    (tmp_path / "unit" / CHAMPION).write_text(f"{first}\n")
    registry.promote("unit", second)
    assert registry.rollback("unit").version == first == registry.champion("unit")


def test_damaged_weights_are_never_put_in_service(tmp_path: Path, image_parts: Parts) -> None:
    registry = Registry(str(tmp_path))
    first, second = save(registry, image_parts, 10), save(registry, image_parts)
    registry.promote("unit", first)
    weights = Path(registry.path("unit", second)) / WEIGHTS
    data = weights.read_bytes()
    weights.write_bytes(data[:-100])
    with pytest.raises(DigestMismatch, match=f"of {len(data) - 100} bytes"):
        registry.promote("unit", second)
    weights.unlink()
    with pytest.raises(ModelNotFound, match=r"lacks weights\.safetensors.*cut off"):
        registry.promote("unit", second)
    with pytest.raises(ModelNotFound, match=r"lacks weights\.safetensors"):
        registry.load("unit", second)
    assert registry.champion("unit") == first


def test_a_version_is_copied_whole_from_one_registry_to_another(
    anywhere: Registry, registry: Registry, image_parts: Parts
) -> None:
    created = image_parts.manifest.model_copy(update={"created_at": datetime(2026, 5, 1, tzinfo=UTC)})
    version = anywhere.save(created, image_parts.network, "# card", {"scores.png": b"png"})
    files = anywhere.fetch("unit", version)
    assert set(files) == {*FILES, "scores.png"}
    registry.store("unit", version, files)
    registry.store("unit", version, files)
    assert registry.fetch("unit", version) == files
    assert registry.load("unit", version, device="cpu").manifest.version == version
    with pytest.raises(ManifestError, match="is of unit"):
        registry.store("unit", "other", files)
    with pytest.raises(DigestMismatch):
        registry.store("unit", version, {**files, WEIGHTS: b"others"})
    with pytest.raises(ManifestError, match="a version needs"):
        registry.store("unit", version, {MANIFEST: files[MANIFEST]})


def test_a_damaged_copy_is_replaced(tmp_path: Path, image_parts: Parts, registry: Registry) -> None:
    version = save(registry, image_parts)
    copy = Registry(str(tmp_path))
    files = registry.fetch("unit", version)
    copy.store("unit", version, files)
    for damaged, left in ((WEIGHTS, b"cut"), (MANIFEST, b"{"), (MANIFEST, None)):
        file = Path(copy.path("unit", version)) / damaged
        file.unlink() if left is None else file.write_bytes(left)
        with pytest.raises(RegistryError):
            copy.fetch("unit", version)
        copy.store("unit", version, files)
        assert copy.fetch("unit", version) == files
    assert [entry.name for entry in (tmp_path / "unit").iterdir()] == [version]


def test_trainers_are_refused_where_they_could_not_be_kept_apart(image_parts: Parts, tmp_path: Path) -> None:
    registry = Registry(f"simplecache::file://{tmp_path}")
    with pytest.raises(RegistryError, match="no conditional puts"):
        registry.fence("unit", 1)

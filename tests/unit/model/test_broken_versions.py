"""One broken version, or what else lies in a registry's folders, does not hide the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import ManifestError, ModelNotFound, RegistryError
from model.registry import MANIFEST, WEIGHTS, Registry
from tests.unit.model.conftest import Parts
from tests.unit.model.test_registry import save


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path))


def cut(registry: Registry, version: str, file: str = MANIFEST) -> None:
    path = Path(registry.path("unit", version)) / file
    path.write_bytes(path.read_bytes()[:-100])


def test_what_can_be_no_detector_and_no_version_is_passed_over(
    registry: Registry, tmp_path: Path, image_parts: Parts
) -> None:
    version = save(registry, image_parts)
    for stray in ("lost+found", "unit/old backup", "empty"):
        (tmp_path / stray).mkdir()
    (tmp_path / "notes.txt").write_text("for people")
    (tmp_path / "unit" / "notes.txt").write_text("for people")
    assert registry.detectors() == ["unit"]
    assert [manifest.version for manifest in registry.versions("unit")] == [version]
    assert registry.survey("unit").broken == {}


def test_a_broken_version_is_told_beside_the_others(registry: Registry, image_parts: Parts) -> None:
    first, second = (save(registry, image_parts, age) for age in (20, 10))
    cut(registry, first)
    sound, broken = registry.survey("unit")
    assert [manifest.version for manifest in sound] == [second]
    assert list(broken) == [first]
    assert "manifest.json: the whole: Invalid JSON" in broken[first]
    cut(registry, second)
    assert registry.detectors() == ["unit"]
    with pytest.raises(ManifestError):
        registry.manifest("unit", second)


def test_going_back_passes_over_what_is_not_whole_and_says_what_is_wrong_with_it(
    registry: Registry, image_parts: Parts
) -> None:
    versions = [save(registry, image_parts, age) for age in (50, 40, 30, 20, 10)]
    for version in versions:
        registry.promote("unit", version)
    good, gone, damaged, unreadable, _ = versions
    (Path(registry.path("unit", gone)) / MANIFEST).unlink()
    cut(registry, damaged, WEIGHTS)
    cut(registry, unreadable)
    passed_over: list[str] = []
    assert registry.rollback("unit", on_passed_over=passed_over.append).version == good == registry.champion("unit")
    assert [word in told for word, told in zip(("JSON", "SHA-256", "lacks"), passed_over, strict=True)] == [True] * 3
    with pytest.raises(ModelNotFound, match="there and whole"):
        registry.rollback("unit")


def test_a_registry_that_can_not_be_read_is_no_reason_to_go_back_further(
    registry: Registry, image_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = [save(registry, image_parts, age) for age in (30, 20, 10)]
    for version in versions:
        registry.promote("unit", version)
    read = registry._storage.read

    def away(path: str) -> bytes | None:
        if path.endswith(WEIGHTS):
            raise RegistryError(f"{path} can't be read: the line is dead")
        return read(path)

    monkeypatch.setattr(registry._storage, "read", away)
    with pytest.raises(RegistryError, match="the line is dead"):
        registry.rollback("unit")
    assert registry.champion("unit") == versions[2]

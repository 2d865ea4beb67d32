"""What was in service last is kept on this machine: a few versions, and no more."""

from __future__ import annotations

from datetime import timedelta

import pytest

from model.config import Profile
from model.errors import RegistryError
from model.registry import Registry
from stream_app.version_cache import KEPT, VersionCache
from tests.unit.model.conftest import digits as digits
from tests.unit.model.conftest import image_parts as image_parts


def save(registry, parts, age=0):
    manifest = parts.manifest.model_copy(update={"created_at": parts.manifest.created_at - timedelta(seconds=age)})
    return registry.save(manifest, parts.network, "# card")


@pytest.fixture
def source(tmp_path):
    return Registry(str(tmp_path / "models"))


@pytest.fixture
def cache(tmp_path):
    return VersionCache(str(tmp_path / "cache"), str(tmp_path / "models"))


def versions_in(tmp_path):
    return {path.parent.name for path in (tmp_path / "cache").rglob("manifest.json")}


def test_a_kept_version_scores_the_same_once_the_registry_is_gone(source, cache, image_parts):
    version = save(source, image_parts)
    assert cache.champion("unit") is None
    cache.keep(source, "unit", version)
    assert cache.champion("unit") == version
    kept = cache.load("unit", version, "cpu", Profile.ACCURATE)
    expected = source.load("unit", version, "cpu").score(image_parts.records[:20]).score
    assert kept.score(image_parts.records[:20]).score.tolist() == expected.tolist()


def test_the_versions_that_were_in_service_last_stay(source, cache, image_parts, tmp_path):
    versions = [save(source, image_parts, age) for age in range(KEPT + 2)]
    for version in versions:
        cache.keep(source, "unit", version)
    assert versions_in(tmp_path) == set(versions[-KEPT:])
    back = versions[-KEPT]
    cache.keep(source, "unit", back)  # went back to the oldest of them: now it is the newest
    cache.keep(source, "unit", versions[0])
    assert versions_in(tmp_path) == {back, versions[-1], versions[0]}
    assert cache.champion("unit") == versions[0]
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_registries_do_not_share_what_is_kept(source, cache, image_parts, tmp_path):
    cache.keep(source, "unit", save(source, image_parts))
    assert VersionCache(str(tmp_path / "cache"), "s3://bucket/models").champion("unit") is None


def test_a_folder_is_the_same_however_it_is_written(source, cache, image_parts, tmp_path, monkeypatch):
    version = save(source, image_parts)
    cache.keep(source, "unit", version)
    monkeypatch.chdir(tmp_path)
    assert VersionCache("cache", "models").champion("unit") == version


def test_without_a_folder_nothing_is_kept(source, image_parts, tmp_path):
    cache = VersionCache("", str(tmp_path / "models"))
    cache.keep(source, "unit", save(source, image_parts))
    assert cache.champion("unit") is None
    with pytest.raises(RegistryError, match=r"registry\.cache is empty"):
        cache.load("unit", "v1", "cpu", Profile.ACCURATE)
    assert {path.name for path in tmp_path.iterdir()} == {"models"}

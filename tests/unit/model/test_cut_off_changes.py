"""Whoever puts a version in service writes the lineage and then the champion file, and may die between the two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from model.errors import RegistryError
from model.lineage import Promotion
from model.registry import CHAMPION, WEIGHTS, Registry
from tests.unit.model.conftest import Parts
from tests.unit.model.test_registry import save


class Died(Exception):
    """Stands for the end of the process."""


@pytest.fixture(params=["folder", "memory", "s3"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    if request.param == "folder":
        return Registry(str(tmp_path))
    return Registry(f"{request.getfixturevalue('s3') if request.param == 's3' else 'memory:/'}/{uuid4().hex}")


@pytest.fixture
def versions(registry: Registry, image_parts: Parts) -> list[str]:
    """Three, each put in service after the one before."""
    saved = [save(registry, image_parts, age) for age in (30, 20, 10)]
    for version in saved:
        registry.promote("unit", version)
    return saved


@pytest.fixture
def cut_off(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Promotion]], None]:
    """Does something with the registry, and dies before the champion file is written."""
    put_if = registry._storage.put_if

    def dies(path: str, data: bytes, tag: object) -> bool:
        if path.endswith(f"/{CHAMPION}"):
            raise Died
        return put_if(path, data, tag)

    def run(action: Callable[[], Promotion]) -> None:
        before = registry.champion("unit")
        with monkeypatch.context() as patch:
            patch.setattr(registry._storage, "put_if", dies)
            with pytest.raises(Died):
                action()
        assert registry.champion("unit") == before

    return run


@pytest.mark.parametrize("explicit", [False, True])
def test_a_rollback_that_was_cut_off_is_finished_by_the_next_and_goes_no_further(
    registry: Registry, versions: list[str], cut_off: Callable[[Callable[[], Promotion]], None], explicit: bool
) -> None:
    _, good, bad = versions
    to = good if explicit else None
    cut_off(lambda: registry.rollback("unit", to, by="ada", reason="too many alarms"))
    done = registry.rollback("unit", to, by="ada")
    assert (done.version, done.replaced, done.action, done.reason) == (good, bad, "rollback", "too many alarms")
    assert registry.champion("unit") == good
    lineage = registry.lineage("unit")
    assert lineage.entries[-1] == done
    assert len(lineage.entries) == 4
    assert lineage.rolled_back == {bad}
    assert registry.rollback("unit").version == versions[0]


def test_of_two_versions_a_rollback_that_was_cut_off_can_be_finished(
    registry: Registry, image_parts: Parts, cut_off: Callable[[Callable[[], Promotion]], None]
) -> None:
    good, bad = (save(registry, image_parts, age) for age in (20, 10))
    registry.promote("unit", good)
    registry.promote("unit", bad)
    cut_off(lambda: registry.rollback("unit"))
    assert registry.rollback("unit").version == good == registry.champion("unit")
    with pytest.raises(RegistryError, match="in service already"):
        registry.rollback("unit", good)


def test_a_promotion_that_was_cut_off_is_finished_by_the_same_command(
    registry: Registry, image_parts: Parts, cut_off: Callable[[Callable[[], Promotion]], None]
) -> None:
    first, second = (save(registry, image_parts, age) for age in (20, 10))
    for version, replaced in ((first, None), (second, first)):
        cut_off(lambda version=version: registry.promote("unit", version))
        done = registry.promote("unit", version)
        assert (done.version, done.replaced) == (version, replaced)
        assert registry.champion("unit") == version
    assert [entry.version for entry in registry.lineage("unit").entries] == [first, second]


def test_going_back_from_a_promotion_that_was_cut_off_leaves_in_service_what_was(
    registry: Registry, versions: list[str], image_parts: Parts, cut_off: Callable[[Callable[[], Promotion]], None]
) -> None:
    fresh = save(registry, image_parts)
    cut_off(lambda: registry.promote("unit", fresh, token=1))
    back = registry.rollback("unit")
    assert (back.version, back.replaced) == (versions[-1], fresh)
    assert registry.champion("unit") == versions[-1]
    assert registry.lineage("unit").rolled_back == {fresh}


def test_two_changes_that_were_cut_off_one_after_the_other_are_no_puzzle(
    registry: Registry, versions: list[str], image_parts: Parts, cut_off: Callable[[Callable[[], Promotion]], None]
) -> None:
    """The champion file is never two entries behind: then it would count as written by other hands."""
    bad, first, second = versions[-1], save(registry, image_parts, 2), save(registry, image_parts, 1)
    cut_off(lambda: registry.promote("unit", first))
    cut_off(lambda: registry.promote("unit", second))
    assert registry.lineage("unit").current(registry.champion("unit")) in (first, second)
    done = registry.promote("unit", second)
    assert registry.champion("unit") == second
    assert done.replaced == first
    assert registry.rollback("unit").version == first
    assert registry.rollback("unit").version == bad


def test_a_rollback_to_a_version_that_was_damaged_since_is_not_finished(
    tmp_path: Path, image_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(str(tmp_path))
    oldest, good, bad = (save(registry, image_parts, age) for age in (30, 20, 10))
    for version in (oldest, good, bad):
        registry.promote("unit", version)
    registry.rollback("unit")
    (tmp_path / "unit" / CHAMPION).write_text(bad)
    (Path(registry.path("unit", good)) / WEIGHTS).write_bytes(b"cut")
    assert registry.rollback("unit").version == oldest == registry.champion("unit")


def test_a_person_who_goes_back_while_another_does_goes_no_further(registry: Registry, versions: list[str]) -> None:
    """The other has written the lineage, and is about to write the champion file."""
    other, put_if, done = Registry(registry._storage.root), registry._storage.put_if, []
    other._storage = registry._storage.__class__(registry._storage._fs, registry._storage.root)

    def interrupted(path: str, data: bytes, tag: object) -> bool:
        if path.endswith(f"/{CHAMPION}") and not done:
            done.append(other.rollback("unit"))
        return put_if(path, data, tag)

    registry._storage.put_if = interrupted  # type: ignore[method-assign]
    assert registry.rollback("unit") == done[0]
    assert registry.champion("unit") == versions[1]
    assert registry.lineage("unit").rolled_back == {versions[2]}

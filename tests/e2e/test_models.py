"""`models promote` and `models rollback`, with a broker that is told and without one."""

from __future__ import annotations

import getpass
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from model.registry import Registry
from stream_app.cli.main import main
from stream_app.settings import Settings
from tests.unit.model.conftest import Parts, shuffled_digits, untrained

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def settings(settings_factory, tmp_path: Path) -> Settings:
    return settings_factory(registry={"url": str(tmp_path / "models")})


@pytest.fixture(scope="module")
def parts() -> Parts:
    return untrained(shuffled_digits())


@pytest.fixture
def versions(settings: Settings, parts: Parts) -> tuple[str, str]:
    """What is in service, and a newer version."""
    registry = Registry(settings.registry.url)
    old, new = (
        registry.save(
            parts.manifest.model_copy(update={"name": "images", "created_at": datetime(2026, 5, day, tzinfo=UTC)}),
            parts.network,
            "# card",
        )
        for day in (1, 2)
    )
    registry.promote("images", old)
    return old, new


@pytest.fixture
def run(settings: Settings, environment_of, monkeypatch, capsys) -> Run:
    """Runs a command with the test's settings."""
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["models", *arguments])
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), *capsys.readouterr())

    return call


def test_a_promotion_and_a_rollback_are_kept_and_published(run: Run, settings, client, versions):
    old, new = versions
    promoted = json.loads(run("promote", "images", new, "--reason", "fewer alarms", "--json").stdout)
    assert promoted["published"] is True
    assert (promoted["detector"], promoted["version"], promoted["replaced"]) == ("images", new, old)
    assert (promoted["by"], promoted["reason"]) == (getpass.getuser(), "fewer alarms")
    back = run("rollback", "images", "--reason", "worse after all")
    assert back.returncode == 0
    assert f"images {old} is in service from now on, in place of {new}" in back.stdout
    assert "warning" not in back.stderr

    messages = client.read(settings.topics.model_updates, lambda found: len(found) == 2)
    updates = [json.loads(message.value()) for message in messages]
    assert {message.key() for message in messages} == {b"images"}
    assert [(each["version"], each["action"], each["reason"]) for each in updates] == [
        (new, "promote", "fewer alarms"),
        (old, "rollback", "worse after all"),
    ]
    assert updates[0]["sha256"] == Registry(settings.registry.url).manifest("images", new).sha256

    listed = {each["version"]: each for each in map(json.loads, run("list", "--json").stdout.splitlines())}
    assert (listed[old]["champion"], listed[old]["rolled_back"]) == (True, False)
    assert (listed[new]["champion"], listed[new]["rolled_back"]) == (False, True)
    shown = json.loads(run("show", "images", "--version", new, "--json").stdout)
    assert shown["rolled_back"] is True
    assert [entry["action"] for entry in shown["lineage"][-2:]] == ["promote", "rollback"]


def test_people_see_who_put_what_in_service_and_what_was_rolled_back(run: Run, versions):
    old, new = versions
    run("promote", "images", new, "--reason", "fewer alarms")
    run("rollback", "images", "--to", old)
    listed = run("list").stdout
    assert f"{old} *" in listed
    assert f"{new} ×" in listed
    assert "× rolled back" in listed
    shown = run("show", "images", "--version", new).stdout
    assert "it was rolled back" in shown
    assert "fewer alarms" in shown
    assert getpass.getuser() in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 80


def test_without_a_broker_it_is_done_all_the_same_and_said(run: Run, settings, versions, monkeypatch):
    monkeypatch.setenv("GANOMALY_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    done = run("promote", "images", versions[1], "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["published"] is False
    assert "warning: workers were not told" in done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert Registry(settings.registry.url).champion("images") == versions[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("promote", "images", "gone"), 1, "detector images has no version gone"),
        (("promote", "images", "../gone"), 1, "letters, digits"),
        (("rollback", "images"), 1, "no version to go back to"),
        (("rollback", "images", "--to", "gone"), 1, "detector images has no version gone"),
        (("rollback", "nothing"), 1, "no version to go back to"),
        (("rollback", "images", "--reason", "x" * 1001), 2, "--reason: 1001 characters; at most 1000"),
    ],
)
def test_what_can_not_be_put_in_service_is_said(run: Run, settings, versions, arguments, code, message):
    done = run(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert Registry(settings.registry.url).champion("images") == versions[0]


def test_a_broken_version_and_strange_folders_are_listed_or_passed_over(run: Run, settings, versions):
    old, new = versions
    root = Path(settings.registry.url)
    (root / "lost+found").mkdir()
    (root / "images" / "old backup").mkdir()
    (root / "images" / new / "manifest.json").write_text("{")
    listed = run("list")
    assert listed.returncode == 0
    assert f"{old} *" in listed.stdout
    assert f"images {new} is broken: " in listed.stdout
    told = {each["version"]: each for each in map(json.loads, run("list", "--json").stdout.splitlines())}
    assert told[old]["champion"]
    assert "manifest.json" in told[new]["broken"]
    assert run("show", "images").returncode == 0
    shown = run("show", "images", "--version", new)
    assert shown.returncode == 1
    assert f"version {new} is broken: " in shown.stderr
    (root / "images" / "lineage.json").write_text("{")
    assert "images lineage.json is broken: " in run("list").stdout


def test_a_rollback_says_which_versions_it_passed_over(run: Run, settings, parts, versions):
    old, new = versions
    manifest = parts.manifest.model_copy(update={"name": "images", "created_at": datetime(2026, 5, 3, tzinfo=UTC)})
    newest = Registry(settings.registry.url).save(manifest, parts.network, "# card")
    for version in (new, newest):
        run("promote", "images", version)
    weights = Path(settings.registry.url, "images", new, "weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    back = run("rollback", "images")
    assert f"images {old} is in service from now on, in place of {newest}" in back.stdout
    assert "passed over: " in back.stderr
    assert new in back.stderr
    assert "SHA-256" in back.stderr

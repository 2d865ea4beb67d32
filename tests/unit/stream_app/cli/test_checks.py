"""`doctor` without servers: what it says of a broker, a Redis and a registry that can't be reached."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_app.cli import checks
from stream_app.cli.checks import (
    State,
    check_device,
    check_http,
    check_kafka,
    check_redis,
    check_registry,
)
from stream_app.cli.kafka import silence_client
from stream_app.settings import Settings


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


def settings(**sections: dict[str, object]) -> Settings:
    return Settings.model_validate(sections)


def test_a_broker_that_is_not_there_is_named_with_the_way_out(closed_port: int):
    silence_client()
    (found,) = check_kafka(settings(kafka={"bootstrap_servers": f"127.0.0.1:{closed_port}"}))
    assert found.state is State.TROUBLE
    assert found.message == f"127.0.0.1:{closed_port} (PLAINTEXT) can't be reached: no broker answers there"
    assert "GANOMALY_KAFKA__BOOTSTRAP_SERVERS" in found.mend


def test_a_broker_that_never_answers_is_given_up_before_the_clients_own_patience_ends(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
):
    silence_client()
    monkeypatch.setattr(checks, "PATIENCE", 0.2)
    (found,) = check_kafka(settings(kafka={"bootstrap_servers": f"127.0.0.1:{silent_port}", "request_timeout": 3600}))
    assert found.state is State.TROUBLE
    assert found.message.endswith("can't be reached: no answer in time")


def test_a_redis_that_is_not_there_is_named_without_its_password(closed_port: int):
    (found,) = check_redis(settings(redis={"url": f"redis://:pa55@127.0.0.1:{closed_port}/0"}))
    assert found.state is State.TROUBLE
    assert f"redis://:***@127.0.0.1:{closed_port}/0 can't be reached" in found.message
    assert "GANOMALY_REDIS__URL" in found.mend
    assert "pa55" not in str(found)


@pytest.mark.parametrize(("patience", "timeout"), [(0.2, 3600), (3600, 0.2)])
def test_a_redis_that_never_answers_is_given_up_at_the_shorter_of_the_limits(
    silent_port: int, patience: float, timeout: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checks, "PATIENCE", patience)
    (found,) = check_redis(settings(redis={"url": f"redis://127.0.0.1:{silent_port}/0", "timeout": timeout}))
    assert found.state is State.TROUBLE
    assert "Timeout" in found.message


def test_a_url_that_is_none_of_redis_is_trouble_and_no_traceback():
    (found,) = check_redis(settings(redis={"url": "http://127.0.0.1"}))
    assert found.state is State.TROUBLE


def test_a_registry_that_can_t_be_reached_is_trouble():
    (found,) = check_registry(settings(registry={"url": "nowhere://models"}))
    assert found.state is State.TROUBLE
    assert "GANOMALY_REGISTRY__URL" in found.mend


def test_a_route_without_a_champion_says_how_to_get_one(tmp_path: Path):
    registry, route = check_registry(
        Settings.model_validate({"routes": {"pictures": "cats"}, "registry": {"url": str(tmp_path)}})
    )
    assert registry.state is State.OK
    assert route.state is State.TROUBLE
    assert route.check == "route pictures"
    assert f"--name cats --registry {tmp_path}" in route.mend


def test_a_broken_version_is_noted_and_hides_no_other(tmp_path: Path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "cats" / "v1").mkdir(parents=True)
    (tmp_path / "cats" / "v1" / "manifest.json").write_text("{")
    registry, note, route = check_registry(
        Settings.model_validate({"routes": {"pictures": "cats"}, "registry": {"url": str(tmp_path)}})
    )
    assert registry.message.endswith("detectors: cats")
    assert (note.check, note.state) == ("cats v1", State.NOTE)
    assert note.message.startswith("broken: ")
    assert note.mend
    assert route.check == "route pictures"


def test_a_taken_port_is_named(silent_port: int):
    (found,) = check_http(settings(http={"port": silent_port}))
    assert found.state is State.TROUBLE
    assert str(silent_port) in found.message
    assert "GANOMALY_HTTP__PORT" in found.mend


def test_a_free_port_is_fine(closed_port: int):
    assert [found.state for found in check_http(settings(http={"port": closed_port}))] == [State.OK]


def test_a_device_that_is_not_there_is_trouble():
    (found,) = check_device(settings(worker={"device": "cuda:77"}))
    assert found.state is State.TROUBLE
    assert "GANOMALY_WORKER__DEVICE" in found.mend

"""Servers for the tests that need some, and settings that keep one test's topics and keys from another's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pydantic import BaseModel, SecretStr

from stream_app.local import EmbeddedServers
from stream_app.settings import Settings, load_settings

NAMED_BY = ("GANOMALY_KAFKA__BOOTSTRAP_SERVERS", "GANOMALY_REDIS__URL")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what the embedded broker can't do, unless the environment names another one."""
    if NAMED_BY[0] in os.environ:
        return
    for item in items:
        if item.get_closest_marker("apache_kafka"):
            item.add_marker(pytest.mark.skip(reason=f"needs Apache Kafka: name one in {NAMED_BY[0]}"))


@pytest.fixture(scope="session", autouse=True)
def _no_versions_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps workers of tests, in whatever process, from what is kept on this machine for real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GANOMALY_REGISTRY__CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def servers() -> Iterator[Settings]:
    """Settings that point at a broker and a Redis: those that the environment names, embedded ones otherwise."""
    named = [name for name in NAMED_BY if name in os.environ]
    if named and len(named) < len(NAMED_BY):
        raise pytest.UsageError(f"the environment names {named[0]} alone; the tests need all of {', '.join(NAMED_BY)}")
    if named:
        yield load_settings()
        return
    with EmbeddedServers() as embedded:
        yield embedded.settings


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of a bucket on a moto server, a process of its own; this process and those it starts find it by AWS_…."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        try:
            _wait_for(port, server)
            fsspec.filesystem("s3").mkdir("models")
            yield "s3://models"
        finally:
            server.kill()
            server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, "the moto server ended"
        time.sleep(0.1)
    raise AssertionError("the moto server did not answer")


@pytest.fixture
def settings_factory(servers: Settings, tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings for one test: servers that run, and topics, a consumer group and Redis keys of its own.

    Each call takes sections and what to change in them: `settings_factory(kafka={"partitions": 1}, scores={"publish":
    True})`. Calls of one test share their names, so that a second worker or a restart finds what the first one left.
    `routes` gives the default detectors, each on the test's own topic, unless it is given.
    """
    unique = uuid.uuid4().hex[:8]

    def make(**sections: Any) -> Settings:
        routes = sections.pop("routes", {f"{topic}-{unique}": name for topic, name in servers.routes.items()})
        topics = {name: f"{topic}-{unique}" for name, topic in servers.topics.model_dump().items()}
        own: dict[str, dict[str, Any]] = {
            "topics": topics,
            "kafka": {"group_id": f"test-{unique}"},
            "redis": {"prefix": f"test-{unique}"},
            "registry": {"cache": str(tmp_path / "cache")},
        }
        for name, changes in sections.items():
            own[name] = own.get(name, {}) | changes
        data = {name: getattr(servers, name).model_dump() for name in type(servers).model_fields if name != "routes"}
        merged = {name: data[name] | own.get(name, {}) for name in data}
        return Settings.model_validate({**merged, "routes": routes})

    return make


@pytest.fixture
def environment_of() -> Callable[[Settings], dict[str, str]]:
    """Turns settings into the environment of a process that reads them: this one's, with every setting on top."""

    def variables(settings: Settings) -> dict[str, str]:
        own = {"GANOMALY_ROUTES": json.dumps(settings.routes)}
        for section, model in settings:
            if isinstance(model, BaseModel):
                own |= {
                    f"GANOMALY_{section}__{name}".upper(): _text(value) for name, value in model if value is not None
                }
        return os.environ | own

    return variables


def _text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

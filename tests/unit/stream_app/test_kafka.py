"""How a broker is reached, and what is said when it can't be."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from stream_app.errors import BrokerUnavailable, SettingsError, TopicUnavailable
from stream_app.kafka import broker_errors, client_options, end_tasks, reason, ssl_context
from stream_app.settings import KafkaSettings


def test_a_plain_broker_needs_its_address_alone():
    options = client_options(KafkaSettings(bootstrap_servers="a:1,b:2", request_timeout=2.5))
    assert options == {"bootstrap_servers": "a:1,b:2", "security_protocol": "PLAINTEXT", "request_timeout_ms": 2500}


def test_sasl_passes_its_password_on():
    kafka = KafkaSettings(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="SCRAM-SHA-512", sasl_username="ada", sasl_password="secret"
    )
    options = client_options(kafka)
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_username"] == "ada"
    assert options["sasl_plain_password"] == "secret"
    assert "ssl_context" not in options


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_tls_checks_the_brokers_certificate_and_name(protocol):
    kafka = KafkaSettings(security_protocol=protocol, sasl_username="ada", sasl_password="secret")
    context = client_options(kafka)["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_certificate_that_can_not_be_read_is_named(tmp_path: Path):
    garbage = tmp_path / "ca.pem"
    garbage.write_text("no certificate")
    for path in (garbage, tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match=f"GANOMALY_KAFKA__SSL_CAFILE={path}"):
            client_options(KafkaSettings(security_protocol="SSL", ssl_cafile=path))


def test_without_tls_there_is_nothing_to_trust():
    assert ssl_context(KafkaSettings()) is None


@pytest.mark.parametrize("error", [KafkaConnectionError("refused"), OSError("unreachable"), TimeoutError()])
def test_what_a_client_raises_names_the_address_its_setting_and_the_way_out(error: Exception):
    with pytest.raises(BrokerUnavailable) as raised, broker_errors(KafkaSettings(bootstrap_servers="a:1")):
        raise error
    assert str(raised.value).startswith(f"Kafka at a:1 (GANOMALY_KAFKA__BOOTSTRAP_SERVERS): {reason(error)}. ")
    assert "doctor" in str(raised.value)


def test_other_errors_pass_as_they_are():
    with pytest.raises(TopicUnavailable, match="no such topic"), broker_errors(KafkaSettings()):
        raise TopicUnavailable("no such topic")


def test_a_reason_says_what_is_wrong_in_words():
    assert reason(KafkaConnectionError("Unable to bootstrap")) == "no broker answers there"
    assert reason(TimeoutError()) == "no answer in time"
    assert "TopicAuthorizationFailed" in reason(TopicAuthorizationFailedError())


async def test_a_task_that_takes_its_end_for_that_of_something_else_ends_all_the_same():
    """As aiokafka's consumers do: while one is closed, whoever closes it can't be cancelled."""
    closing = asyncio.Event()

    async def close():
        fetching = asyncio.create_task(asyncio.sleep(60))
        closing.set()
        with suppress(asyncio.CancelledError):
            await fetching

    async def follow():
        await close()
        await asyncio.sleep(60)

    task = asyncio.create_task(follow())
    failing = asyncio.create_task(asyncio.sleep(0, result=1))
    await closing.wait()
    async with asyncio.timeout(5):
        await end_tasks(task, failing)
    assert task.cancelled()
    await end_tasks()


async def test_an_end_that_is_itself_cancelled_has_cancelled_its_tasks():
    task = asyncio.create_task(asyncio.sleep(60))
    ending = asyncio.create_task(end_tasks(task))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    with pytest.raises(asyncio.CancelledError):
        await task

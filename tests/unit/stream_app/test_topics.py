"""How a broker is reached, and which topics there must be."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from stream_app.errors import SettingsError
from stream_app.settings import KafkaSettings, Settings
from stream_app.topics import kafka_client_options, required_topics


def test_a_plain_broker_needs_its_address_alone():
    options = kafka_client_options(KafkaSettings(bootstrap_servers="a:1,b:2", request_timeout=2.5))
    assert options == {"bootstrap_servers": "a:1,b:2", "security_protocol": "PLAINTEXT", "request_timeout_ms": 2500}


def test_sasl_passes_its_password_on():
    kafka = KafkaSettings(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="SCRAM-SHA-512", sasl_username="ada", sasl_password="secret"
    )
    options = kafka_client_options(kafka)
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_username"] == "ada"
    assert options["sasl_plain_password"] == "secret"
    assert "ssl_context" not in options


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_tls_checks_the_brokers_certificate_and_name(protocol):
    kafka = KafkaSettings(security_protocol=protocol, sasl_username="ada", sasl_password="secret")
    context = kafka_client_options(kafka)["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_certificate_that_can_not_be_read_is_named(tmp_path: Path):
    garbage = tmp_path / "ca.pem"
    garbage.write_text("no certificate")
    for path in (garbage, tmp_path / "missing.pem"):
        with pytest.raises(SettingsError, match=f"GANOMALY_KAFKA__SSL_CAFILE={path}"):
            kafka_client_options(KafkaSettings(security_protocol="SSL", ssl_cafile=path))


def test_every_topic_of_the_settings_is_required_and_only_model_updates_is_compacted():
    settings = Settings(routes={"cameras": "images"}, topics={"alerts": "alarms"})
    assert required_topics(settings) == {
        "cameras": {},
        "alarms": {},
        "scores": {},
        "records.dead-letter": {},
        "labels": {},
        "model.updates": {"cleanup.policy": "compact"},
    }

"""What is printed of settings holds no password."""

from __future__ import annotations

import pytest

from stream_app.cli.secrets import MASK, changed, effective, mask
from stream_app.settings import Settings


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ("redis://user:pa55@host:6379/0", "redis://user:***@host:6379/0"),
        ("rediss://:pa55@host/0", "rediss://:***@host/0"),
        ("redis://host:6379/0?password=pa55&db=1", "redis://host:6379/0?password=***&db=1"),
        ("s3://key:pa:55@bucket/models", "s3://key:***@bucket/models"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("models", "models"),
    ],
)
def test_passwords_of_urls_are_masked_and_nothing_else(given: str, printed: str):
    assert mask(given) == printed


def test_no_secret_is_among_the_effective_settings():
    settings = Settings.model_validate(
        {
            "kafka": {"security_protocol": "SASL_SSL", "sasl_username": "u", "sasl_password": "pa55"},
            "redis": {"url": "redis://:pa55@host/0"},
            "registry": {"url": "s3://key:pa55@bucket"},
        }
    )
    found = effective(settings)
    assert found["GANOMALY_KAFKA__SASL_PASSWORD"] == MASK
    assert found["GANOMALY_REDIS__URL"] == "redis://:***@host/0"
    assert "pa55" not in str(found)


def test_every_setting_is_printed_under_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch):
    name = "GANOMALY_THRESHOLD__TARGET_RATE"
    monkeypatch.setenv(name, "0.25")
    assert effective(Settings())[name] == 0.25
    assert len(effective(Settings())) > 50


def test_a_changed_setting_is_told_from_its_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GANOMALY_REGISTRY__CACHE")
    assert changed(Settings()) == set()
    assert changed(Settings.model_validate({"redis": {"url": "redis://other"}})) == {"GANOMALY_REDIS__URL"}

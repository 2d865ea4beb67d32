"""One settings tree: options over environment over file, and errors that name the setting."""

from __future__ import annotations

import pytest

from stream_app.errors import SettingsError
from stream_app.settings import ThresholdSettings, load_settings, target_rate


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("kafka: {partitions: 3, group_id: from-file}\nhttp: {port: 1}\nroutes: {a: b}\n")
    return path


def test_options_win_over_the_environment_and_that_over_the_file(config, monkeypatch):
    monkeypatch.setenv("GANOMALY_KAFKA__GROUP_ID", "from-environment")
    monkeypatch.setenv("GANOMALY_HTTP__PORT", "2")
    settings = load_settings(config, {"http.port": 3, "kafka.group_id": None})
    assert (settings.kafka.partitions, settings.kafka.group_id, settings.http.port) == (3, "from-environment", 3)
    assert settings.routes == {"a": "b"}


def test_the_defaults_are_the_documented_routes_and_topics(monkeypatch):
    for name in ("GANOMALY_ROUTES", "GANOMALY_KAFKA__PARTITIONS"):
        monkeypatch.delenv(name, raising=False)
    settings = load_settings()
    assert settings.routes == {"records.images": "images", "records.sequences": "sequences"}
    assert settings.topics.dead_letter == "records.dead-letter"
    assert (settings.kafka.partitions, settings.http.host, settings.http.port) == (4, "127.0.0.1", 6066)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "GANOMALY_BATCH__LINGER",
            "-1",
            "GANOMALY_BATCH__LINGER: Input should be greater than or equal to 0 (given: '-1')",
        ),
        ("GANOMALY_THRESHOLD__TARGET_RATE", "2", "GANOMALY_THRESHOLD__TARGET_RATE"),
        ("GANOMALY_ALERTS__PUBLISH", "some", "'anomalies' or 'all'"),
        ("GANOMALY_KAFKA__SECURITY_PROTOCOL", "SASL_SSL", "needs sasl_username and sasl_password"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_may_be(name, value, says, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "name", "nearest"),
    [
        ("kafka: {partition: 3}", "GANOMALY_KAFKA__PARTITION", "; did you mean GANOMALY_KAFKA__PARTITIONS?"),
        ("kafak: {partitions: 3}", "GANOMALY_KAFAK", "; did you mean GANOMALY_KAFKA?"),
        ("zebra: 1", "GANOMALY_ZEBRA", ""),
    ],
)
def test_a_setting_that_does_not_exist_is_refused_with_the_nearest_that_does(text, name, nearest, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        load_settings(path)
    assert str(error.value) == f"wrong settings:\n  {name}: there is no such setting{nearest}"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("GANOMALY_KAFKA__PARTITION", "GANOMALY_KAFKA__PARTITIONS"),
        ("GANOMALY_KAFAK__PARTITIONS", "GANOMALY_KAFKA__PARTITIONS"),
        ("ganomaly_treshold__target_rate", "GANOMALY_THRESHOLD__TARGET_RATE"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_with_the_nearest_that_is(name, nearest, monkeypatch):
    monkeypatch.setenv(name, "3")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value) == f"wrong settings:\n  {name.upper()}: there is no such setting; did you mean {nearest}?"


def test_variables_that_kubernetes_sets_for_a_service_are_left_alone(monkeypatch):
    monkeypatch.setenv("GANOMALY_PORT", "tcp://10.0.0.1:6066")
    monkeypatch.setenv("GANOMALY_STREAM_SERVICE_HOST", "10.0.0.1")
    assert load_settings().http.port == 6066


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kafka:\n  group_id: [", "not YAML in line 2"),
        ("just text", "expected sections of settings"),
        ("- 1", "expected"),
    ],
)
def test_a_file_that_is_not_settings_is_said(text, says, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        load_settings(path)


@pytest.mark.parametrize("value", ["x", "{", '"x"', "[1]"])
def test_what_is_no_json_object_is_named_with_one_that_is(value, monkeypatch):
    monkeypatch.setenv("GANOMALY_ROUTES", value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    expected = '{"records.images": "images", "records.sequences": "sequences"}'
    assert str(error.value) == f"wrong settings:\n  GANOMALY_ROUTES: expected JSON, like {expected}"


@pytest.mark.parametrize("value", ["redis://:hunter2@host", '"redis://:hunter2@host"'])
def test_a_section_in_a_variable_is_json_and_no_error_shows_it(value, monkeypatch):
    monkeypatch.setenv("GANOMALY_REDIS", value)
    with pytest.raises(
        SettingsError, match=r"GANOMALY_REDIS: expected a JSON object.*like GANOMALY_REDIS__URL$"
    ) as error:
        load_settings()
    assert "hunter2" not in str(error.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(SettingsError, match=r"--config .*missing\.yaml: there is no such file"):
        load_settings(tmp_path / "missing.yaml")


def test_secrets_are_in_no_error(monkeypatch):
    monkeypatch.setenv("GANOMALY_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("GANOMALY_KAFKA__SASL_PASSWORD", "hunter2")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "sasl_username" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_alerts_a_day_follow_the_streams_pace():
    daily = ThresholdSettings(alerts_per_day=24)
    assert target_rate(daily, records_per_second=1.0) == pytest.approx(24 / 86400)
    assert target_rate(daily, records_per_second=None) == daily.target_rate
    assert target_rate(ThresholdSettings(target_rate=0.02), records_per_second=1.0) == 0.02

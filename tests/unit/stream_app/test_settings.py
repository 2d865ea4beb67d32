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


STREAMS = '{"pump-[12]": {"target_rate": 0.01}, "pump-*": {"alerts_per_day": 3}}'


@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_stream_has_the_budget_of_the_first_pattern_that_fits_its_name(where, monkeypatch, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(f"threshold: {{target_rate: 0.002, horizon: 99, streams: {STREAMS}}}" if where == "file" else "")
    if where == "environment":
        monkeypatch.setenv("GANOMALY_THRESHOLD__STREAMS", STREAMS)
        monkeypatch.setenv("GANOMALY_THRESHOLD__TARGET_RATE", "0.002")
        monkeypatch.setenv("GANOMALY_THRESHOLD__HORIZON", "99")
    threshold = load_settings(path if where == "file" else None).threshold
    own = {name: threshold.of(name) for name in ("pump-1", "pump-2", "pump-10", "Pump-1", "door")}
    assert {name: (each.target_rate, each.alerts_per_day, each.horizon) for name, each in own.items()} == {
        "pump-1": (0.01, None, 99),
        "pump-2": (0.01, None, 99),
        "pump-10": (0.002, 3.0, 99),
        "Pump-1": (0.002, None, 99),
        "door": (0.002, None, 99),
    }
    assert own["pump-1"] is own["pump-2"]
    assert own["door"] is threshold


def test_patterns_of_the_environment_come_before_those_of_the_file(monkeypatch, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(
        "threshold: {streams: {'pump-*': {target_rate: 0.02}, 'door-*': {target_rate: 0.03}, '*': {target_rate: 0.04}}}"
    )
    monkeypatch.setenv(
        "GANOMALY_THRESHOLD__STREAMS", '{"pump-7": {"target_rate": 0.01}, "door-*": {"alerts_per_day": 2}}'
    )
    threshold = load_settings(path).threshold
    assert list(threshold.streams) == ["pump-7", "door-*", "pump-*", "*"]
    assert (threshold.of("pump-7").target_rate, threshold.of("pump-1").target_rate) == (0.01, 0.02)
    assert (threshold.of("door-1").alerts_per_day, threshold.of("gate").target_rate) == (2, 0.04)


def test_a_pattern_with_a_rate_has_it_where_all_others_have_alerts_a_day():
    settings = ThresholdSettings(alerts_per_day=24, streams={"pump": {"target_rate": 0.01}})
    assert (settings.of("pump").alerts_per_day, settings.of("pump").target_rate) == (None, 0.01)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('{"pump-*": {}}', "pump-*: Value error, a pattern needs one of target_rate and alerts_per_day, not both"),
        ('{"P": {"target_rate": 0.1, "alerts_per_day": 1}}', "P: Value error, a pattern needs one of"),
        ('{"pump-*": {"target_rate": 2}}', "pump-*.target_rate: Input should be less than 0.5 (given: 2)"),
        ('{"pump-*": {"rate": 0.1}}', "pump-*.rate: there is no such setting"),
        ('{"pump-*": 0.1}', 'pump-*: expected JSON, like {"pump-*": {"target_rate": 0.01}'),
        ("pump-*: 0.1", 'expected JSON, like {"pump-*": {"target_rate": 0.01}'),
        ("[1]", 'expected JSON, like {"pump-*": {"target_rate": 0.01}'),
    ],
)
def test_a_wrong_budget_is_named_with_its_pattern(value, says, monkeypatch):
    monkeypatch.setenv("GANOMALY_THRESHOLD__STREAMS", value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert f"  GANOMALY_THRESHOLD__STREAMS: {says}" in str(error.value)


def test_an_episode_that_could_never_open_is_refused(monkeypatch):
    monkeypatch.setenv("GANOMALY_ALERTS__OPEN_AFTER", "3")
    with pytest.raises(SettingsError, match="open_within=1 records can't hold open_after=3 of them"):
        load_settings()

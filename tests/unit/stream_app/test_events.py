import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from pydantic import ValidationError

from stream_app.events import (
    SCHEMA_FOLDER,
    SCHEMAS,
    Alert,
    Label,
    ModelUpdate,
    ScoreEvent,
    encode,
    event_id,
    json_schema,
    rfc3339,
)

EVENT: dict[str, Any] = {
    "id": event_id("images", "records.images", 0, 7),
    "stream": "camera 3 \N{SNOWMAN}",
    "kind": "image",
    "is_anomaly": True,
    "score": 4.25,
    "threshold": 3.0,
    "severity": 58,
    "record": {
        "topic": "records.images",
        "partition": 0,
        "offset": 7,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "id": None,
    },
    "model": {"name": "images", "version": "20260101", "sha256": "0" * 64},
    "policy": {"name": "rolling-pot", "target_rate": 0.001, "observations": 12, "min_observations": 500, "warm": False},
    "raw": {"latent": 0.25, "reconstruction": 1.5},
    "degraded": False,
    "scored_at": "2026-01-01T00:00:00.250Z",
}
IMAGE_EVIDENCE = {"heat_map_png": "iVBORw0KGgo=", "peak": 0.5, "box": [1, 2, 3, 4]}
SEQUENCE_EVIDENCE = {
    "steps": [0.5, 0.25],
    "steps_per_entry": 1,
    "features": [0.75],
    "top": [{"step": 0, "feature": 0, "value": 0.5}],
    "contributions": [[0.5], [0.25]],
}
EPISODE = {"since": "2026-01-01T00:00:00.000Z", "anomalous": 1, "worst_score": 4.25, "severity": 58}
ALERT: dict[str, Any] = EVENT | {
    "episode_id": EVENT["id"],
    "state": "open",
    "episode": EPISODE,
    "evidence": IMAGE_EVIDENCE,
}
LABEL: dict[str, Any] = {
    "id": EVENT["id"],
    "detector": "images",
    "topic": "records.images",
    "partition": 0,
    "offset": 7,
    "stream": EVENT["stream"],
    "label": "normal",
    "score": 4.25,
    "threshold": 3.0,
    "at": "2026-01-01T00:01:00.000Z",
}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((SCHEMA_FOLDER / name).read_text(encoding="utf-8"))
    return Draft202012Validator(schema, format_checker=FormatChecker())


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_file_is_the_one_of_the_code(name: str) -> None:
    file = json.loads((SCHEMA_FOLDER / name).read_text(encoding="utf-8"))

    assert file == json_schema(SCHEMAS[name])
    Draft202012Validator.check_schema(file)


@pytest.mark.parametrize("evidence", [IMAGE_EVIDENCE, SEQUENCE_EVIDENCE, None])
@pytest.mark.parametrize("state", ["open", "update", "close", "shift", None])
@pytest.mark.parametrize("episode", [EPISODE, None])
def test_an_encoded_alert_fits_its_schema_and_comes_back_the_same(
    evidence: object, state: object, episode: object
) -> None:
    alert = Alert.model_validate(ALERT | {"evidence": evidence, "state": state, "episode": episode})

    data = encode(alert)

    validator("alert.schema.json").validate(json.loads(data))
    assert Alert.model_validate_json(data) == alert


def test_an_encoded_score_fits_its_schema_and_comes_back_the_same() -> None:
    event = ScoreEvent.model_validate(EVENT)

    data = encode(event)

    validator("score.schema.json").validate(json.loads(data))
    assert ScoreEvent.model_validate_json(data) == event


@pytest.mark.parametrize("label", ["normal", "anomaly", "none"])
@pytest.mark.parametrize("more", [{}, {"score": None, "threshold": None}, {"by": "somebody", "note": "a shadow"}])
def test_an_encoded_label_fits_its_schema_and_comes_back_the_same(label: str, more: dict[str, Any]) -> None:
    said = Label.model_validate(LABEL | {"label": label} | more)

    data = encode(said)

    validator("label.schema.json").validate(json.loads(data))
    validator("label.schema.json").validate(LABEL | {"label": label} | more)
    assert Label.model_validate_json(data) == said


def test_an_event_from_before_labels_can_be_read() -> None:
    policy = ScoreEvent.model_validate(EVENT).policy

    assert (policy.labels, policy.shift) == (0, 0.0)


def test_a_score_has_an_alerts_fields_without_episode_and_evidence() -> None:
    assert set(Alert.model_fields) - set(ScoreEvent.model_fields) == {"episode_id", "state", "episode", "evidence"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"surprise": 1},
        {"schema_version": 2},
        {"score": math.nan},
        {"threshold": math.inf},
        {"score": -0.1},
        {"severity": 101},
        {"id": "not a hash"},
        {"scored_at": "2026-01-01 00:00:00"},
        {"scored_at": "2026-13-45T99:99:99.000Z"},
        {"raw": {"latent": math.nan}},
        {"record": EVENT["record"] | {"offset": -1}},
        {"model": EVENT["model"] | {"sha256": "abc"}},
        {"kind": "sound"},
    ],
    ids=str,
)
def test_a_wrong_field_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ScoreEvent.model_validate(EVENT | wrong)


@pytest.mark.parametrize("at", ["2026-13-01T00:00:00.000Z", "2026-02-30T00:00:00.000Z", "2026-01-01T24:01:00.000Z"])
def test_an_update_or_a_label_at_a_time_that_there_is_not_is_refused(at: str) -> None:
    update = {"detector": "images", "version": "v", "sha256": "0" * 64, "action": "shadow"}
    ModelUpdate.model_validate(update | {"at": "2026-01-01T00:00:00.000Z"})
    for event, fields in ((ModelUpdate, update), (Label, LABEL)):
        with pytest.raises(ValidationError, match="at\n"):
            event.model_validate(fields | {"at": at})


@pytest.mark.parametrize("missing", sorted(set(Alert.model_fields) - {"schema_version"}))
def test_a_missing_field_is_refused_by_the_code_and_by_the_schema(missing: str) -> None:
    incomplete = {name: value for name, value in ALERT.items() if name != missing}

    with pytest.raises(ValidationError):
        Alert.model_validate(incomplete)
    assert not validator("alert.schema.json").is_valid({"schema_version": 1} | incomplete)


def test_an_event_can_not_be_changed() -> None:
    event = ScoreEvent.model_validate(EVENT)

    with pytest.raises(ValidationError):
        event.score = 1.0


def test_an_id_is_the_same_forever() -> None:
    assert event_id("images", "records.images", 0, 7) == "655890c1397b642976f63637c464a69c"


@given(
    st.tuples(st.text(), st.text(), st.integers(0, 9), st.integers(0)),
    st.tuples(st.text(), st.text(), st.integers(0, 9), st.integers(0)),
)
def test_two_records_have_two_ids(one: tuple[str, str, int, int], other: tuple[str, str, int, int]) -> None:
    assert (event_id(*one) == event_id(*other)) == (one == other)


def test_separators_in_a_name_do_not_make_two_records_one() -> None:
    assert event_id("a:b", "c", 0, 7) != event_id("a", "b:c", 0, 7)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.1239, "2023-11-14T22:13:20.123Z"),
        (-0.001, "1969-12-31T23:59:59.999Z"),
        (math.inf, "9999-12-31T23:59:59.000Z"),
        (-1e300, "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_is_written_in_utc_within_four_digit_years(seconds: float, text: str) -> None:
    assert rfc3339(seconds) == text


@given(st.floats(allow_nan=False))
def test_every_time_gives_a_timestamp_the_schema_takes(seconds: float) -> None:
    event = EVENT | {"schema_version": 1, "scored_at": rfc3339(seconds)}

    assert validator("score.schema.json").is_valid(event)


def test_a_time_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        rfc3339(math.nan)

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from stream_app.alerts import (
    HEAT_MAP_SIDE,
    MAX_CONTRIBUTIONS,
    MAX_ENTRIES,
    evidence_of,
    fit,
    image_evidence,
    sequence_evidence,
)
from stream_app.errors import LimitError
from stream_app.events import (
    SCHEMA_FOLDER,
    Alert,
    EpisodeRef,
    EpisodeState,
    ImageEvidence,
    ModelRef,
    PolicyRef,
    RecordRef,
    SequenceEvidence,
    event_id,
)
from stream_app.records import Kind

ID = event_id("images", "records.images", 0, 0)


def make_alert(evidence: ImageEvidence | SequenceEvidence | None, stream: str = "camera") -> Alert:
    return Alert(
        id=ID,
        stream=stream,
        kind=Kind.IMAGE,
        is_anomaly=True,
        score=4.0,
        threshold=3.0,
        severity=50,
        record=RecordRef(
            topic="records.images", partition=0, offset=0, timestamp="2026-01-01T00:00:00.000Z", id="order 66"
        ),
        model=ModelRef(name="images", version="1", sha256="0" * 64),
        policy=PolicyRef(name="rolling-pot", target_rate=1e-3, observations=500, min_observations=500, warm=True),
        raw={"latent": 0.5},
        degraded=False,
        scored_at="2026-01-01T00:00:00.250Z",
        episode_id=ID,
        state=EpisodeState.OPEN,
        episode=EpisodeRef(since="2026-01-01T00:00:00.000Z", anomalous=1, worst_score=4.0, severity=50),
        evidence=evidence,
    )


def pixels(evidence: ImageEvidence) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(evidence.heat_map_png))))


def test_the_box_is_drawn_around_the_worst_region_and_not_around_a_milder_one() -> None:
    heat_map = np.zeros((28, 40), np.float32)
    heat_map[3:6, 30:34] = 2.0
    heat_map[4, 31] = 3.0
    heat_map[6, 34] = 1.6
    heat_map[20:25, 5:9] = 2.5
    heat_map[3:6, 29] = 1.0

    evidence = image_evidence(heat_map)

    assert evidence.box == (30, 3, 35, 7)
    assert evidence.peak == 3.0
    assert pixels(evidence).shape == (28, 40)
    assert pixels(evidence)[4, 31] == 255
    assert pixels(evidence)[22, 6] == round(2.5 / 3.0 * 255)
    assert pixels(evidence)[0, 0] == 0


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 200), (480, 640), (1, 5000), (2001, 3)])
def test_a_heat_map_of_any_size_becomes_a_small_picture_whose_box_holds_the_peak(shape: tuple[int, int]) -> None:
    heat_map = np.random.default_rng(1).random(shape)
    row, column = (int(size * 0.7) for size in shape)
    heat_map[row, column] = 5.0

    evidence = image_evidence(heat_map)
    x0, y0, x1, y1 = evidence.box

    assert max(pixels(evidence).shape) <= HEAT_MAP_SIDE
    assert len(evidence.heat_map_png) < 8192
    assert 0 <= x0 <= column < x1 <= shape[1]
    assert 0 <= y0 <= row < y1 <= shape[0]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf, 1e38])
def test_a_flat_heat_map_gives_the_whole_picture(value: float) -> None:
    evidence = image_evidence(np.full((5, 7), value, np.float32))

    assert evidence.box == (0, 0, 7, 5)
    assert pixels(evidence).shape == (5, 7)


def test_a_window_tells_steps_features_and_the_largest_contributions() -> None:
    contributions = np.array([[0.0, 1.0], [2.0, 0.0], [0.123456, 4.0]], np.float32)

    evidence = sequence_evidence(contributions)

    assert evidence.steps == [1.0, 2.0, 4.123]
    assert evidence.steps_per_entry == 1
    assert evidence.features == [2.123, 5.0]
    assert [(top.step, top.feature, top.value) for top in evidence.top[:3]] == [(2, 1, 4.0), (1, 0, 2.0), (0, 1, 1.0)]
    assert evidence.contributions == [[0.0, 1.0], [2.0, 0.0], [0.1235, 4.0]]


@pytest.mark.parametrize("shape", [(1, 1), (64, 8), (4096, 200), (1, 100_000), (4095, 1)])
def test_evidence_of_a_window_of_any_size_is_bounded_and_adds_up(shape: tuple[int, int]) -> None:
    contributions = np.random.default_rng(2).random(shape, np.float32)

    evidence = sequence_evidence(contributions)

    assert len(evidence.model_dump_json()) < 64_000
    assert len(evidence.steps) <= MAX_ENTRIES
    assert len(evidence.steps) == -(-shape[0] // evidence.steps_per_entry)
    assert sum(evidence.steps) == pytest.approx(float(contributions.sum()), rel=1e-2)
    assert (evidence.features == []) == (shape[1] > MAX_ENTRIES)
    assert (evidence.contributions is None) == (contributions.size > MAX_CONTRIBUTIONS)


def test_contributions_that_are_no_numbers_do_not_break_an_alert() -> None:
    evidence = sequence_evidence(np.array([[np.nan, np.inf], [-1.0, 1.0]]))

    assert evidence.contributions == [[0.0, 1e30], [0.0, 1.0]]


@pytest.mark.parametrize("kind", Kind)
def test_an_alert_with_evidence_fits_its_schema(kind: Kind) -> None:
    evidence = evidence_of(kind, np.random.default_rng(3).random((16, 4), np.float32))
    schema = json.loads((SCHEMA_FOLDER / "alert.schema.json").read_text(encoding="utf-8"))

    data = fit(make_alert(evidence), 1 << 20)

    Draft202012Validator(schema).validate(json.loads(data))
    assert Alert.model_validate_json(data).evidence == evidence


def test_evidence_is_dropped_when_a_message_would_be_too_large() -> None:
    alert = make_alert(sequence_evidence(np.ones((64, 64), np.float32)))

    data = fit(alert, 8192)

    assert len(data) < 8192
    assert Alert.model_validate_json(data) == alert.model_copy(update={"evidence": None})


def test_an_alert_too_large_without_evidence_is_an_error_that_says_so() -> None:
    with pytest.raises(LimitError, match=r"kafka\.max_message_bytes allows 4096"):
        fit(make_alert(None, stream="\N{SNOWMAN}" * 2000), 4096)

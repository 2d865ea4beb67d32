import base64
import io
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image

from stream_app.alerts import (
    HEAT_MAP_SIDE,
    MAX_CONTRIBUTIONS,
    MAX_ENTRIES,
    Episode,
    Transition,
    evidence_of,
    fit,
    image_evidence,
    sequence_evidence,
    severity,
)
from stream_app.errors import LimitError
from stream_app.events import (
    SCHEMA_FOLDER,
    Alert,
    EpisodeState,
    ImageEvidence,
    ModelRef,
    PolicyRef,
    RecordRef,
    SequenceEvidence,
    event_id,
)
from stream_app.records import Kind
from stream_app.settings import AlertSettings

OPEN, UPDATE, CLOSE = EpisodeState.OPEN, EpisodeState.UPDATE, EpisodeState.CLOSE
IDS = [event_id("images", "records.images", 0, offset) for offset in range(200)]


def make_alert(evidence: ImageEvidence | SequenceEvidence | None, stream: str = "camera") -> Alert:
    return Alert(
        id=IDS[0],
        stream=stream,
        kind=Kind.IMAGE,
        is_anomaly=True,
        score=4.0,
        threshold=3.0,
        severity=severity(4.0, 3.0),
        record=RecordRef(
            topic="records.images", partition=0, offset=0, timestamp="2026-01-01T00:00:00.000Z", id="order 66"
        ),
        model=ModelRef(name="images", version="1", sha256="0" * 64),
        policy=PolicyRef(name="rolling-pot", target_rate=1e-3, observations=500, warm=True),
        raw={"latent": 0.5},
        degraded=False,
        scored_at="2026-01-01T00:00:00.250Z",
        episode_id=IDS[0],
        state=OPEN,
        evidence=evidence,
    )


def run(episode: Episode, anomalies: str) -> list[tuple[int, Transition]]:
    """Advances over one character a record, `x` the anomalous ones; what was told, by the record's place."""
    told = [(at, episode.advance(mark == "x", IDS[at])) for at, mark in enumerate(anomalies)]
    return [(at, transition) for at, transition in told if transition is not None]


def test_severity_halves_its_distance_to_100_with_each_step_above_the_threshold() -> None:
    assert [severity(score, 3.0) for score in (0.0, 3.0, 4.0, 5.0, 6.0, 1e9)] == [0, 0, 50, 75, 87, 100]


@given(st.lists(st.floats(0.0, 1e6), min_size=2).map(sorted), st.floats(0.0, 1e6))
def test_severity_rises_with_the_score_and_falls_with_the_threshold(scores: list[float], threshold: float) -> None:
    for low, high in pairwise(scores):
        assert 0 <= severity(low, threshold) <= severity(high, threshold) <= 100
        assert severity(threshold, high) <= severity(threshold, low)


def test_every_crossing_is_told_and_enough_normal_records_in_a_row_close() -> None:
    told = run(Episode(AlertSettings(close_after=3)), "..x.x..x...x..")

    assert told == [
        (2, Transition(IDS[2], OPEN)),
        (4, Transition(IDS[2], UPDATE)),
        (7, Transition(IDS[2], UPDATE)),
        (10, Transition(IDS[2], CLOSE)),
        (11, Transition(IDS[11], OPEN)),
    ]


@given(st.text(alphabet="x.", max_size=200), st.integers(1, 5), st.integers(0, 200))
def test_an_episode_saved_and_read_back_goes_on_as_if_it_had_not_been(marks: str, close_after: int, cut: int) -> None:
    policy = AlertSettings(close_after=close_after)
    whole = run(Episode(policy), marks)

    episode, told = Episode(policy), []
    for at, mark in enumerate(marks):
        if at == cut:
            episode = Episode.from_bytes(episode.to_bytes(), policy)
        transition = episode.advance(mark == "x", IDS[at])
        if transition is not None:
            told.append((at, transition))

    assert told == whole


@given(st.text(alphabet="x.", max_size=200), st.integers(1, 5))
def test_episodes_open_first_close_last_and_tell_every_crossing(marks: str, close_after: int) -> None:
    told = run(Episode(AlertSettings(close_after=close_after)), marks)

    assert [at for at, transition in told if transition.state is not CLOSE] == [
        at for at, mark in enumerate(marks) if mark == "x"
    ]
    by_episode: dict[str, list[EpisodeState]] = {}
    for _, transition in told:
        by_episode.setdefault(transition.episode_id, []).append(transition.state)
    for number, states in enumerate(by_episode.values()):
        assert states[0] is OPEN
        assert OPEN not in states[1:]
        assert CLOSE not in states[:-1]
        assert states[-1] is CLOSE or number == len(by_episode) - 1


def test_an_open_episode_has_an_id_and_a_closed_one_has_none() -> None:
    episode = Episode(AlertSettings(close_after=1))
    episode.advance(True, IDS[0])
    opened = episode.id
    episode.advance(False, IDS[1])

    assert (opened, episode.id) == (IDS[0], None)


@pytest.mark.parametrize("marks", ["x", "xx", "x.", "x...."])
def test_a_replayed_crossing_is_told_with_its_episode_and_changes_nothing(marks: str) -> None:
    episode = Episode(AlertSettings(close_after=3))
    run(episode, marks)
    before = episode.to_bytes()

    assert episode.repeat(True, IDS[0]) == Transition(IDS[0], OPEN)
    assert episode.repeat(True, IDS[1]) == Transition(IDS[0], UPDATE)
    assert episode.repeat(False, IDS[2]) is None
    assert episode.to_bytes() == before


def test_a_replayed_crossing_of_an_unknown_episode_opens_one() -> None:
    assert Episode(AlertSettings()).repeat(True, IDS[5]) == Transition(IDS[5], OPEN)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02" + b"\0" * 21, b"\x01" + b"\0" * 22])
def test_bytes_that_are_no_episode_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="episode"):
        Episode.from_bytes(data, AlertSettings())


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

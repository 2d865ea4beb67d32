"""A file is scored as the stream would score it, row for row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from model.detector import Scores
from stream_app.clock import ManualClock
from stream_app.decode import Decoder, InputSpec
from stream_app.judge import judge
from stream_app.messages import open_source
from stream_app.offline import score_messages, score_rows
from stream_app.records import DEFAULT_STREAM, Kind
from stream_app.scoring import ScoredRows
from stream_app.settings import Settings
from stream_app.streams import Streams
from tests.unit.stream_app.raw import TP, Record, chunk_of

WINDOW = 4
NOW = 1_790_000_000.0
BEGIN = 1_700_000_000


class Newest:
    """Scores a window by its newest observation, what is missing as 0."""

    name, version = "newest", "1"
    kind = "sequence"

    def __init__(self, features=1):
        self.input_shape = (WINDOW, features)

    def score(self, rows):
        scores = np.abs(np.nan_to_num(rows[:, -1].sum(axis=1))).astype(np.float32)
        return Scores(scores, {"newest": scores})


def of_stream(messages, detector, settings, cut):
    """Scores by offset, and the reasons of dead letters, as a worker with chunks of `cut` records says them."""
    spec = InputSpec(Kind.SEQUENCE, detector.input_shape)
    decoder = Decoder(spec, settings.limits, settings.sequence)
    streams = Streams("newest", TP, spec, settings)
    streams.begin([DEFAULT_STREAM])
    scores, dead = {}, {}
    records = [Record(m.value, list(m.headers), None, timestamp=round(NOW * 1000)) for m in messages]
    for first in range(0, len(records), cut):
        chunk = chunk_of(*records[first : first + cut], first=first)
        decoded = decoder.decode(chunk)
        taken = streams.take(chunk, decoded)
        found = detector.score(taken.rows.data) if len(taken.rows.index) else None
        scored = ScoredRows(found.score, found.raw, detector) if found else None
        scores |= {
            v.offset: (v.score, v.threshold) for v in judge("newest", chunk, decoded, taken, scored, streams).each
        }
        dead |= {first + each.index: str(each.error) for each in (*decoded.rejected, *taken.rejected)}
    return scores, dead


def of_file(messages, detector, settings):
    rows = list(score_messages(detector, messages, settings, clock=ManualClock(NOW)))
    assert [row.index for row in rows] == list(range(len(messages)))
    scores = {row.index: (row.verdict.score, row.verdict.threshold) for row in rows if row.verdict}
    return scores, {row.index: str(row.refused) for row in rows if row.refused}, sum(row.is_duplicate for row in rows)


def agree(path: Path, text: str, features=1, **sections):
    """What became of the rows of a table, which is the same in the stream and in the file."""
    path.write_text(text)
    settings, detector = Settings(**sections), Newest(features)
    messages = list(open_source(path).messages())
    scores, dead, duplicates = of_file(messages, detector, settings)
    assert (scores, dead) == of_stream(messages, detector, settings, cut=7)
    return scores, dead, duplicates


def table(*rows):
    return "timestamp,flow\n" + "".join(f"{time},{value}\n" for time, value in rows)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flow.csv"


def test_plain_rows_are_scored_from_the_first_full_window_on(file):
    scores, dead, duplicates = agree(file, table(*((BEGIN + i, i / 100) for i in range(30))))
    assert sorted(scores) == list(range(WINDOW - 1, 30))
    assert scores[29][0] == pytest.approx(0.29)
    assert (dead, duplicates) == ({}, 0)


def test_a_row_from_the_future_is_refused_as_it_would_be_if_it_was_published_now(file):
    rows = [(BEGIN + i, i / 100) for i in range(30)]
    rows[20] = (NOW + 100_000, 0.2)
    scores, dead, _ = agree(file, table(*rows))
    assert list(dead) == [20]
    assert dead[20].startswith("ahead: ")
    assert len(scores) == 30 - WINDOW


def test_late_rows_are_refused_and_duplicates_counted(file):
    rows = [(BEGIN + 10 * i, i / 100) for i in range(30)]
    rows[20:20] = [rows[19], (BEGIN + 10, 0.5), rows[19]]
    scores, dead, duplicates = agree(file, table(*rows))
    assert list(dead) == [21]
    assert dead[21].startswith("late: ")
    assert duplicates == 2
    assert len(scores) == 30 - WINDOW + 1


@pytest.mark.parametrize(("largest", "scored"), [(0.5, 25), (1.0, 27)])
def test_an_empty_cell_is_a_missing_value_as_far_as_the_settings_allow(file, largest, scored):
    rows = [(BEGIN + i, "" if i in (10, 20) else i / 100) for i in range(30)]
    scores, dead, _ = agree(file, table(*rows), sequence={"max_missing": largest})
    assert len(scores) == scored
    assert sorted(dead) == ([10, 20] if largest < 1.0 else [])


def test_one_missing_of_three_is_masked(file):
    text = "a,b,c\n" + "".join(f"{i},{'' if i == 20 else i},{i}\n" for i in range(30))
    scores, dead, _ = agree(file, text, features=3)
    assert dead == {}
    assert len(scores) == 27


def test_a_value_that_no_stream_takes_costs_its_row_and_no_other(file):
    rows = [(BEGIN + i, {10: "5e12", 11: "inf", 12: "-1e300"}.get(i, i / 100)) for i in range(30)]
    scores, dead, _ = agree(file, table(*rows))
    assert sorted(dead) == [10, 11, 12]
    assert len(scores) == 24


def test_ten_thousand_observations_of_equal_value_a_second_are_no_duplicates(file):
    scores, _, duplicates = agree(file, table(*((f"{BEGIN + i / 10_000:.4f}", 1.0) for i in range(200))))
    assert duplicates == 0
    assert len(scores) == 197


@pytest.mark.parametrize("timed", [True, False])
def test_a_run_in_a_file_without_times_is_a_shift_by_its_length_alone(file, timed):
    values = [0.1] * 10 + [9.0] * 100
    rows = (f"{BEGIN + i},{value}" if timed else f"{value}" for i, value in enumerate(values))
    file.write_text("\n".join(["timestamp,flow" if timed else "flow", *rows]))
    source, settings = open_source(file), Settings(threshold={"shift_after": 40})
    assert source.timed == timed
    scored = list(score_messages(Newest(), source.messages(), settings, timed=source.timed))
    assert scored[-1].verdict.is_anomaly == timed
    array = score_rows(
        Newest(), np.array(values, np.float32)[:, None], settings, BEGIN + np.arange(110.0) if timed else None
    )
    assert [row.verdict and row.verdict.is_anomaly for row in array] == [
        row.verdict and row.verdict.is_anomaly for row in scored
    ]


def test_rows_of_an_array_are_scored_as_those_of_a_table(file):
    values = np.linspace(0.0, 1.0, 30, dtype=np.float32)[:, None]
    values[7] = math.nan
    file.write_text(table(*((BEGIN + i, "" if np.isnan(v) else repr(float(v))) for i, (v,) in enumerate(values))))
    messages = list(open_source(file).messages())
    times = BEGIN + np.arange(30.0)
    rows = score_rows(Newest(), values, Settings(), times)
    assert {row.index: row.verdict.score for row in rows if row.verdict} == {
        index: score for index, (score, _) in of_file(messages, Newest(), Settings())[0].items()
    }

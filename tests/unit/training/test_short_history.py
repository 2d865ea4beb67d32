"""400 rows of a series make a useful detector in seconds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from model.detector import Detector
from model.registry import Registry
from tests.unit.training.conftest import INCIDENTS
from training.data import Dataset, from_arrays
from training.loop import auroc, train
from training.sequence_step import enough_steps

HISTORY = slice(340, 740)


class Short(NamedTuple):
    """A detector of 400 hours of flow in a water main, and the whole series in windows as long as its own."""

    detector: Detector
    steps: float
    series: Dataset


@pytest.fixture(scope="module")
def short(water: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Short:
    assert water.series is not None
    registry = Registry(str(tmp_path_factory.mktemp("short")))
    history = from_arrays(water.series[HISTORY], "sequence", source="WaterFlow")
    result = train(history, "sequence", registry, "short", device="cpu", seconds=60)
    detector = registry.load("short", device="cpu")
    labels = np.zeros(len(water.series), dtype=np.int64)
    for incident in INCIDENTS:
        labels[incident] = 1
    series = from_arrays(water.series, "sequence", y=labels, window=detector.input_shape[0])
    return Short(detector, result.metrics["steps"], series)


def test_it_takes_only_the_steps_that_so_few_rows_are_worth(short: Short) -> None:
    assert short.steps == enough_steps(190) == 200


def test_it_tells_incidents_from_calm_hours_it_has_not_seen(short: Short) -> None:
    scores = short.detector.score(short.series.x).score
    assert short.series.y is not None
    fresh = short.series.clean & (np.arange(len(scores)) + 63 >= HISTORY.stop + 63)
    assert auroc(scores[fresh], scores[short.series.y == 1]) > 0.9


def test_calm_hours_after_the_history_raise_few_alarms(short: Short) -> None:
    ends = np.arange(len(short.series)) + 63
    fresh = short.series.clean & (ends >= HISTORY.stop) & (ends < 860)
    scores = short.detector.score(short.series.x[fresh]).score
    assert len(scores) == 120
    assert (scores >= 2.0).mean() < 0.05


def test_no_score_changes_when_later_rows_are_cut_off(short: Short) -> None:
    assert short.series.series is not None
    whole = short.detector.score(short.series.x).score
    for rows in (300, 777):
        cut = from_arrays(short.series.series[:rows], "sequence", window=short.series.input_shape[0])
        np.testing.assert_allclose(short.detector.score(cut.x).score, whole[: len(cut)], rtol=1e-3, atol=1e-4)


def test_later_rows_have_no_part_in_what_is_localized(short: Short) -> None:
    series = planted(short.series.series)
    windows = from_arrays(series, "sequence", window=64).x
    assert int(short.detector.localize(windows[1000 - 63 : 1001 - 63])[0].argmax()) == 63
    assert int(short.detector.localize(windows[1005 - 63 : 1006 - 63])[0].argmax()) == 58


def planted(series: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The series with one wrong value, in row 1000."""
    assert series is not None
    wrong = series.copy()
    wrong[1000] += 20 * series.std()
    return wrong

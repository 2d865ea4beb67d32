"""A stream of real pictures drifts, and everything that follows happens by itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.progress import Progress

from refreshing.figures import BEFORE, NEW, draw, render, summarise
from refreshing.scenario import Line
from refreshing.story import SETTINGS, Pace, tell

BUDGET = 0.02
OWN = {
    "GANOMALY_THRESHOLD__TARGET_RATE": str(BUDGET),
    "GANOMALY_SHADOW__SHARE": "1",
    "GANOMALY_SHADOW__MAX_COST": "1",
    "GANOMALY_SHADOW__MIN_ROWS": "300",
    "GANOMALY_SHADOW__COST_FACTOR": "10",  # the machine does other things meanwhile
    "GANOMALY_GATE__LATENCY_FACTOR": "10",
    "OMP_NUM_THREADS": "1",
}


def shifted_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Each digit at nine places of a frame `[N, 10, 10]`, and which digit it is `[N]`.

    There are 1,797 of them, and several thousand are streamed: a picture that comes again and again would be among
    those that are learned from and among those that judge what was learned.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    padded = np.pad(np.round(data.images * (255 / 16)).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
    places = [(row, column) for row in range(3) for column in range(3)]
    frames = [padded[:, row : row + 10, column : column + 10] for row, column in places]
    return np.concatenate(frames), np.tile(data.target, len(places))


@pytest.mark.timeout(600)
def test_false_alarms_of_a_stream_that_drifts_fall_back_and_anomalies_are_still_found(tmp_path) -> None:
    """scikit-learn's digits: the camera gets brighter and flatter, and a digit comes that was never there.

    Negatives of digits are the anomalies; of pictures as small as these they are what anybody sees.
    """
    line = Line(*shifted_digits(), spoil=lambda normal: 255 - normal)
    with Progress(disable=True) as bar:
        account = tell(tmp_path, line, Pace(before=800, after=2000, rate=100.0, seconds=8.0, patience=300.0), OWN, bar)

    figures = summarise(account)
    before, new = (figures["phases"][name] for name in (BEFORE, NEW))
    assert len(account.scored) == len(account.published)
    assert [(run["trigger"], run["outcome"]) for run in figures["runs"]] == [("drift", "promoted")]
    assert [stage["passed"] for stage in figures["stages"].values()] == [True] * 5
    assert list(figures["stages"]) == ["snapshot", "train", "gate", "shadow", "promote"]
    # A version's first threshold is a quantile of a few hundred rows held out: its rate is known to about 1 %.
    assert before["false_alarm_share"] < 4 * BUDGET
    assert account.of(account.began["change"], account.began["change"] + 300)[1].mean() > 0.9
    assert new["false_alarm_share"] < 3 * BUDGET
    assert new["found"] > 0.8 * new["planted"]

    draw(account, BUDGET, tmp_path / "refresh.png")
    assert (tmp_path / "refresh.png").stat().st_size > 20_000
    origin = {"date": "2026-01-01", "machine": "a machine", "commit": "abc", "versions": {"python": "3.11"}}
    own = {"origin": origin, "seconds": 8, "rate": 100, "budget": BUDGET, "settings": {**SETTINGS, **OWN}}
    assert "| shadow |" in render({**figures, **own})

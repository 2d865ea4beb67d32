"""A replay agrees when every row is there, once, with the same score."""

from __future__ import annotations

import numpy as np
import pytest

from streaming.compare import Said, compare, is_late

TIMES = np.arange(0.0, 600.0, 60.0)  # ten rows, the first full window ends with the third
OFFLINE = {at: Said(0.1 * at, 3.0, False) for at in range(2, 10)}
STREAM = list(OFFLINE.items())


def test_the_same_agrees() -> None:
    found = compare(OFFLINE, STREAM, [], TIMES, lateness=60.0)
    assert found.agrees
    assert (found.observations, found.scored, found.missing, found.extra, found.score) == (10, 8, 0, 0, 0.0)


@pytest.mark.parametrize(
    ("stream", "missing", "extra"),
    [
        (STREAM[:-1], 1, 0),
        ([*STREAM, (10, Said(0.0, 3.0, False))], 0, 1),
        ([*STREAM, STREAM[0]], 0, 1),
        ([], 8, 0),
    ],
)
def test_a_row_that_is_missing_or_comes_twice_does_not(
    stream: list[tuple[int, Said]], missing: int, extra: int
) -> None:
    found = compare(OFFLINE, stream, [], TIMES, lateness=60.0)
    assert (found.missing, found.extra) == (missing, extra)
    assert not found.agrees


def test_the_largest_differences_and_other_verdicts_are_told() -> None:
    stream = dict(STREAM)
    stream[4] = Said(stream[4].score + 1e-3, 3.5, True)
    found = compare(OFFLINE, list(stream.items()), [], TIMES, lateness=60.0)
    assert found.score == pytest.approx(1e-3)
    assert found.threshold == pytest.approx(0.5)
    assert found.verdicts == 1
    assert not found.agrees


def test_late_rows_may_be_refused_and_others_may_not() -> None:
    times = TIMES.copy()
    times[5] = 60.0
    offline = {at: said for at, said in OFFLINE.items() if at != 5}
    late = compare(offline, list(offline.items()), [5], times, lateness=60.0)
    assert late.agrees
    assert (late.refused, late.unexplained) == (1, 0)
    punctual = compare(offline, list(offline.items()), [5], TIMES, lateness=60.0)
    assert not punctual.agrees
    assert punctual.unexplained == 1


def test_late_is_what_lies_behind_the_newest_before_it() -> None:
    times = np.array([0.0, 300.0, 600.0, 0.0, 300.0, 600.0, 900.0])
    assert is_late(times, 60.0).tolist() == [False, False, False, True, True, False, False]

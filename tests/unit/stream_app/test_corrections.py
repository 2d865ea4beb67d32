import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.corrections import MARGIN, Mark, correct

SCORE = st.floats(0.0, 12.0)
MARKS = st.lists(st.builds(Mark, SCORE, st.booleans()), max_size=20)


def normal(score: float) -> Mark:
    return Mark(score, is_anomaly=False)


def anomaly(score: float) -> Mark:
    return Mark(score, is_anomaly=True)


def agrees(threshold: float, mark: Mark) -> bool:
    return (mark.score > threshold) == mark.is_anomaly


def test_without_labels_the_learned_threshold_is_in_force() -> None:
    assert correct(3.0, [], 0.5) == (3.0, 0, -math.inf)


@pytest.mark.parametrize(
    ("marks", "threshold", "labels"),
    [
        ([normal(3.2)], 3.2 + MARGIN, 1),
        ([anomaly(2.8)], 2.8 - MARGIN, 1),
        ([normal(3.2), normal(3.3), normal(2.0)], 3.3 + MARGIN, 3),
        ([normal(2.0), anomaly(4.0)], 3.0, 2),  # it agrees with them already
        ([normal(3.2), anomaly(2.9)], 2.9 - MARGIN, 1),  # the newer one holds …
        ([anomaly(2.9), normal(3.2)], 3.2 + MARGIN, 1),  # … whichever it is
        ([normal(3.2), anomaly(3.1), normal(3.05)], 3.05 + MARGIN, 2),
        ([normal(9.0)], 3.5, 1),
        ([anomaly(0.5)], 2.5, 1),
    ],
)
def test_the_nearest_threshold_that_agrees_with_the_labels_is_in_force(
    marks: list[Mark], threshold: float, labels: int
) -> None:
    corrected = correct(3.0, marks, 0.5)

    assert corrected.threshold == pytest.approx(threshold)
    assert corrected.labels == labels


def test_what_was_called_normal_is_told_even_where_the_threshold_may_not_go_there() -> None:
    assert correct(3.0, [normal(9.0)], 0.5).normal_up_to == 9.0 + MARGIN


@given(SCORE, MARKS, st.floats(0.0, 3.0))
def test_it_never_moves_beyond_the_limit(learned: float, marks: list[Mark], max_shift: float) -> None:
    assert abs(correct(learned, marks, max_shift).threshold - learned) <= max_shift + 1e-9


@given(st.floats(1.0, 12.0), MARKS, st.floats(0.0, 30.0))
def test_it_is_never_below_the_least(learned: float, marks: list[Mark], max_shift: float) -> None:
    assert correct(learned, marks, max_shift, least=1.0).threshold >= 1.0


@given(SCORE, MARKS, SCORE, st.booleans())
def test_the_newest_label_always_holds_within_the_limit(
    learned: float, marks: list[Mark], score: float, is_anomaly: bool
) -> None:
    newest = Mark(score, is_anomaly)

    assert agrees(correct(learned, [*marks, newest], math.inf, least=-math.inf).threshold, newest)


@given(SCORE, SCORE, MARKS, st.floats(0.0, 3.0))
def test_a_higher_learned_threshold_is_never_corrected_to_a_lower_one(
    one: float, other: float, marks: list[Mark], max_shift: float
) -> None:
    low, high = sorted((one, other))

    assert correct(low, marks, max_shift).threshold <= correct(high, marks, max_shift).threshold


@given(SCORE, MARKS)
def test_labels_that_the_learned_threshold_agrees_with_move_nothing(learned: float, marks: list[Mark]) -> None:
    agreed = [mark for mark in marks if agrees(learned, mark) and abs(mark.score - learned) > 2 * MARGIN]

    assert correct(learned, agreed, math.inf)[:2] == (learned, len(agreed))


@given(SCORE, st.lists(SCORE, min_size=1, max_size=20))
def test_labels_that_do_not_contradict_each_other_count_in_any_order(learned: float, scores: list[float]) -> None:
    marks = [Mark(score, is_anomaly=score > 6.0) for score in scores if abs(score - 6.0) > 2 * MARGIN]

    assert correct(learned, marks, 0.5) == correct(learned, marks[::-1], 0.5)
    assert correct(learned, marks, 0.5).labels == len(marks)

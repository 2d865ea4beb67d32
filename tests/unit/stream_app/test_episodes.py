from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.episodes import Episode, Transition, severity
from stream_app.events import EpisodeState, event_id
from stream_app.settings import AlertSettings
from stream_app.threshold import Judgement

OPEN, UPDATE, CLOSE, SHIFT = EpisodeState
THRESHOLD = 3.0
IDS = [event_id("images", "records.images", 0, offset) for offset in range(5000)]
SCORES = {".": 0.5, "-": 2.9, "x": 3.5, "X": 7.0, "S": 7.0}  # quiet, below the threshold, above, far above; shifted


class Told(NamedTuple):
    at: int
    state: EpisodeState
    opened: int


def advance(episode: Episode, mark: str, at: int, time: float | None = None) -> Transition | None:
    score = SCORES[mark]
    judgement = Judgement(THRESHOLD, score > THRESHOLD, mark == "S")
    return episode.advance(score, judgement, float(at) if time is None else time, IDS[at])


def run(episode: Episode, marks: str, seconds: float = 1.0) -> list[Told]:
    """Advances over one character a record, `seconds` apart: what is told, where, and where its episode opened."""
    told = []
    for at, mark in enumerate(marks):
        transition = advance(episode, mark, at, at * seconds)
        if transition is not None and transition.state is not None:
            told.append(Told(at, transition.state, IDS.index(transition.episode_id)))
    return told


def policy(**settings: object) -> AlertSettings:
    return AlertSettings.model_validate({"close_after": 3, "cool_down": 0.0, "cool_down_records": 0} | settings)


def test_severity_halves_its_distance_to_100_with_each_step_above_the_threshold() -> None:
    assert [severity(score, 3.0) for score in (0.0, 3.0, 4.0, 5.0, 6.0, 1e9)] == [0, 0, 50, 75, 87, 100]


@given(st.lists(st.floats(0.0, 1e6), min_size=2).map(sorted), st.floats(0.0, 1e6))
def test_severity_rises_with_the_score_and_falls_with_the_threshold(scores: list[float], threshold: float) -> None:
    for low, high in pairwise(scores):
        assert 0 <= severity(low, threshold) <= severity(high, threshold) <= 100
        assert severity(threshold, high) <= severity(threshold, low)


def test_an_anomalous_record_opens_and_enough_quiet_ones_in_a_row_close() -> None:
    told = run(Episode(policy()), "..X.X..X...X..")

    assert told == [Told(2, OPEN, 2), Told(10, CLOSE, 2), Told(11, OPEN, 11)]


def test_a_thousand_anomalous_records_are_a_handful_of_alerts() -> None:
    for mark in "xX":
        told = run(Episode(policy()), mark * 1000 + "...")

        assert (told[0].state, told[-1].state) == (OPEN, CLOSE)
        assert len(told) <= 5
        assert {each.opened for each in told} == {0}


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_a_thousand_records_of_which_some_are_anomalous_are_a_handful_of_alerts_by_default(share: float) -> None:
    """Once a second or once in five minutes: scores that jump about the threshold, then an hour that is quiet."""
    for seed, seconds in product(range(20), (1.0, 300.0)):
        marks = np.random.default_rng(seed).choice(list("x-."), 1000, p=[share, 0.5 * (1 - share), 0.5 * (1 - share)])
        told = run(Episode(AlertSettings()), "X" + "".join(marks) + "." * 3600, seconds)

        assert len(told) <= 10
        assert {each.opened for each in told} == {0}
        assert told[-1].state is CLOSE


@pytest.mark.parametrize("rise", [1e-6, 1e-3, 1e-2, 0.1, 1.0])
def test_a_thousand_records_that_get_worse_and_worse_have_at_most_6_updates(rise: float) -> None:
    episode = Episode(policy())
    states: list[EpisodeState | None] = []
    for at in range(1000):
        transition = episode.advance(3.001 + rise * at, Judgement(THRESHOLD, is_anomaly=True), 0.0, IDS[at])
        states.append(transition.state if transition else None)

    assert states.count(OPEN) == 1
    assert states.count(UPDATE) <= 6


def test_an_episode_is_told_again_when_its_severity_enters_a_new_quarter_or_it_is_ten_times_as_long() -> None:
    rising = Episode(policy())
    assert run(rising, "xX") == [Told(0, OPEN, 0), Told(1, UPDATE, 0)]

    told = run(Episode(policy()), "X" * 100)
    lengths = [each.at + 1 for each in told]
    assert lengths == [1, 10, 100]


def test_an_episode_knows_since_when_it_goes_on_how_long_and_how_bad_it_was() -> None:
    episode = Episode(policy())
    transitions = [advance(episode, mark, at) for at, mark in enumerate(".x.Xx")]

    assert transitions[1] == Transition(IDS[1], OPEN, 1.0, 1, 3.5, severity(3.5, 3.0))
    assert transitions[2] == Transition(IDS[1], None, 1.0, 1, 3.5, severity(3.5, 3.0))
    assert transitions[4] == Transition(IDS[1], None, 1.0, 3, 7.0, transitions[4].severity)


def test_an_episodes_severity_grows_with_its_length_as_with_its_worst_score() -> None:
    episode = Episode(policy())
    for at in range(10):
        transition = advance(episode, "x", at)

    assert transition is not None
    assert transition.severity == severity(4.5, 3.0)  # ten times as many is as a score that is ten times rarer
    assert transition.worst_score == 3.5


def test_scores_around_the_threshold_are_one_episode() -> None:
    marks = "x-----" * 4 + "..."

    assert [each.state for each in run(Episode(policy()), marks)].count(OPEN) == 1
    assert [each.state for each in run(Episode(policy(hysteresis=0.0)), marks)].count(OPEN) == 4


def test_a_stream_that_never_scores_low_closes_its_episode_all_the_same() -> None:
    assert run(Episode(policy()), "x" + "-" * 40) == [Told(0, OPEN, 0), Told(30, CLOSE, 0)]


def test_an_anomalous_record_soon_after_the_close_goes_on_with_the_episode() -> None:
    told = run(Episode(policy(cool_down=10.0)), "X...X" + "." * 20 + "X")

    assert told == [Told(0, OPEN, 0), Told(3, CLOSE, 0), Told(4, UPDATE, 0), Told(10, CLOSE, 0), Told(25, OPEN, 25)]


def test_so_few_records_after_the_close_go_on_with_it_however_far_apart_they_are() -> None:
    told = run(Episode(policy(cool_down=60.0, cool_down_records=4)), "X..." + "...X" + "." * 9 + "X", seconds=300.0)

    assert told == [Told(0, OPEN, 0), Told(3, CLOSE, 0), Told(7, UPDATE, 0), Told(13, CLOSE, 0), Told(17, UPDATE, 0)]
    told = run(Episode(policy(cool_down_records=4)), "X..." + "....X", seconds=300.0)
    assert told[-1] == Told(8, OPEN, 8)


@pytest.mark.parametrize("time", [13.0, -7.0])
def test_the_cool_down_ends_by_event_time_in_both_directions(time: float) -> None:
    episode = Episode(policy(cool_down=10.0))
    run(episode, "X...")

    transition = advance(episode, "X", 4, time)

    assert transition is not None
    assert (transition.state, transition.episode_id) == (OPEN, IDS[4])


def test_what_comes_and_goes_is_told_less_and_less_often() -> None:
    told = run(Episode(policy(cool_down=60.0)), "X..." * 1000)

    assert len(told) <= 12
    assert {each.opened for each in told} == {0}


def test_so_many_of_the_last_records_open_an_episode_with_the_first_of_them_in_it() -> None:
    episode = Episode(policy(open_after=3, open_within=5))
    transitions = [advance(episode, mark, at) for at, mark in enumerate("X...X.XX")]

    assert transitions[:7] == [None] * 7
    assert transitions[7] is not None
    assert transitions[7][:4] == (IDS[7], OPEN, 4.0, 3)


def test_a_lasting_shift_ends_the_episode_and_nothing_reopens_it() -> None:
    told = run(Episode(policy(cool_down=60.0, cool_down_records=9)), "XXXSX")

    assert told == [Told(0, OPEN, 0), Told(3, SHIFT, 0), Told(4, OPEN, 4)]


def test_a_shift_is_told_when_no_episode_was_open() -> None:
    episode = Episode(policy(open_after=4, open_within=4))
    transitions = [advance(episode, mark, at) for at, mark in enumerate("X.XS")]

    assert transitions[3] is not None
    assert transitions[3][:4] == (IDS[3], SHIFT, 0.0, 3)


MARKS = st.text(alphabet=".-xXS", max_size=300)
POLICIES = st.builds(
    policy,
    close_after=st.integers(1, 5),
    cool_down=st.sampled_from([0.0, 5.0, 50.0]),
    cool_down_records=st.sampled_from([0, 4]),
    hysteresis=st.sampled_from([0.0, 0.1]),
    open_after=st.integers(1, 3),
    open_within=st.integers(3, 5),
)


@given(MARKS, POLICIES, st.integers(0, 300))
def test_what_follows_a_saved_episode_is_told_the_same_however_often_it_comes(
    marks: str, settings: AlertSettings, cut: int
) -> None:
    episode = Episode(settings)
    for at, mark in enumerate(marks[:cut]):
        advance(episode, mark, at)
    saved = episode.to_bytes()
    told = [advance(episode, mark, at) for at, mark in enumerate(marks[cut:], cut)]
    again = Episode.from_bytes(saved, settings)

    assert [advance(again, mark, at) for at, mark in enumerate(marks[cut:], cut)] == told
    assert again.to_bytes() == episode.to_bytes()


@given(MARKS, POLICIES)
def test_an_episode_begins_with_open_and_is_told_in_between_only_while_it_goes_on(
    marks: str, settings: AlertSettings
) -> None:
    by_episode: dict[int, list[EpisodeState]] = {}
    for told in run(Episode(settings), marks):
        by_episode.setdefault(told.opened, []).append(told.state)

    for number, states in enumerate(by_episode.values()):
        assert states[0] is OPEN or states == [SHIFT]
        assert OPEN not in states[1:]
        assert SHIFT not in states[:-1]
        assert all(after in (UPDATE, SHIFT) for before, after in pairwise(states) if before is CLOSE)
        assert states[-1] in (CLOSE, SHIFT) or number == len(by_episode) - 1


@given(MARKS)
def test_every_anomalous_record_belongs_to_an_episode(marks: str) -> None:
    episode = Episode(policy())
    for at, mark in enumerate(marks):
        transition = advance(episode, mark, at)
        assert transition is not None or mark in ".-"


@pytest.mark.parametrize("data", [b"", b"\x01" + b"\0" * 21, b"\x02", b"\x02" + b"\0" * 82, b"\x02" + b"\0" * 84])
def test_bytes_that_are_no_episode_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="episode"):
        Episode.from_bytes(data, AlertSettings())

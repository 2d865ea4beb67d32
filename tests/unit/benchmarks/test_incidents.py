"""Verdicts become episodes in time, and labels become incidents."""

from __future__ import annotations

import numpy as np

from stream_app.episodes import Transition
from stream_app.events import EpisodeState
from stream_app.judge import Verdict
from streaming.incidents import Span, Told, episodes_of, first_alert, incidents_of


def verdict(time: float, episode: str | None, state: EpisodeState | None = None, since: float = 0.0) -> Verdict:
    transition = None if episode is None else Transition(episode, state, since, int(time), 4.0, 50)
    return Verdict(
        0, 0, ("sequences", "file", 0), "", int(time), time, None, 4.0, {}, 3.0, 0.001, 0, True, True, transition
    )


def test_an_episode_lasts_from_its_first_anomalous_record_to_its_close() -> None:
    verdicts = [
        verdict(1.0, None),
        verdict(3.0, "a", EpisodeState.OPEN, since=2.0),
        verdict(4.0, "a"),
        verdict(5.0, "a", EpisodeState.UPDATE),
        verdict(6.0, "a", EpisodeState.CLOSE),
        verdict(7.0, None),
    ]
    assert episodes_of(verdicts) == [Told("a", [Span(2.0, 6.0)], [3.0, 5.0, 6.0], anomalous=6, severity=50)]


def test_one_that_is_reopened_has_two_stretches_and_one_that_goes_on_ends_with_the_series() -> None:
    verdicts = [
        verdict(3.0, "a", EpisodeState.OPEN, since=3.0),
        verdict(4.0, "a", EpisodeState.CLOSE),
        verdict(8.0, "a", EpisodeState.UPDATE, since=3.0),
        verdict(9.0, "a", EpisodeState.SHIFT),
        verdict(12.0, "b", EpisodeState.OPEN, since=12.0),
        verdict(13.0, "b"),
    ]
    first, second = episodes_of(verdicts)
    assert first.spans == [Span(3.0, 4.0), Span(8.0, 9.0)]
    assert second.spans == [Span(12.0, 13.0)]
    assert first.touches(Span(4.0, 5.0))
    assert not first.touches(Span(5.0, 7.0))


def test_incidents_are_the_runs_of_labelled_rows() -> None:
    y = np.array([0, 1, 1, 0, 0, 1])
    assert incidents_of(y, np.arange(6.0)) == [Span(1.0, 2.0), Span(5.0, 5.0)]


def test_an_incident_is_told_of_when_the_first_alert_comes_in_it() -> None:
    told = [Told("a", [Span(0.0, 9.0)], [0.0, 6.0, 7.0])]
    assert first_alert(Span(5.0, 8.0), told) == 6.0
    assert first_alert(Span(8.0, 9.0), told) is None

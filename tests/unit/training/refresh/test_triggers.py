"""When a run is due, by a clock that is moved by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from stream_app.errors import SettingsError
from stream_app.settings import TrainerSettings
from training.refresh.memory import Outcome, Remembered
from training.refresh.triggers import Cron, Seen, Triggers, count_new

BERLIN = ZoneInfo("Europe/Berlin")
NOTHING = Seen()


def at(text: str, zone=UTC) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def firings(expression: str, since: float, count: int, zone: str = "Europe/Berlin") -> list[str]:
    """In UTC."""
    cron, found = Cron(expression, zone), []
    for _ in range(count):
        since = cron.after(since)
        found.append(f"{datetime.fromtimestamp(since, UTC):%a %d %H:%M}")
    return found


def test_a_time_zone_is_followed_through_the_year():
    assert firings("30 3 * * *", at("2026-01-10 12:00"), 1) == ["Sun 11 02:30"]
    assert firings("30 3 * * *", at("2026-07-10 12:00"), 1) == ["Sat 11 01:30"]


def test_a_time_that_comes_twice_when_the_clock_is_put_back_fires_once():
    assert firings("30 2 * * *", at("2026-10-24 12:00"), 2) == ["Sun 25 00:30", "Mon 26 01:30"]


def test_every_hour_means_every_hour_when_the_clock_is_put_back():
    assert firings("0 * * * *", at("2026-10-24 23:30"), 3) == ["Sun 25 00:00", "Sun 25 01:00", "Sun 25 02:00"]


def test_a_time_that_is_left_out_when_the_clock_is_put_forward_fires_once_all_the_same():
    assert firings("30 2 * * *", at("2026-03-28 12:00"), 2) == ["Sun 29 01:30", "Mon 30 00:30"]


@pytest.mark.parametrize(
    ("weekday", "days"),
    [
        *[("0", "Sun"), ("7", "Sun"), ("1", "Mon"), ("sun", "Sun"), ("SUN", "Sun"), ("5-7", "Fri Sat Sun")],
        *[("1-5/2", "Mon Wed Fri"), ("*/2", "Sun Tue Thu Sat"), ("*/3", "Sun Wed Sat"), ("sun-tue", "Sun Mon Tue")],
        *[("0-6/2", "Sun Tue Thu Sat"), ("2/2", "Tue Thu Sat"), ("fri-sun", "Fri Sat Sun"), ("mon,4-5", "Mon Thu Fri")],
        *[("0,7", "Sun"), ("mon-fri/2", "Mon Wed Fri"), ("0-7", "Sun Mon Tue Wed Thu Fri Sat")],
    ],
)
def test_weekdays_are_numbered_as_cron_numbers_them(weekday: str, days: str):
    wanted = days.split()
    found = firings(f"0 3 * * {weekday}", at("2026-01-08 12:00"), len(wanted), "UTC")
    assert sorted(name.split()[0] for name in found) == sorted(wanted)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("61 * * * *", "61"),
        ("* * * *", "got 4, expected 5"),
        ("nightly", "expected 5"),
        ("0 3 * * 5-2", "the first day is after the last"),
        ("0 3 * * sat-mon", "the first day is after the last"),
        ("0 3 * * 8", "weekday '8': expected 0 to 7"),
        ("0 3 * * */0", "weekday '*/0'"),
        ("0 3 * * foo", "weekday 'foo': the days are sun"),
        ("0 0 30 2 *", "never fires"),
    ],
)
def test_what_is_no_cron_expression_is_said_with_an_example(expression: str, complaint: str):
    with pytest.raises(SettingsError, match="GANOMALY_TRAINER__CRON") as error:
        Cron(expression, "UTC")
    assert complaint in str(error.value)


def test_of_a_day_and_a_weekday_either_is_enough():
    days = firings("0 3 13 * 5", at("2026-01-08 12:00"), 4, "UTC")
    assert [day.split()[0] for day in days] == ["Fri", "Tue", "Fri", "Fri"]
    both = firings("0 3 13 * *", at("2026-01-08 12:00"), 2, "UTC")
    assert [day.split()[0] for day in both] == ["Tue", "Fri"]


def test_a_time_zone_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no such time zone"):
        TrainerSettings(timezone="Europe/Atlantis")


def nightly(**changes) -> Triggers:
    return Triggers(TrainerSettings(cron="0 3 * * *", timezone="Europe/Berlin", **changes))


def test_a_firing_is_due_from_its_second_on():
    known = Remembered(handled=at("2026-01-10 12:00"))
    assert nightly().due(at("2026-01-11 01:59:59"), known, NOTHING) is None
    assert nightly().due(at("2026-01-11 02:00:00"), known, NOTHING).trigger == "clock"


def test_many_missed_firings_are_made_up_by_one_run():
    triggers, now = nightly(make_up_within=14 * 86_400), at("2026-01-20 12:00")
    assert triggers.due(now, Remembered(handled=at("2026-01-10 12:00")), NOTHING).trigger == "clock"
    done = Remembered(handled=now, started_at=now, finished_at=now + 60, outcome=Outcome.PROMOTED)
    assert triggers.due(now + 3600, done, NOTHING) is None


def test_what_was_missed_too_long_ago_is_not_made_up():
    now = at("2026-01-11 08:00")
    known = Remembered(handled=at("2026-01-10 12:00"))
    assert nightly(make_up_within=4 * 3600).due(now, known, NOTHING) is None
    assert nightly(make_up_within=8 * 3600).due(now, known, NOTHING).trigger == "clock"


def test_a_detector_that_is_new_here_has_missed_nothing():
    now = at("2026-01-11 02:00:01")
    assert nightly().due(now, Remembered(handled=now), NOTHING) is None


def test_what_fires_in_the_pause_between_runs_is_due_after_it():
    triggers = Triggers(TrainerSettings(cron="* * * * *", min_pause=600))
    known = Remembered(handled=1000.0, started_at=1000.0, finished_at=1100.0, outcome=Outcome.REFUSED)
    assert triggers.due(1699.0, known, NOTHING) is None
    assert triggers.due(1700.0, known, NOTHING).trigger == "clock"


def test_a_person_waits_for_nothing():
    known = Remembered(handled=1000.0, started_at=1000.0, finished_at=1100.0, outcome=Outcome.FAILED, attempts=9)
    due = Triggers(TrainerSettings()).due(1101.0, known, Seen(requested_by="anna"))
    assert due.trigger == "hand"
    assert "anna" in due.why


def test_failed_runs_are_retried_after_pauses_that_double_up_to_a_limit():
    triggers = Triggers(TrainerSettings(retry_after=10, max_retry_after=35))
    for attempts, pause in ((1, 10), (2, 20), (3, 35), (80, 35)):
        known = Remembered(started_at=900.0, finished_at=1000.0, outcome=Outcome.FAILED, attempts=attempts)
        assert triggers.due(1000.0 + pause - 0.1, known, NOTHING) is None
        assert triggers.due(1000.0 + pause, known, NOTHING).trigger == "retry"


def test_drift_that_persists_asks_again_after_pauses_that_double_with_each_refusal():
    triggers = Triggers(TrainerSettings(on_drift=True, after_records=50, min_pause=0, retry_after_refusal=100))
    for refusals, pause in ((1, 100), (2, 200), (3, 400)):
        known = Remembered(started_at=900.0, finished_at=1000.0, outcome=Outcome.REFUSED, refusals=refusals)
        assert triggers.due(1000.0 + pause - 0.1, known, Seen(drift="it drifts")) is None
        assert triggers.due(1000.0 + pause, known, Seen(drift="it drifts")).trigger == "drift"
        assert triggers.due(1001.0, known, Seen(records=50, drift="it drifts")).trigger == "records"


def test_a_run_that_nobody_finished_is_begun_anew_at_once_but_not_again_and_again():
    triggers = Triggers(TrainerSettings(retry_after=100))
    assert triggers.due(1000.0, Remembered(started_at=1000.0, outcome=Outcome.RUNNING, attempts=1), NOTHING)
    second = Remembered(started_at=1000.0, outcome=Outcome.RUNNING, attempts=2)
    assert triggers.due(1099.0, second, NOTHING) is None
    assert triggers.due(1100.0, second, NOTHING).trigger == "takeover"


def test_a_run_that_nobody_finished_long_ago_is_forgotten():
    triggers = Triggers(TrainerSettings(make_up_within=3600))
    known = Remembered(started_at=1000.0, outcome=Outcome.RUNNING, attempts=1)
    assert triggers.due(1000.0 + 3601, known, NOTHING) is None


def test_a_run_by_hand_that_was_stopped_stays_stopped():
    known = Remembered(started_at=1000.0, finished_at=1010.0, outcome=Outcome.STOPPED, attempts=1, trigger="hand")
    assert Triggers(TrainerSettings()).due(2000.0, known, NOTHING) is None
    scheduled = known.model_copy(update={"trigger": "clock"})
    assert Triggers(TrainerSettings()).due(2000.0, scheduled, NOTHING).trigger == "takeover"


def test_enough_records_or_drift_fire_where_they_are_asked_for():
    known = Remembered(handled=0.0)
    asked, silent = Triggers(TrainerSettings(after_records=100, on_drift=True)), Triggers(TrainerSettings())
    assert asked.due(1.0, known, Seen(records=99)) is None
    assert asked.due(1.0, known, Seen(records=100)).trigger == "records"
    assert asked.due(1.0, known, Seen(drift="PSI 0.4 of the scores")).trigger == "drift"
    assert silent.due(1.0, known, Seen(records=10**9, drift="PSI 9")) is None


def test_records_are_counted_from_where_the_last_run_ended():
    assert count_new({0: (0, 100), 1: (50, 80)}, {0: 90}) == 10 + 30
    assert count_new({0: (95, 100)}, {0: 90}) == 5  # the broker has forgotten some
    assert count_new({0: (0, 7)}, {0: 90}) == 7  # the topic was made anew

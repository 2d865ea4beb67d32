"""The demo's data and its books: nothing is learned from that is watched, and what is counted is what happened."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from stream_app.cli.demo.account import Account, Counts, total
from stream_app.cli.demo.flow import INCIDENTS, WINDOW, load_flow, plan_flow, split_flow
from stream_app.cli.demo.pictures import ANOMALIES, half_dead, load_digits, plan_pictures, scratch, split_digits
from stream_app.cli.demo.report import summary, table
from stream_app.cli.demo.scene import NORMAL, Due, Planned

HIDDEN = 4


def planned(name: str, truth: str = NORMAL, due: Due = Due.SCORE, stream: str = "s") -> Planned:
    return Planned("t", stream, name, b"", [], truth, due)


def event(name: str, is_anomaly: bool = True, offset: int = 0) -> dict[str, object]:
    return {"record": {"id": name, "offset": offset}, "stream": "s", "is_anomaly": is_anomaly}


def alert(name: str, state: str | None = "open", offset: int = 0, episode: str = "e") -> dict[str, object]:
    return event(name, state in ("open", "update", "shift"), offset) | {"state": state, "episode_id": episode}


def raised(records: list[Planned], *names: str) -> Account:
    account = Account.of(records)
    for record in records:
        account.note_published(record, 10.0)
    for name in names:
        account.note_scored(event(name), 10.5)
    return account


def test_no_picture_is_both_learned_from_and_watched_and_none_is_lost():
    pictures, digits = load_digits()
    training, watched, hidden = split_digits(HIDDEN, seed=0)
    assert len(training) + len(watched) + len(hidden) == len(pictures)
    every = sorted(map(bytes, np.concatenate([training, watched, hidden])))
    assert every == sorted(map(bytes, pictures))
    assert sorted(map(bytes, hidden)) == sorted(map(bytes, pictures[digits == HIDDEN]))


def test_what_the_cameras_send_is_as_its_truth_says():
    training, watched, hidden = split_digits(HIDDEN, seed=0)
    records = plan_pictures("t", watched, hidden, seed=0)
    values = {truth: [r.value for r in records if r.truth == truth] for truth in {r.truth for r in records}}
    assert {truth: len(found) for truth, found in values.items()} == {
        NORMAL: len(watched) - 2 * ANOMALIES,
        "unseen digit": ANOMALIES,
        "scratched lens": ANOMALIES,
        "half dead sensor": ANOMALIES,
        "broken": 4,
    }
    assert set(values["unseen digit"]) <= set(map(bytes, hidden))
    assert set(values[NORMAL]) <= set(map(bytes, watched))
    assert not set(values["scratched lens"]) & set(map(bytes, np.concatenate([watched, training])))
    assert len({record.id for record in records}) == len(records)


@pytest.mark.parametrize("damage", [scratch, half_dead])
def test_damage_leaves_the_picture_that_it_is_given_alone(damage):
    picture = load_digits()[0][0]
    before = picture.copy()
    assert (damage(picture, np.random.default_rng(0)) != before).any()
    np.testing.assert_array_equal(picture, before)


def test_no_hour_is_both_learned_from_and_watched_and_no_incident_is_learned_from():
    series = load_flow()
    learned, before, after = split_flow(series)
    assert before.times + learned.times + after.times == series.times
    for incident in INCIDENTS:
        assert not [time for time in learned.times if incident.start <= time.replace(tzinfo=None) < incident.end]


def test_a_window_is_strange_as_long_as_one_of_its_hours_is():
    _, before, after = split_flow(load_flow())
    records = plan_flow("t", "s", before)
    assert [r.due for r in records[: WINDOW + 1]] == [Due.NOTHING] * (WINDOW - 1) + [Due.SCORE] * 2
    assert {r.truth for r in [*records, *plan_flow("t", "s", after)]} == {NORMAL, *(i.name for i in INCIDENTS)}
    strange = [r.truth for r in records].count("peak, 3 April")
    assert strange == 2 + WINDOW - 1


def test_the_hours_of_low_flow_are_low_and_those_of_the_peak_high():
    """The incidents' hours are read off the series, so the series must bear them out."""
    series = load_flow()
    values = series.values[:, 0]
    usual, spread = np.median(values), np.percentile(values, 99) - np.percentile(values, 50)
    for incident in INCIDENTS:
        during = [
            v
            for t, v in zip(series.times, values, strict=True)
            if incident.start <= t.replace(tzinfo=None) < incident.end
        ]
        extreme = min(during) < usual - 10 * spread if "low" in incident.name else max(during) > usual + 2 * spread
        assert extreme, incident


def test_records_are_counted_by_their_truth():
    records = [planned("a"), planned("b"), planned("c", "scratch"), planned("d", "scratch"), planned("e", "unseen")]
    counts = raised(records, "a", "c", "e").by_record()
    assert counts == {NORMAL: Counts(0, 0, 1), "scratch": Counts(1, 1, 0), "unseen": Counts(1, 0, 0)}
    assert total(counts.values()) == Counts(2, 1, 1)


def test_precision_and_recall_are_shares_of_what_was_raised_and_of_what_was_due():
    counts = Counts(found=6, missed=2, false=3)
    assert counts.precision == pytest.approx(6 / 9)
    assert counts.recall == pytest.approx(6 / 8)
    assert (Counts(0, 0, 0).precision, Counts(0, 0, 0).recall) == (None, None)


def test_an_incident_is_found_by_any_of_its_windows_and_an_episode_without_any_is_one_false_alarm():
    records = [planned(f"{n}", "leak" if n in (4, 5) else "peak" if n == 8 else NORMAL) for n in range(10)]
    account = raised(records)
    for name in ("0", "1", "3", "5", "7"):
        account.note_scored(event(name, offset=int(name)), 10.5)
    for name, state, episode in (("0", "open", "e1"), ("2", "close", "e1"), ("3", "open", "e2"), ("6", "close", "e2")):
        account.note_alert(alert(name, state, int(name), episode), 10.5)
    assert account.outstanding >= {"7"}
    account.note_alert(alert("7", "open", 7, "e3"), 10.5)
    assert account.by_incident() == Counts(found=1, missed=1, false=2)


def test_an_account_is_open_until_every_score_dead_letter_and_alert_has_come():
    account = raised([planned("a", "scratch"), planned("b", due=Due.DEAD_LETTER), planned("c", due=Due.NOTHING)])
    assert account.outstanding == {"a", "b"}
    account.note_scored(event("a"), 11.0)
    account.note_dead("b", 12.0)
    assert account.outstanding == {"a"}
    account.note_alert(alert("a"), 10.25)
    assert account.outstanding == set()
    assert account.in_order
    assert account.delay(0.5) == 0.25
    assert account.rate == 1.0


def test_a_record_that_ended_otherwise_than_it_should_is_noticed():
    account = raised([planned("a"), planned("b", due=Due.DEAD_LETTER)])
    account.note_scored(event("a", False), 11.0)
    account.note_scored(event("b", False), 11.0)
    assert not account.in_order


def test_one_alert_answers_for_all_anomalous_records_of_its_episode():
    account = raised([planned(f"{n}", "leak") for n in range(5)])
    for name in ("0", "1", "4"):
        account.note_scored(event(name, offset=int(name)), 10.5)
    account.note_scored(event("2", is_anomaly=False, offset=2), 10.5)
    account.note_scored(event("3", is_anomaly=False, offset=3), 10.5)
    account.note_alert(alert("0", "open", 0), 10.5)
    assert account.outstanding == set()
    account.note_alert(alert("3", "close", 3), 10.5)
    assert account.outstanding == {"4"}
    account.note_alert(alert("4", "update", 4), 10.5)
    assert account.outstanding == set()
    assert (account.alerts, account.by_record()) == (3, {"leak": Counts(3, 2, 0)})


def test_the_shift_that_ends_an_episode_answers_for_its_record():
    account = raised([planned("a", "leak"), planned("b", "leak")])
    for at, name in enumerate("ab"):
        account.note_scored(event(name, offset=at), 10.5)
    account.note_alert(alert("a", "open", 0), 10.5)
    account.note_alert(alert("b", "shift", 1), 10.5)
    assert account.outstanding == set()


def test_the_alert_that_closes_an_episode_is_no_alarm_and_neither_is_a_record_published_with_all():
    account = raised([planned("a")])
    account.note_alert(alert("a", "close"), 11.0)
    account.note_alert(alert("a", None), 11.0)
    assert account.by_record() == {NORMAL: Counts(0, 0, 0)}
    assert (account.alerts, account.delays) == (1, [])


def test_the_table_shows_every_figure_and_survives_that_there_are_none():
    pictures = raised([planned("a", "scratch"), planned("b", "scratch"), planned("c")], "a")
    flow = raised([planned("x", "leak"), planned("y")])
    burst = raised([planned("p")])
    burst.note_scored(event("p", is_anomaly=False), 10.5)
    result = summary(pictures, flow, burst)
    assert result["burst"] == {"records": 1, "records_per_second": 2.0}
    assert result["images"]["kinds"] == {"scratch": {"found": 1, "missed": 1}}
    assert (result["sequences"]["missed"], result["sequences"]["precision"]) == (1, None)
    console = Console(file=StringIO(), width=100)
    console.print(table(result))
    shown = [" ".join(row.split()) for row in console.file.getvalue().replace("│", " ").splitlines()]
    assert {
        "found 1 pictures 0 incidents",
        "scratch 1 of 2",
        "leak 0 of 1 windows",
        "missed 1 pictures 1 incidents",
        "precision 1.00 –",
        "recall 0.50 0.00",
    } <= set(shown)

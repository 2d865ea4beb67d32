"""Streams that change are noticed, streams that don't are not, and what is told of them adds up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.datasets import load_digits

from model.config import Kind
from model.reference import Reference
from stream_app.clock import ManualClock
from stream_app.drift.assess import WORST, PartitionDrift, assess
from stream_app.drift.monitor import MOST_WAITING, Allowance, DriftMonitor
from stream_app.drift.report import DriftReport
from stream_app.drift.rolling import RollingCounts
from stream_app.records import TopicPartition
from stream_app.settings import DriftSettings

TP = TopicPartition("records.images", 0)
SETTINGS = DriftSettings()
UNSEEN = 4


def law(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Scores as calibration makes them: of a share of 10^-s none is higher than s."""
    return np.random.default_rng(seed).exponential(1.0 / math.log(10.0), count).astype(np.float32)


@dataclass(frozen=True)
class Digits:
    """Real pictures `[N, 8, 8, 1]` uint8: two halves of those that are not 4, and the 4s."""

    seen: NDArray[np.uint8]
    fresh: NDArray[np.uint8]
    unseen: NDArray[np.uint8]


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = load_digits()
    pictures = np.round(data.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    # They come sorted by their writers, who differ.
    normal = pictures[data.target != UNSEEN][np.random.default_rng(0).permutation((data.target != UNSEEN).sum())]
    return Digits(normal[:1000], normal[1000:], pictures[data.target == UNSEEN])


@dataclass
class Version:
    """A scorer, as far as the monitor asks for it."""

    reference: Reference
    version: str = "1"
    name: str = "images"


@pytest.fixture(scope="module")
def trained(digits: Digits) -> Version:
    return Version(Reference.fit(Kind.IMAGE, digits.seen, law(300)))


@dataclass
class Watched:
    """A partition whose streams are watched."""

    settings: DriftSettings = SETTINGS
    clock: ManualClock = field(default_factory=ManualClock)
    kind: Kind = Kind.IMAGE
    most: int = 100_000

    def __post_init__(self) -> None:
        self.monitor = DriftMonitor(self.settings, self.kind, self.most, Allowance(self.settings.cpu, self.clock))

    def see(self, scorer: Version, rows, stream="camera", scores=None, *, chunk=64) -> None:
        scores = law(len(rows), seed=len(rows)) if scores is None else scores
        names = [stream] * len(rows) if isinstance(stream, str) else list(stream)
        for first in range(0, len(rows), chunk):
            some = slice(first, first + chunk)
            self.monitor.observe(scorer, names[some], scores[some], rows[some])

    def told(self, known=None, partition=0) -> PartitionDrift:
        everything = known if known is not None else AnyStream()
        counted = self.monitor.counted(everything)
        assert counted is not None
        return assess(counted, TopicPartition(TP.topic, partition), self.settings, self.clock.time())


class AnyStream:
    def __contains__(self, name: object) -> bool:
        return True


def drifting(part: PartitionDrift) -> set[str]:
    return {name for name, each in part.statistics.items() if each.drifting}


def test_pictures_of_the_same_source_have_not_drifted(digits, trained):
    watched = Watched()
    watched.see(trained, digits.fresh[:400])
    part = watched.told()
    assert (part.streams, part.judged, part.drifting, part.worst) == (1, 1, 0, [])
    assert max(each.psi_max for each in part.statistics.values()) < SETTINGS.psi


def test_a_lamp_that_dims_is_noticed_within_300_records(digits, trained):
    watched = Watched()
    watched.see(trained, digits.fresh[:600])
    assert watched.told().drifting == 0
    watched.see(trained, (digits.fresh[:300] * 0.7).astype(np.uint8))
    part = watched.told()
    assert {"brightness", "contrast"} <= drifting(part)
    assert part.worst[0].stream == "camera"
    assert part.worst[0].psi > SETTINGS.psi


def test_another_kind_of_normal_is_noticed_where_its_brightness_is_the_same(digits, trained):
    watched = Watched()
    watched.see(trained, np.tile(digits.unseen, (2, 1, 1, 1)))
    assert drifting(watched.told()) & {"contrast", "saturated"}


def test_scores_that_rise_are_noticed(digits, trained):
    watched = Watched()
    watched.see(trained, digits.fresh[:300], scores=law(300) + np.float32(0.5))
    part = watched.told()
    assert drifting(part) == {"score"}
    assert part.drifting == 1


def test_too_few_records_are_not_judged(digits, trained):
    watched = Watched()
    watched.see(trained, np.zeros((SETTINGS.min_records - 1, 8, 8, 1), np.uint8))
    part = watched.told()
    assert (part.streams, part.judged, part.drifting) == (1, 0, 0)


def test_of_1000_unchanged_streams_of_200_records_none_is_called_drifting(digits, trained):
    random = np.random.default_rng(7)
    watched = Watched(DriftSettings(cpu=1.0))
    for number in range(0, 1000, 10):
        # As many pictures as were never learned from: drawn again and again, each stream its own sample.
        rows = digits.fresh[random.integers(0, len(digits.fresh), 2000)]
        names = [f"camera-{number + record % 10}" for record in range(2000)]
        watched.see(trained, rows, names, law(2000, seed=number), chunk=256)
    part = watched.told()
    assert (part.judged, part.drifting) == (1000, 0)


def test_streams_are_judged_each_by_itself(digits, trained):
    dark = (digits.fresh * 0.6).astype(np.uint8)
    names = np.array([f"camera-{number}" for number in range(10)])
    watched = Watched()
    for turn in range(300):
        rows = digits.fresh[[(turn * 7 + number * 31) % len(digits.fresh) for number in range(10)]]
        rows[3] = dark[turn]
        watched.see(trained, rows, names, law(10, seed=turn))
    part = watched.told()
    assert (part.judged, part.drifting) == (10, 1)
    assert {each.stream for each in part.worst} == {"camera-3"}


def test_a_change_that_is_over_is_forgotten(digits, trained):
    watched = Watched()
    watched.see(trained, (digits.fresh[:500] * 0.5).astype(np.uint8))
    assert watched.told().drifting == 1
    for _ in range(3):
        watched.see(trained, digits.fresh[:600])
    assert watched.told().drifting == 0


def test_another_version_begins_anew_against_its_own_reference(digits, trained):
    dark = (digits.fresh * 0.6).astype(np.uint8)
    watched = Watched()
    watched.see(trained, dark[:300])
    assert watched.told().drifting == 1
    watched.see(Version(Reference.fit(Kind.IMAGE, (digits.seen * 0.6).astype(np.uint8), law(300)), "2"), dark[:300])
    part = watched.told()
    assert (part.version, part.judged, part.drifting) == ("2", 1, 0)


def test_a_version_without_a_reference_is_watched_by_its_scores(digits):
    watched = Watched()
    watched.see(Version(Reference.of_law(300)), digits.fresh[:300])
    part = watched.told()
    assert list(part.statistics) == ["score"]
    assert part.drifting == 0


def test_a_stream_that_left_the_memory_gives_its_place_back(digits, trained):
    watched = Watched()
    watched.see(trained, digits.fresh[:200], [f"camera-{number}" for number in range(200)])
    assert watched.told().streams == 200
    assert watched.told(known={"camera-5"}).streams == 1
    watched.see(trained, digits.fresh[:300], "camera-6")
    part = watched.told()
    assert part.streams == 2
    assert part.judged == 1


def test_of_more_streams_than_there_is_room_for_the_first_are_watched(digits, trained):
    watched = Watched(most=10)
    watched.see(trained, digits.fresh[:200], [f"camera-{number % 20}" for number in range(200)])
    counted = watched.monitor.counted(AnyStream())
    assert counted.names == [f"camera-{number}" for number in range(10)]
    assert counted.records.tolist() == [10] * 10


def test_under_load_no_more_is_counted_than_the_allowance_has_time_for(digits, trained, monkeypatch):
    watched = Watched(DriftSettings(cpu=0.01))
    count = DriftMonitor._add
    monkeypatch.setattr(DriftMonitor, "_add", lambda *all_: (watched.clock.advance(0.2), count(*all_)))
    rows = np.resize(digits.fresh, (MOST_WAITING, 8, 8, 1))
    watched.see(trained, rows, chunk=MOST_WAITING)
    watched.see(trained, rows, chunk=MOST_WAITING)  # 0.15 seconds too much were taken: passed over
    assert watched.monitor.counted(AnyStream()).records.sum() == MOST_WAITING
    watched.clock.advance(16.0)
    watched.see(trained, rows, chunk=MOST_WAITING)
    assert watched.monitor._names == []


def test_what_is_off_counts_nothing(digits, trained):
    watched = Watched(DriftSettings(enabled=False))
    watched.see(trained, digits.fresh)
    assert watched.monitor.counted(AnyStream()) is None


def test_a_generation_is_kept_until_the_next_is_full():
    rolling = RollingCounts(width=2, half=100)
    slot = rolling.open()
    for total, expected in ((60, 60), (120, 120), (180, 180), (240, 120), (300, 180)):
        rolling.add(np.full(60, slot), np.zeros((60, 1), np.int64))
        counters, records = rolling.totals(np.array([slot]))
        assert records.tolist() == [expected], total
        assert counters.tolist() == [[expected, 0]]


def test_slots_grow_and_begin_empty():
    rolling = RollingCounts(width=3, half=100)
    slots = np.array([rolling.open() for _ in range(200)])
    assert len(set(slots.tolist())) == 200
    rolling.add(slots, np.full((200, 1), 2))
    rolling.close(int(slots[7]))
    again = rolling.open()
    counters, records = rolling.totals(np.array([again, slots[8]]))
    assert records.tolist() == [0, 1]
    assert counters.tolist() == [[0, 0, 0], [0, 0, 1]]


def partitions(digits, trained, dark_streams: int) -> list[PartitionDrift]:
    """Two partitions of 30 streams each, some of them dark."""
    random = np.random.default_rng(9)
    parts = []
    for partition in range(2):
        watched = Watched()
        for number in range(30):
            rows = digits.fresh[random.integers(0, len(digits.fresh), 250)]
            if number < dark_streams:
                rows = (rows * 0.6).astype(np.uint8)
            watched.see(trained, rows, f"camera-{partition}-{number}", law(250, seed=number + 50 * partition))
        parts.append(watched.told(partition=partition))
    return parts


def test_partitions_add_up_and_the_worst_streams_are_named(digits, trained):
    parts = partitions(digits, trained, dark_streams=15)
    report = DriftReport.add_up("images", parts, SETTINGS)
    assert (report.streams, report.judged, report.drifting, report.share) == (60, 60, 30, 0.5)
    assert report.statistics["brightness"].records == 60 * 250
    assert len(report.worst) == WORST
    assert [each.excess for each in report.worst] == sorted((each.excess for each in report.worst), reverse=True)
    assert {each.partition for each in report.worst} == {0, 1}
    reason = report.fires(SETTINGS)
    assert reason is not None
    assert reason.startswith("30 of 60 streams drift from what 1 was trained on, ")
    assert reason.endswith("(drift.trigger_share=0.2)")


def test_no_drift_asks_for_nothing(digits, trained):
    report = DriftReport.add_up("images", partitions(digits, trained, dark_streams=0), SETTINGS)
    assert report.share == 0.0
    assert report.fires(SETTINGS) is None
    assert DriftReport.add_up("images", [], SETTINGS).fires(SETTINGS) is None


def test_a_few_streams_that_drift_ask_for_nothing_by_default(digits, trained):
    report = DriftReport.add_up("images", partitions(digits, trained, dark_streams=3), SETTINGS)
    assert report.drifting == 6
    assert report.fires(SETTINGS) is None
    assert report.fires(DriftSettings(trigger_share=0.05)) is not None


def test_streams_too_short_to_judge_ask_together(digits, trained):
    watched = Watched()
    watched.see(
        trained, (digits.fresh[:400] * 0.6).astype(np.uint8), [f"camera-{number % 50}" for number in range(400)]
    )
    report = DriftReport.add_up("images", [watched.told()], SETTINGS)
    assert report.judged == 0
    reason = report.fires(SETTINGS)
    assert reason is not None
    assert "of all streams together drifts from what 1 was trained on: PSI" in reason


def test_what_was_told_of_an_older_version_does_not_count(digits, trained):
    parts = partitions(digits, trained, dark_streams=15)
    newer = parts[1].model_copy(update={"version": "2", "at": parts[1].at + 1})
    report = DriftReport.add_up("images", [parts[0], newer], SETTINGS)
    assert (report.version, report.streams) == ("2", 30)


def test_a_window_that_forgets_too_much_at_once_is_refused():
    with pytest.raises(ValidationError, match="min_records=600 must be at most half of window=1000"):
        DriftSettings(min_records=600)

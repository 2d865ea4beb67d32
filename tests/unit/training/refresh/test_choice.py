"""What becomes of the records that were looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream_app.settings import SnapshotSettings, ThresholdSettings
from training.refresh.choice import Choice, choose
from training.refresh.known import Marks
from training.refresh.scan import Scan, digests_of, spans_of
from training.split import meets

T = 8


def scan_of(counts: list[int], *, windows: bool = False, scores: np.ndarray | None = None) -> Scan:
    """Streams of so many records each, in turn in one partition."""
    streams = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    places = np.zeros(len(streams), np.int64)
    for stream in range(len(counts)):
        places[streams == stream] = np.arange(T, counts[stream] + T)
    count = len(streams)
    times, untimed = np.zeros((count, 2)), np.zeros(count, np.bool_)
    return Scan(
        partitions=np.zeros(count, np.int64),
        offsets=np.arange(count),
        published=np.arange(count) * 1000,
        streams=streams,
        numbers={(0, str(stream)): stream for stream in range(len(counts))},
        scores=clean(count) if scores is None else scores,
        spans=spans_of(streams, places, times, untimed, T) if windows else None,
        digests=None if windows else np.arange(count),
        shape=(T, 1) if windows else (8, 8, 1),
        dtype=np.dtype(np.float32),
        records=count + 5,
        unreadable=2,
        incomplete=3,
    )


def clean(count: int) -> np.ndarray:
    return -np.log10(1.0 - np.random.default_rng(1).random(count)).astype(np.float32)


def marks_of(scan: Scan, **masks: list[int]) -> Marks:
    each = {name: np.zeros(len(scan), np.bool_) for name in ("in_episode", "anomalous", "normal")}
    for name, index in masks.items():
        each[name][index] = True
    return Marks(**each, changes=np.zeros(len(scan), np.int64))


def chosen(scan: Scan, marks: Marks | None = None, seed: int = 0, **settings: Any) -> Choice:
    return choose(scan, marks or marks_of(scan), SnapshotSettings(**settings), ThresholdSettings(), seed)


def all_of(choice: Choice) -> list[int]:
    return np.concatenate([choice.normal, choice.anomalous, choice.fresh, choice.labelled]).tolist()


@pytest.mark.parametrize("windows", [False, True])
def test_every_record_has_one_fate_and_the_same_seed_gives_it_again(windows: bool) -> None:
    scan = scan_of([3000, 200, 40], windows=windows)
    marks = marks_of(scan, in_episode=[*range(50, 90)], anomalous=[500, 900, 1300, 1700], normal=[60, 2000])
    choice, again, other = (chosen(scan, marks, seed, records=1000) for seed in (3, 3, 4))
    assert sum(choice.counts.values()) == 2 * scan.records
    assert len(set(all_of(choice))) == len(all_of(choice)) <= 1000
    assert all_of(choice) == all_of(again)
    assert all_of(choice) != all_of(other)


def test_the_same_record_is_learned_once_and_not_where_it_was_labelled_or_alerted() -> None:
    pictures = np.random.default_rng(2).integers(0, 256, (1000, 8, 8, 1), np.uint8)
    shown = np.concatenate([pictures, pictures[:300], pictures[:300]])
    scan = replace(scan_of([len(shown)]), digests=digests_of(shown))
    choice = chosen(scan, marks_of(scan, in_episode=[7], anomalous=[1008, 50]), records=2000, leave_out=0.0)
    kept = np.concatenate([choice.normal, choice.fresh])
    assert len(kept) == len(np.unique(scan.digests[kept])) == 997
    assert choice.counts["repeated"] == 600
    assert not np.isin(kept % 1000, [7, 8, 50]).any()


def test_no_stream_outweighs_the_others_and_small_ones_are_kept_whole() -> None:
    scan = scan_of([20_000, 1000, 100])
    kept = np.bincount(scan.streams[chosen(scan, records=1000, leave_out=0.0).normal])
    assert kept.sum() == 800
    assert kept[0] == kept[1]
    assert kept[2] >= 70


def test_the_newest_of_each_stream_are_fresh_and_share_nothing_with_what_is_learned_from() -> None:
    scan = scan_of([1500, 500], windows=True)
    choice = chosen(scan, records=5000, fresh=0.2)
    assert scan.spans is not None
    assert not meets(scan.spans[choice.normal], scan.spans[choice.fresh]).any()
    for stream in (0, 1):
        learned, fresh = (part[scan.streams[part] == stream] for part in (choice.normal, choice.fresh))
        assert learned.max() < fresh.min()
        assert len(fresh) > 0.15 * (scan.streams == stream).sum()


def test_windows_that_hold_what_was_alerted_are_left_out_with_it() -> None:
    scan = scan_of([1000], windows=True)
    choice = chosen(scan, marks_of(scan, in_episode=[300, 301], anomalous=[500]), leave_out=0.0)
    gone = set(range(len(scan))) - set(all_of(choice))
    assert set(range(300, 302 + T - 1)) | set(range(501, 500 + T)) <= gone
    assert choice.labelled.tolist() == [500]
    assert 299 in choice.normal
    assert 302 + T - 1 in choice.normal


def test_a_third_of_the_labelled_incidents_is_kept_to_judge_by_and_the_others_are_taught() -> None:
    scan = scan_of([2000])
    anomalous = list(range(100, 1300, 100))
    choice = chosen(scan, marks_of(scan, anomalous=anomalous))
    assert len(choice.anomalous) == 8
    assert len(choice.labelled) == 4
    assert sorted([*choice.anomalous.tolist(), *choice.labelled.tolist()]) == anomalous


def test_what_is_labelled_normal_may_score_as_high_as_it_likes() -> None:
    scores = clean(2000)
    scores[[100, 200, 300]] = 50.0
    scan = scan_of([2000], scores=scores)
    assert not {100, 200, 300} & set(all_of(chosen(scan)))
    kept = chosen(scan, marks_of(scan, normal=[100, 200, 300]))
    assert {100, 200, 300} <= set(all_of(kept))


def test_a_stream_that_changed_in_its_middle_is_learned_from_after_it() -> None:
    scores = clean(4000)
    scores[2000:] += 4.0
    scan = scan_of([4000], scores=scores)
    marks = marks_of(scan)
    marks.changes[2000:] = 1
    learned = chosen(scan, marks, fresh=0.1).normal
    assert (learned >= 2000).sum() > 1300


def test_memory_is_a_limit_too() -> None:
    scan = scan_of([3000])
    assert len(all_of(chosen(scan, bytes=500 * scan.row_bytes))) == 500


def test_spans_follow_the_times_that_a_stream_tells_and_the_count_otherwise() -> None:
    streams = np.array([0, 0, 1, 1, 1])
    places = np.array([8, 9, 8, 9, 10])
    times = np.array([[0, 0], [0, 0], [0.0, 7.0], [7.0, 9.0], [7.5, 8.0]])
    spans = spans_of(streams, places, times, np.array([False, False, True, True, True]), 8)
    assert spans[:2].tolist() == [[0, 7], [1, 8]]
    assert meets(spans[[2]], spans[[3]])[0]
    assert not meets(spans[[2]], spans[[4]])[0]
    assert meets(spans[[3]], spans[[4]])[0]
    assert spans[2:].min() > spans[:2].max()
    whole = spans_of(np.zeros(3, np.int64), np.arange(1, 4), np.full((3, 2), np.nan), np.zeros(3, np.bool_), 8)
    assert len({tuple(each) for each in whole.tolist()}) == 3

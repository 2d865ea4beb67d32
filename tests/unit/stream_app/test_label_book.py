"""Which labels are in force, whatever their order, their age and their number."""

from __future__ import annotations

from typing import Any

import pytest

from stream_app.corrections import Mark
from stream_app.events import Label, event_id, rfc3339
from stream_app.label_book import LabelBook

NOW = 1_700_000_000.0


def label(offset: int, kind: str = "normal", **fields: Any) -> Label:
    place = {"detector": "images", "topic": "records.images", "partition": 0, "offset": offset}
    others = {"stream": "cam", "label": kind, "score": float(offset), "at": rfc3339(fields.pop("at", NOW))}
    return Label.model_validate({"id": event_id(*place.values()), **place, **others, **fields})


def marks(book: LabelBook) -> list[float]:
    return [mark.score for mark in book.marks("images", "records.images", "cam")]


def test_of_a_record_the_last_in_a_partition_holds_whatever_their_clocks_say() -> None:
    book = LabelBook()
    book.add(label(3, "normal"), 0, NOW)
    book.add(label(3, "anomaly"), 0, NOW - 500.0)

    assert book.labels() == [label(3, "anomaly")]
    assert book.marks("images", "records.images", "cam") == (Mark(3.0, is_anomaly=True),)


def test_between_partitions_the_time_of_publication_decides() -> None:
    book = LabelBook()
    book.add(label(3, "anomaly"), 1, NOW)
    book.add(label(3, "normal"), 0, NOW - 500.0)

    assert book.labels() == [label(3, "anomaly")]


def test_a_label_that_was_taken_back_is_gone_and_may_come_again() -> None:
    book = LabelBook()
    for kind in ("normal", "none"):
        book.add(label(3, kind), 0, NOW)

    assert (book.labels(), marks(book)) == ([], [])
    book.add(label(3, "anomaly"), 0, NOW)
    assert marks(book) == [3.0]


def test_a_record_has_one_label_whichever_stream_it_is_said_to_be_of() -> None:
    book = LabelBook()
    book.add(label(3, stream="wrong"), 0, NOW)
    book.add(label(3), 1, NOW)

    assert set(book.streams("images", "records.images")) == {"cam"}
    assert len(book) == 1


def test_a_label_without_a_score_is_a_label_and_moves_no_threshold() -> None:
    book = LabelBook()
    book.add(label(3, score=None), 0, NOW)

    assert (len(book.labels()), marks(book)) == (1, [])


def test_streams_of_other_topics_and_detectors_are_others() -> None:
    book = LabelBook()
    book.add(label(3), 0, NOW)

    assert book.marks("images", "elsewhere", "cam") == book.marks("other", "records.images", "cam") == ()


def test_labels_are_kept_until_the_horizon_and_the_newest_of_a_stream() -> None:
    book = LabelBook(horizon=100.0, per_stream=2)
    for offset in (1, 2, 3):
        book.add(label(offset, at=NOW + offset), 0, NOW + offset, NOW + offset)

    assert marks(book) == [2.0, 3.0]
    book.expire(NOW + 102.5)
    assert marks(book) == [3.0]
    book.expire(NOW + 104.0)
    assert (marks(book), len(book), set(book.streams("images", "records.images"))) == ([], 0, set())


@pytest.mark.parametrize(("at", "published"), [(NOW + 1e9, NOW), (NOW, NOW + 1e9), (NOW + 1e9, NOW + 1e9)])
def test_a_clock_that_is_ahead_makes_no_label_live_longer(at: float, published: float) -> None:
    book = LabelBook(horizon=100.0)
    book.add(label(3, at=at), 0, published, NOW)

    book.expire(NOW + 101.0)
    assert marks(book) == []


def test_the_version_rises_when_something_changes_and_only_then() -> None:
    book, seen = LabelBook(horizon=100.0), [0]

    def changed() -> bool:
        seen.append(book.version)
        return seen[-1] > seen[-2]

    book.add(label(3), 1, NOW)
    assert changed()
    book.add(label(3, "anomaly"), 0, NOW - 5.0)  # an older one
    assert not changed()
    book.expire(NOW + 1.0)
    assert not changed()
    book.expire(NOW + 101.0)
    assert changed()

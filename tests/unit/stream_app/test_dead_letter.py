"""Dead letters say why; too many of them stop the worker."""

from __future__ import annotations

import pytest

from stream_app.dead_letter import Fuse, dead_letter_headers
from stream_app.errors import FuseBlown, ShapeError
from stream_app.records import TopicPartition
from stream_app.settings import DeadLetterSettings
from tests.unit.stream_app.raw import Record

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


def test_the_reason_is_in_kafka_connects_headers_behind_the_records_own():
    record = Record(b"x", [("content-type", b"image/png")], offset=42, partition=3)
    assert dead_letter_headers(record, "decode", ShapeError("shape: größer")) == [
        ("content-type", b"image/png"),
        ("__connect.errors.topic", b"records.images"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"42"),
        ("__connect.errors.stage", b"decode"),
        ("__connect.errors.exception.class.name", b"ShapeError"),
        ("__connect.errors.exception.message", "shape: größer".encode()),
    ]


def test_a_run_of_dead_letters_in_a_partition_blows_the_fuse():
    fuse = Fuse(DeadLetterSettings(max_run=3, window=1000))
    fuse.check(A, [True, True], "r")
    fuse.check(B, [True, True], "r")
    fuse.check(A, [True], "r")
    with pytest.raises(
        FuseBlown, match=r"4 dead letters in a row in partition 0 of t.*max_run=3; the last reason: why"
    ):
        fuse.check(A, [True], "why")


def test_a_good_record_ends_a_run():
    fuse = Fuse(DeadLetterSettings(max_run=2, window=1000))
    for _ in range(10):
        fuse.check(A, [True, True, False], "r")


def test_a_share_of_dead_letters_blows_the_fuse_once_there_are_enough_records():
    fuse = Fuse(DeadLetterSettings(max_run=100, max_share=0.5, window=20))
    for _ in range(3):
        fuse.check(A, [True, True, True, False, False], "r")
    with pytest.raises(
        FuseBlown, match=r"12 of the last 20 records were dead letters, more than dead_letter.max_share=0.5"
    ):
        fuse.check(A, [True, True, True, False, False], "r")


def test_only_the_last_records_count_for_the_share():
    fuse = Fuse(DeadLetterSettings(max_run=100, max_share=0.5, window=10))
    for _ in range(4):
        fuse.check(A, [True, True, False, False, False], "r")
    fuse.check(A, [True, True, True, False, False], "r")
    with pytest.raises(FuseBlown, match="6 of the last 10"):
        fuse.check(A, [True, True, True, False, False], "r")

"""Micro-batches: order, size, patience."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_app.batching import Job, MicroBatcher


def job(values, arrived=0.0):
    return Job(np.array(values, np.float32).reshape(-1, 1), arrived)


def values(batch):
    return batch.rows[:, 0].tolist()


def test_rows_of_several_jobs_share_a_batch_in_order():
    batcher = MicroBatcher(max_batch=10)
    batcher.add(job([1, 2]))
    batcher.add(job([3]))
    assert values(batcher.take(now=0.0)) == [1, 2, 3]
    assert batcher.take(now=0.0) is None


def test_a_job_larger_than_a_batch_is_split():
    batcher = MicroBatcher(max_batch=2)
    large = job([1, 2, 3, 4, 5])
    batcher.add(large)
    batches = [batcher.take(now=0.0) for _ in range(3)]
    assert [values(batch) for batch in batches] == [[1, 2], [3, 4], [5]]
    assert [batch.parts for batch in batches] == [[(large, 0, 2)], [(large, 2, 2)], [(large, 4, 1)]]


def test_without_linger_whatever_is_there_goes():
    batcher = MicroBatcher(max_batch=100)
    batcher.add(job([1], arrived=5.0))
    assert values(batcher.take(now=5.0)) == [1]


def test_with_linger_a_batch_waits_from_its_first_row_until_it_is_full():
    batcher = MicroBatcher(max_batch=3, linger=1.0)
    batcher.add(job([1], arrived=10.0))
    batcher.add(job([2], arrived=10.9))
    assert batcher.due_at() == 11.0
    assert batcher.take(now=10.95) is None
    batcher.add(job([3], arrived=10.96))
    assert values(batcher.take(now=10.96)) == [1, 2, 3]


def test_with_linger_an_unfilled_batch_goes_when_its_time_is_up():
    batcher = MicroBatcher(max_batch=3, linger=1.0)
    batcher.add(job([1], arrived=10.0))
    assert values(batcher.take(now=11.0)) == [1]


def test_one_job_of_a_whole_batch_is_not_copied():
    batcher = MicroBatcher(max_batch=4)
    rows = np.zeros((4, 2), np.uint8)
    batcher.add(Job(rows, 0.0))
    assert np.shares_memory(batcher.take(now=0.0).rows, rows)


def test_rows_of_another_shape_begin_another_batch():
    batcher = MicroBatcher(max_batch=4)
    batcher.add(Job(np.zeros((1, 2), np.float32), 0.0))
    batcher.add(Job(np.zeros((1, 3), np.float32), 0.0))
    assert batcher.take(now=0.0).rows.shape == (1, 2)
    assert batcher.take(now=0.0).rows.shape == (1, 3)


def test_what_is_left_of_a_job_can_be_taken_alone():
    batcher = MicroBatcher(max_batch=2)
    batcher.add(job([1, 2, 3]))
    batcher.add(job([4]))
    assert batcher.take(now=0.0, only_begun=True) is None
    batcher.take(now=0.0)
    assert batcher.begun
    assert values(batcher.take(now=0.0, only_begun=True)) == [3]
    assert not batcher.begun


@given(sizes=st.lists(st.integers(1, 9), max_size=20), max_batch=st.integers(1, 7))
def test_every_row_is_in_exactly_one_batch_in_order(sizes, max_batch):
    batcher = MicroBatcher(max_batch)
    first = 0
    for size in sizes:
        batcher.add(job(range(first, first + size)))
        first += size
    seen = []
    while (batch := batcher.take(now=0.0)) is not None:
        assert len(batch.rows) <= max_batch
        assert sum(count for _, _, count in batch.parts) == len(batch.rows)
        seen += values(batch)
    assert seen == list(range(first))
    assert batcher.rows_waiting == 0

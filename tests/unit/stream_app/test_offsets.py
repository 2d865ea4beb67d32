"""What may be committed: the unbroken run of finished chunks of the assignment in force, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.offsets import OffsetLedger
from stream_app.records import Chunk, TopicPartition
from tests.unit.stream_app.raw import Record

TP = TopicPartition("t", 0)


def chunk(first: int, last: int, generation: int = 1, tp: TopicPartition = TP) -> Chunk:
    return Chunk(tp, first, [Record(b"x", offset=last)], generation, size=10)


def ledger_of(*chunks: Chunk) -> OffsetLedger:
    ledger = OffsetLedger()
    ledger.assign([TP], generation=1)
    for each in chunks:
        ledger.deliver(each)
    return ledger


def test_nothing_is_committed_before_the_first_chunk_is_done():
    first, second = chunk(0, 9), chunk(10, 19)
    ledger = ledger_of(first, second)
    ledger.finish(second)
    assert ledger.committable(TP) is None
    ledger.finish(first)
    assert ledger.committable(TP) == 20


def test_a_chunk_that_failed_holds_back_all_behind_it():
    chunks = [chunk(first, first + 9) for first in range(0, 50, 10)]
    ledger = ledger_of(*chunks)
    for index in (0, 1, 3, 4):
        ledger.finish(chunks[index])
    assert ledger.committable(TP) == 20


def test_a_gap_of_the_log_belongs_to_the_chunk_behind_it():
    ledger = ledger_of(chunk(5, 9))
    assert ledger.first_offset(TP, 400) == 10
    behind = chunk(10, 409)
    ledger.deliver(behind)
    ledger.finish(behind)
    assert ledger.committable(TP) is None


def test_gaps_do_not_block():
    first = chunk(5, 9)
    ledger = ledger_of(first)
    behind = chunk(ledger.first_offset(TP, 400), 409)
    ledger.deliver(behind)
    ledger.finish(first)
    ledger.finish(behind)
    assert ledger.committable(TP) == 410


def test_a_chunk_of_an_older_assignment_counts_for_nothing():
    old = chunk(0, 9)
    ledger = ledger_of(old)
    ledger.assign([TP], generation=2)
    assert ledger.finish(old) is False
    assert ledger.committable(TP) is None
    assert ledger.in_hand_bytes == 0


def test_the_same_offsets_of_an_older_assignment_do_not_finish_the_new_chunk():
    old, new = chunk(0, 9, generation=1), chunk(0, 9, generation=2)
    ledger = ledger_of(old)
    ledger.assign([TP], generation=2)
    ledger.deliver(new)
    ledger.finish(old)
    assert ledger.committable(TP) is None
    ledger.finish(new)
    assert ledger.committable(TP) == 10


def test_a_chunk_counts_once():
    first, second = chunk(0, 9), chunk(10, 19)
    ledger = ledger_of(first, second)
    assert ledger.finish(first) is True
    assert ledger.finish(first) is False
    assert ledger.in_hand_bytes == 10


def test_what_is_committed_is_not_committed_again_and_not_by_another_assignment():
    first = chunk(0, 9)
    ledger = ledger_of(first)
    ledger.finish(first)
    ledger.commit({TP: 10}, generation=0)
    assert ledger.committable(TP) == 10
    ledger.commit({TP: 10}, generation=1)
    assert ledger.committable(TP) is None


def test_after_revocation_nothing_is_taken_or_committed():
    first = chunk(0, 9)
    ledger = ledger_of(first)
    ledger.revoke()
    ledger.finish(first)
    ledger.deliver(chunk(10, 19))
    assert (ledger.committable(TP), ledger.in_hand_bytes, ledger.in_hand_records) == (None, 0, 0)


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    gaps=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    order=st.randoms(use_true_random=False),
    finished=st.integers(0, 12),
)
def test_the_frontier_is_the_end_of_the_unbroken_run(lengths, gaps, order, finished):
    ledger = OffsetLedger()
    ledger.assign([TP], generation=1)
    chunks, offset = [], 7
    for length, gap in zip(lengths, gaps, strict=False):
        offset += gap
        chunks.append(chunk(ledger.first_offset(TP, offset), offset + length - 1))
        ledger.deliver(chunks[-1])
        offset += length
    shuffled = order.sample(chunks, len(chunks))
    done = [id(each) for each in shuffled[:finished]]
    for each in shuffled[:finished]:
        ledger.finish(each)
    expected = None
    for each in chunks:
        if id(each) not in done:
            break
        expected = each.end
    assert ledger.committable(TP) == expected
    assert ledger.in_hand_bytes == 10 * (len(chunks) - len(done))


def test_what_is_made_of_a_chunk_is_in_hand_until_it_is_done():
    first, second = chunk(0, 9), chunk(10, 19)
    ledger = ledger_of(first, second)
    ledger.grow(first, 90)
    assert ledger.in_hand_bytes == 110
    ledger.finish(first)
    ledger.grow(first, 90)
    ledger.grow(chunk(10, 19), 90)
    assert ledger.in_hand_bytes == second.size == 10

"""The order of a commit cycle: acknowledgements, then states, then offsets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from stream_app.clock import ManualClock
from stream_app.commit import BYTES_PER_CALL, STATES_PER_CALL, CommitCycle
from stream_app.errors import PublishFault, RedisUnavailable
from stream_app.offsets import OffsetLedger
from stream_app.publish import Publisher
from stream_app.records import Chunk, TopicPartition
from stream_app.state import Mark, StreamState
from tests.unit.stream_app.raw import TP, Record


class Journal:
    """What happened, in order: the producer, the store and the streams write into it."""

    def __init__(self):
        self.lines: list[str] = []
        self.acknowledgement: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.redis_away = False
        self.answers = None  # it is away after so many
        self.saved = []
        self.marks = {}
        self.epoch = b"first"
        self.degraded = False

    async def send(self, *arguments):
        async def acknowledged():
            await self.acknowledgement
            self.lines.append("acknowledged")

        return asyncio.ensure_future(acknowledged())

    async def save(self, changes, marks):
        if self.redis_away or len(self.saved) == self.answers:
            raise RedisUnavailable("away")
        self.saved.append(changes)
        self.lines.append(f"saved { {place: sorted(states) for place, states in changes.items()} }")
        self.marks |= marks
        return dict.fromkeys(marks, self.epoch)


@dataclass
class States:
    changed: set[str] = field(default_factory=lambda: {"cam"})
    saved: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    state: StreamState = field(default_factory=lambda: StreamState(b"", b"", b"", 9))

    def take_changes(self, floor):
        taken, self.changed = self.changed, set()
        return dict.fromkeys(sorted(taken), self.state)

    def settle_changes(self, saved, unsaved):
        self.saved += saved
        self.kept += sorted(unsaved)

    epoch: bytes | None = None

    def mark(self, offset):
        return Mark(self.epoch, offset)

    def check(self, epoch, mark):
        known, self.epoch = self.epoch, epoch
        if known in (None, epoch):
            return True
        self.changed = {"cam", "idle"}
        return False


@dataclass
class Lane:
    detector: str = "images"
    streams: States = field(default_factory=States)
    between_chunks: asyncio.Lock = field(default_factory=asyncio.Lock)
    sound: bool = True


async def one_partition(topic):
    return 1


@pytest.fixture
async def cycle():
    journal = Journal()
    ledger = OffsetLedger()
    ledger.assign([TP], generation=1)
    chunk = Chunk(TP, 0, [Record(b"x", offset=9)], 1, size=1)
    ledger.deliver(chunk)
    publisher = Publisher(journal, one_partition, ManualClock())
    await publisher.send("scores", 0, b"k", b"v")
    commit = CommitCycle(ledger, publisher, journal, ManualClock(), publish_timeout=0.05)
    return commit, journal, ledger, chunk


async def test_nothing_is_saved_before_everything_is_acknowledged(cycle):
    commit, journal, ledger, chunk = cycle
    ledger.finish(chunk)
    preparing = asyncio.create_task(commit.prepare({TP: Lane()}))
    await asyncio.sleep(0)
    assert journal.lines == []
    journal.acknowledgement.set_result(None)
    assert await preparing == {TP: 10}
    assert journal.lines == ["acknowledged", "saved {('images', 'records.images', 0): ['cam']}"]


async def test_without_acknowledgement_nothing_is_saved_and_no_offset_is_given(cycle):
    commit, journal, ledger, chunk = cycle
    ledger.finish(chunk)
    with pytest.raises(PublishFault):
        await commit.prepare({TP: Lane()})
    assert journal.lines == []


async def test_nothing_done_is_nothing_to_commit(cycle):
    commit, journal, _, _ = cycle
    assert await commit.prepare({TP: Lane()}) == {}
    assert journal.lines == []


async def test_a_lane_in_the_middle_of_a_chunk_is_waited_for(cycle):
    commit, journal, ledger, chunk = cycle
    journal.acknowledgement.set_result(None)
    lane = Lane()
    async with lane.between_chunks:
        preparing = asyncio.create_task(commit.prepare({TP: lane}))
        await asyncio.sleep(0)
        assert lane.streams.changed == {"cam"}
        ledger.finish(chunk)
    assert await preparing == {TP: 10}


async def test_of_streams_that_learned_what_was_never_told_nothing_is_saved(cycle):
    commit, journal, ledger, chunk = cycle
    ledger.finish(chunk)
    journal.acknowledgement.set_result(None)
    assert await commit.prepare({TP: Lane(sound=False)}) == {}
    assert journal.lines == []


async def test_all_partitions_are_saved_in_one_round_trip(cycle):
    commit, journal, ledger, _ = cycle
    other = TopicPartition(TP.topic, 1)
    ledger.assign([TP, other], generation=2)
    for tp in (TP, other):
        part = Chunk(tp, 0, [Record(b"x", offset=9)], 2, size=1)
        ledger.deliver(part)
        ledger.finish(part)
    journal.acknowledgement.set_result(None)
    await commit.prepare({TP: Lane(), other: Lane()})
    assert len([line for line in journal.lines if line.startswith("saved")]) == 1


async def test_when_redis_was_flushed_everything_is_saved_again_before_offsets_are_given(cycle):
    commit, journal, ledger, chunk = cycle
    ledger.finish(chunk)
    journal.acknowledgement.set_result(None)
    journal.epoch = None
    lane = Lane(streams=States(epoch=b"first"))
    assert await commit.prepare({TP: lane}) == {TP: 10}
    assert [line.split("): ")[-1] for line in journal.lines[1:]] == ["['cam']}", "['cam', 'idle']}"]


async def test_without_redis_offsets_are_committed_and_the_states_stay_changed(cycle):
    commit, journal, ledger, chunk = cycle
    ledger.finish(chunk)
    journal.acknowledgement.set_result(None)
    journal.redis_away = True
    lane = Lane()
    assert await commit.prepare({TP: lane}) == {TP: 10}
    assert lane.streams.kept == ["cam"]
    assert lane.streams.saved == []


@pytest.mark.parametrize(
    ("count", "state"),
    [(2 * STATES_PER_CALL + 5, b""), (25, bytes(BYTES_PER_CALL // 10))],
    ids=["many", "large"],
)
async def test_what_is_too_much_for_one_round_trip_goes_in_several_and_what_went_through_is_settled(
    cycle, count, state
):
    commit, journal, ledger, chunk = cycle
    ledger.finish(chunk)
    journal.acknowledgement.set_result(None)
    journal.answers = 2
    names = [f"{number:06}" for number in range(count)]
    lane = Lane(streams=States(set(names), state=StreamState(state, b"", b"", 9)))
    assert await commit.prepare({TP: lane}) == {TP: 10}
    assert len(journal.saved) == 2
    assert lane.streams.saved == [name for call in journal.saved for name in call["images", *TP]]
    assert lane.streams.saved + lane.streams.kept == names
    assert lane.streams.epoch is None  # it must not say that all is there before it is
    journal.answers, lane.streams.changed = None, set(lane.streams.kept)
    ledger.commit({TP: 0}, generation=1)
    await commit.prepare({TP: lane})
    assert lane.streams.saved == names
    assert lane.streams.epoch == journal.epoch
    assert journal.marks == {("images", *TP): Mark(None, 10)}

"""Events keep the order of their partition; what the broker refuses is a fault, or sent smaller."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from stream_app.clock import ManualClock
from stream_app.errors import PublishFault
from stream_app.publish import Publisher, wait_for_acknowledgements


class FaultyProducer:
    """Takes messages; refuses values beyond `limit` bytes as a broker does, in the acknowledgement."""

    def __init__(self, limit=100, error=None):
        self.sent = []
        self._limit = limit
        self._error = error

    async def send(self, topic, key, value, partition, timestamp, headers):
        if self._error is not None:
            raise self._error
        self.sent.append((topic, key, value, partition, headers))
        acknowledgement = asyncio.get_running_loop().create_future()
        if value is not None and len(value) > self._limit:
            acknowledgement.set_exception(MessageSizeTooLargeError())
        else:
            acknowledgement.set_result(None)
        return acknowledgement


async def two_partitions(topic):
    return 2


def publisher(producer):
    return Publisher(producer, two_partitions, ManualClock())


async def test_an_event_goes_to_the_partition_of_its_record_modulo_the_topics():
    producer = FaultyProducer()
    each = publisher(producer)
    for partition in range(4):
        await each.send("alerts", partition, b"k", b"v")
    assert [sent[3] for sent in producer.sent] == [0, 1, 0, 1]


async def test_what_was_sent_is_awaited_once():
    each = publisher(FaultyProducer())
    await each.send("alerts", 0, b"k", b"v")
    taken = each.take_unacknowledged()
    await wait_for_acknowledgements(taken, timeout=1.0)
    assert (len(taken), each.take_unacknowledged()) == (1, [])


async def test_a_producer_that_raises_is_a_fault_that_names_the_topic():
    with pytest.raises(PublishFault, match="an event for topic alerts could not be handed to the producer"):
        await publisher(FaultyProducer(error=KafkaTimeoutError())).send("alerts", 0, b"k", b"v")


async def test_an_event_that_the_broker_refuses_is_a_fault():
    each = publisher(FaultyProducer(limit=3))
    await each.send("alerts", 0, b"k", b"long value")
    with pytest.raises(PublishFault, match="the broker did not take an event"):
        await wait_for_acknowledgements(each.take_unacknowledged(), timeout=1.0)


async def test_no_acknowledgement_in_time_is_a_fault_that_names_the_setting():
    never = asyncio.get_running_loop().create_future()
    with pytest.raises(PublishFault, match=r"1 events were not acknowledged within worker\.publish_timeout=0\.01 s"):
        await wait_for_acknowledgements([never], timeout=0.01)


async def test_what_is_too_large_goes_without_its_value_where_that_is_allowed():
    producer = FaultyProducer(limit=3)
    each = publisher(producer)
    await each.send("dead", 1, b"k", b"long value", [("a", b"1")], smaller=[("a", b"1"), ("omitted", b"10")])
    await wait_for_acknowledgements(each.take_unacknowledged(), timeout=1.0)
    assert producer.sent == [
        ("dead", b"k", b"long value", 1, [("a", b"1")]),
        ("dead", b"k", None, 1, [("a", b"1"), ("omitted", b"10")]),
    ]

"""Labelled records that are older than the range: labels are rare, so each of them is fetched by its offset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from model.manifest import Known
from stream_app.events import Label
from stream_app.records import TopicPartition
from training.refresh.known import known_by_label
from training.refresh.readings import Ranges, Spots


class Older(NamedTuple):
    """What labels say of older records.

    Of `gone` others the broker no longer has the record, and `beyond` are those that are more than the setting allows.
    """

    known: list[Known]
    gone: int
    beyond: int


def older_by_labels(
    labels: Iterable[Label],
    detector: str,
    topic: str,
    ranges: Ranges,
    there: Mapping[TopicPartition, tuple[int, int]],
    most: int,
) -> Older:
    """Of the labels, the oldest first, those about records of the detector from before the ranges.

    `there` is what the broker still has of each partition. The newest `most` labels are kept.
    """
    found, gone = list[Known](), 0
    for each in labels:
        known = known_by_label(each, detector, topic)
        if known is None or known.first >= ranges.get(known.partition, (0, 0))[0]:
            continue
        if known.first < there.get(TopicPartition(topic, known.partition), (0, 0))[0]:
            gone += 1
        else:
            found.append(known)
    kept = found[max(0, len(found) - most) :]
    return Older(kept, gone, len(found) - len(kept))


def spots_of(known: Iterable[Known], ranges: Ranges) -> dict[int, Sequence[int]]:
    """Where the labelled records from before the ranges are: offsets, ascending, by partition."""
    spots: defaultdict[int, set[int]] = defaultdict(set)
    for each in known:
        if each.what in ("normal", "anomaly") and each.first < ranges.get(each.partition, (0, 0))[0]:
            spots[each.partition].add(each.first)
    return {partition: sorted(offsets) for partition, offsets in sorted(spots.items())}


def count_of(spots: Spots) -> int:
    """How many records that are."""
    return sum(map(len, spots.values()))

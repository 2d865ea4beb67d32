"""What a stream carries, as records to train on: a pinned range of a topic, without what is not normal.

The topic is read twice, by a consumer without a group: once to score and to choose, once to fetch what was chosen. So
the memory it takes is that of what is kept, and the choice is the same whenever the same offsets are read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import Profile
from model.detector import Detector
from model.errors import TrainingError
from model.manifest import Known, Manifest, TrainingData
from stream_app.clock import Clock, SystemClock
from stream_app.decode import InputSpec
from stream_app.errors import TopicUnavailable
from stream_app.events import Label
from stream_app.history import bounds, first_since
from stream_app.labels import read_labels
from stream_app.records import TopicPartition
from stream_app.settings import Settings, SnapshotSettings
from training.data import Dataset
from training.refresh.choice import Choice, choose, told
from training.refresh.known import known_by_labels, mark, read_episodes
from training.refresh.older import Older, count_of, older_by_labels, spots_of
from training.refresh.readings import Ranges, Spots, read_pieces
from training.refresh.sampling import fair_quotas
from training.refresh.scan import Scan, scan

# The settings that decide what is kept, by section; where to look is said by the offsets.
CHOICE = {
    "snapshot": ("records", "bytes", "leave_out", "fresh", "older_lead"),
    "threshold": ("shift_after", "shift_share"),
}

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Looking:
    """How far a snapshot is: of `total` records, `done` have been read to score them, or to fetch what was chosen."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Records of a topic.

    `dataset`: what to train on; rows with y == 1 are labelled anomalies. `fresh`: the newest of each stream, normal as
    far as is known, of which nothing is in `dataset`. `labelled`: labelled records that are in neither, `x` `[n, …]`
    and `y` `[n]`. `ranges`: partition to the first offset that was looked at and the one after the last. `counts`: what
    became of the records. `sha256`: of all rows that are kept, in order.
    """

    dataset: Dataset
    fresh: Dataset
    labelled: tuple[NDArray[Any], NDArray[np.int64]]
    ranges: dict[int, tuple[int, int]]
    counts: dict[str, int]
    sha256: str


async def take_snapshot(
    settings: Settings,
    topic: str,
    detector_name: str,
    champion: Detector | None,
    *,
    spec: InputSpec | None = None,
    ranges: Ranges | None = None,
    labels: Iterable[Label] | None = None,
    known: Iterable[Known] | None = None,
    seed: int = 0,
    on_progress: Callable[[Looking], None] | None = None,
    clock: Clock | None = None,
) -> Snapshot:
    """Reads what there is to learn for a detector from its topic, up to where it ends now.

    What the detector takes is what `champion` does; without one `spec` says it, and nothing is left out by score.
    `ranges` are read instead of the newest `snapshot.records_back` records, and `labels` are taken instead of those of
    their topic. `known` is what alerts and labels said before: neither is asked for again. Labelled records from before
    the ranges are read besides, as far as the broker has them.

    Raises BrokerUnavailable, TopicUnavailable, and TrainingError where too little is left or a range is gone.
    """
    spec = spec if champion is None else spec_of_manifest(champion.manifest)
    assert spec is not None
    looked_at = dict(ranges) if ranges else await newest_ranges(settings, topic, clock)
    older = Older([], 0, 0)
    if known is None:
        said = list(await read_labels(settings) if labels is None else labels)
        older = await _older(settings, said, detector_name, topic, looked_at)
        facts = older.known + known_by_labels(said, detector_name, topic, looked_at)
    else:
        facts = list(known)
    spots = spots_of(facts, looked_at)
    total = sum(end - first for first, end in looked_at.values()) + count_of(spots)
    found = await scan(settings, topic, spec, looked_at, champion, _shown(on_progress, "score", total), spots)
    if known is None:
        facts += await _episodes(settings, detector_name, topic, looked_at, found)
    marks = mark(facts, found.offsets, found.rows)
    choice = choose(found, marks, settings.snapshot, settings.threshold, seed)
    choice.counts["labels_gone"] = older.gone + count_of(spots) - found.alone
    choice.counts["labels_beyond"] = older.beyond
    _check_enough(topic, choice, settings.snapshot)
    origin = TrainingData(
        source=f"topic {topic}",
        rows=len(choice.normal),
        topic=topic,
        offsets={str(partition): span for partition, span in sorted(looked_at.items())},
        champion=champion.version if champion else None,
        profile=champion.profile if champion else Profile.ACCURATE,
        seed=seed,
        choice=_choice_of(settings),
        known=tuple(facts),
        counts=choice.counts,
    )
    rows = await _fetch(settings, topic, spec, looked_at, found, choice, _shown(on_progress, "fetch", total), spots)
    return _assemble(spec, found, choice, rows, origin, marks.anomalous, looked_at)


async def _older(settings: Settings, labels: list[Label], detector: str, topic: str, ranges: Ranges) -> Older:
    most = settings.snapshot.older_labels
    return older_by_labels(labels, detector, topic, ranges, await bounds(settings, topic), most)


async def _episodes(settings: Settings, detector: str, topic: str, ranges: Ranges, found: Scan) -> list[Known]:
    """What alerts say of the ranges' records."""
    begins = np.array([ranges[partition][0] for partition in found.partitions.tolist()], np.int64)
    within = found.offsets >= begins
    since = float(found.published[within].min()) / 1000.0 if within.any() else 0.0
    offsets = {stream: found.offsets[rows[within[rows]]] for stream, rows in found.rows.items()}
    return await read_episodes(settings, detector, topic, ranges, offsets, since)


def _choice_of(settings: Settings) -> dict[str, float]:
    return {
        f"{section}.{name}": getattr(getattr(settings, section), name)
        for section, names in CHOICE.items()
        for name in names
    }


def settings_of_choice(settings: Settings, choice: Mapping[str, float]) -> Settings:
    """The settings with those that decided a choice as they were then; what a manifest does not say is as it is."""
    sections = {}
    for section, names in CHOICE.items():
        # Manifests of before there were several sections name those of the snapshot alone.
        known = {name: choice.get(f"{section}.{name}", choice.get(name)) for name in names}
        now = getattr(settings, section)
        sections[section] = now.model_copy(update={name: value for name, value in known.items() if value is not None})
    return settings.model_copy(update=sections)


def spec_of_manifest(manifest: Manifest) -> InputSpec:
    """What a detector takes."""
    return InputSpec(manifest.kind, manifest.input_shape, manifest.features)


async def newest_ranges(settings: Settings, topic: str, clock: Clock | None = None) -> dict[int, tuple[int, int]]:
    """The newest records of a topic as `snapshot.records_back` and `snapshot.seconds_back` limit them.

    Partitions share the number evenly, and what one of them lacks goes to the others. Raises BrokerUnavailable, and
    TopicUnavailable for a topic that does not exist.
    """
    limits = settings.snapshot
    there = await bounds(settings, topic)
    if not there:
        raise TopicUnavailable(f"topic {topic} does not exist; routes and --from-stream name the topics of records")
    if limits.seconds_back is not None:
        now = (clock or SystemClock()).time()
        begins = await first_since(settings, topic, now - limits.seconds_back)
        there = {tp: (max(first, begins.get(tp, end)), end) for tp, (first, end) in there.items()}
    counts = np.array([end - first for first, end in there.values()], np.int64)
    quotas = fair_quotas(counts, limits.records_back).tolist()
    return {tp.partition: (end - quota, end) for (tp, (_, end)), quota in zip(there.items(), quotas, strict=True)}


async def check_ranges(settings: Settings, topic: str, ranges: Ranges, known: Iterable[Known] = ()) -> None:
    """Raises TrainingError, naming them, where the broker no longer has all of the ranges, or the labelled records."""
    there = await bounds(settings, topic)
    gone = []
    for partition, (first, end) in sorted(ranges.items()):
        begins, ends = there.get(TopicPartition(topic, partition), (0, 0))
        if first < end and not begins <= first < end <= ends:
            gone.append(f"offsets {first} to {end - 1} of partition {partition} (it has {begins} to {ends - 1})")
    for partition, offsets in spots_of(known, ranges).items():
        begins, _ = there.get(TopicPartition(topic, partition), (0, 0))
        if offsets[0] < begins:
            gone.append(f"the labelled offset {offsets[0]} of partition {partition} (it has {begins} and later)")
    if gone:
        raise TrainingError(f"topic {topic}: the broker no longer has {'; '.join(gone)}")


def _check_enough(topic: str, choice: Choice, settings: SnapshotSettings) -> None:
    if len(choice.normal) >= settings.min_records:
        return
    raise TrainingError(
        f"topic {topic}: {len(choice.normal)} normal records are left to learn from, and snapshot.min_records="
        f"{settings.min_records} are needed. Of {choice.counts['read']} that were read {told(choice.counts) or 'none'}"
    )


async def _fetch(
    settings: Settings,
    topic: str,
    spec: InputSpec,
    ranges: Ranges,
    found: Scan,
    choice: Choice,
    on_record: Callable[[int], None] | None,
    spots: Spots,
) -> NDArray[Any]:
    """The rows that were chosen, in the order of the choice."""
    wanted = np.concatenate([choice.normal, choice.anomalous, choice.fresh, choice.labelled])
    rows = np.empty((len(wanted), *spec.shape), found.dtype)
    order = np.argsort(wanted)
    ascending = wanted[order]
    seen = filled = 0  # rows of the scan that went by, and those of them that were taken
    async for piece in read_pieces(settings, topic, spec, ranges, on_record, spots):
        _check_same(topic, piece.offsets, found.offsets[seen : seen + len(piece.offsets)])
        end = int(np.searchsorted(ascending, seen + len(piece.offsets)))
        rows[order[filled:end]] = piece.rows[ascending[filled:end] - seen]
        seen, filled = seen + len(piece.offsets), end
    _check_same(topic, found.offsets[seen:], np.zeros(0, np.int64))
    return rows


def _check_same(topic: str, offsets: Indices, expected: Indices) -> None:
    if not np.array_equal(offsets, expected):
        raise TrainingError(
            f"topic {topic}: records went away while they were read, as the topic keeps them for too short a time; a "
            "smaller snapshot.records_back leaves more of it"
        )


def _assemble(
    spec: InputSpec,
    found: Scan,
    choice: Choice,
    rows: NDArray[Any],
    origin: TrainingData,
    anomalous: NDArray[np.bool_],
    ranges: Ranges,
) -> Snapshot:
    ends = np.cumsum([len(choice.normal) + len(choice.anomalous), len(choice.fresh)])
    trained, fresh, labelled = np.split(rows, ends)
    y = np.repeat([0, 1], [len(choice.normal), len(choice.anomalous)])
    held = anomalous[choice.labelled].astype(np.int64)
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.ascontiguousarray(row).data)
    digest.update(np.concatenate([ends, y, held]).tobytes())
    origin = origin.model_copy(update={"sha256": digest.hexdigest()})
    index = np.concatenate([choice.normal, choice.anomalous])
    dataset = _dataset(spec, found, trained, index, y if y.any() else None, origin)
    return Snapshot(
        dataset,
        _dataset(spec, found, fresh, choice.fresh, None, origin),
        (labelled, held),
        dict(ranges),
        choice.counts,
        origin.sha256,
    )


def _dataset(
    spec: InputSpec,
    found: Scan,
    rows: NDArray[Any],
    index: Indices,
    y: NDArray[np.int64] | None,
    origin: TrainingData,
) -> Dataset:
    return Dataset(
        spec.kind,
        rows,
        y,
        np.ones(len(rows), np.bool_) if y is None else y == 0,
        None,
        origin.source,
        origin.sha256,
        features=spec.features,
        spans=None if found.spans is None else found.spans[index],
        origin=origin,
    )


def _shown(on_progress: Callable[[Looking], None] | None, what: str, total: int) -> Callable[[int], None]:
    done = 0

    def show(records: int) -> None:
        nonlocal done
        done += records
        if on_progress:
            on_progress(Looking(what, done, total))

    return show

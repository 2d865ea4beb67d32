"""Which of the records that were looked at are learned from, which judge what was learned, and which are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from stream_app.settings import SnapshotSettings, ThresholdSettings
from training.parts import incidents
from training.refresh.known import Marks
from training.refresh.sampling import by_stream, draw, draw_runs
from training.refresh.scan import Scan
from training.refresh.suspects import stretches, suspects
from training.split import meets

FEWEST_OF_A_STREAM = 20  # records that have newest ones of their own; streams with fewer are taken together
RUN_WINDOWS = 4  # lengths of a window that a run of overlapping ones has
HELD_BACK = 1.0 / 3.0  # of the labelled incidents, for the gate
MOST_LABELLED = 0.25  # of the records that are kept

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Fate(IntEnum):
    """What becomes of a record that was looked at."""

    LEARNED = 0
    LEARNED_AS_ANOMALY = 1
    FRESH = 2
    LABELLED = 3
    ALERTED = 4
    SCORED_HIGH = 5
    BESIDE = 6
    REPEATED = 7
    NOT_DRAWN = 8


WORDS = {
    Fate.LEARNED: "normal ones are learned from",
    Fate.LEARNED_AS_ANOMALY: "labelled anomalies are learned from",
    Fate.FRESH: "newest ones are kept to judge by",
    Fate.LABELLED: "labelled ones are kept to judge by",
    Fate.ALERTED: "have to do with an alert or a labelled anomaly",
    Fate.SCORED_HIGH: "have scores that are too high to be learned from",
    Fate.BESIDE: "share observations with what is kept to judge by",
    Fate.REPEATED: "are the same as others",
    Fate.NOT_DRAWN: "were not drawn",
}
LABELS = {
    "labels_gone": "labelled ones from before are gone from the broker",
    "labels_beyond": "labelled ones from before are more than snapshot.older_labels",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Indices into a scan, in the order of time: to learn from, as normal or anomalous, and to judge by.

    `counts` say by name what became of the records; they add up to those that were read. A snapshot adds those that it
    could not read (`LABELS`).
    """

    normal: Indices
    anomalous: Indices
    fresh: Indices
    labelled: Indices
    counts: dict[str, int]


def choose(scan: Scan, marks: Marks, settings: SnapshotSettings, threshold: ThresholdSettings, seed: int) -> Choice:
    """The same choice for the same records, marks, settings and seed."""
    random = np.random.default_rng(seed)
    most = min(settings.records, settings.bytes // max(scan.row_bytes, 1))
    taught, held = _labelled(scan, marks, random, round(most * MOST_LABELLED))
    strange = np.flatnonzero(marks.in_episode | marks.anomalous)
    fate = np.full(len(scan), Fate.NOT_DRAWN, np.int64)
    fate[_near(scan, held)] = Fate.BESIDE
    fate[_hold(scan, strange) & ~marks.normal] = Fate.ALERTED
    fate[held], fate[taught] = Fate.LABELLED, Fate.LEARNED_AS_ANOMALY
    fate[_repeats(scan, fate)] = Fate.REPEATED
    usable = np.flatnonzero(fate == Fate.NOT_DRAWN)
    newest = _newest(scan, usable, settings.fresh)
    high, in_excess = _suspicious(scan, marks, usable, settings.leave_out, threshold)
    older = np.setdiff1d(usable, newest)
    fate[older[_near(scan, newest)[older]]] = Fate.BESIDE
    fate[np.setdiff1d(high, newest)] = fate[np.intersect1d(in_excess, newest)] = Fate.SCORED_HIGH
    pool = newest[fate[newest] == Fate.NOT_DRAWN]
    fate[_draw(scan, pool, min(round(most * settings.fresh), most - len(held) - len(taught)), random)] = Fate.FRESH
    room = most - int(np.isin(fate, (Fate.FRESH, Fate.LABELLED, Fate.LEARNED_AS_ANOMALY)).sum())
    pool = older[fate[older] == Fate.NOT_DRAWN]
    fate[_draw(scan, pool, room, random)] = Fate.LEARNED
    learned, taught, fresh, held = (in_time(scan, np.flatnonzero(fate == each)) for each in list(Fate)[:4])
    return Choice(learned, taught, fresh, held, _count(scan, fate))


def in_time(scan: Scan, index: Indices) -> Indices:
    """Records in the order of time; windows that overlap stay together, in runs of `run_length`."""
    if scan.spans is None:
        return index[np.lexsort((index, scan.published[index]))]
    ordered = [np.zeros(0, np.int64)]
    for own in by_stream(scan.streams[index]):
        each = index[own]
        begins = np.flatnonzero(scan.spans[each[1:], 0] > np.maximum.accumulate(scan.spans[each[:-1], 1])) + 1
        for run in np.split(each, begins):
            ordered += np.array_split(run, max(1, round(len(run) / run_length(scan))))
    runs = [run for run in ordered if len(run)]
    times = [(int(scan.published[run[0]]), int(run[0])) for run in runs]
    in_order = [runs[place] for place in sorted(range(len(runs)), key=times.__getitem__)]
    return np.concatenate([np.zeros(0, np.int64), *in_order])


def run_length(scan: Scan) -> int:
    """How many windows in a row are drawn together: those that take up a few lengths of a window."""
    if scan.spans is None:
        return 1
    return RUN_WINDOWS * scan.shape[0]


def _draw(scan: Scan, pool: Indices, total: int, random: np.random.Generator) -> Indices:
    streams = scan.streams[pool]
    if scan.spans is None:
        return pool[draw(streams, total, random)]
    return pool[draw_runs(streams, total, run_length(scan), random)]


def _labelled(scan: Scan, marks: Marks, random: np.random.Generator, most: int) -> tuple[Indices, Indices]:
    """Labelled anomalies to learn from, and labelled records, a third of the incidents, to judge by."""
    held, taught = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for mask, least in ((marks.anomalous, 1), (marks.normal, 0)):
        found = np.flatnonzero(mask)
        if not len(found):
            continue
        each = incidents(found, scan.spans)
        order = random.permutation(len(each))
        count = max(least, round(HELD_BACK * len(each)))
        held += [each[number] for number in order[:count]]
        if mask is marks.anomalous:
            taught += [each[number] for number in order[count:]]
    return np.sort(np.concatenate(taught)[:most]), np.sort(np.concatenate(held)[:most])


def _suspicious(
    scan: Scan, marks: Marks, usable: Indices, share: float, threshold: ThresholdSettings
) -> tuple[Indices, Indices]:
    """Of the usable records those that score too high to be learned from, and of them those in excess."""
    none = np.zeros(0, np.int64)
    if scan.scores is None or not len(usable):
        return none, none
    usable = usable[~marks.normal[usable]]
    high, in_excess = [none], [none]
    keys = scan.streams[usable] * (int(marks.changes.max()) + 1) + marks.changes[usable]
    for stretch in stretches(keys, threshold.shift_after):
        out, excess = suspects(scan.scores[usable[stretch]], share, threshold.shift_share)
        high.append(usable[stretch[out]])
        in_excess.append(usable[stretch[excess]])
    return np.concatenate(high), np.concatenate(in_excess)


def _newest(scan: Scan, usable: Indices, share: float) -> Indices:
    """The newest of each stream's usable records."""
    newest = [np.zeros(0, np.int64)]
    for own in by_stream(scan.streams[usable], FEWEST_OF_A_STREAM):
        each = usable[own]
        each = each[np.lexsort((each, scan.published[each]))] if len(set(scan.streams[each].tolist())) > 1 else each
        newest.append(each[len(each) - round(share * len(each)) :])
    return np.sort(np.concatenate(newest))


def _near(scan: Scan, others: Indices) -> Mask:
    """Which records are among the others, or share an observation with one of them."""
    mask: Mask = np.isin(np.arange(len(scan)), others)
    return mask if scan.spans is None or not len(others) else meets(scan.spans, scan.spans[others])


def _repeats(scan: Scan, fate: Indices) -> Indices:
    """Which records that are still to be had are the same as one that has a fate already, or as an earlier one.

    What was learned by heart says nothing about what is new, and what is anomalous does not become normal by coming
    again.
    """
    if scan.digests is None:
        return np.zeros(0, np.int64)
    in_turn = np.lexsort((scan.published, fate == Fate.NOT_DRAWN))
    _, first = np.unique(scan.digests[in_turn], return_index=True)
    others = np.setdiff1d(in_turn, in_turn[first])
    repeated: Indices = others[fate[others] == Fate.NOT_DRAWN]
    return repeated


def _hold(scan: Scan, strange: Indices) -> Mask:
    """Which records are strange, or windows that hold the newest observation of a strange one."""
    if scan.spans is None or not len(strange):
        return _near(scan, strange)
    return meets(scan.spans, scan.spans[strange][:, [1, 1]])


def _count(scan: Scan, fate: Indices) -> dict[str, int]:
    each = np.bincount(fate, minlength=len(Fate))
    return {
        "read": scan.records,
        "unreadable": scan.unreadable,
        "incomplete": scan.incomplete,
        **{kind.name.lower(): int(each[kind]) for kind in Fate},
    }


def told(counts: Mapping[str, int]) -> str:
    """What became of the records that were read, for people."""
    each = {
        "could not be read": counts["unreadable"],
        "completed no window": counts["incomplete"],
        **{words: counts[fate.name.lower()] for fate, words in WORDS.items()},
    }
    each |= {words: counts.get(name, 0) for name, words in LABELS.items()}
    return ", ".join(f"{count} {words}" for words, count in each.items() if count)

"""Which of many records are kept, so that no stream outweighs the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def fair_quotas(counts: Indices, total: int) -> Indices:
    """How many of each stream's `counts` `[S]` records are kept, `total` in all where there are so many.

    None is given more than it has; what is left is shared out evenly among the others, the first ones having one more.
    """
    if counts.sum() <= total:
        return counts.copy()
    order = np.argsort(counts, kind="stable")
    quotas = np.zeros_like(counts)
    left = total
    for place, stream in enumerate(order.tolist()):
        quotas[stream] = min(int(counts[stream]), left // (len(order) - place))
        left -= int(quotas[stream])
    return quotas


def draw(streams: Indices, total: int, random: np.random.Generator) -> Indices:
    """`total` of the records, ascending, whose numbers of streams are `streams` `[n]`; all where there are no more.

    Within a stream each record is as likely as another, so that its times are kept in proportion.
    """
    groups = by_stream(streams)
    quotas = fair_quotas(np.array([len(each) for each in groups], np.int64), total)
    chosen = [
        each if quota == len(each) else random.choice(each, int(quota), replace=False)
        for each, quota in zip(groups, quotas, strict=True)
    ]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))


def draw_runs(streams: Indices, total: int, length: int, random: np.random.Generator) -> Indices:
    """As `draw`, but of each stream runs of up to `length` records in a row, for windows that overlap.

    Of single windows most would share observations with one that is held out. A few are left over, as runs of a stream
    are of one length.
    """
    groups = by_stream(streams)
    quotas = fair_quotas(np.array([len(each) for each in groups], np.int64), total)
    chosen = [np.zeros(0, np.int64)]
    for each, quota in zip(groups, quotas.tolist(), strict=True):
        if quota in (0, len(each)):
            chosen.append(each[:quota])
            continue
        runs = -(-quota // length)
        size = quota // runs
        places = np.sort(random.choice(len(each) // size, runs, replace=False))
        # What does not fill a run lies before the first one or behind the last.
        start = int(random.integers(len(each) % size + 1))
        chosen.append(each[(start + places[:, np.newaxis] * size + np.arange(size)).ravel()])
    return np.sort(np.concatenate(chosen))


def by_stream(streams: Indices, fewest: int = 0) -> list[Indices]:
    """Indices `[n]` of the records of each stream, in order; those of streams with fewer than `fewest` together."""
    order = np.argsort(streams, kind="stable").astype(np.int64)
    each = [some for some in np.split(order, np.flatnonzero(np.diff(streams[order])) + 1) if len(some)]
    alone = [some for some in each if len(some) >= fewest]
    rest = [some for some in each if len(some) < fewest]
    return [*alone, np.sort(np.concatenate(rest))] if rest else alone

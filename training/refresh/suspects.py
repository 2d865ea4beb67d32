"""Which records are not to be learned from by how the model in service scores them.

A score says how rare it is among normal records, so that 10^-s of a clean stream score above s. What a stream has
beyond that is its share of anomalies, as in J. D. Storey, A direct approach to false discovery rates, JRSS B 64, 2002,
section 2, where p-values are 10^-s. Of the highest scores so many are left out and half as many again, and a fixed
share more: the excess is estimated from below, anomalies and normal records overlap, and few anomalies are enough to
spoil a model. A stretch most of whose records score high is none of that: the stream itself has changed, and what it
carries now is what is to be learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.refresh.sampling import by_stream

LEVELS = (0.5, 1.0, 1.3, 1.6, 2.0)  # scores at which the stream is held against the calibration
CERTAINTY = 2.0  # standard deviations by which an excess must be more than chance
MARGIN = 1.5  # times the excess
FEWEST = 100  # records of a stretch of its own: fewer say little of how many are anomalous

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]


def excess(scores: Scores) -> float:
    """The share of records `[n]`, 0…1, that score higher than a clean stream's would, as far as chance can't be it."""
    count = len(scores)
    found = 0.0
    for level in LEVELS:
        expected = 10.0**-level
        above = float((scores > level).mean()) if count else 0.0
        deviation = math.sqrt(max(above * (1.0 - above), expected * (1.0 - expected)) / max(count, 1))
        found = max(found, (above - CERTAINTY * deviation - expected) / (1.0 - expected))
    return found


def suspects(scores: Scores, share: float, most: float) -> tuple[Mask, Mask]:
    """Of one stretch `[n]`, in order: what is not to be learned, and what of it is hardly normal at all.

    Left out are the records with the highest scores, by the excess, where it is at most `most`, and `share` more. The
    excess itself is hardly normal, where it is more than `share`: a model that fits a little less is no anomaly.
    """
    beyond = excess(scores)
    if beyond > most:
        beyond = 0.0
    order = np.argsort(-scores, kind="stable")
    anomalous = round(beyond * len(scores))
    left_out, in_excess = np.zeros(len(scores), np.bool_), np.zeros(len(scores), np.bool_)
    in_excess[order[: anomalous if beyond > share else 0]] = True
    left_out[order[: round(MARGIN * anomalous) + math.ceil(share * len(scores))]] = True
    return left_out, in_excess


def stretches(streams: NDArray[np.int64], length: int) -> Sequence[NDArray[np.int64]]:
    """Indices of the records of each stretch: up to `length` of one stream, in order; what is short is put together.

    `streams` `[n]` are numbers of the streams, of records in order.
    """
    parts = (np.array_split(some, max(1, round(len(some) / length))) for some in by_stream(streams, FEWEST))
    return [part for each in parts for part in each if len(part)]

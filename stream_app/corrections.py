"""What people's labels do to a stream's threshold: a function of what it has learned and of the labels, and no more.

A record labelled normal should not alert again, so the threshold belongs at or above its score; one labelled an anomaly
should, so it belongs below. The learned threshold is moved as little as that takes, and never by more than a limit:
beyond it, it is for training to learn what people say, and not for a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MARGIN = 0.01  # the scores of one record differ by less from batch to batch; 2 % of a rate


class Mark(NamedTuple):
    """The score of a labelled record, in [0, inf), and whether it was labelled an anomaly."""

    score: float
    is_anomaly: bool


class Correction(NamedTuple):
    """A threshold that heeds labels.

    `labels` counts those that no newer one contradicts. `normal_up_to` is where the threshold should at least be for
    them; -inf where nothing was labelled normal.
    """

    threshold: float
    labels: int
    normal_up_to: float


def correct(learned: float, marks: Sequence[Mark], max_shift: float, least: float = 0.0) -> Correction:
    """The threshold nearest to `learned` that agrees with the marks, oldest first, but for the limits.

    It differs from `learned` by at most `max_shift`, and is at least `least` where `learned` is. Where marks contradict
    each other, such as an anomaly that scores below what was called normal, the newer one holds.
    """
    low, high, heeded = float("-inf"), float("inf"), 0
    for score, is_anomaly in reversed(marks):
        if is_anomaly and score - MARGIN >= low:
            high = min(high, score - MARGIN)
            heeded += 1
        elif not is_anomaly and score + MARGIN <= high:
            low = max(low, score + MARGIN)
            heeded += 1
    threshold = min(max(learned, low), high)
    threshold = min(max(threshold, learned - max_shift, least), learned + max_shift)
    return Correction(threshold, heeded, low)

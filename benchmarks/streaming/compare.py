"""What the stream said of a series beside what the file's scoring says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-5  # of a score


class Said(NamedTuple):
    """What was said of one observation."""

    score: float
    threshold: float
    is_anomaly: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of one series. `refused` observations were dead-lettered because of their time, `unexplained` without that.

    `missing` were scored in the file alone, `extra` in the stream alone or twice. The largest differences of score and
    threshold, and the verdicts that differ, are of those that both have.
    """

    observations: int
    scored: int
    refused: int
    unexplained: int
    missing: int
    extra: int
    score: float
    threshold: float
    verdicts: int

    @property
    def agrees(self) -> bool:
        """Whether it is as it should be: every row there, once, with the same score."""
        return not (self.unexplained or self.missing or self.extra) and self.score <= TOLERANCE


def compare(
    offline: Mapping[int, Said],
    stream: Sequence[tuple[int, Said]],
    dead: Iterable[int],
    times: NDArray[np.float64],
    lateness: float,
) -> Comparison:
    """By offset: what the file's scoring and the stream said, and which observations were dead letters."""
    found = dict(stream)
    both = sorted(offline.keys() & found.keys())
    refused = set(dead)
    late = set(np.flatnonzero(is_late(times, lateness)).tolist())
    return Comparison(
        observations=len(times),
        scored=len(found),
        refused=len(refused & late),
        unexplained=len(refused - late),
        missing=len(offline.keys() - found.keys()),
        extra=len(found.keys() - offline.keys()) + len(stream) - len(found),
        score=max((abs(found[at].score - offline[at].score) for at in both), default=0.0),
        threshold=max((abs(found[at].threshold - offline[at].threshold) for at in both), default=0.0),
        verdicts=sum(found[at].is_anomaly != offline[at].is_anomaly for at in both),
    )


def is_late(times: NDArray[np.float64], lateness: float) -> NDArray[np.bool_]:
    """Of observations in the order they are published in: those older than the newest before by more than that."""
    newest = np.maximum.accumulate(times)
    return newest - times > lateness

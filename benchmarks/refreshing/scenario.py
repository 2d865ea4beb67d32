"""A line whose products and light change: what is published, and the truth about it.

Digits 0 to 6 are normal. After a while the camera gets brighter and flatter, and 7 comes as a new kind of normal.
Planted throughout are pictures of a broken or dirty camera, by the generator of test pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from training.corruptions import corrupt

NORMAL, NEW = range(7), 7
CAMERA_DEFECTS = ("noise", "blur", "patch", "faded")
PLANTED_SHARE = 0.01
NEW_SHARE = 0.15
FADED, LIT = 0.5, 90.0  # contrast and brightness of the camera after the change

Pictures = NDArray[np.uint8]


class Phase(StrEnum):
    """What the stream is like."""

    BEFORE = "before"
    CHANGED = "changed"
    AFTER = "after"  # changed as well, and the new version is in service


@dataclass(frozen=True, slots=True)
class Published:
    """One record and the truth about it."""

    phase: Phase
    picture: Pictures
    is_anomaly: bool


def broken_camera(pictures: Pictures) -> Pictures:
    """Normal pictures `[N, H, W]` as a camera that is broken or dirty gives them."""
    result = corrupt(pictures, 0.9, CAMERA_DEFECTS, seed=0)
    chosen: Pictures = result.x[result.y == 1]
    return chosen


class Line:
    """Pictures for each phase, out of pools that share none: `history` `[N, H, W]` is what is trained on first."""

    def __init__(
        self,
        pictures: Pictures,
        digits: NDArray[np.integer],
        spoil: Callable[[Pictures], Pictures] = broken_camera,
        seed: int = 0,
    ) -> None:
        """`spoil` makes the anomalies that are planted out of normal pictures."""
        self._random = np.random.default_rng(seed)
        normal = self._random.permutation(np.flatnonzero(np.isin(digits, NORMAL)))
        new = self._random.permutation(np.flatnonzero(digits == NEW))
        parts = np.split(normal, [int(share * len(normal)) for share in (0.45, 0.6, 0.8)])
        self.history: Pictures = pictures[parts[0]]
        self._normal = {phase: pictures[part[len(part) // 4 :]] for phase, part in zip(Phase, parts[1:], strict=True)}
        self._new = dict(zip(Phase, (pictures[part] for part in np.array_split(new, 3)), strict=True))
        self._planted = {
            phase: spoil(pictures[part[: len(part) // 4]]) for phase, part in zip(Phase, parts[1:], strict=True)
        }

    def next(self, phase: Phase) -> Published:
        """A record of a phase; pictures of its pool are drawn again where many are needed."""
        is_anomaly = self._random.random() < PLANTED_SHARE
        pool = self._planted if is_anomaly else self._normal
        if not is_anomaly and phase is not Phase.BEFORE and self._random.random() < NEW_SHARE:
            pool = self._new
        picture = pool[phase][self._random.integers(len(pool[phase]))]
        return Published(phase, picture if phase is Phase.BEFORE else changed(picture), is_anomaly)


def changed(picture: Pictures) -> Pictures:
    """As the camera sees it after the change."""
    return np.clip(picture * FADED + LIT, 0, 255).astype(np.uint8)

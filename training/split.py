"""Which normal records are learned from and which are held out to calibrate on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.calibration import EXACT_UP_TO
from model.errors import TrainingError
from training.data import Dataset

MINIMUM = {"image": 50, "sequence": 100}
BLOCKS = 10
HELD_BLOCKS = (2, 5, 9)

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Indices into a dataset, ascending."""

    train: Indices
    held_out: Indices


def split(dataset: Dataset, random: np.random.Generator) -> Split:
    """Clean records to train on, and others, at least 20 and at most 1,500, to calibrate on.

    Pictures are drawn at random: a tenth, more where there are few. Windows are taken by blocks of time, three of ten
    with the newest among them, and those that share an observation with a held-out window are left out of both.
    Raises TrainingError, naming the minimum, where there are too few.
    """
    clean = np.flatnonzero(dataset.clean)
    minimum = MINIMUM[dataset.kind]
    if len(clean) < minimum:
        what = "pictures" if dataset.kind == "image" else "windows"
        raise TrainingError(f"{dataset.source}: {len(clean)} normal {what}; at least {minimum} are needed to train")
    return _at_random(clean, random) if dataset.kind == "image" else _by_blocks(dataset, clean)


def _at_random(clean: Indices, random: np.random.Generator) -> Split:
    count = len(clean)
    held = min(max(count // 10, min(150, count * 4 // 10)), EXACT_UP_TO)
    order = random.permutation(clean)
    return Split(np.sort(order[held:]), np.sort(order[:held]))


def _by_blocks(dataset: Dataset, clean: Indices) -> Split:
    block = np.arange(len(clean)) * BLOCKS // len(clean)
    held = np.isin(block, HELD_BLOCKS)
    train = clean[~held]
    if dataset.series is not None:
        train = _apart(train, clean[held], dataset.x.shape[1])
    if len(train) < 20:
        raise TrainingError(
            f"{dataset.source}: of {len(clean)} normal windows of {dataset.x.shape[1]} steps only {len(train)} share "
            "nothing with the held-out ones; give more rows or a shorter window"
        )
    held_out = clean[held]
    if len(held_out) > EXACT_UP_TO:
        held_out = held_out[np.linspace(0, len(held_out) - 1, EXACT_UP_TO).round().astype(np.int64)]
    return Split(train, held_out)


def _apart(train: Indices, held: Indices, length: int) -> Indices:
    """Those of `train` that lie at least `length` rows from each of `held` (both ascending)."""
    after = np.searchsorted(held, train)
    to_next = np.where(after < len(held), held[np.minimum(after, len(held) - 1)] - train, length)
    to_last = np.where(after > 0, train - held[np.maximum(after - 1, 0)], length)
    return train[np.minimum(to_next, to_last) >= length]

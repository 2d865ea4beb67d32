"""Which normal records are learned from and which are held out to calibrate on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.calibration import EXACT_UP_TO
from model.config import Kind
from model.errors import TrainingError
from training.data import Dataset

MINIMUM = {Kind.IMAGE: 50, Kind.SEQUENCE: 100}
# Blocks that a series is cut into, and those of them held out, the newest always. Around each, windows are lost to
# training, so that a short series is cut into fewer: the first way is taken that leaves enough.
WAYS = ((10, (2, 5, 9)), (6, (2, 5)), (4, (3,)))
ENOUGH = 0.4  # of the windows

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Indices into a dataset, ascending."""

    train: Indices
    held_out: Indices


def split(dataset: Dataset, random: np.random.Generator) -> Split:
    """Clean records to train on, and others, 10 at least and 1,500 at most, to calibrate on.

    Pictures are drawn at random: a tenth, a fifth where there are few. Windows are taken by blocks of time spread over
    the series, the newest among them; others that share an observation with a held-out window are left out of both.
    Raises TrainingError, naming the minimum, where there are too few.
    """
    clean = np.flatnonzero(dataset.clean)
    minimum = MINIMUM[dataset.kind]
    if len(clean) < minimum:
        what = "pictures" if dataset.kind is Kind.IMAGE else "windows"
        raise TrainingError(f"{dataset.source}: {len(clean)} normal {what}; at least {minimum} are needed to train")
    return _at_random(clean, random) if dataset.kind is Kind.IMAGE else _by_blocks(dataset, clean)


def _at_random(clean: Indices, random: np.random.Generator) -> Split:
    count = len(clean)
    held = min(max(count // 10, min(300, count // 5)), EXACT_UP_TO)
    order = random.permutation(clean)
    return Split(np.sort(order[held:]), np.sort(order[:held]))


def _by_blocks(dataset: Dataset, clean: Indices) -> Split:
    for count, chosen in WAYS:
        held = np.isin(np.arange(len(clean)) * count // len(clean), chosen)
        train = apart(dataset, clean[~held], clean[held])
        if len(train) >= ENOUGH * len(clean):
            break
    if len(train) < 20:
        raise TrainingError(
            f"{dataset.source}: of {len(clean)} normal windows of {dataset.x.shape[1]} steps only {len(train)} share "
            "nothing with the held-out ones; give more rows or a shorter window"
        )
    held_out = clean[held]
    if len(held_out) > EXACT_UP_TO:
        held_out = held_out[np.linspace(0, len(held_out) - 1, EXACT_UP_TO).round().astype(np.int64)]
    return Split(train, held_out)


def apart(dataset: Dataset, windows: Indices, held: Indices) -> Indices:
    """Those of `windows` that share no observation with any of `held`, in their order."""
    if dataset.spans is None or len(held) == 0:
        return windows
    far: Indices = windows[~meets(dataset.spans[windows], dataset.spans[held])]
    return far


def meets(spans: Indices, others: Indices) -> NDArray[np.bool_]:
    """Which of `spans` `[n, 2]` have a place in common with any of `others` `[m, 2]`, both ends belonging to a span."""
    ordered = others[np.argsort(others[:, 1], kind="stable")]
    # The earliest beginning among the spans that end there or later.
    earliest = np.minimum.accumulate(ordered[::-1, 0])[::-1]
    at = np.searchsorted(ordered[:, 1], spans[:, 0])
    met: NDArray[np.bool_] = at < len(ordered)
    met[met] = earliest[at[met]] <= spans[met, 1]
    return met

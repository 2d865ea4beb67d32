"""Synthetic anomalies made of normal records, to hold two versions of a detector against each other.

Pictures are corrupted as MNIST-Anomaly's are (`training.corruptions`). Windows get what sensors and control loops do
wrong, for a part of their length:

| kind | what happens | severity |
| --- | --- | --- |
| spike | single observations stand out | 3…7 deviations, 1 to 3 times |
| swapped | two features change places | |
| reversed | time runs backwards | |
| foreign | a piece of another window | from another place of it |
| saturated | values stop at a level that the window crosses | its 30 %…70 % quantile |
| gain | swings are larger or smaller | 2…4 times, or 0.1…0.3 |
| hunting | an oscillation is added | 0.7…1.8 deviations, period 3…8 |

Lengths are 0.2…0.6 of the window, deviations those of the feature over all records given.

No kind is one that training spoils records with (`training.anomalies`, `training.spoil_windows`): a version would be
praised for what it was taught.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import Kind
from stream_app.errors import UsageError
from training.corruptions import KINDS as PICTURE_KINDS
from training.corruptions import corrupt

Window = NDArray[np.float64]  # [T, F], in deviations of each feature
Spoil = Callable[[Window, Window, slice, np.random.Generator], Window]

MOST_SPOILT = 0.5  # of the pictures given, by one kind
VISIBLE_CHANGE = 0.5  # deviations, in one value at least: less is not seen
TRIES = 8


def plant(kind: Kind, records: NDArray[Any], count: int, seed: int = 0) -> NDArray[Any]:
    """About `count` anomalous records `[n, …]`, equal numbers by kind, in the shape and dtype of `records`.

    `records`: normal ones as a detector takes them, pictures `[N, H, W, C]` (uint8, or float32 in 0…255) or windows
    `[N, T, F]`. Kinds that show on too few of them are left out; where none shows, `n` is 0.
    """
    if len(records) == 0:
        return records[:0]
    return (_pictures if kind is Kind.IMAGE else _windows)(records, count, seed)


def _pictures(records: NDArray[Any], count: int, seed: int) -> NDArray[Any]:
    scale = 1.0 if records.dtype == np.uint8 else 255.0
    given = records if records.dtype == np.uint8 else (records / np.float32(scale)).clip(0.0, 1.0)
    share = min(count / len(PICTURE_KINDS) / len(records), MOST_SPOILT)
    found = [records[:0]]
    for number, name in enumerate(PICTURE_KINDS):
        try:
            spoilt = corrupt(given, share, [name], seed + number)
        except UsageError:  # a stroke can't be missing where there is none
            continue
        found.append((spoilt.x[spoilt.y == 1] * scale).astype(records.dtype))
    return np.concatenate(found)


def _windows(records: NDArray[Any], count: int, seed: int) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    values = records.astype(np.float64)
    with np.errstate(all="ignore"):
        mean, deviation = (np.nan_to_num(of(values, axis=(0, 1))) for of in (_mean, _deviation))
    if not (deviation > 0.0).any():
        return records[:0]
    scale = np.where(deviation > 0.0, deviation, 1.0)
    kinds = [spoil for name, spoil in WINDOW_KINDS.items() if name != "swapped" or records.shape[2] > 1]
    found = []
    for number in range(count):
        for _ in range(TRIES):
            window, other = ((values[random.integers(len(values))] - mean) / scale for _ in range(2))
            changed = kinds[number % len(kinds)](window, other, _span(len(window), random), random)
            if np.nanmax(np.abs(changed - window), initial=0.0) > VISIBLE_CHANGE:
                found.append(changed * scale + mean)
                break
    return np.stack(found).astype(records.dtype) if found else records[:0]


def _mean(values: NDArray[np.float64], axis: tuple[int, ...]) -> NDArray[np.float64]:
    there = ~np.isnan(values)
    return np.asarray(np.where(there, values, 0.0).sum(axis) / there.sum(axis))


def _deviation(values: NDArray[np.float64], axis: tuple[int, ...]) -> NDArray[np.float64]:
    return np.sqrt(_mean(np.square(values - _mean(values, axis)), axis))


def _span(length: int, random: np.random.Generator) -> slice:
    size = max(2, round(random.uniform(0.2, 0.6) * length))
    start = int(random.integers(0, length - size + 1))
    return slice(start, start + size)


def _features(window: Window, random: np.random.Generator) -> NDArray[np.int64]:
    """Two of five, one at least."""
    count = window.shape[1]
    return random.permutation(count)[: max(1, round(0.4 * count))]


def _spike(window: Window, other: Window, span: slice, random: np.random.Generator) -> Window:
    changed = window.copy()
    steps = random.integers(0, len(window), random.integers(1, 4))
    feature = random.integers(window.shape[1])
    changed[steps, feature] += random.choice((-1.0, 1.0)) * random.uniform(3.0, 7.0)
    return changed


def _swapped(window: Window, other: Window, span: slice, random: np.random.Generator) -> Window:
    changed = window.copy()
    first, second = random.permutation(window.shape[1])[:2]
    changed[span, first], changed[span, second] = window[span, second], window[span, first]
    return changed


def _reversed(window: Window, other: Window, span: slice, random: np.random.Generator) -> Window:
    changed = window.copy()
    changed[span] = window[span][::-1]
    return changed


def _foreign(window: Window, other: Window, span: slice, random: np.random.Generator) -> Window:
    changed = window.copy()
    chosen = _features(window, random)
    changed[span, chosen] = np.roll(other, random.integers(1, len(other)), axis=0)[span, chosen]
    return changed


def _saturated(window: Window, other: Window, span: slice, random: np.random.Generator) -> Window:
    changed = window.copy()
    limit = np.minimum if random.random() < 0.5 else np.maximum
    for feature in _features(window, random):
        present = window[:, feature][~np.isnan(window[:, feature])]
        if len(present):
            changed[span, feature] = limit(window[span, feature], np.quantile(present, random.uniform(0.3, 0.7)))
    return changed


def _gain(window: Window, other: Window, span: slice, random: np.random.Generator) -> Window:
    changed = window.copy()
    factor = random.uniform(2.0, 4.0) if random.random() < 0.5 else random.uniform(0.1, 0.3)
    for feature in _features(window, random):
        part = window[span, feature]
        if (~np.isnan(part)).any():
            changed[span, feature] = np.nanmean(part) + factor * (part - np.nanmean(part))
    return changed


def _hunting(window: Window, other: Window, span: slice, random: np.random.Generator) -> Window:
    changed = window.copy()
    steps = np.arange(span.stop - span.start)
    wave = np.sin(2.0 * np.pi * (steps / random.uniform(3.0, 8.0) + random.random()))
    changed[span, _features(window, random)] += random.uniform(0.7, 1.8) * wave[:, None]
    return changed


WINDOW_KINDS: dict[str, Spoil] = {
    "spike": _spike,
    "swapped": _swapped,
    "reversed": _reversed,
    "foreign": _foreign,
    "saturated": _saturated,
    "gain": _gain,
    "hunting": _hunting,
}

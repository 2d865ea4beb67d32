"""Records as a camera or a sensor that has changed a little would send them: what a detector should put up with.

Pictures: moved by a sixteenth of their side, with grain, darker, brighter. Series: at another level, with another gain,
with noise. All of it is applied to normal and to anomalous records alike, and is drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import Kind
from training.data import Dataset, from_arrays

Records = NDArray[Any]

MOVED = 1 / 16  # of a side
GRAIN = 0.05  # of the range of brightness
DARKER, BRIGHTER = 0.85, 1.15
LEVEL, NOISE = 0.5, 0.1  # standard deviations of the normal records, by feature
GAIN = 1.1


def conditions(dataset: Dataset, seed: int = 0) -> Mapping[str, Callable[[], Records]]:
    """By name, what makes the changed records `[N, …]` of `dataset`, in their order, shape and dtype."""
    if dataset.kind is Kind.IMAGE:
        return {
            "moved": partial(_moved, dataset.x),
            "grain": partial(_grain, dataset.x, seed),
            "darker": partial(_brightness, dataset.x, DARKER),
            "brighter": partial(_brightness, dataset.x, BRIGHTER),
        }
    return {
        "level": partial(_changed, dataset, _level),
        "gain": partial(_changed, dataset, _gain),
        "noise": partial(_changed, dataset, partial(_noise, seed=seed)),
    }


def _moved(pictures: Records) -> Records:
    """Each to one of four sides in turn; what comes in repeats the edge."""
    moved = np.empty_like(pictures)
    for turn, (axis, sign) in enumerate(((1, 1), (1, -1), (2, 1), (2, -1))):
        some = pictures[turn::4]
        size = pictures.shape[axis]
        by = max(1, round(MOVED * size))
        moved[turn::4] = some.take(np.clip(np.arange(size) + sign * by, 0, size - 1), axis=axis)
    return moved


def _grain(pictures: Records, seed: int) -> Records:
    low, high = _range(pictures)
    noise = np.random.default_rng(seed).standard_normal(pictures.shape, dtype=np.float32)
    return _as(pictures, pictures + GRAIN * (high - low) * noise)


def _brightness(pictures: Records, factor: float) -> Records:
    return _as(pictures, pictures * np.float32(factor))


def _range(pictures: Records) -> tuple[float, float]:
    low, high = np.quantile(pictures[:: max(1, len(pictures) // 1000)], [0.001, 0.999])
    return float(low), float(high)


def _as(given: Records, levels: Records) -> Records:
    levels = np.clip(levels, 0.0, 255.0)
    return (np.rint(levels) if given.dtype == np.uint8 else levels).astype(given.dtype)


def _changed(dataset: Dataset, change: Callable[[Records, Records, Records], Records]) -> Records:
    """A series is changed as a whole and cut again, so that an observation is the same in all windows that hold it."""
    normal = dataset.x[dataset.clean]
    mean, deviation = (np.nan_to_num(of(normal, axis=(0, 1))) for of in (np.nanmean, np.nanstd))
    if dataset.series is None:
        return change(dataset.x, mean, deviation).astype(np.float32)
    series = change(dataset.series, mean, deviation).astype(np.float32)
    return from_arrays(series, dataset.kind, window=dataset.input_shape[0]).x


def _level(values: Records, mean: Records, deviation: Records) -> Records:
    return np.asarray(values + LEVEL * deviation)


def _gain(values: Records, mean: Records, deviation: Records) -> Records:
    return np.asarray(mean + GAIN * (values - mean))


def _noise(values: Records, mean: Records, deviation: Records, seed: int) -> Records:
    return np.asarray(values + NOISE * deviation * np.random.default_rng(seed).standard_normal(values.shape))

"""What is kept of training records knows how alike a stream's neighbours are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data import Dataset, from_arrays
from training.likeness import reference_of

SCORES = np.random.default_rng(0).exponential(0.434, 300).astype(np.float32)


@pytest.fixture(scope="module")
def series() -> Dataset:
    """All windows of 16 of independent values."""
    rows = np.random.default_rng(1).normal(size=(15_000, 1)).astype(np.float32)
    return from_arrays(rows, "sequence", window=16)


def drawn(dataset: Dataset, index: NDArray[np.int64]) -> Dataset:
    """As a snapshot of a stream has it: some windows, and which places they take."""
    assert dataset.spans is not None
    return replace(dataset, x=dataset.x[index], clean=dataset.clean[index], spans=dataset.spans[index], series=None)


def effect(dataset: Dataset) -> float:
    return reference_of(dataset, SCORES).inputs["mean_0"].design_effect


@pytest.mark.parametrize("one_of", [2, 4, 8, 40])
def test_windows_drawn_from_a_stream_count_about_as_those_of_the_stream(series: Dataset, one_of: int) -> None:
    some = np.sort(np.random.default_rng(2).permutation(len(series))[: len(series) // one_of])
    assert 0.9 * effect(series) < effect(drawn(series, some)) < 2.0 * effect(series)


def test_streams_are_looked_at_one_after_the_other_though_their_records_are_mixed() -> None:
    """Each has a level of its own, so that a stream is unlike the mixture without having changed."""
    random = np.random.default_rng(3)
    stream = np.arange(4000) % 40
    windows = random.normal(random.normal(0.0, 3.0, 40)[stream][:, None, None], 1.0, (4000, 8, 1)).astype(np.float32)
    mixed = from_arrays(windows, "sequence")
    first = stream * 1_000_000 + np.arange(4000) * 8
    assert effect(replace(mixed, spans=np.stack([first, first + 7], 1))) > 10 * effect(mixed)


def test_anomalies_are_left_out(series: Dataset) -> None:
    spoiled = replace(series, x=series.x.copy(), clean=np.arange(len(series)) < 6000)
    spoiled.x[6000:] = 1e6
    assert reference_of(spoiled, SCORES).inputs["mean_0"].edges[-1] < 1.0

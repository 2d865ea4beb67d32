from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from training.cross_fit import FEWEST_REMEMBERED, held_out_evidence, later_evidence
from training.data import from_arrays
from training.split import split


@pytest.mark.parametrize("rows", [400, 1000, 3000])
def test_every_held_out_window_is_judged_once_by_what_shares_nothing_with_it(rows: int) -> None:
    labels = np.zeros(rows, dtype=np.int64)
    labels[100:105] = 1
    dataset = from_arrays(np.arange(float(rows)), "sequence", y=labels, window=16)
    parts = split(dataset, np.random.default_rng(0))
    remembered: list[NDArray[np.int64]] = []

    def evidence(block: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        known = remembered[-1]
        assert np.abs(known[:, None] - block[None]).min() >= 16
        assert dataset.clean[known].all()
        return {"index": block.astype(np.float32)}

    found = held_out_evidence(dataset, parts, remembered.append, evidence)
    assert found["index"].tolist() == parts.held_out.tolist()
    assert len(remembered) == 3
    # Other held-out blocks are known to the memory, though not to the networks.
    assert all(len(known) > len(parts.train) for known in remembered)


def test_separate_windows_are_judged_by_all_others() -> None:
    dataset = from_arrays(np.zeros((300, 8, 2), dtype=np.float32), "sequence")
    parts = split(dataset, np.random.default_rng(0))
    known: list[int] = []

    def evidence(block: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        known[-1] += len(block)
        return {"index": block.astype(np.float32)}

    held_out_evidence(dataset, parts, lambda index: known.append(len(index)), evidence)
    assert set(known) == {300}


def test_later_windows_are_judged_by_what_ended_before_them() -> None:
    dataset = from_arrays(np.arange(400.0), "sequence", window=16)
    remembered: list[NDArray[np.int64]] = []

    def evidence(block: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        assert remembered[-1].max() + 16 <= block.min()
        assert len(remembered[-1]) >= FEWEST_REMEMBERED
        return {"index": block.astype(np.float32)}

    found = later_evidence(dataset, remembered.append, evidence)
    assert found is not None
    first = int(found["index"][0])
    assert first < 0.2 * len(dataset)
    assert found["index"].tolist() == list(range(first, len(dataset)))


@pytest.mark.parametrize("dataset", [np.arange(40.0), np.zeros((300, 16, 2), dtype=np.float32)])
def test_a_history_that_is_too_short_or_no_series_has_no_later_windows(dataset: NDArray[np.floating]) -> None:
    def never(_: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        raise AssertionError

    assert later_evidence(from_arrays(dataset, "sequence", window=16), lambda _: None, never) is None

"""Bins of equal shares whatever the values, and what they are for: real changes show, an unchanged source doesn't."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from model.config import Kind
from model.reference import MOST_RECORDS, Bins, Reference

LAW = np.random.default_rng(0).exponential(1.0 / math.log(10.0), 500).astype(np.float32)


def test_values_fall_into_ten_bins_of_a_tenth_each() -> None:
    bins = Bins.fit(np.random.default_rng(1).normal(size=1000).astype(np.float32))
    assert bins.counts == (100,) * 10
    assert bins.shares == pytest.approx(np.full(10, 0.1))


def test_a_value_that_many_records_share_has_a_bin_of_its_own() -> None:
    values = np.concatenate([np.zeros(500), np.arange(1, 501)]).astype(np.float32)
    bins = Bins.fit(values)
    assert bins.counts[bins.find(np.zeros(1, np.float32))[0]] == 500
    assert bins.find(np.array([-1e-2, 0.0, 1e-7, 1e-2], np.float32)).tolist() == [0, 1, 1, 2]
    assert sum(bins.counts) == 1000


def test_of_a_constant_anything_else_falls_outside() -> None:
    bins = Bins.fit(np.full(300, 7.5, np.float32))
    assert bins.counts == (0, 300, 0)
    assert bins.find(np.array([7.4, 7.5, 7.6], np.float32)).tolist() == [0, 1, 2]


def test_a_value_that_is_not_there_counts_as_the_largest() -> None:
    values = np.arange(100, dtype=np.float32)
    values[::2] = np.nan
    bins = Bins.fit(values)
    assert bins.find(np.array([np.nan], np.float32)).tolist() == [len(bins.counts) - 1]
    assert bins.counts[-1] >= 50
    assert Bins.fit(np.full(30, np.nan, np.float32)).counts == (30,)


def test_calibrated_scores_fill_the_bins_of_their_law() -> None:
    bins = Bins.of_scores(LAW)
    assert bins.counts == (50,) * 10
    fresh = np.random.default_rng(2).exponential(1.0 / math.log(10.0), 100_000).astype(np.float32)
    assert np.bincount(bins.find(fresh)) / 100_000 == pytest.approx(np.full(10, 0.1), abs=0.01)


def test_a_reference_survives_the_manifests_json(digits: NDArray[np.uint8]) -> None:
    reference = Reference.fit(Kind.IMAGE, digits[:500], LAW)
    again = Reference.model_validate_json(reference.model_dump_json())
    assert again == reference
    assert list(again.bins) == ["score", "brightness", "contrast", "sharpness", "saturated"]
    values = np.linspace(-1, 20, 1000, dtype=np.float32)
    for name, bins in reference.inputs.items():
        np.testing.assert_array_equal(again.inputs[name].find(values), bins.find(values))


def test_only_normal_records_are_looked_at(digits: NDArray[np.uint8]) -> None:
    normal = np.arange(0, 600, 2)
    spoiled = digits[:600].copy()
    spoiled[1::2] = 16
    chosen = Reference.fit(Kind.IMAGE, spoiled, LAW, normal=normal)
    assert chosen == Reference.fit(Kind.IMAGE, digits[normal], LAW)


def test_of_many_records_runs_of_neighbours_are_looked_at() -> None:
    windows = np.zeros((3 * MOST_RECORDS, 2, 1), np.float32)
    windows[:, :, 0] = np.arange(len(windows))[:, np.newaxis]
    bins = Reference.fit(Kind.SEQUENCE, windows, LAW).inputs["mean_0"]
    assert sum(bins.counts) == MOST_RECORDS
    assert bins.edges == pytest.approx(np.arange(1, 10) * len(windows) / 10, rel=0.2)


def test_windows_of_many_features_keep_their_scale() -> None:
    windows = np.random.default_rng(3).normal(3.0, 2.0, (200, 16, 6)).astype(np.float32)
    reference = Reference.model_validate_json(Reference.fit(Kind.SEQUENCE, windows, LAW).model_dump_json())
    assert reference.scale is not None
    assert reference.scale.center == pytest.approx(np.full(6, 3.0), abs=0.2)


def test_windows_that_overlap_count_less_than_others() -> None:
    steps = np.random.default_rng(4).normal(size=5000).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(steps, 16)[:, :, np.newaxis]
    overlapping = Reference.fit(Kind.SEQUENCE, windows, LAW)
    apart = Reference.fit(Kind.SEQUENCE, windows[::16], LAW)
    assert overlapping.inputs["mean_0"].design_effect > 3.0
    assert apart.inputs["mean_0"].design_effect < 1.6
    assert overlapping.score.design_effect == max(each.design_effect for each in overlapping.inputs.values())


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"edges": [1.0], "counts": [1]}, "1 edges make 2 bins, not 1"),
        ({"edges": [1.0, 1.0], "counts": [1, 1, 1]}, "edges must ascend"),
        ({"edges": [], "counts": [0]}, "not all 0"),
    ],
)
def test_bins_that_make_no_sense_are_refused(document: dict[str, list[float]], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Bins.model_validate(document)

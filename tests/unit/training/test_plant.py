"""Synthetic anomalies are seen, keep the records' form, and are none that training makes."""

from __future__ import annotations

import numpy as np
import pytest

from model.config import Kind
from tests.unit.training.conftest import Trained
from tests.unit.training.test_corruptions import ours_behind
from training.data import Dataset
from training.plant import WINDOW_KINDS, plant


@pytest.mark.parametrize("as_float", [False, True])
def test_planted_pictures_keep_shape_dtype_and_range(image_trained: Trained, as_float: bool) -> None:
    pictures = image_trained.test.x[image_trained.test.clean]
    if as_float:
        pictures = pictures.astype(np.float32) * 12.0  # 0…192 of 255
    planted = plant(Kind.IMAGE, pictures, 70)
    assert planted.dtype == pictures.dtype
    assert planted.shape == (70, *pictures.shape[1:])
    assert planted.min() >= 0
    assert planted.max() <= pictures.max() * 1.1
    same = (planted[:, None] == pictures[None]).reshape(70, len(pictures), -1).all(axis=2)
    assert not same.any()


def test_planted_windows_keep_shape_dtype_and_missing_values(calm_water: Dataset) -> None:
    windows = np.concatenate([calm_water.x, -2.0 * calm_water.x], axis=2)
    windows[:, 3, 1] = np.nan
    planted = plant(Kind.SEQUENCE, windows, 140, seed=2)
    assert planted.dtype == np.float32
    assert planted.shape == (140, 24, 2)
    assert np.isnan(planted).any()
    assert np.isfinite(planted[..., 0]).sum() > 0.9 * planted[..., 0].size
    same = ((planted[:, None] == windows[None]) | np.isnan(windows[None])).reshape(140, len(windows), -1).all(axis=2)
    assert not same.any()


def test_each_kind_changes_a_window_where_it_says(calm_water: Dataset) -> None:
    scaled = (calm_water.x - calm_water.x.mean()) / calm_water.x.std()
    wide = np.concatenate([scaled, scaled[::-1]], axis=2).astype(np.float64)
    for name, spoil in WINDOW_KINDS.items():
        random, span = np.random.default_rng(1), slice(5, 15)
        changed = spoil(wide[10], wide[200], span, random)
        outside = np.delete(np.arange(24), np.arange(5, 15))
        assert changed.shape == wide[10].shape
        assert not np.array_equal(changed, wide[10]), name
        if name != "spike":
            assert np.array_equal(changed[outside], wide[10][outside]), name


def test_nothing_is_made_of_records_that_are_all_alike() -> None:
    assert len(plant(Kind.IMAGE, np.full((60, 8, 8, 1), 7, np.uint8), 30)) == 0
    assert len(plant(Kind.SEQUENCE, np.ones((60, 16, 2), np.float32), 30)) == 0
    assert len(plant(Kind.SEQUENCE, np.ones((0, 16, 2), np.float32), 30)) == 0


def test_the_same_seed_plants_the_same(calm_water: Dataset) -> None:
    first, again, other = (plant(Kind.SEQUENCE, calm_water.x, 30, seed) for seed in (4, 4, 5))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_is_planted_is_made_by_nothing_that_training_uses() -> None:
    """`model.config` and what it needs only say which kinds of records there are."""
    planting, learning = ours_behind("training.plant"), ours_behind("training.loop")
    assert {module for module in planting & learning if module.startswith("training.")} == set()
    assert {"training.anomalies", "training.spoil_windows"} <= learning

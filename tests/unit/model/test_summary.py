"""The figures of a record are those that their names say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.config import Kind
from model.summary import MOST_PIXELS, Scale, summarize, summary_names

RANDOM = np.random.default_rng(0)


def named(kind: Kind, rows: NDArray[np.generic], scale: Scale | None = None) -> dict[str, NDArray[np.float32]]:
    summary = summarize(kind, rows, scale)
    assert summary.dtype == np.float32
    return dict(zip(summary_names(kind, rows.shape[1:]), summary.T, strict=True))


def test_of_a_picture_brightness_and_contrast_are_those_of_each_channel() -> None:
    pictures = RANDOM.integers(0, 256, (5, 9, 12, 3), np.uint8)
    found = named(Kind.IMAGE, pictures)
    for channel in range(3):
        np.testing.assert_allclose(found[f"brightness_{channel}"], pictures[..., channel].mean((1, 2)), rtol=1e-5)
        np.testing.assert_allclose(found[f"contrast_{channel}"], pictures[..., channel].std((1, 2)), rtol=1e-5)


def test_a_blurred_picture_is_less_sharp_and_no_darker(digits: NDArray[np.uint8]) -> None:
    blurred = digits.astype(np.float32)
    blurred = (blurred + np.roll(blurred, 1, 1) + np.roll(blurred, 1, 2) + np.roll(blurred, (1, 1), (1, 2))) / 4
    sharp, soft = named(Kind.IMAGE, digits.astype(np.float32)), named(Kind.IMAGE, blurred)
    np.testing.assert_allclose(soft["brightness"], sharp["brightness"], rtol=1e-5)
    assert (soft["sharpness"] < 0.8 * sharp["sharpness"]).mean() > 0.99


def test_saturated_is_the_share_of_values_at_either_end() -> None:
    picture = np.full((1, 8, 8, 1), 100, np.uint8)
    picture[0, :2], picture[0, 2:4, :4] = 0, 255
    assert named(Kind.IMAGE, picture)["saturated"] == pytest.approx((16 + 8) / 64)


def test_of_a_large_picture_some_lines_stand_for_all() -> None:
    pictures = RANDOM.integers(0, 256, (3, 256, 256, 1), np.uint8)
    found = named(Kind.IMAGE, pictures)
    looked_at = MOST_PIXELS
    error = pictures.std() / np.sqrt(looked_at)
    np.testing.assert_allclose(found["brightness"], pictures.mean((1, 2, 3)), atol=5 * error)
    assert not np.array_equal(found["brightness"], pictures.mean((1, 2, 3), dtype=np.float32))


def test_of_few_features_each_has_its_mean_and_deviation_where_values_are_there() -> None:
    windows = RANDOM.normal(1e5, 3.0, (6, 16, 2)).astype(np.float32)
    windows[1, :5, 0] = np.nan
    found = named(Kind.SEQUENCE, windows)
    for feature in range(2):
        values = windows[..., feature].astype(np.float64)
        np.testing.assert_allclose(found[f"mean_{feature}"], np.nanmean(values, 1), rtol=1e-6)
        np.testing.assert_allclose(found[f"deviation_{feature}"], np.nanstd(values, 1), rtol=1e-3)
    np.testing.assert_allclose(found["missing"], [0, 5 / 32, 0, 0, 0, 0])


def test_a_feature_that_is_missing_throughout_has_no_mean() -> None:
    windows = np.ones((2, 4, 2), np.float32)
    windows[1, :, 0] = np.nan
    found = named(Kind.SEQUENCE, windows)
    np.testing.assert_array_equal(np.isnan(found["mean_0"]), [False, True])
    np.testing.assert_array_equal(found["mean_1"], [1, 1])


def test_of_many_features_one_that_wanders_off_shows_whatever_its_unit() -> None:
    units = np.logspace(-3, 6, 40, dtype=np.float32)
    windows = RANDOM.normal(5.0, 1.0, (300, 16, 40)).astype(np.float32) * units
    scale = Scale.fit(windows)
    np.testing.assert_allclose(scale.center, 5.0 * units, rtol=0.05)
    np.testing.assert_allclose(scale.spread, units, rtol=0.05)
    before = named(Kind.SEQUENCE, windows, scale)
    assert len(before) == 5
    moved = windows.copy()
    moved[:, :, 3] += 3.0 * units[3]
    after = named(Kind.SEQUENCE, moved, scale)
    assert after["farthest_level"].min() > before["farthest_level"].max()
    assert np.median(after["levels_apart"]) > before["levels_apart"].max()


def test_many_features_with_nothing_seen_of_some_are_told_by_the_others() -> None:
    windows = RANDOM.normal(size=(50, 8, 6)).astype(np.float32)
    scale = Scale.fit(windows)
    gaps = windows.copy()
    gaps[:, :, 2], gaps[0] = np.nan, np.nan
    found = named(Kind.SEQUENCE, gaps, scale)
    np.testing.assert_allclose(found["missing"], [1.0] + 49 * [1 / 6], rtol=1e-5)
    assert np.isnan(found["level"][0])
    assert np.isfinite(found["level"][1:]).all()


def test_many_features_without_a_scale_are_refused() -> None:
    with pytest.raises(ValueError, match="windows of 5 features need a scale"):
        summarize(Kind.SEQUENCE, np.zeros((1, 4, 5), np.float32))


def test_names_of_features_are_in_those_of_the_figures() -> None:
    assert summary_names(Kind.SEQUENCE, (16, 1), ["flow"]) == ("mean_flow", "deviation_flow", "missing")

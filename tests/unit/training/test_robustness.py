"""What has changed a little is still the same record, in the same shape and unit."""

from __future__ import annotations

import numpy as np

from training.data import Dataset, from_arrays
from training.robustness import LEVEL, conditions


def test_pictures_keep_shape_unit_and_what_is_on_them(digit_split: tuple[Dataset, Dataset]) -> None:
    dataset = digit_split[1]
    before = dataset.x.copy()
    for name, records in conditions(dataset).items():
        changed = records()
        assert (changed.shape, changed.dtype) == (before.shape, before.dtype), name
        assert not np.array_equal(changed, before), name
        assert np.corrcoef(changed.ravel(), before.ravel())[0, 1] > 0.5, name
    assert np.array_equal(dataset.x, before)


def test_a_picture_is_moved_to_one_of_four_sides() -> None:
    pictures = np.zeros((4, 16, 16), np.uint8)
    pictures[:, 8, 8] = 200
    moved = conditions(from_arrays(pictures, "image"))["moved"]()[..., 0]
    places = [tuple(int(i) for i in np.argwhere(picture)[0]) for picture in moved]
    assert sorted(places) == [(7, 8), (8, 7), (8, 9), (9, 8)]


def test_a_series_is_changed_as_a_whole(water: Dataset) -> None:
    assert water.series is not None
    changed = conditions(water)
    deviation = water.x[water.clean].std()
    assert np.allclose(changed["level"]() - water.x, LEVEL * deviation, rtol=1e-3)
    noisy = changed["noise"]()
    assert np.array_equal(noisy[1, :-1], noisy[0, 1:])  # the same observation in both
    assert np.array_equal(noisy, conditions(water)["noise"]())
    gained = changed["gain"]()
    assert np.isclose(gained.std() / water.x.std(), 1.1, rtol=1e-3)


def test_windows_without_a_series_are_changed_as_they_are(water: Dataset) -> None:
    windows = from_arrays(np.ascontiguousarray(water.x[:50]), "sequence")
    for records in conditions(windows).values():
        assert records().shape == windows.x.shape

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_app.errors import UsageError
from training.data import from_arrays, load


def npz(tmp_path: Path, **arrays: Any) -> Path:
    file = tmp_path / "data.npz"
    np.savez_compressed(file, **arrays)
    return file


def csv(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "data.csv"
    file.write_text(text)
    return file


def test_pictures_without_channels_get_one(tmp_path: Path) -> None:
    x = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    file = npz(tmp_path, x=x, y=np.array([0, 1, 0]))
    dataset = load(file, "image")
    np.testing.assert_array_equal(dataset.x, x[..., None])
    assert dataset.x.dtype == np.uint8
    assert dataset.y is not None
    assert dataset.y.tolist() == [0, 1, 0]
    assert dataset.clean.tolist() == [True, False, True]
    assert dataset.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (len(dataset), dataset.rows, dataset.input_shape, dataset.timestamps) == (3, 3, (8, 9, 1), None)


def test_float_pictures_become_0_to_255(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
    dataset = load(npz(tmp_path, x=x), "image")
    assert dataset.x.dtype == np.float32
    np.testing.assert_allclose(dataset.x, x * 255, rtol=1e-6)
    assert dataset.y is None
    assert dataset.clean.all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 7, 8), np.uint8), r"x.shape\[1\] \(height\) must be in 8..256, not 7"),
        (np.zeros((2, 8, 300), np.uint8), r"x.shape\[2\] \(width\) must be in 8..256, not 300"),
        (np.zeros((2, 8, 8, 5), np.uint8), r"x.shape\[3\] \(channels\) must be in 1..4, not 5"),
        (np.zeros((2, 8), np.uint8), r"\[N,H,W\] or \[N,H,W,C\], not \[2, 8\]"),
        (np.full((2, 8, 8), 1.5), "0…1, but has 1.5…1.5"),
        (np.full((2, 8, 8), np.nan), "0…1, but has nan…nan"),
        (np.zeros((2, 8, 8), np.int32), "not int32"),
    ],
)
def test_pictures_that_cannot_be_used_are_named(tmp_path: Path, x: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(npz(tmp_path, x=x), "image")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([[0.0], [np.inf]]), r"x\[1, 0\] is inf"),
        (np.array([[0.0], [1e13]]), r"x\[1, 0\] is 1.*finite numbers up to ±1e\+12"),
        (np.zeros((3, 3, 2)), r"x.shape\[1\] \(steps\) must be in 4..4096, not 3"),
        (np.zeros((3, 600)), r"x.shape\[1\] \(features\) must be in 1..512, not 600"),
        (np.zeros((5, 2)), "5 rows are fewer than one window of 8"),
        (np.array(["a", "b"]), "holds numbers"),
        (np.zeros((2, 2, 2, 2)), r"not \[2, 2, 2, 2\]"),
    ],
)
def test_sequences_that_cannot_be_used_are_named(tmp_path: Path, x: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(npz(tmp_path, x=x), "sequence")


@pytest.mark.parametrize(
    ("y", "message"), [([0, 1], "y has shape"), ([0, 1, 2], "but has 2"), ([[0], [1], [0]], "y has shape")]
)
def test_labels_that_cannot_be_used_are_named(tmp_path: Path, y: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(npz(tmp_path, x=np.zeros((3, 8, 8), np.uint8), y=np.array(y)), "image")


def test_a_series_is_cut_into_overlapping_windows_with_the_label_of_the_newest_row() -> None:
    series = np.arange(20.0).reshape(10, 2)
    labels = np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    dataset = from_arrays(series, "sequence", y=labels, window=4)
    assert dataset.x.shape == (7, 4, 2)
    np.testing.assert_array_equal(dataset.x[2], series[2:6])
    assert dataset.y is not None
    assert dataset.y.tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert dataset.clean.tolist() == [True, True, False, False, False, False, True]
    assert dataset.rows == 10
    assert np.shares_memory(dataset.x, dataset.series)


def test_a_single_column_may_come_without_its_axis() -> None:
    assert from_arrays(np.arange(40), "sequence", window=32).x.shape == (9, 32, 1)


@pytest.mark.parametrize(("rows", "window"), [(9, 8), (100, 25), (256, 64), (575, 64), (576, 96), (5000, 96)])
def test_the_longer_a_series_the_longer_its_windows(rows: int, window: int) -> None:
    assert from_arrays(np.arange(rows), "sequence").x.shape == (rows - window + 1, window, 1)


def test_a_csv_has_features_times_and_labels(tmp_path: Path) -> None:
    lines = ["Timestamp,flow,pressure,LABEL"]
    lines += [f"2024-01-01T00:00:{second:02d}Z,{second},{second * 2},{int(second == 5)}" for second in range(6)]
    dataset = load(csv(tmp_path, "\n".join(lines)), "sequence", window=4)
    assert dataset.x.shape == (3, 4, 2)
    assert dataset.x[0].tolist() == [[0, 0], [1, 2], [2, 4], [3, 6]]
    assert dataset.y is not None
    assert dataset.y.tolist() == [0, 0, 1]
    assert dataset.timestamps is not None
    assert dataset.timestamps.tolist() == [1704067200.0 + second for second in range(6)]


@pytest.mark.parametrize(
    ("header", "features"),
    [
        ("flow, pressure", ("flow", "pressure")),
        ("timestamp,Flow,LABEL,pressure", ("Flow", "pressure")),
        ("\ufeffflow;timestamp;a,b", ("flow", "a,b")),
        ("flow\tpressure", ("flow", "pressure")),
        ("flow,flow", None),
        ("flow,", None),
    ],
)
def test_columns_of_a_csv_keep_their_names_where_they_tell_them_apart(
    tmp_path: Path, header: str, features: tuple[str, ...] | None
) -> None:
    separator = max(",;\t", key=header.count)
    line = separator.join("0" for _ in header.split(separator))
    dataset = load(csv(tmp_path, "\n".join([header, *[line] * 9])), "sequence", window=4)
    assert dataset.features == features
    assert features is None or dataset.input_shape[1] == len(features)


def test_empty_cells_and_nan_of_sequences_are_missing_values(tmp_path: Path) -> None:
    lines = ["flow,pressure", *["1,2", ",4", "5,nan", "7,8"] * 2]
    dataset = load(csv(tmp_path, "\n".join(lines)), "sequence", window=4)
    np.testing.assert_array_equal(dataset.x[0], [[1, 2], [np.nan, 4], [5, np.nan], [7, 8]])


def test_an_npz_has_no_names(tmp_path: Path) -> None:
    assert load(npz(tmp_path, x=np.zeros((5, 8, 2))), "sequence").features is None


def test_files_that_are_not_what_they_seem_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"no archive")
    with pytest.raises(UsageError, match="not a readable"):
        load(broken, "image")
    with pytest.raises(UsageError, match="no such file"):
        load(tmp_path / "missing.npz", "image")
    with pytest.raises(UsageError, match="no array x"):
        load(npz(tmp_path, pictures=np.zeros(3)), "image")
    with pytest.raises(UsageError, match=r"ends in \.npz"):
        load(csv(tmp_path, "a\n1\n"), "image")
    with pytest.raises(UsageError, match="image or sequence"):
        load(broken, "video")


def test_windows_of_their_own_length_cannot_be_cut_again() -> None:
    with pytest.raises(UsageError, match="can't be cut to 8"):
        from_arrays(np.zeros((5, 16, 2)), "sequence", window=8)

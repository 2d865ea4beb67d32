"""What is in a `.npz` and in a `.csv`, and what is said of one that can't be read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_app.errors import UsageError
from stream_app.files import Line, count_csv_lines, csv_lines, read_csv, read_npz

NOON = 1769857200.0  # 2026-01-31T11:00:00Z
CSV = "Timestamp,flow,pressure,LABEL\n2026-01-31T12:00:00+01:00,1.5,2,0\n\n1769857201.5,3.25,-4,1\n"


def npz(tmp_path: Path, **arrays: Any) -> Path:
    np.savez_compressed(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


def csv(tmp_path: Path, text: str) -> Path:
    (tmp_path / "data.csv").write_text(text)
    return tmp_path / "data.csv"


def test_an_npz_has_rows_and_labels_whatever_else_it_holds(tmp_path: Path) -> None:
    x, y = np.arange(12).reshape(3, 4), np.array([0, 1, 0])
    found = read_npz(npz(tmp_path, x=x, y=y, notes=np.array([{"a": 1}], dtype=object)))
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.y, y)
    assert read_npz(npz(tmp_path, x=x)).y is None


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Python objects"):
        read_npz(npz(tmp_path, x=np.array([{"a": 1}], dtype=object)))


def test_an_array_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "bomb.npz"
    with zipfile.ZipFile(file, "w") as archive, archive.open("x.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 256, 256)}
        np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(UsageError, match="68719476736 numbers"):
        read_npz(file)


@pytest.mark.parametrize("member", ["x", "x.txt", "folder/x.npy"])
def test_an_archive_of_something_else_is_no_npz(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr(member, "text")
    with pytest.raises(UsageError, match=r"data\.npz: "):
        read_npz(tmp_path / "data.npz")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_has_observations_times_and_labels(tmp_path: Path, separator: str) -> None:
    file = csv(tmp_path, CSV.replace(",", separator))
    assert list(csv_lines(file)) == [Line([1.5, 2.0], NOON, 0.0), Line([3.25, -4.0], NOON + 1.5, 1.0)]
    found = read_csv(file)
    assert found.x.tolist() == [[1.5, 2.0], [3.25, -4.0]]
    assert found.timestamps is not None
    assert found.timestamps.tolist() == [NOON, NOON + 1.5]
    assert found.y is not None
    assert found.y.tolist() == [0.0, 1.0]
    assert count_csv_lines(file) == 2


def test_times_and_labels_are_optional(tmp_path: Path) -> None:
    found = read_csv(csv(tmp_path, "a\n1\n2\n"))
    assert (found.x.tolist(), found.y, found.timestamps) == ([[1.0], [2.0]], None, None)


def test_lines_before_a_broken_one_are_read(tmp_path: Path) -> None:
    lines = csv_lines(csv(tmp_path, "a\n1\ntwo\n"))
    assert next(lines).values == [1.0]
    with pytest.raises(UsageError, match="line 3, column a: 'two' is not a number"):
        next(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,x\n", "line 2, column b: 'x' is not a number"),
        ("a,label\n1,often\n", "line 2, column label: 'often' is not a number"),
        ("a,b\n\n1,2\n3\n", "line 4: 1 columns, but the header has 2"),
        ("a,b\n", "no rows below the header"),
        ("timestamp,label\n1,0\n", "the header names no feature column: 'timestamp,label'"),
        ("timestamp,a\nyesterday,0\n", "line 2, timestamp: 'yesterday' isn't an RFC 3339 time.*, nor seconds"),
        ("timestamp,a\nnan,0\n", "line 2, timestamp: 'nan' is no moment"),
        ("timestamp,a\n1769857200000,0\n", "line 2, timestamp: '1769857200000' seconds are beyond the year 9999"),
        ("", "the header names no feature column"),
    ],
)
def test_a_csv_that_cannot_be_read_is_named_by_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_csv(csv(tmp_path, text))


def test_bytes_that_are_no_text_are_no_csv(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"a,b\n\xff,1\n")
    with pytest.raises(UsageError, match=r"not a readable \.csv file"):
        read_csv(tmp_path / "data.csv")


def test_an_empty_cell_of_a_feature_is_a_missing_value_and_no_other(tmp_path: Path) -> None:
    (line,) = csv_lines(csv(tmp_path, "a,b\n, 2\n"))
    assert np.isnan(line.values[0])
    assert line.values[1] == 2.0
    with pytest.raises(UsageError, match="column label: '' is not a number"):
        list(csv_lines(csv(tmp_path, "a,label\n1,\n")))


def test_a_separator_within_quotes_separates_nothing(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text('"flow, m3/s, raw";timestamp\n1,5;0\n'.replace("1,5", "1.5"))
    arrays = read_csv(tmp_path / "data.csv")
    assert (arrays.x.tolist(), arrays.features) == ([[1.5]], ("flow, m3/s, raw",))

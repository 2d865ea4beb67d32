"""Windows of single observations."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import Rows
from stream_app.windows import Windows


def feed(windows, values, streams=None, first=0):
    """Feeds one-feature observations at the offsets from `first` on; returns (index, window values) and the tails."""
    rows = Rows(np.arange(len(values)), np.array(values, np.float32).reshape(-1, 1))
    due, tails = windows.add(rows, streams or ["s"] * len(values), range(first, first + len(values)))
    return [(int(i), w[:, 0].tolist()) for i, w in zip(due.index, due.data, strict=True)], {
        k: v[:, 0].tolist() for k, v in tails.items()
    }


def test_a_window_is_due_from_the_first_full_one_on():
    due, tails = feed(Windows((3, 1), 1, 10), [1, 2, 3, 4])
    assert due == [(2, [1, 2, 3]), (3, [2, 3, 4])]
    assert tails == {"s": [2, 3, 4]}


def test_the_stride_leaves_windows_out():
    due, _ = feed(Windows((2, 1), 3, 10), range(9))
    assert due == [(1, [0, 1]), (4, [3, 4]), (7, [6, 7])]


def test_streams_do_not_mix():
    due, tails = feed(Windows((2, 1), 1, 10), [1, 10, 2, 20], streams=["a", "b", "a", "b"])
    assert due == [(2, [1, 2]), (3, [10, 20])]
    assert tails == {"a": [1, 2], "b": [10, 20]}


def test_a_restored_tail_goes_on_and_skips_what_it_has_seen():
    windows = Windows((3, 1), 1, 10)
    windows.restore("s", np.array([[1], [2]], np.float32), offset=11)
    due, _ = feed(windows, [1, 2, 3], first=10)
    assert due == [(2, [1, 2, 3])]


def test_least_recently_used_streams_are_forgotten():
    windows = Windows((2, 1), 1, 2)
    feed(windows, [1, 2, 3], streams=["a", "b", "c"])
    assert ["a" in windows, "b" in windows, "c" in windows] == [False, True, True]


@given(
    values=st.lists(st.integers(0, 99), max_size=60),
    cuts=st.lists(st.integers(1, 9), max_size=60),
    window=st.integers(1, 7),
    stride=st.integers(1, 4),
)
def test_windows_do_not_depend_on_how_the_stream_is_cut(values, cuts, window, stride):
    whole, _ = feed(Windows((window, 1), stride, 10), values) if values else ([], {})
    windows, pieces, first = Windows((window, 1), stride, 10), [], 0
    for cut in [*cuts, len(values)]:
        part = values[first : first + cut]
        if part:
            due, tails = feed(windows, part, first=first)
            pieces += [(first + index, rows) for index, rows in due]
            assert tails["s"] == [float(v) for v in values[max(0, first + len(part) - window) : first + len(part)]]
        first += cut
    assert pieces == whole

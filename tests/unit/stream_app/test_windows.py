"""The last observations of a stream, and when a window of them is due."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.windows import Recent, Ring


def feed(ring, values, first=0):
    """Pushes one-feature observations; returns the windows that were due, by the number of their newest observation."""
    windows = {first + i: ring.push(np.array([value], np.float32)) for i, value in enumerate(values)}
    return {i: window[:, 0].tolist() for i, window in windows.items() if window is not None}


def test_a_window_is_due_from_the_first_full_one_on():
    assert feed(Ring((3, 1), 1), [1, 2, 3, 4]) == {2: [1, 2, 3], 3: [2, 3, 4]}


def test_the_stride_leaves_windows_out():
    assert feed(Ring((2, 1), 3), range(9)) == {1: [0, 1], 4: [3, 4], 7: [6, 7]}


def test_what_is_saved_is_the_newest_window():
    ring = Ring((3, 1), 1)
    feed(ring, range(10))
    assert ring.recent().rows[:, 0].tolist() == [7, 8, 9]
    assert ring.recent().count == 10


def test_a_window_does_not_change_when_the_ring_goes_on():
    ring = Ring((2, 1), 1)
    ring.push(np.zeros(1))
    window = ring.push(np.ones(1))
    feed(ring, range(5, 20))
    assert window[:, 0].tolist() == [0, 1]


@given(
    values=st.lists(st.integers(0, 99), max_size=40),
    cut=st.integers(0, 40),
    window=st.integers(1, 7),
    stride=st.integers(1, 5),
)
def test_a_stream_that_is_taken_up_again_goes_on_as_if_it_had_not_stopped(values, cut, window, stride):
    undisturbed = feed(Ring((window, 1), stride), values)
    before = Ring((window, 1), stride)
    windows = feed(before, values[:cut])
    saved = Recent.from_bytes(before.recent().to_bytes())
    windows |= feed(Ring((window, 1), stride, saved), values[cut:], first=len(values[:cut]))
    assert windows == undisturbed


@pytest.mark.parametrize("data", [b"", b"123", Recent(2, np.zeros((2, 2), np.float32)).to_bytes()[:-1]])
def test_bytes_that_are_not_observations_are_refused(data):
    with pytest.raises(ValueError, match="not the observations of a stream"):
        Recent.from_bytes(data)

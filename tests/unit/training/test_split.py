from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import TrainingError
from training.data import Dataset, from_arrays
from training.split import apart, meets, split

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), min_size=1, max_size=12).map(
    lambda each: np.array([(first, first + more) for first, more in each], np.int64)
)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("count", "held"), [(50, 10), (1000, 200), (2000, 300), (5000, 500), (30_000, 1500)])
def test_pictures_are_split_at_random_without_overlap(count: int, held: int) -> None:
    y = np.zeros(count, dtype=np.int64)
    dataset = from_arrays(np.zeros((count, 8, 8), np.uint8), "image", y=y)
    parts = split(dataset, generator())
    assert len(parts.held_out) == held
    assert np.array_equal(np.sort(np.concatenate([parts.train, parts.held_out])), np.arange(count))
    assert parts.held_out.max() - parts.held_out.min() > count // 2


@pytest.mark.parametrize("rows", [400, 700, 3000])
def test_windows_of_a_series_share_no_observation_across_the_split(rows: int) -> None:
    labels = np.zeros(rows, dtype=np.int64)
    labels[150:155] = 1
    dataset = from_arrays(np.arange(float(rows)), "sequence", y=labels)
    parts = split(dataset, generator())
    for train in parts.train:
        assert np.abs(parts.held_out - train).min() >= 64
    assert parts.held_out[-1] == len(dataset) - 1
    assert dataset.clean[parts.train].all()
    assert dataset.clean[parts.held_out].all()
    assert len(parts.train) > len(dataset) // 4
    assert len(parts.held_out) > len(dataset) // 6


def test_no_anomalous_record_is_in_either_part() -> None:
    y = np.arange(200) % 2
    parts = split(from_arrays(np.zeros((200, 8, 8), np.uint8), "image", y=y), generator())
    assert (np.concatenate([parts.train, parts.held_out]) % 2 == 0).all()


def test_too_few_records_are_refused_with_the_minimum() -> None:
    with pytest.raises(TrainingError, match="49 normal pictures; at least 50"):
        split(from_arrays(np.zeros((49, 8, 8), np.uint8), "image"), generator())
    with pytest.raises(TrainingError, match="99 normal windows; at least 100"):
        split(from_arrays(np.zeros((130, 1)), "sequence"), generator())
    with pytest.raises(TrainingError, match="shorter window"):
        split(from_arrays(np.zeros((260, 1)), "sequence", window=128), generator())


@given(SPANS, SPANS)
def test_spans_meet_where_they_have_a_place_in_common(spans: np.ndarray, others: np.ndarray) -> None:
    each = [any(first <= end and begin <= last for begin, end in others) for first, last in spans.tolist()]
    assert meets(spans, others).tolist() == each


def of_two_streams(rows: int, window: int) -> Dataset:
    """Two series whose windows come in turn, their places far apart."""
    one = from_arrays(np.arange(float(rows)), "sequence", window=window)
    other = from_arrays(-np.arange(float(rows)), "sequence", window=window)
    assert one.spans is not None
    assert other.spans is not None
    x = np.stack([one.x, other.x], axis=1).reshape(-1, window, 1)
    spans = np.stack([one.spans, other.spans + 10 * rows], axis=1).reshape(-1, 2)
    return replace(one, x=x, clean=np.ones(len(x), np.bool_), series=None, spans=spans)


def test_windows_of_several_streams_share_no_observation_across_the_split_whatever_their_order() -> None:
    dataset = of_two_streams(1000, 32)
    parts = split(dataset, generator())
    trained, held = (set(np.unique(dataset.x[some]).tolist()) for some in (parts.train, parts.held_out))
    assert not trained & held
    assert {value > 0 for value in trained} == {value > 0 for value in held} == {True, False}
    assert len(parts.train) > len(dataset) // 2


def test_only_a_window_of_the_same_stream_is_too_near() -> None:
    dataset = of_two_streams(200, 16)
    near = apart(dataset, np.arange(len(dataset)), np.array([100]))
    assert sorted(set(range(len(dataset))) - set(near.tolist())) == list(range(70, 131, 2))

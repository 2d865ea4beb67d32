from __future__ import annotations

import numpy as np
import pytest

from training.data import Dataset, from_arrays
from training.parts import divide, incidents


def parted(dataset: Dataset) -> dict[str, set[int]]:
    parts = divide(dataset, np.random.default_rng(0))
    return {name: set(getattr(parts, name).tolist()) for name in type(parts).__slots__}


def pictures(normal: int, anomalous: int) -> Dataset:
    x = np.random.default_rng(0).integers(0, 256, (normal + anomalous, 8, 8), dtype=np.uint8)
    return from_arrays(x, "image", y=np.arange(len(x)) >= normal)


def test_of_many_pictures_a_twentieth_is_watched_and_the_others_give_gradients() -> None:
    parts = parted(pictures(1000, 0))
    assert parts["fit"] | parts["watched"] == parts["train"]
    assert not parts["fit"] & parts["watched"]
    assert not parts["train"] & parts["held_out"]
    assert len(parts["watched"]) == round(0.05 * len(parts["train"]))


def test_few_records_are_all_learned_from() -> None:
    parts = parted(pictures(300, 0))
    assert parts["watched"] == set()
    assert parts["fit"] == parts["train"]


def test_the_newest_windows_are_watched_and_share_no_observation_with_those_learned_from() -> None:
    series = np.random.default_rng(0).normal(size=(6000, 1))
    parts = parted(from_arrays(series, "sequence", window=32))
    assert len(parts["watched"]) > 100
    assert parts["watched"] < parts["train"]
    assert max(parts["fit"]) + 32 <= min(parts["watched"])
    assert parts["fit"] < parts["train"]


@pytest.mark.parametrize(("anomalous", "learned"), [(0, 0), (3, 0), (4, 3), (12, 8), (100, 67)])
def test_two_thirds_of_the_labelled_anomalies_are_learned_from_unless_that_is_fewer_than_three(
    anomalous: int, learned: int
) -> None:
    parts = parted(pictures(100, anomalous))
    assert len(parts["labelled"]) == learned
    assert len(parts["measured"]) == anomalous - learned
    assert parts["labelled"] | parts["measured"] == set(range(100, 100 + anomalous))


def test_an_incident_of_a_series_is_learned_from_or_measured_with_but_not_both() -> None:
    series = np.random.default_rng(0).normal(size=(2000, 1))
    labels = np.zeros(2000, dtype=np.int64)
    starts = (200, 500, 520, 900, 1300, 1700)
    for start in starts:
        labels[start : start + 10] = 1
    parts = parted(from_arrays(series, "sequence", y=labels, window=32))
    assert parts["labelled"]
    assert parts["measured"]
    assert min(abs(a - b) for a in parts["labelled"] for b in parts["measured"]) >= 32


def test_incidents_are_what_hangs_together_by_shared_observations_in_any_order_of_the_records() -> None:
    spans = np.array([(0, 4), (100, 104), (3, 7), (104, 108), (7, 11), (200, 204)], np.int64)
    found = [sorted(each.tolist()) for each in incidents(np.arange(6), spans)]
    assert found == [[0, 2, 4], [1, 3], [5]]
    assert [each.tolist() for each in incidents(np.array([2, 5]), None)] == [[2], [5]]

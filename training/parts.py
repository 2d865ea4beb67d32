"""What each record of a dataset is for: to learn from, to watch the learning, to calibrate on, or to measure with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.config import Kind
from training.data import Dataset
from training.split import Indices, apart, split

# Normal records below which none is spared for watching: a short history is worth more to learn from.
ENOUGH_TO_WATCH = {Kind.IMAGE: 400, Kind.SEQUENCE: 2000}
WATCHED = 0.05  # of the records to learn from
MOST_WATCHED = 256
MEASURED = 1.0 / 3.0  # of the labelled anomalies
FEWEST_LABELLED = 3  # to learn from: fewer say nothing about the next one


@dataclass(frozen=True, slots=True)
class Parts:
    """Indices into a dataset, ascending.

    Normal records: `train` are learned from and remembered, `held_out` calibrate. Of `train`, `watched` give the
    validation loss and `fit` the gradients. Anomalies: `labelled` are learned from, `measured` are not.
    """

    train: Indices
    held_out: Indices
    fit: Indices
    watched: Indices
    labelled: Indices
    measured: Indices


def divide(dataset: Dataset, random: np.random.Generator) -> Parts:
    """Raises TrainingError where there are too few normal records.

    Nothing that is watched, held out or measured shares an observation with what is learned from.
    """
    normal = split(dataset, random)
    labelled, measured = _anomalies(dataset, random)
    fit, watched = _watched(dataset, normal.train, random)
    return Parts(normal.train, normal.held_out, fit, watched, labelled, measured)


def _watched(dataset: Dataset, train: Indices, random: np.random.Generator) -> tuple[Indices, Indices]:
    none = train[:0]
    if len(train) < ENOUGH_TO_WATCH[dataset.kind]:
        return train, none
    count = min(round(WATCHED * len(train)), MOST_WATCHED)
    if dataset.kind is Kind.IMAGE:
        order = random.permutation(train)
        return np.sort(order[count:]), np.sort(order[:count])
    # Of a series the newest: what comes next is what a detector is for.
    return apart(dataset, train[:-count], train[-count:]), train[-count:]


def _anomalies(dataset: Dataset, random: np.random.Generator) -> tuple[Indices, Indices]:
    none = np.zeros(0, dtype=np.int64)
    if dataset.y is None or not dataset.y.any():
        return none, none
    found = np.flatnonzero(dataset.y)
    # An incident is learned from or measured with, not both.
    each = incidents(found, dataset.spans)
    order = random.permutation(len(each))
    measured = np.sort(order[: max(1, round(MEASURED * len(each)))])
    learned = np.sort(np.setdiff1d(order, measured))
    labelled = np.sort(np.concatenate([none, *(each[number] for number in learned)]))
    if len(labelled) < FEWEST_LABELLED:
        return none, found
    return labelled, np.sort(np.concatenate([each[number] for number in measured]))


def incidents(found: Indices, spans: Indices | None) -> list[Indices]:
    """Records `found` by incident: those that share observations, each with the next, are of one.

    Each record is an incident of its own where there are no `spans`.
    """
    if spans is None:
        return np.split(found, np.arange(1, len(found)))
    ordered = found[np.argsort(spans[found, 0], kind="stable")]
    reached = np.maximum.accumulate(spans[ordered, 1])
    begins = np.flatnonzero(spans[ordered[1:], 0] > reached[:-1]) + 1
    return np.split(ordered, begins)

"""Real data that comes inside packages, and detectors trained on it for a few seconds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from river.datasets import WaterFlow
from sklearn.datasets import load_digits

from model.detector import Detector
from model.registry import Registry
from training.data import Dataset, from_arrays
from training.loop import TrainResult, train

UNSEEN = 0  # the digit that no detector has seen
# Hours of the series, as row numbers, in which next to no water flowed, or flowed back up afterwards.
INCIDENTS = (slice(93, 112), slice(205, 225), slice(872, 889))
CALM = slice(330, 860)


class Trained(NamedTuple):
    """A champion, what training said, and records that it has not seen."""

    detector: Detector
    result: TrainResult
    test: Dataset
    registry: Registry


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks are slower on several threads, most of all where several tests share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digit_split() -> tuple[Dataset, Dataset]:
    """Handwritten digits: four of five normal ones to train on; the rest, with every picture of the unseen, to test."""
    bunch = load_digits()
    pictures, target = bunch.images.astype(np.uint8), bunch.target
    order = np.random.default_rng(0).permutation(len(pictures))
    pictures, anomalous = pictures[order], target[order] == UNSEEN
    normal = np.flatnonzero(~anomalous)
    learned, kept = normal[: len(normal) * 4 // 5], normal[len(normal) * 4 // 5 :]
    rest = np.concatenate([kept, np.flatnonzero(anomalous)])
    return (
        from_arrays(pictures[learned], "image", source="digits"),
        from_arrays(pictures[rest], "image", y=anomalous[rest].astype(np.int64), source="digits"),
    )


@pytest.fixture(scope="session")
def image_trained(digit_split: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    registry = Registry(str(tmp_path_factory.mktemp("images")))
    result = train(digit_split[0], "image", registry, "digits", device="cpu", steps=60)
    return Trained(registry.load("digits", device="cpu"), result, digit_split[1], registry)


@pytest.fixture(scope="session")
def water() -> Dataset:
    """Hourly flow in a water main, a real series with incidents: windows of 24 hours."""
    flow = np.array([flow for _, flow in WaterFlow()])[:, None]
    labels = np.zeros(len(flow), dtype=np.int64)
    for incident in INCIDENTS:
        labels[incident] = 1
    return from_arrays(flow, "sequence", y=labels, window=24, source="WaterFlow")


@pytest.fixture(scope="session")
def calm_water(water: Dataset) -> Dataset:
    """Its longest stretch without an incident."""
    assert water.series is not None
    return from_arrays(water.series[CALM], "sequence", window=24, source="WaterFlow")


@pytest.fixture(scope="session")
def sequence_trained(calm_water: Dataset, water: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    registry = Registry(str(tmp_path_factory.mktemp("sequences")))
    result = train(calm_water, "sequence", registry, "water", device="cpu", steps=60)
    return Trained(registry.load("water", device="cpu"), result, water, registry)

"""Real pictures and small untrained detectors: enough to be saved, loaded and asked for scores."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from model.calibration import calibrate, write_sketch
from model.config import ImageConfig, Profile, SequenceConfig
from model.detector import Network, raw_evidence
from model.image import ImageGanomaly
from model.manifest import Manifest, TrainingData
from model.registry import Registry
from model.sequence import SequenceGanomaly

CPU = torch.device("cpu")


class Parts(NamedTuple):
    """What `Registry.save` takes, and records that the detector has not seen."""

    manifest: Manifest
    network: Network
    records: NDArray[np.generic]


def _manifest(
    network: Network, kind: str, held_out: NDArray[np.generic], used: Mapping[Profile, Mapping[str, float]]
) -> Manifest:
    fitted = calibrate(raw_evidence(network, held_out, CPU), used)
    return Manifest(
        name="unit",
        kind=kind,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        config=network.config.to_json(),
        input_shape=network.config.input_shape,
        training_data=TrainingData(source="sklearn load_digits", rows=len(held_out)),
        calibration=fitted.calibration,
        score_sketch=write_sketch(fitted.scores),
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks are slower on several threads, most of all where several tests share the cores."""
    torch.set_num_threads(1)


def shuffled_digits() -> NDArray[np.uint8]:
    """1,797 real handwritten digits, `[N, 8, 8, 1]` uint8 in 0…16."""
    pictures: NDArray[np.uint8] = load_digits().images.astype(np.uint8)[..., None]
    # They come sorted by their writers, who differ.
    return pictures[np.random.default_rng(0).permutation(len(pictures))]


@pytest.fixture(scope="session")
def digits() -> NDArray[np.uint8]:
    return shuffled_digits()


@pytest.fixture(scope="session")
def image_parts(digits: NDArray[np.uint8]) -> Parts:
    return untrained(digits)


def untrained(digits: NDArray[np.uint8]) -> Parts:
    """A detector of pictures that has learned nothing but remembers some."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ImageGanomaly(ImageConfig(8, 8, 1, side=16, memory=200))
    network.high = torch.tensor(16.0)
    network.eval()
    network.remember(network.prepare(torch.from_numpy(digits[:200])))
    return Parts(_manifest(network, "image", digits[200:400], network.profiles), network, digits[400:])


@pytest.fixture(scope="session")
def sequence_parts(digits: NDArray[np.uint8]) -> Parts:
    """Windows of 8 steps and 8 features: the rows of the digits."""
    windows = digits[..., 0].astype(np.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SequenceGanomaly(SequenceConfig(8, 8, memory=200))
    network.fit_scaling(torch.from_numpy(windows[:200].reshape(-1, 8)))
    network.eval()
    network.remember(network.prepare(torch.from_numpy(windows[:200])))
    weights = dict.fromkeys(raw_evidence(network, windows[:2], CPU), 1.0)
    used = dict.fromkeys(Profile, weights)
    return Parts(_manifest(network, "sequence", windows[200:400], used), network, windows[400:])


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(str(tmp_path_factory.mktemp("registry")))

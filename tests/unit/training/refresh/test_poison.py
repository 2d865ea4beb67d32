"""A stream with anomalies in it must not teach the next version that they are normal."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from model.registry import Registry
from stream_app.settings import SnapshotSettings, ThresholdSettings
from training.data import from_arrays
from training.loop import auroc, train
from training.refresh.choice import choose
from training.refresh.known import mark
from training.refresh.scan import Scan

pytestmark = pytest.mark.timeout(600)  # a training each

UNSEEN = (3, 9)
STEPS = 40


class Digits:
    """A version trained on 400 pictures, 640 normal ones for the stream, and what no version learns from."""

    def __init__(self, registry: Registry) -> None:
        bunch = load_digits()
        self.pictures = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        self.strange = np.isin(bunch.target, UNSEEN)
        random = np.random.default_rng(0)
        self.normal = random.permutation(np.flatnonzero(~self.strange))
        self.anomalous = random.permutation(np.flatnonzero(self.strange))
        self.registry = registry
        self.clean = self.fit(self.normal[:400])
        self.champion = registry.load("digits", device="cpu")

    def fit(self, index: np.ndarray) -> float:
        train(from_arrays(self.pictures[index], "image"), "image", self.registry, "digits", steps=STEPS, device="cpu")
        detector = self.registry.load("digits", device="cpu")
        test = self.normal[1040:], self.anomalous[160:]
        return auroc(*(detector.score(self.pictures[some]).score for some in test))

    def poisoned(self, share: float) -> np.ndarray:
        stream = np.concatenate([self.normal[400:1040], self.anomalous[: round(640 * share / (1 - share))]])
        return np.random.default_rng(1).permutation(stream)

    def chosen(self, stream: np.ndarray) -> np.ndarray:
        count, zeros = len(stream), np.zeros(len(stream), np.int64)
        scores = self.champion.score(self.pictures[stream]).score
        places = np.arange(count)
        scan = Scan(
            zeros, places, places, zeros, {(0, "a"): 0}, scores, None, None, (8, 8, 1), np.dtype(np.uint8), count, 0, 0
        )
        marks = mark((), scan.offsets, scan.rows)
        return stream[choose(scan, marks, SnapshotSettings(), ThresholdSettings(), 0).normal]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits(Registry(str(tmp_path_factory.mktemp("poison"))))


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_next_version_finds_what_the_stream_was_poisoned_with(digits: Digits, share: float) -> None:
    kept = digits.chosen(digits.poisoned(share))
    assert digits.strange[kept].mean() < 0.015
    assert digits.fit(kept) > digits.clean - 0.03


def test_without_the_choice_it_would_have_learned_the_poison(digits: Digits) -> None:
    assert digits.fit(digits.poisoned(0.2)) < digits.clean - 0.2

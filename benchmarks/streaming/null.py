"""A detector that costs nothing, so that what is measured is the stream around it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.config import Kind
from model.detector import Scores
from model.reference import Reference
from stream_app.versions import Versions

WINDOW = 16
FEATURES = 1
EVIDENCE = tuple(f"evidence_{number}" for number in range(8))  # as many as a detector of sequences has

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NullDetector:
    """What the worker asks of a detector; a window's score is its newest value, without its sign."""

    name: str
    version: str = "null"
    sha256: str = hashlib.sha256(b"").hexdigest()
    device: str = "none"
    kind: Kind = Kind.SEQUENCE
    input_shape: tuple[int, ...] = (WINDOW, FEATURES)
    features: tuple[str, ...] | None = None

    @property
    def manifest(self) -> NullDetector:
        """The worker reads the names of the features there."""
        return self

    @cached_property
    def reference(self) -> Reference:
        """As of windows of what `streams.py` publishes."""
        random = np.random.default_rng(0)
        windows = random.exponential(1.0 / math.log(10.0), (1000, WINDOW, FEATURES)).astype(np.float32)
        return Reference.fit(self.kind, windows, np.abs(windows[:, -1, 0]))

    def score(self, inputs: Floats) -> Scores:
        """Scores of windows `[n, T, F]`."""
        score = np.abs(inputs[:, -1, 0])
        return Scores(score, dict.fromkeys(EVIDENCE, score))

    def localize(self, inputs: Floats) -> Floats:
        """Contributions `[n, T, F]`: the values themselves."""
        return np.abs(inputs)


def serve_null_detectors() -> None:
    """From now on each version of every detector in this process is a `NullDetector`, and in service."""

    def load(_versions: Any, name: str, version: str, _in_service: Any) -> Any:
        return NullDetector(name, version)

    Versions.champion = lambda _versions, _name, _known: "null"  # type: ignore[method-assign]
    Versions.load = load  # type: ignore[method-assign]
    Versions.keep = lambda _versions, _name, _version: None  # type: ignore[method-assign]

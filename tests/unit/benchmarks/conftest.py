"""Lines of a results file as two seeds of a small protocol would leave them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detection.measure import quality
from detection.results import BASELINES, GANOMALY, Key, Origin, Result

ORIGIN = Origin("c0de", "abc", 60.0, False, "2026-01-01", "a machine", "2.13")


def figures(random: np.random.Generator, part: str, gap: float) -> dict[str, Any]:
    """Of a detector whose anomalies score `gap` higher than normal records, in deviations."""
    y = np.repeat([0, 1], [200, 50])
    scores = random.normal(size=250) + gap * y
    alone = {"all": 0.7, part: 0.7}
    cost = {profile: {"ratio": 2.0, "records_per_second": 1000.0} for profile in ("accurate", "fast")}
    return quality(scores, y, np.where(y == 1, part, "")) | {
        "train_seconds": 60.0,
        "alarms": {"normal": 200, "0.01": {"calibration": 2, "stream": 3}, "0.001": {"calibration": 0, "stream": 1}},
        "used": ["latent"],
        "alone": {"latent": alone},
        "without": {"latent": {"all": 0.6, part: 0.6}},
        "cost": cost,
    }


@pytest.fixture
def found() -> dict[Key, Result]:
    """Two digits of B by two seeds, and the simple methods on the first of them."""
    random = np.random.default_rng(0)
    results = {}
    for seed in (0, 1):
        for digit in ("3", "4"):
            key = Key("B", digit, GANOMALY, seed)
            results[key] = Result(key, ORIGIN, figures(random, digit, 3.0 if digit == "3" else 2.0))
    for digit in ("3", "4"):
        key = Key("B", digit, BASELINES, 0)
        methods = {"knn/32": figures(random, digit, 1.0), "knn/64": figures(random, digit, 2.2)}
        results[key] = Result(key, ORIGIN, {"methods": methods})
    return results

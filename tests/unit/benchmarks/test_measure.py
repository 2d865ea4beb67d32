"""One training is measured as the page says it is, on digits and on a series that come with packages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from river.datasets import WaterFlow
from sklearn.datasets import load_digits

from detection.measure import measure, pixels
from detection.protocols import PROTOCOLS, Case, Material
from detection.rivals import baselines, causal_mean, patch_distances
from model.config import Kind
from stream_app.errors import UsageError

DIGITS = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
TARGET = load_digits().target


def digits() -> Material:
    normal, other = DIGITS[TARGET != 0], DIGITS[TARGET == 0]
    test = np.concatenate([normal[800:1000], other])
    y = np.repeat([0, 1], [200, len(other)])
    return Material(Kind.IMAGE, normal[:800], test, y, np.where(y == 1, "zero", ""))


def water() -> Material:
    flow = np.array([[flow] for _, flow in WaterFlow()], dtype=np.float32)[:1000]
    y = np.zeros(len(flow), dtype=np.int64)
    y[872:889] = 1
    return Material(Kind.SEQUENCE, flow[330:860], flow[330:], y[330:], np.where(y[330:] == 1, "flow", ""), history=400)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("load", [digits, water])
def test_all_that_the_page_shows_is_measured(load: Callable[[], Material]) -> None:
    material = load()
    found = measure(Case("A", "0", lambda _: material), material, 0, 1.0)
    assert 0.5 < found["auroc"] <= 1.0
    asked = material.y[material.history :]
    assert (found["normal"], found["anomalous"]) == ((asked == 0).sum(), asked.sum())
    # Of the series, not the 63 observations after the incident: their windows still hold some of it.
    assert found["alarms"]["normal"] == found["normal"] - (0 if material.kind is Kind.IMAGE else 63)
    assert found["cost"]["accurate"]["ratio"] > 0.5
    assert set(found["used"]) == set(found["without"]) <= set(found["alone"])
    assert found["train_seconds"] >= 1.0


def test_an_option_that_training_does_not_take_is_refused() -> None:
    case = Case("objectives", "x", lambda _: digits(), {"no_such_option": 1})
    with pytest.raises(UsageError, match="training takes no no_such_option"):
        measure(case, digits(), 0, 1.0)


def test_every_simple_method_is_measured_on_the_same_records() -> None:
    found = baselines(digits())
    assert {"isolation_forest", "one_class_svm", "pca_residual", "knn", "lof"} == set(found)
    assert all(figures["anomalous"] == (TARGET == 0).sum() for figures in found.values())
    assert "pca_residual_calm/32" in baselines(water())


def test_a_causal_mean_looks_back_only() -> None:
    scores = np.array([1.0, 3.0, 5.0, 7.0])
    assert causal_mean(scores, 2).tolist() == [1.0, 2.0, 4.0, 6.0]
    assert causal_mean(scores[:3], 2).tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("variant", ["centred", "contrast"])
def test_the_strangest_patch_is_where_the_defect_is(variant: str) -> None:
    columns = np.indices((48, 48))[1]
    random = np.random.default_rng(0)
    stripes = [np.sin(columns / 3.0 + phase) for phase in random.uniform(0, 6, 12)]
    pictures: NDArray[np.uint8] = (np.array(stripes) * 50 + 128 + random.normal(0, 2, (12, 48, 48))).astype(np.uint8)
    broken = pictures[10:].copy()
    broken[:, 20:26, 30:36] = 250
    distances = patch_distances(pictures[:10], variant, 0)(broken)
    assert distances.shape == (2, 20, 20)
    worst = np.unravel_index(distances.reshape(2, -1).argmax(axis=1), (20, 20))
    assert np.abs(np.stack(worst) * 2 + 4 - np.array([[23], [33]])).max() <= 8


def test_pixels_are_judged_over_defective_pictures_only() -> None:
    masks = np.zeros((3, 4, 4), dtype=bool)
    masks[1:, 1, 1] = True
    y = np.array([0, 1, 1])
    part = np.array(["", "hole", "crack"])
    material = Material(Kind.IMAGE, masks, masks, y, part, masks=masks)
    maps = masks[1:].astype(np.float64)
    maps[1] = 1.0 - maps[1]
    found = pixels(maps, material)
    assert (found["hole"]["auroc"], found["crack"]["auroc"]) == (1.0, 0.0)


def test_names_of_the_protocols_are_those_that_are_asked_for() -> None:
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert [name for name, protocol in PROTOCOLS.items() if protocol.goal] == ["A", "B", "C", "D", "SKAB", "NAB"]

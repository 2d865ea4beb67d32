"""Figures are PNG files of what they are given, and a missing library is said plainly."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from stream_app.errors import UsageError
from tests.unit.training.conftest import Trained
from training import plots
from training.evaluate import evaluate
from training.report import best_and_worst, figures


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("L").getcolors() or []) > 2
        return picture.size


def test_an_evaluation_has_its_figures(image_trained: Trained) -> None:
    result = evaluate(image_trained.detector, image_trained.test)
    files = figures(image_trained.detector, image_trained.test, result)
    assert set(files) == {"roc.png", "precision-recall.png", "histogram.png", "examples.png"}
    for data in files.values():
        width, height = size(data)
        assert 300 < width < 3000
        assert 300 < height < 3000


def test_the_worst_examples_are_the_ones_that_were_taken_for_the_other(image_trained: Trained) -> None:
    test = image_trained.test
    assert test.y is not None
    scores = image_trained.detector.score(test.x).score.astype(np.float64)
    rows = best_and_worst(image_trained.detector, test, test.y, scores, np.where(test.y == 1, "zero", ""))
    missed = rows["anomalies with the lowest scores"]
    lowest = np.flatnonzero(test.y)[scores[test.y == 1].argmin()]
    assert np.array_equal(missed[0].record, test.x[lowest])
    assert missed[0].caption == f"zero #{lowest}\n{scores[lowest]:.2f}"
    assert missed[0].heat.shape == test.x.shape[1:3]


def test_examples_of_a_series_share_no_observation(sequence_trained: Trained) -> None:
    test = sequence_trained.test
    assert test.y is not None
    scores = sequence_trained.detector.score(test.x).score.astype(np.float64)
    rows = best_and_worst(sequence_trained.detector, test, test.y, scores)
    shown = [int(example.caption.split("\n")[0].lstrip("#")) for example in rows["anomalies with the highest scores"]]
    assert min(np.diff(sorted(shown)), default=24) >= 24
    size(plots.examples(rows))


def test_curves_may_have_holes_and_values_below_zero() -> None:
    size(plots.curve([1, 2, 3], {"loss": [3.0, 2.0, 1.0], "validation": [2.0, float("nan"), 1.0]}, kept=2))
    size(plots.curve([1, 2], {"loss": [-1.0, 2.0]}))


def test_without_matplotlib_what_to_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r"pip install 'ganomaly-stream\[plots\]'"):
        plots.curve([1], {"loss": [1.0]})

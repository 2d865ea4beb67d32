from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from model.detector import Detector, pick_device
from model.errors import ModelError
from model.registry import Registry
from tests.unit.model.conftest import Parts


@pytest.fixture(params=["image_parts", "sequence_parts"])
def loaded(request: pytest.FixtureRequest, registry: Registry) -> tuple[Detector, NDArray[np.generic]]:
    parts: Parts = request.getfixturevalue(request.param)
    version = registry.save(parts.manifest, parts.network, "card")
    return registry.load("unit", version, device="cpu"), parts.records


def test_a_score_does_not_depend_on_the_batch(loaded: tuple[Detector, NDArray[np.generic]]) -> None:
    detector, records = loaded
    whole = detector.score(records[:600])
    for size in (1, 7, 64):
        asked = range(0, 600 if size > 1 else 40, size)
        parts = [detector.score(records[start : min(start + size, 600)]) for start in asked]
        score = np.concatenate([part.score for part in parts])
        # These networks are untrained, so that all codes nearly agree and rounding weighs more than it does in service.
        np.testing.assert_allclose(score, whole.score[: len(score)], rtol=1e-3, atol=1e-4)
        for name, values in whole.raw.items():
            raw = np.concatenate([part.raw[name] for part in parts])
            np.testing.assert_allclose(raw, values[: len(raw)], rtol=2e-3, atol=1e-5)


def test_a_window_has_one_and_the_same_score_however_many_come_with_it(
    sequence_parts: Parts, registry: Registry
) -> None:
    version = registry.save(sequence_parts.manifest, sequence_parts.network, "card")
    detector, windows = registry.load("unit", version, device="cpu"), sequence_parts.records[:256]
    whole = detector.score(windows).score
    for size in range(1, 40):
        for start in range(0, 256 - size, 37):
            np.testing.assert_array_equal(detector.score(windows[start : start + size]).score, whole[start:][:size])


def test_a_score_is_the_same_each_time_and_for_each_neighbour(loaded: tuple[Detector, NDArray[np.generic]]) -> None:
    detector, records = loaded
    first = detector.score(records[:50]).score
    np.testing.assert_array_equal(detector.score(records[:50]).score, first)
    np.testing.assert_allclose(detector.score(records[:50][::-1]).score[::-1], first, rtol=1e-3, atol=1e-4)


def test_scores_are_calibrated_on_fresh_records(loaded: tuple[Detector, NDArray[np.generic]]) -> None:
    detector, records = loaded
    scores = detector.score(records).score
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert scores.min() >= 0
    assert (scores >= 1.0).mean() == pytest.approx(0.1, abs=0.06)
    assert (scores >= 0.301).mean() == pytest.approx(0.5, abs=0.12)


def test_inputs_are_left_as_they_were_even_where_they_are_read_only(
    loaded: tuple[Detector, NDArray[np.generic]],
) -> None:
    detector, records = loaded
    given = records[:20].copy()
    given.setflags(write=False)
    score = detector.score(given).score
    detector.localize(given)
    np.testing.assert_array_equal(given, records[:20])
    np.testing.assert_array_equal(detector.score(records[:20]).score, score)


def test_views_with_strides_are_read_as_they_are(loaded: tuple[Detector, NDArray[np.generic]]) -> None:
    detector, records = loaded
    np.testing.assert_allclose(
        detector.score(records[:40:2]).score, detector.score(records[:40]).score[::2], rtol=1e-3, atol=1e-4
    )


def test_localize_gives_a_map_per_record(loaded: tuple[Detector, NDArray[np.generic]]) -> None:
    detector, records = loaded
    maps = detector.localize(records[:5])
    assert maps.shape == (5, *detector.input_shape[:2])
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert detector.localize(records[:0]).shape == (0, *detector.input_shape[:2])


@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_missing_values_leave_every_score_and_every_contribution_finite(
    sequence_parts: Parts, registry: Registry, share: float
) -> None:
    version = registry.save(sequence_parts.manifest, sequence_parts.network, "card")
    detector, windows = registry.load("unit", version, device="cpu"), sequence_parts.records[:50].astype(np.float32)
    windows[np.random.default_rng(0).random(windows.shape) < share] = np.nan
    scores = detector.score(windows)
    assert np.isfinite(scores.score).all()
    assert [name for name, values in scores.raw.items() if not np.isfinite(values).all()] == []
    assert np.isfinite(detector.localize(windows)).all()


def test_a_version_from_before_references_has_that_of_its_scores_law(
    loaded: tuple[Detector, NDArray[np.generic]],
) -> None:
    reference = loaded[0].reference
    assert list(reference.bins) == ["score"]
    assert reference.score.records == 200


def test_no_records_have_no_scores(loaded: tuple[Detector, NDArray[np.generic]]) -> None:
    detector, records = loaded
    assert detector.score(records[:0]).score.shape == (0,)


def test_records_of_another_shape_are_refused(loaded: tuple[Detector, NDArray[np.generic]]) -> None:
    detector, records = loaded
    with pytest.raises(ModelError, match="takes records of shape"):
        detector.score(records[:, :4])
    with pytest.raises(ModelError, match="takes records of shape"):
        detector.score(records[0])


def test_a_detector_knows_what_it_is(loaded: tuple[Detector, NDArray[np.generic]]) -> None:
    detector, _ = loaded
    detector.warm_up(16)
    assert detector.name == "unit"
    assert detector.version == detector.manifest.version != ""
    assert detector.sha256 == detector.manifest.sha256
    assert len(detector.sha256) == 64
    assert detector.kind in ("image", "sequence")


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="nonsense"):
        pick_device("nonsense")
    assert pick_device("auto").type in ("cpu", "cuda")


def test_importing_the_detector_pulls_in_no_heavy_library() -> None:
    code = "import sys, model.registry; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"scipy", "sklearn", "pandas", "matplotlib", "torchvision"} & set(loaded)

from __future__ import annotations

import json

import numpy as np
import pytest

from model.calibration import write_sketch
from model.errors import ManifestError
from model.manifest import Manifest
from tests.unit.model.conftest import Parts


@pytest.fixture
def document(image_parts: Parts) -> dict[str, object]:
    """A manifest as its file has it."""
    data: dict[str, object] = json.loads(image_parts.manifest.model_dump_json())
    return data


def read(document: dict[str, object]) -> Manifest:
    return Manifest.parse(json.dumps(document).encode(), "manifest.json")


def test_half_of_the_held_out_normals_score_no_higher_than_the_median(document: dict[str, object]) -> None:
    manifest = read(document | {"score_sketch": write_sketch(np.arange(101.0))})
    assert manifest.score_quantiles([0.0, 0.5, 1.0]) == [0.0, 50.0, 100.0]


def test_calibrated_scores_of_held_out_normals_are_minus_log10_of_their_share(image_parts: Parts) -> None:
    assert image_parts.manifest.score_quantiles([0.5, 0.9]) == pytest.approx([0.30, 1.0], abs=0.1)


@pytest.mark.parametrize("text", ["", "AAAA", write_sketch([])])
def test_a_sketch_that_can_not_be_read_is_refused_with_its_field(document: dict[str, object], text: str) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json: score_sketch: "):
        read(document | {"score_sketch": text})

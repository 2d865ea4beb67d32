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


def test_names_of_features_are_kept_in_their_order(sequence_parts: Parts) -> None:
    names = list("hgfedcba")
    document = json.loads(sequence_parts.manifest.model_dump_json()) | {"features": names}
    manifest = read(document)
    assert manifest.features == tuple(names)
    assert Manifest.parse(manifest.model_dump_json().encode(), "manifest.json") == manifest


def test_a_manifest_without_names_is_read(sequence_parts: Parts) -> None:
    document = json.loads(sequence_parts.manifest.model_dump_json())
    del document["features"]
    assert read(document).features is None


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (list("abcdefg"), "7 features are named, but the detector takes 8"),
        (list("abcdefga"), "each needs a name of its own"),
        ([*"abcdefg", ""], "each needs a name of its own"),
    ],
)
def test_names_that_do_not_fit_are_refused(sequence_parts: Parts, names: list[str], says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        read(json.loads(sequence_parts.manifest.model_dump_json()) | {"features": names})


def test_a_picture_has_no_names(document: dict[str, object]) -> None:
    with pytest.raises(ManifestError, match="features are of sequences"):
        read(document | {"features": ["a"]})

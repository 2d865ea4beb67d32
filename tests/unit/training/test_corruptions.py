"""Corruptions are seen, follow their seed, and share nothing with the pseudo-anomalies that a detector learns from."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.datasets import load_digits

from stream_app.errors import UsageError
from training import anomalies, corruptions
from training.corruptions import CLEAN, KINDS, corrupt

TRAINING = Path(anomalies.__file__).parent
DIGITS = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)


def large_digits() -> NDArray[np.uint8]:
    """Handwriting of 28 × 28 with a margin, as in MNIST."""
    large = ndimage.zoom(DIGITS[:210].astype(np.float64), (1, 2.5, 2.5), order=1)
    return np.pad(np.clip(large, 0, 255).astype(np.uint8), ((0, 0), (4, 4), (4, 4)))


LARGE = large_digits()


def test_the_share_is_corrupted_by_equal_numbers_of_each_kind() -> None:
    result = corrupt(LARGE, share=0.3, seed=1)
    assert result.y.sum() == 63
    assert np.array_equal(result.y == 1, result.kind != CLEAN)
    names, counts = np.unique(result.kind[result.y == 1], return_counts=True)
    assert set(names) == set(KINDS)
    assert counts.tolist() == [9] * len(KINDS)


def test_clean_rows_stay_as_they_are_and_every_corrupted_one_is_seen() -> None:
    result = corrupt(LARGE, share=0.5, seed=2)
    assert np.array_equal(result.x[result.y == 0], LARGE[result.y == 0])
    change = np.abs(result.x.astype(float) - LARGE)[result.y == 1]
    assert ((change > 25).mean(axis=(1, 2)) >= 0.015).all()
    assert np.corrcoef(result.x[result.y == 1].ravel(), LARGE[result.y == 1].ravel())[0, 1] > 0.7


def test_the_seed_says_everything_and_the_input_is_not_touched() -> None:
    before = LARGE.copy()
    first, same, other = (corrupt(LARGE, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.x, same.x)
    assert first.kind.tolist() == same.kind.tolist()
    assert not np.array_equal(first.x, other.x)
    assert np.array_equal(LARGE, before)


@pytest.mark.parametrize("shape", [(8, 8), (32, 24, 3), (17, 40, 1), (20, 20, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_shape_dtype_and_limits_are_those_of_the_pictures(shape: tuple[int, ...], dtype: type) -> None:
    size, channels = shape[:2], shape[2:]
    grey = ndimage.zoom(DIGITS[:40] / 255.0, (1, size[0] / 8, size[1] / 8), order=1)
    levels = np.array([1.0, 0.8, 0.6, 0.5])[: channels[0]] * grey[..., None] if channels else grey
    pictures = (levels * 255).astype(np.uint8) if dtype is np.uint8 else levels.astype(np.float32)
    result = corrupt(pictures, seed=0)
    assert (result.x.shape, result.x.dtype) == (pictures.shape, pictures.dtype)
    assert result.x.min() >= 0
    assert result.x.max() <= (255 if dtype is np.uint8 else 1.0)


def test_a_range_other_than_the_whole_is_kept_to() -> None:
    """Sixteen levels of grey in a file of bytes are not drowned in noise of a hundred."""
    few = load_digits().images.astype(np.uint8)
    result = corrupt(few, seed=0)
    assert result.x.max() <= 17
    assert set(result.kind) == {*KINDS, CLEAN}


def test_a_missing_stroke_takes_ink_away_in_one_piece() -> None:
    result = corrupt(LARGE, kinds=["missing_stroke"], seed=5)
    for before, after in zip(LARGE[result.y == 1], result.x[result.y == 1], strict=True):
        gone = before.astype(int) - after
        assert gone.min() >= 0
        assert 0.1 < gone.sum() / before.sum() < 0.75
        assert ndimage.label(gone > 0, np.ones((3, 3)))[1] == 1


def test_an_extra_stroke_adds_ink_of_the_pictures_own_level() -> None:
    result = corrupt(LARGE, kinds=["extra_stroke"], seed=5)
    for before, after in zip(LARGE[result.y == 1], result.x[result.y == 1], strict=True):
        added = after.astype(int) - before
        assert added.min() >= 0
        assert after.max() == before.max()
        assert 0.02 < (added > 25).mean() < 0.25


def test_a_picture_on_which_a_kind_cannot_be_seen_stays_clean() -> None:
    pictures = np.concatenate([np.zeros((100, 28, 28), np.uint8), LARGE[:40]])
    result = corrupt(pictures, share=0.2, kinds=["missing_stroke", "faded"], seed=0)
    assert result.y.sum() == 28
    assert not result.y[:100].any()


def test_what_cannot_be_corrupted_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\[N,H,W\]"):
        corrupt(np.zeros((5, 4)))
    with pytest.raises(UsageError, match=r"share must be above 0 and below 1, not 1\.5"):
        corrupt(LARGE, share=1.5)
    with pytest.raises(UsageError, match="unknown kind scratch; there are noise"):
        corrupt(LARGE, kinds=["noise", "scratch"])
    with pytest.raises(UsageError, match="all of one brightness"):
        corrupt(np.zeros((20, 8, 8), np.uint8))
    with pytest.raises(UsageError, match="too few for 7 kinds"):
        corrupt(LARGE[:5])
    stripes = np.tile(np.array([0, 255], np.uint8), (20, 8, 4))
    stripes[1:] = 0
    with pytest.raises(UsageError, match="missing_stroke shows on too few"):
        corrupt(stripes, share=0.5, kinds=["missing_stroke"])


def imported(path: Path) -> set[str]:
    """Modules that a file imports, and names taken from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def ours_behind(module: str) -> set[str]:
    """The files of `training` and `model` that a module of `training` is made of, through all its imports."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = TRAINING.parent / (name.replace(".", "/") + ".py")
        if name in seen or not file.is_file():
            continue
        seen.add(name)
        waiting += [other for other in imported(file) if other.startswith(("training.", "model."))]
    return seen


def defined(path: Path) -> set[str]:
    """Functions and classes of a file."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)}


def test_tests_and_pseudo_anomalies_share_no_helper() -> None:
    assert ours_behind("training.corruptions") & ours_behind("training.anomalies") == set()
    learning = {"training.loop", "training.steps", "training.sequence_step"}
    for module in learning:
        assert "training.corruptions" not in ours_behind(module)
    assert corruptions.__name__ not in ours_behind("training.anomalies")

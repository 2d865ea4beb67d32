"""The card and the figures that lie beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.registry import Registry
from training import plots
from training.data import Dataset
from training.loop import train


def card_of(dataset: Dataset, folder: Path) -> tuple[str, set[str]]:
    """Its text, and the names of the figures in its folder."""
    registry = Registry(str(folder))
    result = train(dataset, dataset.kind, registry, "shown", steps=10, device="cpu")
    version = Path(result.path)
    for file in version.glob("*.png"):
        assert file.read_bytes()[:4] == b"\x89PNG"
    return (version / "card.md").read_text(), {file.name for file in version.glob("*.png")}


@pytest.mark.parametrize("kind", ["image", "sequence"])
def test_the_card_shows_the_figures_that_lie_beside_it(
    kind: str, digit_split: tuple[Dataset, Dataset], calm_water: Dataset, tmp_path: Path
) -> None:
    text, files = card_of(digit_split[0] if kind == "image" else calm_water, tmp_path)
    assert files == {"curve.png", "scores.png", "examples.png"}
    assert all(f"]({name})" in text for name in files)


def test_without_matplotlib_the_card_is_written_all_the_same(
    calm_water: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    text, files = card_of(calm_water, tmp_path)
    assert files == set()
    assert "](" not in text
    assert "| evidence |" in text

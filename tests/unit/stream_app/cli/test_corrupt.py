"""`corrupt`: a labelled file from clean pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from stream_app.cli.main import main
from training.corruptions import KINDS
from training.data import load

DIGITS = load_digits()


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of digits, of which the ones labelled anomalous must not be used."""
    monkeypatch.chdir(tmp_path)
    np.savez("digits.npz", x=(DIGITS.images[:300] * 15.9).astype(np.uint8), y=DIGITS.target[:300] == 4)


def test_the_file_holds_rows_labels_and_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    main_ends(["corrupt", "--data", "digits.npz", "--out", "test.npz", "--seed", "3", "--json"], 0)
    said = json.loads(capsys.readouterr().out)
    normal = int((DIGITS.target[:300] != 4).sum())
    assert (said["rows"], said["corrupted"]) == (normal, round(0.3 * normal))
    assert set(said["kinds"]) == {*KINDS, "clean"}
    with np.load("test.npz", allow_pickle=False) as file:
        assert (file["kind"] != "clean").tolist() == (file["y"] == 1).tolist()
    dataset = load("test.npz", "image")
    assert dataset.y is not None
    assert dataset.y.sum() == said["corrupted"]


def test_the_kinds_can_be_chosen_and_floats_stay_floats(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("floats.npz", x=(DIGITS.images[:100] / 16).astype(np.float32))
    main_ends(["corrupt", "--data", "floats.npz", "--out", "test.npz", "--kinds", "blur, patch", "--share", ".5"], 0)
    assert "blur" in capsys.readouterr().out
    with np.load("test.npz", allow_pickle=False) as file:
        assert set(file["kind"]) == {"clean", "blur", "patch"}
        assert file["x"].dtype == np.float32
        assert file["x"].max() <= 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "gone.npz", "--out", "o.npz"], "--data gone.npz: there is no such file"),
        (["--data", "digits.npz", "--out", "o.csv"], "--out o.csv: the file must end in .npz"),
        (["--data", "digits.npz", "--out", "gone/o.npz"], "--out gone/o.npz: there is no folder gone"),
        (["--data", "digits.npz", "--out", "o.npz", "--share", "2"], "share must be above 0 and below 1, not 2.0"),
        (["--data", "digits.npz", "--out", "o.npz", "--kinds", "rust"], "unknown kind rust; there are noise, blur, "),
    ],
)
def test_what_is_asked_wrongly_is_said(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    main_ends(["corrupt", *options], 2)
    assert f"error: {message}" in capsys.readouterr().err


def main_ends(arguments: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert (ended.value.code or 0) == code

"""`evaluate`: what is printed, and what is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from model.registry import Registry
from stream_app.cli.main import main
from training.corruptions import corrupt
from training.data import from_arrays
from training.loop import train

DIGITS = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
EVALUATE = ["evaluate", "--registry", "models", "--name", "digits", "--data", "test.npz"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a detector of digits, and a file of corrupted ones."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("evaluate")
    registry = Registry(str(folder / "models"))
    train(from_arrays(DIGITS[:1000], "image"), "image", registry, "digits", device="cpu", steps=30)
    test = corrupt(DIGITS[1000:1400], kinds=["noise", "patch"])
    np.savez(folder / "test.npz", x=test.x, y=test.y, kind=test.kind)
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_the_tables_have_each_method_kind_and_change(capsys: pytest.CaptureFixture[str]) -> None:
    main_ends([*EVALUATE, "--robustness"], 0)
    said = capsys.readouterr().out
    for word in (
        "isolation_forest",
        "by kind of anomaly",
        "noise",
        "patch",
        "changed a little",
        "darker",
        "false alarms on 0.10% of",
    ):
        assert word in said, said


def test_the_json_has_all_of_it_and_the_figures_are_files(capsys: pytest.CaptureFixture[str]) -> None:
    main_ends([*EVALUATE, "--plots", "figures", "--json"], 0)
    said = json.loads(capsys.readouterr().out)
    assert {"auroc", "auprc", "f1", "threshold", "records_per_second", "baselines", "normal", "anomalous"} <= set(said)
    assert set(said["kinds"]) == {"noise", "patch"}
    assert len(said["credible"]["auroc"]) == 2
    assert len(said["plots"]) == 4
    assert all(Path(file).read_bytes()[:4] == b"\x89PNG" for file in said["plots"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plots", "gone/figures"], "--plots gone/figures: there is no folder gone"),
        (["--plots", "test.npz"], "--plots test.npz: is a file; name a folder"),
    ],
)
def test_what_is_asked_wrongly_is_said_at_once(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main_ends([*EVALUATE, *options], 2)
    assert message in capsys.readouterr().err


def test_a_missing_library_is_said_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("training.plots.available", lambda: False)
    main_ends([*EVALUATE, "--plots", "figures2"], 2)
    assert "matplotlib is not installed" in capsys.readouterr().err


def test_kinds_that_are_no_texts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with np.load("test.npz") as file:
        np.savez("wrong.npz", x=file["x"], y=file["y"], kind=np.arange(3))
    main_ends(["evaluate", "--registry", "models", "--name", "digits", "--data", "wrong.npz"], 2)
    assert "kind is a text for each of 400 rows" in capsys.readouterr().err


def main_ends(arguments: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert (ended.value.code or 0) == code

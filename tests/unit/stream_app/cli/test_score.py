"""`score` says what it can't do before it loads a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream_app.cli.main import main

WITHOUT_MODELS = ["score", "--registry", "nowhere://models", "--name", "images"]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of pictures in the current folder."""
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=np.zeros((3, 8, 8), np.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "gone.npz", "--out", "gone/out.csv"], "--data gone.npz: there is no such file"),
        (["--data", "x.npz", "--out", "gone/out.csv"], "--out gone/out.csv: there is no folder gone"),
        (["--data", "x.npz", "--out", "."], "--out .: is a folder; name a file in it"),
        (
            ["--data", "x.npz", "--out", "out.csv", "--heatmaps", "gone/maps.npz"],
            "--heatmaps gone/maps.npz: there is no folder gone",
        ),
    ],
)
def test_files_that_can_not_be_read_or_written_are_said_before_a_model_is_loaded(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*WITHOUT_MODELS, *options])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not Path("out.csv").exists()

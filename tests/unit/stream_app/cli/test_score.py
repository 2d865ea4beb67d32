"""`score` says what it can't do before it loads a model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stream_app.cli.main import main
from stream_app.cli.score import _open
from stream_app.errors import UsageError

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


class Named:
    """As much of a detector as says how a table is read."""

    kind = "sequence"

    def __init__(self, features: tuple[str, ...] | None) -> None:
        self.manifest = SimpleNamespace(features=features)


@pytest.mark.parametrize(
    ("header", "features", "row"),
    [("b,a", ("a", "b"), [2.0, 1.0]), ("b,a", None, [1.0, 2.0]), ("x,x", ("a", "b"), [1.0, 2.0])],
)
def test_columns_are_taken_by_name_where_both_sides_have_names(header, features, row) -> None:
    Path("flow.csv").write_text(f"{header}\n1,2\n")
    (message,) = _open(Path("flow.csv"), Named(features)).messages()  # type: ignore[arg-type]
    assert np.frombuffer(message.value, np.float32).tolist() == row


def test_columns_that_are_missing_or_unknown_are_named() -> None:
    Path("flow.csv").write_text("timestamp,flow,pressure\n0,1,2\n")
    with pytest.raises(UsageError, match="features flow, level, in any order; missing level, unknown pressure"):
        _open(Path("flow.csv"), Named(("flow", "level")))  # type: ignore[arg-type]

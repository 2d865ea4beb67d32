"""The command, on real digits and for a few steps' worth of time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from model.registry import Registry
from stream_app.cli.main import main
from stream_app.cli.train import describe
from training.learn import Progress


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    bunch = load_digits()
    file = tmp_path / "digits.npz"
    np.savez(file, x=bunch.images.astype(np.uint8)[:400], y=(bunch.target[:400] == 0).astype(np.int64))
    return file


def run(digits: Path, *options: str) -> None:
    registry = digits.parent / "models"
    name = ["--registry", str(registry), "--name", "digits", "--seconds", "0.3", "--device", "cpu"]
    main(["train", "--kind", "image", "--data", str(digits), *name, *options])


def test_a_detector_is_trained_as_the_options_say_and_its_version_printed(
    digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(digits, "--objective", "hinge", "--generator", "lstm", "--attention", "--json")
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    manifest = Registry(str(digits.parent / "models")).versions("digits")[0]
    assert printed["version"] == manifest.version
    assert printed["metrics"] == manifest.metrics
    assert manifest.config["generator"] == "lstm"
    assert manifest.config["attention"] is True


def test_training_goes_on_from_a_version(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(digits, "--json")
    first = json.loads(capsys.readouterr().out)["version"]
    with pytest.raises(SystemExit) as ended:
        run(digits, "--from-version", first)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "ended as 0.3 seconds were used" in shown
    assert Registry(str(digits.parent / "models")).versions("digits")[1].parent == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--objective", "wgan"), "objective must be one of bce, feature-matching, lsgan, hinge, mocc, cd, not 'wgan'"),
        (("--generator", "gru"), "generator must be one of conv, lstm, not 'gru'"),
    ],
)
def test_what_there_is_not_is_named_with_what_there_is(
    digits: Path, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(digits, *options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (digits.parent / "models").exists()


def test_progress_tells_time_left_rate_and_losses() -> None:
    state = Progress(0.25, 50, 10.0, {"contrastive": 1.5}, rate=5.0, remaining=30.0)
    assert describe(state) == "0:00:30 left  5 steps/s  step 50  contrastive 1.500"
    assert describe(Progress(0.0, 1, 0.0, {"places": 0.5})) == "step 1  places 0.500"

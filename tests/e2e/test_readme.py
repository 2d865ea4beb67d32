"""What README.md tells people to run is run, as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stream_app.cli.main import COMMANDS, main
from stream_app.cli.secrets import effective
from stream_app.settings import Settings, TopicSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PATIENCE = 60.0  # seconds


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def settings(stream_settings) -> Settings:
    """The topics are those that the README names."""
    return stream_settings(routes={"records.images": "images"}, topics=TopicSettings().model_dump())


async def test_the_program_publishes_a_picture_and_prints_its_alert(settings, running_worker, tmp_path):
    (program,) = blocks("python")
    (tmp_path / "program.py").write_text(program)
    async with running_worker(settings):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "program.py"],
            cwd=tmp_path,
            env={**os.environ, "GANOMALY_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"camera-1: score \d+\.\d > \d+\.\d; look at \[\d, \d, \d, \d\]\n", done.stdout)


def test_the_program_is_as_short_as_it_is_said_to_be():
    (program,) = blocks("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 20


def test_the_digits_that_it_makes_can_be_trained_on(tmp_path):
    (code,) = re.findall(r'^    python -c "(.*)"$', README, re.MULTILINE)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=PATIENCE)
    training = ["train", "--kind", "image", "--data", "digits.npz", "--name", "images", "--seconds", "1"]
    command = [sys.executable, "-c", "from stream_app.cli.main import main; main()", *training]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "images" / "champion").is_file()


def test_it_lists_every_command():
    listed = set(re.findall(r"^\| `([a-z]+)", README, re.MULTILINE))
    assert set(COMMANDS) <= listed


def test_every_file_it_points_at_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("file", ["README.md", "docs/quickstart.md"])
def test_every_command_and_option_it_shows_exists(file, capsys):
    shown = re.findall(r"^ +(?:GANOMALY_\S+ )?ganomaly-stream ([a-z]+)(.*)$", (ROOT / file).read_text(), re.MULTILINE)
    assert shown
    for command, rest in shown:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert set(re.findall(r"--[a-z-]+", rest)) - {"--help"} <= set(
            re.findall(r"--[a-z-]+", capsys.readouterr().out)
        )


def test_every_setting_it_names_is_one():
    named = set(re.findall(r"GANOMALY_[A-Z_]+", README))
    assert named <= set(effective(Settings()))

"""The demo as a user runs it: without a terminal it gives its account and ends, in one it stays until Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-c", "from stream_app.cli.main import main; main()", "demo", "--seconds", "3"]
PATIENCE = 150.0  # seconds; a few times what it takes


def environment(folder: Path) -> dict[str, str]:
    """Ours without settings that name servers: the demo brings its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GANOMALY_")}
    return {**kept, "GANOMALY_HTTP__PORT": "0", "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}


def test_without_a_terminal_it_accounts_for_every_record_and_ends(tmp_path):
    done = subprocess.run(
        [*DEMO, "--json"], env=environment(tmp_path), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    images, sequences = result["images"], result["sequences"]
    assert images["published"] == images["scored"] + images["dead_lettered"]
    assert images["dead_lettered"] == 4
    assert result["burst"]["records"] == 5000
    assert result["burst"]["records_per_second"] > 100
    assert sequences["published"] == sequences["scored"] + 2 * 7  # each stream's first window lacks seven hours
    assert images["found"] + images["missed"] == 72
    assert images["found"] > images["missed"]
    assert sequences["found"] + sequences["missed"] == 4
    assert sequences["found"] >= 3
    for figures in (images, sequences):
        assert 0 < figures["delay_p50"] <= figures["delay_p99"]
        assert figures["records_per_second"] > 0
        assert figures["false_records"] < figures["normal_records"] / 2
    assert list(tmp_path.glob("ganomaly-*")) == []


def test_in_a_terminal_it_serves_the_page_until_ctrl_c_and_leaves_nothing(tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        DEMO, env=environment(tmp_path), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        shown = read_until(ours, "Ctrl-C ends.")
        assert "What came of it" in shown
        url = re.findall(r"http://127\.0\.0\.1:\d+/", shown)[-1]
        with urllib.request.urlopen(url, timeout=5) as page:
            assert page.status == 200
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        drain(ours)
        assert process.wait(30) == 0
        assert psutil.wait_procs(family, timeout=10)[1] == []
        assert list(tmp_path.glob("ganomaly-*")) == []
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_sigterm_in_the_middle_leaves_no_process_and_no_file(tmp_path):
    process = subprocess.Popen(
        DEMO, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process:
        assert process.stdout
        while "Publishing" not in process.stdout.readline():
            assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3
        process.terminate()
        assert process.wait(30) == 130
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert list(tmp_path.glob("ganomaly-*")) == []


def test_a_worker_that_can_t_start_fails_the_demo_and_shows_why(tmp_path):
    broken = {**environment(tmp_path), "GANOMALY_WORKER__DEVICE": "cuda:77"}
    done = subprocess.run([*DEMO, "--once"], env=broken, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "cuda:77" in done.stderr
    assert "Traceback" not in done.stderr


def read_until(terminal: int, text: str) -> str:
    shown, deadline = "", time.monotonic() + PATIENCE
    while text not in shown:
        assert time.monotonic() < deadline, shown
        shown += read(terminal)
    return shown


def drain(terminal: int) -> None:
    """Reads until the other side is closed, so that nobody waits for us to."""
    while read(terminal):
        pass


def read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # Linux's way to say that the other side is closed
        return ""

"""What does a worker take that has nothing to do?

    python benchmarks/at_rest.py

Trains a detector of pictures and one of sequences for a moment, starts the embedded servers and a worker in its own
process, and prints how long it took to be ready and how much memory it has after ten seconds of rest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from sklearn.datasets import load_digits

from model.registry import Registry
from stream_app.local import EmbeddedServers
from training.data import from_arrays
from training.loop import train

PORT = 6166
REST_SECONDS = 10.0
MEBIBYTE = 1 << 20


def train_both(url: str) -> None:
    """A detector of each kind, good for nothing but its size."""
    registry = Registry(url)
    digits = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    train(from_arrays(digits, "image"), "image", registry, "images", steps=20)
    waves = np.sin(np.arange(2000.0, dtype=np.float32))[:, np.newaxis]
    train(from_arrays(np.repeat(waves, 4, axis=1), "sequence"), "sequence", registry, "sequences", steps=20)


def wait_until_ready() -> None:
    """Returns when `/readyz` answers 200."""
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)


def main() -> None:
    """Measures one worker."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers() as servers:
        url = str(Path(folder) / "models")
        console.print("training …")
        train_both(url)
        own = {
            "GANOMALY_REGISTRY__URL": url,
            "GANOMALY_REGISTRY__CACHE": "",
            "GANOMALY_HTTP__PORT": str(PORT),
            "GANOMALY_LOG__LEVEL": "warning",
        }
        started = time.monotonic()
        command = [sys.executable, "-c", "from stream_app.cli.main import main; main()", "worker"]
        with subprocess.Popen(command, env=os.environ | servers.environment() | own) as worker:
            wait_until_ready()
            ready = time.monotonic() - started
            time.sleep(REST_SECONDS)
            process = psutil.Process(worker.pid)
            memory = process.memory_info().rss / MEBIBYTE
            busy = sum(process.cpu_times()[:2])
            time.sleep(REST_SECONDS)
            busy = (sum(process.cpu_times()[:2]) - busy) / REST_SECONDS
            worker.terminate()
    console.print(f"ready after {ready:.1f} s; at rest {memory:.0f} MiB resident and {busy:.1%} of a core")


if __name__ == "__main__":
    main()

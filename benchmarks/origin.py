"""Where figures come from: the day, the machine, the commit and the libraries."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def origin(*packages: str) -> dict[str, str | dict[str, str]]:
    """What stands beside figures in a file: `date`, `machine`, `commit`, and `versions` of Python and `packages`."""
    versions = {"python": platform.python_version(), **{package: version(package) for package in packages}}
    return {"date": today(), "machine": machine(), "commit": commit(), "versions": versions}


def today() -> str:
    """The date in UTC."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def commit() -> str:
    """The commit, with a + where the working tree differs from it; `unknown` outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def machine() -> str:
    """The processor and how many cores there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"

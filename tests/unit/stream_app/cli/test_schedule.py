"""What `schedule` prints, and what it refuses before anything begins."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from stream_app.cli.main import main
from stream_app.cli.schedule import View, line, serve_metrics
from stream_app.errors import WorkerFault
from stream_app.metrics import TRAINER_REFUSED
from stream_app.settings import load_settings

STAGE = {"event": "stage", "detector": "images", "stage": "gate"}


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (STAGE | {"state": "begins"}, "gate begins"),
        (
            STAGE | {"state": "done", "passed": False, "seconds": 2.04, "why": "agreement 0.1"},
            "gate took 2.0 s; not passed: agreement 0.1",
        ),
        ({"event": "due", "trigger": "clock", "why": "0 3 * * * fired"}, "a run is due (clock): 0 3 * * * fired"),
        (
            {"event": "finished", "outcome": "failed", "seconds": 3.0, "version": None, "why": "it collapsed"},
            "failed after 3 s: no version: it collapsed",
        ),
        ({"event": "trouble", "why": "Redis is away"}, "Redis is away"),
        ({"event": "follows", "topics": ["a", "b"], "next_firing": None}, "follows a, b; no clock is set"),
    ],
)
def test_an_event_is_a_line_for_people(event, told):
    text = line({"detector": "images"} | event).plain
    assert text.split() == ["images", *told.split()]


def test_progress_is_no_line(capsys):
    view = View(json=True)
    view.show(STAGE | {"state": "progress", "share": 0.5})
    view.show(STAGE | {"state": "begins"})
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("other", ["--now", "--once"])
def test_asking_another_trainer_is_not_being_one(other, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["schedule", "--run-now", other])
    assert ended.value.code == 2
    assert "--run-now" in capsys.readouterr().err


def test_the_trainer_s_metrics_are_served_on_a_port_of_its_own():
    TRAINER_REFUSED.labels("images", "false_alarms").inc()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        settings = load_settings(None, {"trainer.http_port": probe.getsockname()[1]})
        with pytest.raises(WorkerFault, match="GANOMALY_TRAINER__HTTP_PORT"):
            serve_metrics(settings)
    server = serve_metrics(settings)
    try:
        text = (
            urllib.request.urlopen(f"http://127.0.0.1:{settings.trainer.http_port}/metrics", timeout=5).read().decode()
        )
    finally:
        server.shutdown()
        server.server_close()
    assert 'ganomaly_trainer_refused_total{detector="images",rule="false_alarms"} 1.0' in text

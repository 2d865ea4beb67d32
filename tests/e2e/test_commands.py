"""The commands as a user runs them, with a worker, a broker and a Redis that are real."""

from __future__ import annotations

import asyncio
import csv
import getpass
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stream_app.cli.main import main
from stream_app.settings import Settings
from tests.e2e.conftest import WINDOW

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from stream_app.cli.main import main; main()"]
PATIENCE = 60.0  # seconds

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def variables(settings: Settings) -> dict[str, str]:
    """The environment that gives a command these settings."""
    return {
        "GANOMALY_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "GANOMALY_REDIS__URL": settings.redis.url.get_secret_value(),
        "GANOMALY_REGISTRY__URL": settings.registry.url,
        "GANOMALY_ROUTES": json.dumps(settings.routes),
        "GANOMALY_TOPICS": settings.topics.model_dump_json(),
        "GANOMALY_HTTP__PORT": "0",
    }


@pytest.fixture
def settings(stream_settings) -> Settings:
    return stream_settings()


@pytest.fixture
def run(settings: Settings, tmp_path: Path, monkeypatch, capsys) -> Run:
    """Runs a command with the test's settings in an empty folder, without the cost of a process of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name, value in {**variables(settings), **(environment or {})}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main(list(arguments))
        code = ended.value.code
        return subprocess.CompletedProcess(arguments, int(code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def run_process(settings: Settings, tmp_path: Path) -> Run:
    """Runs a command as a process."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=PATIENCE,
            env={**os.environ, **variables(settings), "PYTHONPATH": str(ROOT)},
        )

    return call


def topic_of(settings: Settings, detector: str) -> str:
    return next(topic for topic, name in settings.routes.items() if name == detector)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def pictures(tmp_path: Path, digits) -> Path:
    np.savez(tmp_path / "pictures.npz", x=np.concatenate([digits.normal[:30], 255 - digits.normal[:3]]))
    return tmp_path / "pictures.npz"


async def test_what_is_published_is_scored_and_its_alerts_can_be_watched(
    run_process, settings, pictures, running_worker
):
    topic = topic_of(settings, "images")
    publish = ["publish", "--topic", topic, "--data", str(pictures), "--stream", "camera-1", "--json"]
    (published,) = lines(await asyncio.to_thread(run_process, *publish))
    assert (published["records"], published["stream"]) == (33, "camera-1")
    async with running_worker(settings):
        watch = ["watch", "--from-beginning", "--count", "1", "--timeout", "40"]
        (alert,) = lines(await asyncio.to_thread(run_process, *watch, "--json"))
        text = await asyncio.to_thread(run_process, *watch, "--stream", "camera-1")
    assert (alert["stream"], alert["state"], alert["record"]["topic"]) == ("camera-1", "open", topic)
    assert f"{topic}/{alert['record']['partition']}/{alert['record']['offset']}" in text.stdout


@pytest.mark.parametrize("content_type", ["application/x-npy", "application/json", "image/png"])
def test_records_are_in_the_topic_in_order_with_key_and_content_type(run, settings, client, pictures, content_type):
    topic = topic_of(settings, "images")
    done = run("publish", "--topic", topic, "--data", str(pictures), "--stream", "c", "--content-type", content_type)
    assert done.stdout.startswith(f"33 records published to {topic} in ")
    messages = client.read(topic, lambda found: len(found) == 33)
    assert {message.key() for message in messages} == {b"c"}
    assert [message.offset() for message in messages] == list(range(33))
    assert {dict(message.headers())["content-type"] for message in messages} == {content_type.encode()}


def test_rate_sets_the_pace(run, settings, pictures):
    (done,) = lines(
        run("publish", "--topic", topic_of(settings, "images"), "--data", str(pictures), "--rate", "30", "--json")
    )
    assert 20 < done["records_per_second"] < 34


def test_a_topic_that_no_route_reads_is_made_and_said(run, settings, pictures):
    done = run("publish", "--topic", f"other-{settings.kafka.group_id}", "--data", str(pictures))
    assert done.returncode == 0
    assert "no worker scores topic other-" in done.stderr


def test_a_missing_topic_is_named_where_none_may_be_made(run, settings, pictures):
    environment = {"GANOMALY_KAFKA__CREATE_TOPICS": "false"}
    done = run("publish", "--topic", "no-such-topic", "--data", str(pictures), environment=environment)
    assert done.returncode == 2
    assert "topic no-such-topic does not exist" in done.stderr


def test_a_broken_line_says_how_many_records_went_before(run, settings, tmp_path):
    (tmp_path / "flow.csv").write_text("flow\n1\n2\nthree\n")
    done = run("publish", "--topic", topic_of(settings, "sequences"), "--data", "flow.csv")
    assert done.returncode == 2
    assert "line 4, column flow: 'three' is not a number" in done.stderr
    assert "of 3 records were published before" in done.stderr


def test_watching_fails_when_too_little_came_in_time(run):
    done = run("watch", "--count", "1", "--timeout", "0.5")
    assert done.returncode == 1
    assert "0 of 1 came in that time" in done.stderr


@pytest.mark.parametrize("command", [("watch",), ("publish", "--topic", "t", "--data", "pictures.npz")])
def test_without_a_broker_there_is_one_line_and_no_traceback(run, pictures, command):
    done = run(*command, environment={"GANOMALY_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "GANOMALY_KAFKA__BOOTSTRAP_SERVERS" in errors[0]
    assert "Traceback" not in done.stderr


def test_train_evaluate_and_the_registry_agree(run, settings, client, tmp_path, digits):
    x = np.concatenate([digits.train[:300], digits.anomalous[:20]])
    np.savez(tmp_path / "train.npz", x=x, y=[0] * 300 + [1] * 20)
    np.savez(
        tmp_path / "test.npz", x=np.concatenate([digits.normal[:100], 255 - digits.normal[:40]]), y=[0] * 100 + [1] * 40
    )
    registry = ["--registry", "models"]
    training = ["train", "--kind", "image", "--data", "train.npz", "--name", "digits", "--seconds", "2"]
    (trained,) = lines(run(*training, *registry, "--json"))
    (update,) = client.read(settings.topics.model_updates, lambda found: len(found) == 1)
    assert json.loads(update.value())["version"] == trained["version"]
    assert set(trained) == {"version", "path", "metrics"}
    assert Path(tmp_path / trained["path"], "manifest.json").is_file()

    (listed,) = lines(run("models", "list", *registry, "--json"))
    assert (listed["version"], listed["champion"]) == (trained["version"], True)
    (shown,) = lines(run("models", "show", "digits", *registry, "--json"))
    assert shown["training_data"]["rows"] == 300
    (entry,) = shown["lineage"]
    assert (entry["by"], entry["reason"]) == (getpass.getuser(), "trained on train.npz")

    (measured,) = lines(run("evaluate", "--name", "digits", "--data", "test.npz", *registry, "--json"))
    assert measured["version"] == trained["version"]
    methods = [measured, *measured["baselines"].values()]
    assert len(methods) > 1
    for method in methods:
        assert min(method[name] for name in ("auroc", "auprc", "f1")) >= 0.0
        assert max(method[name] for name in ("auroc", "auprc", "f1")) <= 1.0
        assert method["records_per_second"] > 0
    assert measured["auroc"] > 0.9


def test_a_version_is_trained_from_a_topic_and_made_again_bit_by_bit(run, settings, tmp_path, digits):
    np.savez(tmp_path / "normal.npz", x=digits.train[:500])
    topic = topic_of(settings, "images")
    lines(run("publish", "--topic", topic, "--data", "normal.npz", "--content-type", "application/x-npy", "--json"))
    own = ["train", "--registry", "models", "--name", "new", "--seconds", "2", "--json"]
    environment = {"GANOMALY_SNAPSHOT__MIN_RECORDS": "100"}
    missing = run(*own, "--from-stream", topic, environment=environment)
    assert (missing.returncode, "--kind: new has no version in service" in missing.stderr) == (2, True)
    (first,) = lines(run(*own, "--from-stream", topic, "--kind", "image", environment=environment))
    (second,) = lines(run(*own, "--from-stream", topic, environment=environment))
    (again,) = lines(run(*own, "--from-manifest", second["version"], environment=environment))
    assert again["same_weights"] is True
    versions = {each["version"]: each for each in lines(run("models", "list", "--registry", "models", "--json"))}
    assert [version for version, each in versions.items() if each["champion"]] == [second["version"]]
    made = [
        lines(run("models", "show", "new", "--registry", "models", "--version", each["version"], "--json"))[0]
        for each in (first, second, again)
    ]
    assert [each["training_data"]["champion"] for each in made] == [None, first["version"], first["version"]]
    assert made[1]["training_data"] == made[2]["training_data"]
    assert made[1]["sha256"] == made[2]["sha256"] != made[0]["sha256"]
    assert made[1]["training_data"]["counts"]["read"] == 500


def test_windows_of_observations_are_read_and_made_again_bit_by_bit_too(run, settings, tmp_path, flow):
    np.savetxt(tmp_path / "flow.csv", flow[:500], delimiter=",", header="flow", comments="")
    topic = topic_of(settings, "sequences")
    lines(run("publish", "--topic", topic, "--data", "flow.csv", "--stream", "main-1", "--json"))
    own = ["train", "--registry", "models", "--name", "new", "--seconds", "2", "--json"]
    environment = {"GANOMALY_SNAPSHOT__MIN_RECORDS": "100"}
    kind = ["--kind", "sequence", "--window", str(WINDOW)]
    (first,) = lines(run(*own, "--from-stream", topic, *kind, environment=environment))
    (again,) = lines(run(*own, "--from-manifest", first["version"], environment=environment))
    assert again["same_weights"] is True
    shown = ["models", "show", "new", "--registry", "models", "--version"]
    made = [lines(run(*shown, each["version"], "--json"))[0] for each in (first, again)]
    assert made[0]["training_data"] == made[1]["training_data"]
    assert made[0]["input_shape"] == [WINDOW, 1]


def test_what_can_not_be_read_again_is_said(run, settings, tmp_path, digits):
    topic = topic_of(settings, "images")
    shutil.copytree(settings.registry.url, tmp_path / "models")
    champion = (tmp_path / "models" / "images" / "champion").read_text()
    again = ["train", "--registry", "models", "--name", "images", "--from-manifest", champion]
    assert "was trained on the file" in run(*again).stderr
    file = tmp_path / "models" / "images" / champion / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["training_data"] |= {"topic": topic, "offsets": {"0": [5, 900]}}
    file.write_text(json.dumps(manifest))
    done = run(*again)
    assert done.returncode == 1
    assert re.search(r"the broker no longer has offsets 5 to 899 of partition 0", done.stderr)


@pytest.mark.parametrize(
    "sources", [(), ("--from-stream", "t", "--from-manifest", "v"), ("--from-stream", "t", "--data", "f.csv")]
)
def test_one_source_of_what_to_train_on_is_asked_for(run, sources):
    done = run("train", "--name", "x", *sources)
    assert done.returncode == 2
    assert "one of --data, --from-stream and --from-manifest" in done.stderr


def test_people_get_tables(run, settings):
    registry = ["--registry", settings.registry.url]
    listed = run("models", "list", *registry).stdout
    assert "images" in listed
    assert "image 8×8×1" in listed
    assert "SHA-256" in run("models", "show", "images", *registry).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "--kind", "image", "--data", "gone.npz", "--name", "x"), 2, "gone.npz: there is no such file"),
        (("train", "--kind", "image", "--data", "f.csv", "--name", "x", "--window", "8"), 2, "pictures have no window"),
        (("evaluate", "--name", "nothing", "--data", "f.csv"), 1, "detector nothing has no champion"),
        (("models", "show", "nothing"), 1, "detector nothing in .* has no version in service"),
        (("publish", "--topic", "t", "--data", "gone.npz"), 2, "gone.npz: there is no such file"),
        (("publish", "--topic", "t", "--data", "f.csv", "--rate", "0"), 2, "--rate 0: it must be above 0"),
        (("watch", "--topic", "no-such-topic"), 2, "topic no-such-topic does not exist"),
        (("doctor", "--config", "gone.yaml"), 2, "gone.yaml"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(run, arguments, code, message):
    done = run(*arguments)
    assert done.returncode == code
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr


def test_doctor_finds_nothing_wrong_where_nothing_is(run, settings, running_worker):
    run(
        "publish", "--topic", topic_of(settings, "images"), "--data", str(ROOT), environment={}
    )  # fails; makes no topic
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    assert "Nothing is wrong." in done.stdout
    assert "digest fine" in done.stdout


def test_doctor_names_everything_that_is_wrong_and_how_to_mend_it(run, tmp_path):
    environment = {
        "GANOMALY_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "GANOMALY_REDIS__URL": "redis://:pa55word@127.0.0.1:1/0",
        "GANOMALY_REGISTRY__URL": str(tmp_path / "empty"),
        "GANOMALY_TRAINER__CRON": "0 0 30 2 *",
    }
    done = run("doctor", "--json", environment=environment)
    assert done.returncode == 1
    *findings, last = (json.loads(line) for line in done.stdout.splitlines())
    wrong = {finding["check"] for finding in findings if finding["state"] == "trouble"}
    assert {"Kafka", "Redis", "schedule"} < wrong
    assert len([check for check in wrong if check.startswith("route ")]) == 2
    assert all(finding["mend"] for finding in findings if finding["state"] == "trouble")
    assert last["trouble"] == len(wrong)
    assert "pa55word" not in done.stdout + done.stderr


def test_doctor_notices_weights_that_are_not_the_manifests(run, settings, tmp_path):
    shutil.copytree(settings.registry.url, tmp_path / "copy")
    weights = next((tmp_path / "copy" / "images").glob("*/weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    done = run("doctor", "--json", environment={"GANOMALY_REGISTRY__URL": str(tmp_path / "copy")})
    assert done.returncode == 1
    assert [f["check"] for f in map(json.loads, done.stdout.splitlines()) if f.get("state") == "trouble"] == [
        f"route {topic_of(settings, 'images')}"
    ]


async def test_a_published_series_with_late_and_doubled_rows_is_scored_as_the_score_command_says(
    run, run_process, settings, flow, tmp_path, client, running_worker
):
    order = [*range(20), 24, 25, 20, 26, 26, 27, 28]  # 20 comes too late, 26 twice
    rows = [f"{60.0 * minute},{float(flow[minute, 0])!r}" for minute in order]
    (tmp_path / "flow.csv").write_text("\n".join(["timestamp,flow", *rows]) + "\n")
    publish = ["publish", "--topic", topic_of(settings, "sequences"), "--data", "flow.csv", "--stream", "main"]
    lines(await asyncio.to_thread(run_process, *publish, "--json"))
    async with running_worker(
        settings.model_copy(update={"scores": settings.scores.model_copy(update={"publish": True})})
    ):
        last = len(order) - 1
        messages = await asyncio.to_thread(
            client.read,
            settings.topics.scores,
            lambda found: any(json.loads(each.value())["record"]["offset"] == last for each in found),
        )
    streamed = {(event := json.loads(each.value()))["record"]["offset"]: event["score"] for each in messages}
    (told,) = lines(run("score", "--name", "sequences", "--data", "flow.csv", "--out", "scores.csv", "--json"))
    text = run("score", "--name", "sequences", "--data", "flow.csv", "--out", "scores.csv")
    with (tmp_path / "scores.csv").open() as file:
        offline = {int(row["index"]): float(row["score"]) for row in csv.DictReader(file) if row["score"]}
    assert list(offline) == [*range(15, 22), 23, 25, 26]
    assert streamed == pytest.approx(offline, abs=1e-5)
    assert (told["rows"], told["scored"], told["refused"], told["duplicates"]) == (len(order), 10, 1, 1)
    said = " ".join(text.stdout.split())
    assert "1 rows have no score, as the stream would refuse them: row 22: late: the observation" in said

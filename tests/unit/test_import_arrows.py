"""Imports point one way: record → decode → batch → score → threshold → alert, and `model` knows nothing of the rest."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("model", "stream_app", "training")
FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# The files and packages of stream_app in the order of a record's way through them. Each imports only from those before
# it; a new file is put in where it belongs.
ORDER = (
    *("errors", "clock", "settings", "log", "metrics", "records", "state"),
    *("headers", "values", "avro", "decode", "files", "messages", "offsets", "dead_letter"),
    *("kafka", "redis_client", "topics", "history"),
    *("batching", "scoring", "shadow"),
    *("pace", "pareto", "dependence", "corrections", "threshold"),
    *("events", "episodes", "residents", "alerts", "tail", "windows", "tails", "observations"),
    *("completeness", "restore", "label_book", "streams", "judge", "announce"),
    *("labels", "updates", "publish", "store", "commit", "transport"),
    "drift",
    *("lane", "pipeline", "offline", "version_cache", "versions", "challengers", "service"),
    *("health", "http", "app", "watches", "worker"),
    *("guardian", "local"),
)
PURE = (
    *("records", "state", "headers", "values", "avro", "decode", "files", "messages", "offsets", "dead_letter"),
    *(
        "batching",
        "pace",
        "pareto",
        "corrections",
        "dependence",
        "threshold",
        "events",
        "episodes",
        "residents",
        "alerts",
        "tail",
        "windows",
        "tails",
        "observations",
    ),
    *("completeness", "restore", "label_book", "streams", "judge", "announce"),
)
# What the trainer shares with the worker, because it must read a record exactly as the worker does.
SHARED_WITH_TRAINING = {"clock", "decode", "errors", "files", "records", "settings", "threshold"}
# The trainer (training/refresh) besides reads the topics and speaks to the broker, to Redis and to the workers.
TRAINERS_OWN = {
    *("drift", "episodes", "events", "headers", "history", "kafka", "labels", "log", "metrics"),
    *("redis_client", "shadow", "streams", "tails", "topics", "updates"),
}


def imported_modules(source: str) -> Iterator[str]:
    """Every module that the source imports, at its top or inside a function, with imported names as submodules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    return set(imported_modules((ROOT / path).read_text(encoding="utf-8")))


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def files_of(name: str) -> list[Path]:
    """The files of a part of the worker, which is one file or a package of several."""
    return [
        path
        for path in FILES
        if path.with_suffix("") == Path("stream_app", name) or path.parts[:2] == ("stream_app", name)
    ]


def importers(package: str) -> set[str]:
    return {str(path) for path in FILES if any(within(module, package) for module in imports_of(path))}


def test_imports_inside_functions_and_of_names_are_seen():
    source = "def f():\n    from stream_app import decode\nimport faust.app"
    assert set(imported_modules(source)) == {"stream_app", "stream_app.decode", "faust.app"}


def test_every_file_of_the_worker_has_its_place_in_the_order():
    there = {path.with_suffix("").parts[1] for path in FILES if path.parts[0] == "stream_app"} - {"__init__", "cli"}
    assert sorted(ORDER) == sorted(there)
    assert set(PURE) | SHARED_WITH_TRAINING | TRAINERS_OWN <= there


def test_a_file_of_the_worker_imports_only_from_those_before_it():
    modules = {f"stream_app.{name}": place for place, name in enumerate(ORDER)}
    offenders = [
        f"{path} imports {module}"
        for place, name in enumerate(ORDER)
        for path in files_of(name)
        for module in imports_of(path)
        if modules.get(".".join(module.split(".")[:2]), -1) > place
    ]
    assert offenders == []


def test_model_imports_nothing_of_ours():
    offenders = {
        f"{path}: {module}"
        for path in FILES
        if path.parts[0] == "model"
        for module in imports_of(path)
        if within(module, "stream_app") or within(module, "training")
    }
    assert offenders == set()


def test_training_imports_only_the_pure_parts_of_the_worker():
    offenders = {
        f"{path}: {module}"
        for path in FILES
        if path.parts[0] == "training"
        for module in imports_of(path)
        if module.startswith("stream_app.")
        and module.split(".")[1] not in SHARED_WITH_TRAINING | (TRAINERS_OWN if "refresh" in path.parts else set())
    }
    assert offenders == set()


def test_only_commands_import_training():
    outside = {path for path in importers("training") if not path.startswith(("training/", "stream_app/cli/"))}
    assert outside == set()


def test_the_worker_does_not_import_its_commands():
    assert {path for path in importers("stream_app.cli") if not path.startswith("stream_app/cli/")} == set()


def test_one_file_builds_the_faust_app_and_one_the_transport():
    building = {
        str(path) for path in FILES if re.search(r"faust\.(App|Worker)\(", (ROOT / path).read_text(encoding="utf-8"))
    }
    assert building <= {"stream_app/app.py"}
    assert importers("faust.transport") <= {"stream_app/transport.py"}


def test_faust_is_known_to_the_app_the_transport_and_what_watches_it_alone():
    assert importers("faust") | importers("mode") <= {
        "stream_app/app.py",
        "stream_app/transport.py",
        "stream_app/watches.py",
    }


def test_weights_and_records_are_never_pickled():
    assert importers("pickle") | importers("cloudpickle") | importers("dill") | importers("joblib") == set()


@pytest.mark.parametrize("name", PURE)
def test_pure_parts_load_neither_faust_nor_redis_nor_torch(name: str):
    code = f"import sys, stream_app.{name}; print(*({{'faust', 'redis', 'torch', 'aiokafka'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

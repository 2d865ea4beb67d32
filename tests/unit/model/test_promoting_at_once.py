"""Several writers and a reader of one registry: every order of their steps, and processes that really run at once."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from model.errors import ChampionChanged, ModelNotFound, RegistryError, StaleToken
from model.registry import CHAMPION, LINEAGE, MANIFEST, Registry
from tests.unit.model.conftest import Parts
from tests.unit.model.test_registry import FILES, save

ROOT = Path(__file__).parents[3]
STEPS = 5  # of a promotion that nobody disturbs: each reads or writes what others change


class Stepper(threading.Thread):
    """Does something with a registry of its own, a step at a time."""

    def __init__(self, url: str, action: Callable[[Registry], object]) -> None:
        super().__init__(daemon=True)
        self.refused: StaleToken | ChampionChanged | None = None
        self.failed: Exception | None = None
        self._done = False
        self._registry = Registry(url)
        self._registry._storage = Stepping(self._registry._storage, self._pause)
        self._action = action
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self.start()
        self._paused.acquire()

    def run(self) -> None:
        try:
            self._action(self._registry)
        except (StaleToken, ChampionChanged) as error:
            self.refused = error
        except Exception as error:
            self.failed = error
        finally:
            self._done = True
            self._paused.release()

    def step(self) -> None:
        if not self._done:
            self._go.release()
            self._paused.acquire()

    def finish(self) -> None:
        while not self._done:
            self.step()
        self.join()
        assert self.failed is None

    def _pause(self) -> None:
        self._paused.release()
        self._go.acquire()


class Stepping:
    """A storage that waits before it touches what others change."""

    def __init__(self, storage: Any, pause: Callable[[], None]) -> None:
        self._storage, self._pause = storage, pause

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)
        if name not in ("read_tagged", "put_if"):
            return method

        def stepped(path: str, *arguments: Any) -> Any:
            if path.endswith((LINEAGE, CHAMPION)):
                self._pause()
            return method(path, *arguments)

        return stepped


def interleave(steppers: list[Stepper], order: Iterable[int]) -> None:
    for number in order:
        steppers[number].step()
    for stepper in steppers:
        stepper.finish()


@pytest.fixture
def url() -> str:
    return f"memory://{uuid4().hex}"


@pytest.fixture
def versions(url: str, image_parts: Parts) -> list[str]:
    registry = Registry(url)
    return [save(registry, image_parts, age) for age in (30, 20, 10)]


def start_over(registry: Registry, champion: str) -> None:
    registry._storage.remove(f"{registry._folder('unit')}/{CHAMPION}")
    registry._storage.remove(f"{registry._folder('unit')}/{LINEAGE}")
    registry.promote("unit", champion)


def test_in_every_order_of_their_steps_the_later_token_wins(url: str, versions: list[str]) -> None:
    registry, outcomes = Registry(url), set()
    registry.promote("unit", versions[0])
    for places in itertools.combinations(range(2 * STEPS), STEPS):
        start_over(registry, versions[0])
        early, late = (
            Stepper(url, lambda mine, token=token: mine.promote("unit", versions[token], token=token))
            for token in (1, 2)
        )
        interleave([early, late], [0 if place in places else 1 for place in range(2 * STEPS)])
        entries = registry.lineage("unit").entries
        promoted = [entry.token for entry in entries[1:]]
        assert promoted == ([2] if early.refused else [1, 2])
        assert late.refused is None
        assert registry.champion("unit") == entries[-1].version == versions[2]
        assert [entry.replaced for entry in entries[1:]] == [entry.version for entry in entries[:-1]]
        outcomes.add(early.refused is None)
    assert outcomes == {True, False}


@pytest.mark.parametrize("back", [False, True])
def test_in_every_order_of_their_steps_a_person_wins_over_a_trainer(url: str, versions: list[str], back: bool) -> None:
    """The trainer has read the weights, and is about to put its version in place of the one it was held against."""
    registry, outcomes = Registry(url), set()
    registry.promote("unit", versions[0])
    for places in itertools.combinations(range(2 * STEPS), STEPS):
        start_over(registry, versions[0])
        held_against = versions[1] if back else versions[0]
        if back:
            registry.promote("unit", versions[1])
        trainer = Stepper(url, lambda mine, to=held_against: mine.promote("unit", versions[2], token=1, expected=to))
        person = Stepper(
            url, lambda mine: mine.rollback("unit", versions[0]) if back else mine.promote("unit", versions[1])
        )
        interleave([trainer, person], [0 if place in places else 1 for place in range(2 * STEPS)])
        wanted = versions[0] if back else versions[1]
        assert person.refused is None
        assert registry.champion("unit") == registry.lineage("unit").entries[-1].version == wanted
        outcomes.add(trainer.refused is None)
    assert outcomes == {True, False}


def test_the_champion_is_the_last_of_the_lineage_however_many_people_promote_at_once(
    url: str, versions: list[str]
) -> None:
    registry, draw, last = Registry(url), random.Random(0), set()
    registry.promote("unit", versions[0])
    for _ in range(100):
        start_over(registry, versions[0])
        # The same version twice: the champion file may come to say again what a slow writer has read.
        steppers = [
            Stepper(url, lambda mine, version=version: mine.promote("unit", version))
            for version in (versions[1], versions[2], versions[1])
        ]
        interleave(steppers, draw.choices(range(3), k=3 * STEPS))
        entries = registry.lineage("unit").entries
        assert len(entries) == 4
        assert registry.champion("unit") == entries[-1].version
        last.add(entries[-1].version)
    assert last == set(versions[1:])


@pytest.fixture(scope="module", params=["folder", "s3"])
def shared_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry that processes share."""
    if request.param == "folder":
        return str(tmp_path_factory.mktemp("shared"))
    return f"{request.getfixturevalue('s3')}/{uuid4().hex}"


@pytest.fixture(scope="module")
def promoters(shared_url: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes, ready to promote."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("promoter.py")), shared_url],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                )
            )
            for _ in range(2)
        ]
        for process in processes:
            stack.callback(process.kill)
        assert [answer(process) for process in processes] == ["ready", "ready"]
        yield processes


def tell(process: subprocess.Popen[str], name: str, version: str, token: int) -> None:
    assert process.stdin
    process.stdin.write(f"{name} {version} {token}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def named(name: str, parts: Parts) -> Parts:
    """Of another detector, so that tests can share a registry."""
    return parts._replace(manifest=parts.manifest.model_copy(update={"name": name}))


def test_of_two_processes_the_one_with_the_later_token_wins(
    shared_url: str, promoters: list[subprocess.Popen[str]], image_parts: Parts
) -> None:
    registry, parts = Registry(shared_url), named("race", image_parts)
    versions = [save(registry, parts, age) for age in (20, 10)]
    first, second = promoters
    tell(second, "race", versions[1], 2)
    assert answer(second) == "promoted"
    tell(first, "race", versions[0], 1)
    assert answer(first) == "stale"
    assert registry.champion("race") == versions[1]
    tell(first, "race", versions[0], 3)
    assert answer(first) == "promoted"
    tell(second, "race", versions[1], 4)
    assert answer(second) == "promoted"
    for token in range(5, 25, 2):  # both at once
        for process, version, own in zip(promoters, versions, (token, token + 1), strict=True):
            tell(process, "race", version, own)
        early, late = answer(first), answer(second)
        assert (early, late) in {("promoted", "promoted"), ("stale", "promoted")}
        assert registry.champion("race") == versions[1]
        tokens = [entry.token for entry in registry.lineage("race").entries]
        assert tokens[-2 if early == "promoted" else -1 :] == ([token] if early == "promoted" else []) + [token + 1]


def test_a_reader_sees_whole_versions_and_a_whole_pointer_all_the_time(
    shared_url: str, promoters: list[subprocess.Popen[str]], image_parts: Parts
) -> None:
    registry, parts = Registry(shared_url), named("reading", image_parts)
    versions = [save(registry, parts, age) for age in (1002, 1001)]
    registry.promote("reading", versions[0])
    done, seen, failures = threading.Event(), set(), []

    def read() -> None:
        reader = Registry(shared_url)
        try:
            while not done.is_set():
                seen.add(reader.champion("reading"))
                for manifest in reader.versions("reading"):
                    assert set(reader.fetch("reading", manifest.version)) == FILES
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for token in range(1, 17, 2):
        for process, version, own in zip(promoters, versions, (token, token + 1), strict=True):
            tell(process, "reading", version, own)
        save(registry, parts, 1000 - token)
        assert {answer(process) for process in promoters} <= {"promoted", "stale"}
    done.set()
    thread.join()
    assert failures == []
    assert seen <= set(versions)
    assert versions[1] in seen


def test_a_version_whose_upload_was_cut_off_does_not_exist_and_is_said_to_be_incomplete(
    shared_url: str, image_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, parts = Registry(shared_url), named("cut", image_parts)
    first = save(registry, parts, 10)
    registry.promote("cut", first)
    version = save(Registry(f"memory://{uuid4().hex}"), parts)
    put = registry._storage._put

    def cut(path: str, data: bytes) -> None:
        if path.endswith(MANIFEST):
            raise RegistryError(f"{path} can't be written: the line is dead")
        put(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(registry._storage, "_put", cut)
        with pytest.raises(RegistryError, match="the line is dead"):
            save(registry, parts)
    assert [manifest.version for manifest in registry.versions("cut")] == [first]
    # In a folder nothing is left of it; in a bucket the files that came through.
    message = r"lacks manifest\.json" if shared_url.startswith("s3") else "no version"
    for attempt in (registry.load, registry.promote, registry.fetch):
        with pytest.raises(ModelNotFound, match=message):
            attempt("cut", version)
    assert registry.champion("cut") == first
    assert save(registry, parts) == version
    registry.promote("cut", version)


def test_a_server_that_overlooks_conditions_is_not_trusted_with_trainers(
    s3: str, image_parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(f"{s3}/{uuid4().hex}")
    version, fs = save(registry, image_parts), registry._storage._fs
    put = fs.pipe_file

    def unconditional(path: str, data: bytes, **_: object) -> None:
        put(path, data)

    monkeypatch.setattr(fs, "pipe_file", unconditional)
    with pytest.raises(RegistryError, match="knows no conditional puts"):
        registry.promote("unit", version, token=1)
    registry.promote("unit", version, by="a person")


def test_a_bucket_that_is_not_there_and_a_server_that_is_not_are_named(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RegistryError, match="no bucket nowhere"):
        Registry("s3://nowhere/models").detectors()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    elsewhere = Registry("s3://elsewhere/models")
    elsewhere._storage._fs = type(elsewhere._storage._fs)(skip_instance_cache=True)
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1"):
        elsewhere.champion("unit")

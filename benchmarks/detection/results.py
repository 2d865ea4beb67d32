"""What was measured, one JSON line for each finished training, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import torch

from origin import ROOT, commit, machine, today

# The sources that decide the figures: a commit elsewhere makes no result old.
DECISIVE = ("model", "training", "benchmarks/detection/protocols.py", "benchmarks/detection/measure.py")
BASELINES = "baselines"
GANOMALY = "ganomaly"


class Key(NamedTuple):
    """What was measured."""

    protocol: str
    case: str
    method: str  # GANOMALY or BASELINES
    seed: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a figure comes from."""

    code: str  # digest of the decisive sources
    commit: str
    seconds: float  # of training
    quick: bool
    date: str
    machine: str
    torch: str

    @classmethod
    def here(cls, seconds: float, quick: bool) -> Origin:
        """Of this machine, this code and this day."""
        return cls(
            code=_code(),
            commit=commit(),
            seconds=seconds,
            quick=quick,
            date=today(),
            machine=machine(),
            torch=torch.__version__,
        )

    def made_alike(self, other: Origin, *, any_commit: bool) -> bool:
        """Whether figures of `other` may stand beside those of this origin."""
        settings = (self.seconds, self.quick) == (other.seconds, other.quick)
        return settings and (any_commit or self.code == other.code)


class Result(NamedTuple):
    """One line of the file."""

    key: Key
    origin: Origin
    figures: dict[str, Any]


class Results:
    """A file of lines that is only ever added to."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, result: Result) -> None:
        """Writes one line. A line broken off by a crash is left behind as it is."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = orjson.dumps({**result.key._asdict(), "origin": asdict(result.origin), "figures": result.figures})
        with self.file.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line + b"\n")

    def read(self, origin: Origin, *, any_commit: bool = False) -> dict[Key, Result]:
        """Results that may be shown for `origin`; of several, one of the same code, and the last."""
        found: dict[Key, Result] = {}
        for result in self._lines():
            if not origin.made_alike(result.origin, any_commit=any_commit):
                continue
            known = found.get(result.key)
            if known is None or known.origin.code != origin.code or result.origin.code == origin.code:
                found[result.key] = result
        return found

    def _lines(self) -> Iterable[Result]:
        if not self.file.is_file():
            return
        for line in self.file.read_bytes().splitlines():
            try:
                data = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue  # broken off
            key = Key(data["protocol"], data["case"], data["method"], data["seed"])
            yield Result(key, Origin(**data["origin"]), data["figures"])


def _code() -> str:
    digest = hashlib.sha256()
    for name in DECISIVE:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]

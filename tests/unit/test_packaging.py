"""What is installed is pinned, and what is pinned serves every machine."""

from __future__ import annotations

import re
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = ("local", "demo", "dev")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def required(name: str, extras: tuple[str, ...], seen: set[tuple[str, tuple[str, ...]]]) -> set[str]:
    """The names of everything that a distribution with these extras needs on this machine, itself included."""
    if (name, extras) in seen:
        return set()
    seen.add((name, extras))
    names = {name}
    for requirement in map(Requirement, distribution(name).requires or []):
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras))
        if wanted:
            names |= required(canonicalize_name(requirement.name), tuple(sorted(requirement.extras)), seen)
    return names


def test_every_package_that_is_needed_is_pinned():
    needed = required("ganomaly-stream", EXTRAS, set()) - {"ganomaly-stream"}
    assert {"torch", "faust-streaming", "pytest", "tzdata"} <= needed
    assert sorted(needed - pins().keys()) == []


def test_nothing_is_pinned_that_only_one_kind_of_machine_has():
    assert [name for name, version in pins().items() if name.startswith(("nvidia-", "cuda-")) or "+" in version] == []


def test_no_address_of_a_package_index_is_written_down():
    """Where packages come from is the machine's own pip configuration."""
    files = [
        "pyproject.toml",
        "constraints.txt",
        "Makefile",
        "Dockerfile",
        ".ci/run",
        *(f"scripts/{path.name}" for path in (ROOT / "scripts").iterdir()),
    ]
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in files)
    assert re.findall(r"(?:https?|file)://\S+|--(?:extra-)?index-url\S*|--find-links\S*", text) == []


def test_every_make_target_explains_itself_in_help():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert {"install", "demo", "test", "lint", "up", "down", "clean"} <= phony
    assert phony == explained

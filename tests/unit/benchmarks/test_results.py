"""What was measured is found again, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from detection.results import GANOMALY, Key, Origin, Result, Results
from tests.unit.benchmarks.conftest import ORIGIN

KEY = Key("A", "1", GANOMALY, 0)


def test_a_line_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = Results(tmp_path / "new" / "results.jsonl")
    assert file.read(ORIGIN) == {}
    result = Result(KEY, ORIGIN, {"auroc": 0.5, "parts": {"1": {"auroc": 0.25}}})
    file.add(result)
    assert file.read(ORIGIN) == {KEY: result}


def test_lines_of_other_settings_never_count_and_of_other_code_only_where_asked(tmp_path: Path) -> None:
    file = Results(tmp_path / "results.jsonl")
    file.add(Result(KEY, replace(ORIGIN, code="old"), {"auroc": 0.1}))
    file.add(Result(KEY._replace(seed=1), replace(ORIGIN, seconds=5.0), {"auroc": 0.2}))
    assert file.read(ORIGIN) == {}
    assert [result.figures["auroc"] for result in file.read(ORIGIN, any_commit=True).values()] == [0.1]


def test_of_two_lines_that_of_the_same_code_wins_and_then_the_later(tmp_path: Path) -> None:
    file = Results(tmp_path / "results.jsonl")
    for code, value in (("c0de", 0.1), ("c0de", 0.2), ("old", 0.3)):
        file.add(Result(KEY, replace(ORIGIN, code=code), {"auroc": value}))
    assert file.read(ORIGIN, any_commit=True)[KEY].figures == {"auroc": 0.2}


def test_a_line_broken_off_by_a_crash_spoils_no_other(tmp_path: Path) -> None:
    file = Results(tmp_path / "results.jsonl")
    file.add(Result(KEY, ORIGIN, {}))
    whole = file.file.read_bytes()
    file.file.write_bytes(whole + whole[:30])
    other = KEY._replace(case="2")
    file.add(Result(other, ORIGIN, {}))
    assert set(file.read(ORIGIN)) == {KEY, other}


def test_the_code_behind_figures_has_a_digest_and_a_commit() -> None:
    here = Origin.here(60.0, quick=False)
    assert len(here.code) == 16
    assert here.commit
    assert here == Origin.here(60.0, quick=False)

"""Means, spreads and goals are those of the lines, and the page shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from detection.page import write_page
from detection.results import GANOMALY, Key, Result
from detection.summary import summarise
from training.credible import rate


def test_a_protocols_figure_is_the_mean_over_its_parts_and_the_spread_that_between_seeds(
    found: dict[Key, Result],
) -> None:
    of = summarise(found)["protocols"]["B"]
    by_seed = [
        np.mean([found[Key("B", digit, GANOMALY, seed)].figures["parts"][digit]["auroc"] for digit in ("3", "4")])
        for seed in (0, 1)
    ]
    assert of["auroc"]["mean"] == pytest.approx(np.mean(by_seed))
    assert of["auroc"]["spread"] == pytest.approx(abs(by_seed[0] - by_seed[1]))
    assert of["halves"]["choice"]["auroc"] == of["parts"]["3"]["auroc"] > of["parts"]["4"]["auroc"]
    assert of["halves"]["other"]["auroc"] == of["parts"]["4"]["auroc"]
    assert of["evidence"]["latent"]["gain"] == pytest.approx(of["auroc"]["mean"] - 0.6)


def test_of_variants_of_a_simple_method_the_better_counts(found: dict[Key, Result]) -> None:
    of = summarise(found)["protocols"]["B"]
    assert of["baselines"]["knn"]["variant"] == "knn/64"
    goals = {goal["what"]: goal for goal in of["goals"]}
    assert goals["AUROC against knn"]["reached"] == (of["auroc"]["mean"] > of["baselines"]["knn"]["auroc"])
    assert not goals["AUROC"]["reached"]
    assert goals["false alarms at 1.0%, of the budget"]["value"] == pytest.approx(1.0)


def test_a_seed_with_fewer_cases_is_left_out_until_it_is_whole(found: dict[Key, Result]) -> None:
    del found[Key("B", "4", GANOMALY, 1)]
    of = summarise(found)["protocols"]["B"]
    assert of["seeds"] == [0]
    assert of["auroc"]["spread"] == 0.0


def test_a_rates_interval_holds_it_and_narrows_with_more_records() -> None:
    low, high = rate(10, 1000)
    assert low < 0.01 < high
    assert rate(0, 1000)[0] < 1e-5
    narrow = rate(100, 10_000)
    assert narrow[1] - narrow[0] < 0.5 * (high - low)


def test_the_page_says_what_there_is_and_what_is_missing(found: dict[Key, Result], tmp_path: Path) -> None:
    target = tmp_path / "docs" / "quality.md"
    write_page(target, found)
    page = target.read_text()
    summary = orjson.loads(target.with_suffix(".json").read_bytes())
    mean = summary["protocols"]["B"]["auroc"]["mean"]
    assert f"| MNIST B, one digit is normal | **{mean:.3f}** (" in page
    assert "only 2 of 10 cases were measured" in page
    assert "a machine" in page
    assert "$" not in page
    assert "Adversarial objectives" not in page


def test_further_protocols_are_a_table_of_options(found: dict[Key, Result], tmp_path: Path) -> None:
    for option, case in (("lsgan", "A-1"), ("lsgan", "C"), ("hinge", "A-1"), ("hinge", "C")):
        line = next(iter(found.values()))
        key = Key("objectives", f"{option}:{case}", GANOMALY, 0)
        found[key] = Result(key, line.origin, line.figures)
    write_page(tmp_path / "page.md", found)
    page = (tmp_path / "page.md").read_text()
    assert "## Adversarial objectives" in page
    assert "| objectives | A-1 | C |" in page
    assert page.count("| hinge |") == 1

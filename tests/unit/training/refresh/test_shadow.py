"""The rules of the shadow, each on what it is there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stream_app.settings import ShadowSettings
from stream_app.shadow import Comparison, Tally
from training.refresh.shadow import _decide, judge

SETTINGS = ShadowSettings(min_rows=1000, alert_factor=2.0, agreement=0.2, cost_factor=2.0)
RATE = 0.01


def seen(count: int, *, challenger: Any = None, champion: Any = None, failed: str = "", **sums: Any) -> Comparison:
    """Of `count` normal records: both calibrated, and of much the same mind, unless told."""
    random = np.random.default_rng(count)
    scores = random.standard_exponential(count) / np.log(10.0)
    own = np.abs(scores + 0.05 * random.standard_normal(count)) if challenger is None else challenger(scores)
    tally = Tally(**({"champion_seconds": count * 1e-3, "challenger_seconds": count * 1e-3} | sums))
    tally.add(scores if champion is None else champion(scores), own, 2.0)
    return Comparison(
        worker=str(count), run="r", detector="d", challenger="b", champion="a", threshold=2.0, failed=failed,
        **tally.sums(),
    )  # fmt: skip


def decided(*comparisons: Comparison, late: bool = False, **changes: Any) -> Any:
    settings = SETTINGS.model_copy(update=changes)
    return _decide(judge(comparisons, settings, RATE), settings, late=late, unread="")


def test_a_version_as_good_as_the_champion_passes_once_the_workers_have_seen_enough_together() -> None:
    assert decided(seen(600)) is None
    outcome = decided(seen(600), seen(700))
    assert (outcome.passed, outcome.waits, outcome.refused_by) == (True, False, ())
    assert [rule.rule for rule in outcome.rules] == ["sound", "rows", "alerts", "agreement", "cost"]
    assert all(rule.figure is not None for rule in outcome.rules[1:])
    assert "1300 records scored by both: alerts 0.0" in outcome.why
    assert "(champion 0.0" in outcome.why


def test_with_manual_approval_it_waits_for_a_person() -> None:
    outcome = decided(seen(1200), approve="manual")
    assert (outcome.passed, outcome.waits) == (True, True)
    assert "models promote" in outcome.why


def test_too_little_traffic_is_a_refusal_in_the_end() -> None:
    outcome = decided(seen(600, skipped_load=50, skipped_cost=70), late=True)
    assert (outcome.passed, outcome.refused_by) == (False, ("rows",))
    assert "left out: 50 for load, 70 for their cost" in outcome.why
    assert "At this pace they take 6000 s" in outcome.why
    assert decided(late=True).refused_by == ("rows",)


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("alerts", {"challenger": lambda scores: scores * 2.0}),
        ("agreement", {"challenger": lambda scores: scores[::-1]}),
        ("cost", {"challenger_seconds": 3.0}),
    ],
)
def test_each_rule_refuses_what_it_is_there_for(rule: str, fault: dict[str, Any]) -> None:
    outcome = decided(seen(1200, **fault))
    assert (outcome.passed, outcome.refused_by) == (False, (rule,))
    assert f"{rule} FAILED" in outcome.why


def test_beside_a_champion_that_is_past_the_budget_it_may_not_raise_more_than_that() -> None:
    drifted = {"champion": lambda scores: scores + 1.6}  # a few of ten records are above the threshold of 2
    assert decided(seen(1200, challenger=lambda scores: scores, **drifted)).passed
    worse = decided(seen(1200, challenger=lambda scores: scores + 1.8, **drifted))
    assert (worse.passed, worse.refused_by) == (False, ("alerts",))


def test_one_worker_in_which_it_failed_is_enough_and_needs_no_rows() -> None:
    outcome = decided(seen(10), seen(5, failed="3 of 8 scores are not finite and >= 0"))
    assert (outcome.passed, outcome.refused_by) == (False, ("sound",))
    assert "3 of 8 scores are not finite" in outcome.why


def test_a_champion_past_the_budget_is_no_measure_for_agreement_and_its_alerts_are_no_licence_beyond_the_factor() -> (
    None
):
    """The stream has changed: the champion scores a hundred times too high, the challenger has learned it."""
    outcome = decided(seen(1500, champion=lambda scores: scores[::-1] + 1.5))
    assert outcome.passed
    assert next(rule for rule in outcome.rules if rule.rule == "agreement").why.startswith("not asked for")
    worse = decided(seen(1500, champion=lambda scores: scores[::-1] + 0.7, challenger=lambda scores: scores + 1.3))
    assert worse.refused_by == ("alerts",)
    # Scores that are the same but for chance raise a few more or a few less.
    noise = np.random.default_rng(1).normal(0.0, 0.1, 1500)
    same = decided(seen(1500, champion=lambda scores: scores + 1.5, challenger=lambda scores: scores + 1.5 + noise))
    alerts = next(rule for rule in same.rules if rule.rule == "alerts")
    assert same.passed
    assert alerts.reference < alerts.figure < alerts.limit < alerts.reference + 0.02

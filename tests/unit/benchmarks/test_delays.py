"""Delays with and without swaps are held against each other round by round."""

from __future__ import annotations

import pytest

from streaming.delays import CALM, SWAPS, Phase, render, summarise


@pytest.fixture
def phases():
    calm = [Phase(CALM, 0, 10, 101, list(range(101))), Phase(CALM, 20, 30, 101, list(range(101)))]
    busy = [Phase(SWAPS, 10, 20, 101, [2 * delay for delay in range(101)]), Phase(SWAPS, 30, 40, 101, [10.0] * 101)]
    return [calm[0], busy[0], busy[1], calm[1]]


def test_quantiles_are_over_all_rounds_and_p99_also_of_each(phases):
    figures = summarise(phases)
    assert figures["phases"][CALM]["records"] == 202
    assert figures["phases"][CALM]["ms"] == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
    assert figures["phases"][SWAPS]["p99_each_round"] == [198.0, 10.0]
    assert figures["p99_ratio_each_round"] == pytest.approx([2.0, 10.0 / 99.0])
    assert figures["p99_added_ms"] == pytest.approx((99.0 - 89.0) / 2)
    assert figures["ratio"]["max"] == 2.0


@pytest.mark.parametrize(("added", "says"), [(12.0, "12 ms to p99,\nwithin 50 ms"), (80.0, "**above 50 ms**")])
def test_the_page_says_whether_a_swap_stays_within_its_limit(phases, added, says):
    origin = {"date": "2026-01-01", "machine": "a machine", "commit": "abc", "versions": {"python": "3.11"}}
    run = {"origin": origin, "load_average": 0.1, "niceness": 0, "rate": 200, "seconds": 20, "rounds": 2, "swaps": 40.0}
    page = render({**run, "swap_seconds": 0.25, **summarise(phases), "p99_added_ms": added})
    assert says in page
    assert "| a swap each second | 202 |" in page
    assert "2.00, 0.10" in page

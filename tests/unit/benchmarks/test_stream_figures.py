"""Each second of CPU is in one stage, and figures are medians."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streaming.figures import CLIENT, LOOP, Measured, RedisUse, cpu_by_stage, growth, render, summarise
from streaming.meter import Stage
from streaming.run import METERED, OWN, Run

REDIS = RedisUse(cpu=0.1, bytes_in=1000, bytes_out=500, commands=20)


@pytest.fixture
def run() -> Run:
    stages = {stage: Stage(10, cpu=0.1, seconds=0.2) for _, _, stage in METERED}
    stages["load"] = Stage(2, cpu=0.04, seconds=0.5)
    threads = {"MainThread": 1.2, "decode_0": 0.3, "scoring": 0.1, "asyncio_0": 0.0, "Thread-1": 0.25}
    own = dict.fromkeys((*OWN, "commit"), 0.3)
    return Run(1000, 4.0, 2.0, threads, stages, own, loaded=10, saved=20, round_trips=5, memory=1 << 20)


def test_stages_add_up_to_the_cpu_of_the_process(run: Run) -> None:
    spent = cpu_by_stage(run)
    assert sum(spent.values()) == pytest.approx(run.cpu)
    assert spent[CLIENT] == 0.25
    assert spent["windows"] == pytest.approx(0.1 - 0.04 + 0.1)
    assert spent["Redis"] == pytest.approx(0.04 + 0.1)
    assert spent[LOOP] > 0.0


def test_rates_are_medians_and_stages_are_told_for_one_observation(run: Run) -> None:
    runs = [run, replace(run, seconds=5.0), replace(run, seconds=40.0)]
    figures = summarise([Measured(each, REDIS) for each in runs])
    assert figures["per_second"] == 200.0
    assert figures["per_second_each_round"] == [250.0, 200.0, 25.0]
    assert figures["per_cpu_second"] == 500.0
    assert sum(figures["cpu_us"].values()) == pytest.approx(2000.0)


def test_growth_is_that_of_the_cost_of_an_observation() -> None:
    assert growth({1000: {"per_cpu_second": 20.0}, 3000: {"per_cpu_second": 16.0}}) == {"1,000": 1.0, "3,000": 1.25}


def test_what_redis_says_is_what_it_had_to_do_meanwhile() -> None:
    before = {
        "used_cpu_user": 1.0,
        "used_cpu_sys": 1.0,
        "total_net_input_bytes": 10,
        "total_net_output_bytes": 5,
        "total_commands_processed": 3,
    }
    after = {name: value + 2 for name, value in before.items()}
    assert RedisUse.between(before, after) == RedisUse(4.0, 2, 2, 2)


def test_the_page_says_whether_the_target_is_reached(run: Run) -> None:
    size = summarise([Measured(run, REDIS)])
    figures: dict[str, Any] = {
        "origin": {"date": "2026-01-01", "machine": "a machine", "commit": "abc", "versions": {"python": "3.11"}},
        "load_average": 1.0,
        "observations": 50,
        "rounds": 1,
        "window": 16,
        "partitions": 4,
        "sizes": {"1000": size},
        "restarts": {"1000": size},
        "growth": {"1,000": 1.0},
    }
    assert "of CPU: **not reached**" in render(figures)
    figures["sizes"]["3000"] = size | {"per_cpu_second": 30_000.0}
    figures["growth"]["3,000"] = 1.0
    assert "of CPU: reached, but **not with 1,000 streams**" in render(figures)
    del figures["sizes"]["1000"], figures["restarts"]["1000"]
    figures["restarts"]["3000"] = size
    assert "of CPU: reached." in render(figures)

import math

import pytest

from stream_app.pace import Pace


def observed(times: list[float]) -> float | None:
    pace = Pace()
    for time in times:
        pace.observe(time)
    return pace.per_second


def test_no_pace_is_known_before_a_whole_reading() -> None:
    assert observed([index * 0.1 for index in range(64)]) is None


@pytest.mark.parametrize("per_second", [0.01, 1.0, 500.0])
def test_steady_records_give_their_pace(per_second: float) -> None:
    assert observed([1.7e9 + index / per_second for index in range(1000)]) == pytest.approx(per_second, rel=1e-3)


def test_records_that_share_a_timestamp_count_in_full() -> None:
    assert observed([1.7e9 + index // 1000 * 60.0 for index in range(20_000)]) == pytest.approx(1000 / 60, rel=0.01)


def test_equal_timestamps_for_ever_give_no_pace() -> None:
    assert observed([1.7e9] * 10_000) is None


@pytest.mark.parametrize("jump", [1e8, -1e8, 3600.0, -3600.0])
def test_a_clock_that_jumps_once_is_outvoted(jump: float) -> None:
    times = [1.7e9 + index * 0.1 + (jump if index > 2000 else 0.0) for index in range(4000)]

    assert observed(times) == pytest.approx(10.0, rel=1e-3)


@pytest.mark.parametrize("wrong", [0.0, 4e9, math.nan, math.inf, -math.inf])
def test_single_wrong_times_are_outvoted(wrong: float) -> None:
    times = [wrong if index % 50 == 7 else 1.7e9 + index * 0.1 for index in range(4000)]

    assert observed(times) == pytest.approx(10.0, rel=0.05)


def test_the_pace_follows_a_stream_that_becomes_faster() -> None:
    slow = [float(index) for index in range(3000)]
    fast = [3000.0 + index * 0.1 for index in range(3000)]

    assert observed(slow + fast) == pytest.approx(10.0, rel=1e-3)


def test_a_saved_pace_goes_on_where_it_was() -> None:
    whole, saved = Pace(), Pace()
    for index in range(500):
        whole.observe(index * 0.3)
        saved.observe(index * 0.3)
        saved = Pace.from_bytes(saved.to_bytes())

    assert saved.to_bytes() == whole.to_bytes()
    assert saved.per_second == whole.per_second


@pytest.mark.parametrize("data", [b"", b"\0" * 16, b"\0" * 16 + b"\x01", Pace().to_bytes() + b"\0"])
def test_bytes_of_another_length_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="pace"):
        Pace.from_bytes(data)

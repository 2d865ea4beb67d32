"""Which records are kept: as many of each stream as is fair, each of a stream as likely as another."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.refresh.sampling import by_stream, draw, draw_runs, fair_quotas

COUNTS = st.lists(st.integers(0, 500), min_size=1, max_size=20).map(lambda each: np.array(each, np.int64))


def streams_of(counts: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@given(COUNTS, st.integers(0, 3000))
def test_quotas_use_the_room_there_is_and_favour_no_stream(counts: np.ndarray, total: int) -> None:
    quotas = fair_quotas(counts, total)
    assert quotas.sum() == min(total, counts.sum())
    assert (quotas <= counts).all()
    short = quotas < counts
    if short.any():  # who gives something up keeps as much as anybody, but for the remainder of the division
        assert quotas[short].min() >= quotas.max() - 1


@given(COUNTS, st.integers(0, 600), st.integers(1, 40))
def test_what_is_drawn_is_as_many_as_the_quotas_say_and_nothing_twice(
    counts: np.ndarray, total: int, length: int
) -> None:
    streams = streams_of(counts)
    quotas = fair_quotas(counts, total)
    for chosen, least in (
        (draw(streams, total, np.random.default_rng(1)), quotas),
        (draw_runs(streams, total, length, np.random.default_rng(1)), quotas - -(-quotas // length)),
    ):
        drawn = np.bincount(streams[chosen], minlength=len(counts))
        assert (np.diff(chosen) > 0).all()
        assert (drawn <= quotas).all()
        assert (drawn >= least).all()


def test_the_same_seed_draws_the_same_and_another_seed_others() -> None:
    streams = streams_of(np.array([400, 50, 3000]))
    for each in (draw, lambda *given: draw_runs(given[0], given[1], 20, given[2])):
        first, again, other = (each(streams, 300, np.random.default_rng(seed)) for seed in (5, 5, 6))
        assert first.tolist() == again.tolist()
        assert first.tolist() != other.tolist()


def test_every_record_of_a_stream_is_as_likely_as_another() -> None:
    streams = streams_of(np.array([40, 200]))
    times = np.zeros(len(streams))
    rounds = 4000
    for seed in range(rounds):
        times[draw(streams, 60, np.random.default_rng(seed))] += 1
    for stream, share in ((0, 30 / 40), (1, 30 / 200)):
        seen = times[streams == stream] / rounds
        deviation = np.sqrt(share * (1 - share) / rounds)
        assert np.abs(seen - share).max() < 5 * deviation


def test_runs_are_records_in_a_row_and_reach_every_part_of_a_stream() -> None:
    streams = np.zeros(1003, np.int64)
    times = np.zeros(len(streams))
    for seed in range(1000):
        chosen = draw_runs(streams, 200, 50, np.random.default_rng(seed))
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)
        assert len(chosen) == 200
        assert all(len(run) % 50 == 0 for run in runs)
        times[chosen] += 1
    assert times.min() > 0
    assert abs(times[:500].sum() - times[-500:].sum()) < 0.05 * times.sum()


def test_short_streams_are_taken_together_in_order() -> None:
    streams = np.array([2, 0, 1, 0, 0, 2, 0])
    assert [each.tolist() for each in by_stream(streams)] == [[1, 3, 4, 6], [2], [0, 5]]
    assert [each.tolist() for each in by_stream(streams, 3)] == [[1, 3, 4, 6], [0, 2, 5]]
    assert by_stream(np.zeros(0, np.int64)) == []

"""Comparisons of a challenger with a champion: nothing is lost when workers' sums are added up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stream_app.shadow import CELLS, EDGES, Comparison, Tally, add_up, cell_of

NAMED = {"run": "r", "detector": "d", "challenger": "b", "champion": "a", "threshold": 2.0}


def comparison(worker: str, tally: Tally) -> Comparison:
    """As a worker writes it and a trainer reads it."""
    return Comparison.model_validate_json(Comparison(worker=worker, **NAMED, **tally.sums()).model_dump_json())


def scores(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of normal records, by two versions that agree somewhat."""
    random = np.random.default_rng(seed)
    common = random.standard_exponential(count)
    return tuple(np.float32((common + random.standard_exponential(count)) / 3.0) for _ in range(2))


@given(st.floats(0, 1e6))
def test_every_score_has_the_cell_whose_edges_it_lies_between(score: float) -> None:
    cell = int(cell_of(np.array([score]))[0])
    assert EDGES[cell] <= score
    assert cell == CELLS - 1 or score < EDGES[cell + 1]


def test_workers_that_share_the_rows_see_together_what_one_sees_alone() -> None:
    champion, challenger = scores(0, 3000)
    alone = Tally()
    alone.add(champion, challenger, 2.0)
    parts = []
    for number, part in enumerate(np.array_split(np.arange(3000), 3)):
        tally = Tally(skipped_load=number, champion_seconds=0.5)
        tally.add(champion[part], challenger[part], 2.0)
        parts.append(comparison(str(number), tally))
    together = add_up(parts)
    assert np.array_equal(together.grid, alone.grid)
    assert (together.rows, together.skipped_load, together.champion_seconds) == (3000, 3, 1.5)
    assert together.champion_alerts == alone.champion_alerts == (champion > 2.0).sum() > 0
    assert together.challenger_alerts == (challenger > 2.0).sum() > 0
    assert together.both_alert == ((champion > 2.0) & (challenger > 2.0)).sum()
    histograms = together.histograms()
    assert np.array_equal(histograms[0], np.bincount(cell_of(champion), minlength=CELLS))
    assert np.array_equal(histograms[1], np.bincount(cell_of(challenger), minlength=CELLS))


def test_the_agreement_is_spearmans_of_scores_that_tie_within_their_cells() -> None:
    champion, challenger = scores(1, 2000)
    tally = Tally()
    tally.add(champion, challenger, 2.0)
    tied = stats.spearmanr(cell_of(champion), cell_of(challenger)).statistic
    assert tally.agreement() == pytest.approx(tied, abs=1e-9)
    assert tally.agreement() == pytest.approx(stats.spearmanr(champion, challenger).statistic, abs=0.02)


def test_scores_that_all_tie_agree_with_nothing() -> None:
    tally = Tally()
    assert tally.agreement() is None
    tally.add(np.full(5, 0.15), np.arange(5.0), 2.0)
    assert tally.agreement() is None

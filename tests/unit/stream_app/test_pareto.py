import math

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_app import pareto


def truncated_quantile(
    scores: NDArray[np.float64], ceiling: float, share: float, rate: float, deviation: float
) -> float:
    """Fits the upper `share` of the scores that are below the ceiling."""
    kept = scores[scores < ceiling]
    start = float(np.quantile(kept, 1.0 - share))
    counts, _ = np.histogram(kept, bins=pareto.CELLS, range=(start, ceiling))
    return pareto.quantile(start, ceiling, counts.astype(np.float64), share, rate, deviation)


@pytest.mark.parametrize("scale", [0.2, 1.0 / math.log(10.0), 2.0])
@pytest.mark.parametrize("ceiling_rate", [0.05, 0.01, 0.001])
def test_the_quantile_of_an_exponential_law_is_found_beyond_the_truncation(scale: float, ceiling_rate: float) -> None:
    scores = np.random.default_rng(1).exponential(scale, 50_000)
    ceiling = -scale * math.log(ceiling_rate)

    found = truncated_quantile(scores, ceiling, 0.4, 1e-3, 0.05)

    assert found == pytest.approx(scale * math.log(1e3), rel=0.1)


@pytest.mark.parametrize("shape", [-0.2, 0.2])
def test_a_shape_that_is_not_exponential_is_seen(shape: float) -> None:
    uniform = np.random.default_rng(2).random(50_000)
    scores = (uniform**-shape - 1.0) / shape
    expected = (1e-3**-shape - 1.0) / shape

    found = truncated_quantile(scores, float(np.quantile(scores, 0.998)), 0.2, 1e-3, 0.1)

    assert found == pytest.approx(expected, rel=0.1)


def test_without_data_the_calibrated_law_holds_and_data_overrule_it() -> None:
    near_the_start = np.zeros(pareto.CELLS)
    near_the_start[0] = 1.0

    assert pareto.quantile(1.0, 3.0, np.zeros(pareto.CELLS), 0.1, 1e-3, 0.1) == pytest.approx(3.0, abs=0.7)
    assert pareto.quantile(1.0, 3.0, near_the_start * 3000.0, 0.1, 1e-3, 0.1) < 1.5


def test_a_rate_above_the_share_of_the_tail_gives_its_start() -> None:
    assert pareto.quantile(1.0, 3.0, np.ones(pareto.CELLS), 0.0, 0.1, 0.1) == 1.0


def test_survival_falls_from_one_and_ends_where_a_bounded_tail_ends() -> None:
    scale, shape = np.array([1.0, 1.0, 1.0]), np.array([-0.5, 0.0, 0.5])

    assert pareto.survival(0.0, scale, shape).tolist() == [1.0, 1.0, 1.0]
    assert pareto.survival(1.0, scale, shape) == pytest.approx([0.25, math.exp(-1.0), 1.5**-2])
    assert pareto.survival(5.0, scale, shape)[0] == pytest.approx(0.0, abs=1e-300)

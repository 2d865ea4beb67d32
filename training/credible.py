"""How sure a figure is: posteriors of rates, and of the AUROC.

Sources: H. Jeffreys, Theory of probability, 1961, section 3.10 (the prior Beta(½, ½) of a rate); D. Rubin, The Bayesian
bootstrap, Ann. Statist. 9, 1981 (weights from a flat Dirichlet law in place of resampling).

Records are taken as independent. Neighbouring windows of a series are not, so that their intervals are too narrow.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

MASS = 0.95
DRAWS = 1000


class Interval(NamedTuple):
    """The central 95 % of a posterior."""

    low: float
    high: float


def rate(count: float, of: float) -> Interval:
    """Of a rate, `count` times in `of` cases; the whole of 0…1 hardly narrowed where `of` is 0.

    Means over runs need not be whole.
    """
    low, high = stats.beta(count + 0.5, of - count + 0.5).ppf(_ends())
    return Interval(float(low), float(high))


def auroc(labels: NDArray[np.int64], scores: NDArray[np.float64], seed: int = 0, draws: int = DRAWS) -> Interval:
    """Of the AUROC of scores `[N]` with labels `[N]` (0 normal, 1 anomalous, some of each), by the Bayesian bootstrap.

    Normal and anomalous records are weighted apart, as how many there are of each is not what is asked.
    """
    random = np.random.default_rng(seed)
    levels, place = np.unique(scores, return_inverse=True)
    normal, anomalous = place[labels == 0], place[labels == 1]
    values = np.empty(draws)
    for draw in range(draws):
        weight = _weights(random, normal, len(levels))
        below = np.cumsum(weight) - weight / 2.0  # ties count half
        values[draw] = below @ _weights(random, anomalous, len(levels))
    low, high = np.quantile(values, _ends())
    return Interval(float(low), float(high))


def _weights(random: np.random.Generator, place: NDArray[np.intp], levels: int) -> NDArray[np.float64]:
    """A draw of the records' weights, which sum to 1, by level of the score."""
    weight = random.standard_exponential(len(place))
    return np.bincount(place, weight / weight.sum(), levels).astype(np.float64)


def _ends() -> list[float]:
    return [(1.0 - MASS) / 2.0, (1.0 + MASS) / 2.0]

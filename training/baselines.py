"""Simple detectors to be measured against, from scikit-learn.

Sources: F. Liu, K. Ting, Z.-H. Zhou, Isolation forest, ICDM 2008; B. Schölkopf et al., Estimating the support of a
high-dimensional distribution, Neural Computation 13, 2001; J. Jackson, G. Mudholkar, Control procedures for residuals
associated with principal component analysis, Technometrics 21, 1979; S. Ramaswamy, R. Rastogi, K. Shim, SIGMOD 2000
(nearest neighbours); M. Breunig et al., LOF, SIGMOD 2000.

Each is a function from normal records `[n, D]` and a seed to a function from records `[N, D]` to scores `[N]`; larger
is stranger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from model.config import Kind

Floats = NDArray[np.float64]
Records = NDArray[Any]
Score = Callable[[Floats], Floats]

NEIGHBOURS = 5
COMPONENTS = 30
VARIANCE = 0.9
CLIP = 8.0  # standard deviations; one broken value must not be all that a distance sees
MOST_OF_SVM = 2000  # its fit grows with the square of the records
MOST_REMEMBERED = 5000


def flat(kind: Kind, normal: Records) -> Callable[[Records], Floats]:
    """Records `[N, …]` to rows `[N, D]`: pictures in 0…1, windows standardised by feature as the normal ones are.

    A missing value is the mean of its feature.
    """
    if kind is Kind.IMAGE:
        return lambda records: records.reshape(len(records), -1).astype(np.float64) / 255.0
    seen = np.ma.masked_invalid(normal)
    mean = np.ma.filled(seen.mean(axis=(0, 1), dtype=np.float64), 0.0)
    deviation = np.ma.filled(seen.std(axis=(0, 1), dtype=np.float64), 1.0)
    deviation[deviation == 0.0] = 1.0

    def scaled(records: Records) -> Floats:
        values = np.nan_to_num(np.clip((records - mean) / deviation, -CLIP, CLIP), nan=0.0)
        return np.asarray(values.reshape(len(records), -1), dtype=np.float64)

    return scaled


def isolation_forest(normal: Floats, seed: int) -> Score:
    """How few random cuts set a record apart."""
    fitted = IsolationForest(random_state=seed).fit(normal)
    return lambda records: -np.asarray(fitted.score_samples(records))


def one_class_svm(normal: Floats, seed: int) -> Score:
    """Distance outside the boundary around nine tenths of the normal records."""
    chosen = np.random.default_rng(seed).permutation(len(normal))[:MOST_OF_SVM]
    fitted = OneClassSVM(nu=0.1, gamma="scale").fit(normal[chosen])
    return lambda records: -np.asarray(fitted.score_samples(records))


def pca_residual(normal: Floats, seed: int) -> Score:
    """Squared length of what the components with 90 % of the variance leave."""
    fitted = PCA(VARIANCE, svd_solver="full", random_state=seed).fit(normal)

    def score(records: Floats) -> Floats:
        rest = records - fitted.inverse_transform(fitted.transform(records))
        return np.asarray(np.square(rest).mean(axis=1))

    return score


def nearest_neighbours(normal: Floats, seed: int) -> Score:
    """Mean distance to the five nearest normal records, along the first thirty components."""
    reduce = _components(normal, seed)
    fitted = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(normal))).fit(_some(reduce.transform(normal), seed))
    return lambda records: np.asarray(fitted.kneighbors(reduce.transform(records))[0].mean(axis=1))


def local_outlier_factor(normal: Floats, seed: int) -> Score:
    """Density around a record relative to that around its neighbours, along the first thirty components."""
    reduce = _components(normal, seed)
    neighbours = min(20, len(normal) - 1)
    fitted = LocalOutlierFactor(n_neighbors=neighbours, novelty=True).fit(_some(reduce.transform(normal), seed))
    return lambda records: -np.asarray(fitted.score_samples(reduce.transform(records)))


BASELINES: dict[str, Callable[[Floats, int], Score]] = {
    "isolation_forest": isolation_forest,
    "one_class_svm": one_class_svm,
    "pca_residual": pca_residual,
    "knn": nearest_neighbours,
    "lof": local_outlier_factor,
}


def _components(normal: Floats, seed: int) -> PCA:
    return PCA(min(COMPONENTS, *normal.shape), random_state=seed).fit(normal)


def _some(rows: Floats, seed: int) -> Floats:
    return rows[np.random.default_rng(seed).permutation(len(rows))[:MOST_REMEMBERED]]

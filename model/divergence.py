"""How far what was counted is from what was expected: PSI and KS, and how far chance alone takes them.

Sources:
- Population stability index: N. Siddiqi, Credit risk scorecards, 2006, chapter 9; it is Jeffreys' divergence
  (H. Jeffreys, Proc. R. Soc. A 186, 1946). About 0.1 is called a small change, 0.25 a large one.
- What it is by chance: n PSI of a sample of n, held against one of m, follows about (1 + n / m) χ² with a degree of
  freedom less than there are bins (B. Yurdakul, J. Naranjo, Statistical properties of the population stability index,
  Journal of Risk Model Validation 14, 2020).
- Samples that hang together: J. Rao, A. Scott, JASA 76, 1981: χ² grows by the design effect.
- Kolmogorov-Smirnov: N. Smirnov, Ann. Math. Statist. 19, 1948.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.integer]
Floats = NDArray[np.float64]

PRIOR = 0.5  # records per bin, put there before counting: Jeffreys' prior of shares


def expected_shares(counts: Counts) -> Floats:
    """Shares of bins `[B]` from a reference's counts, none of them 0, sum 1."""
    smoothed = np.asarray(counts, np.float64) + PRIOR
    shares: Floats = smoothed / smoothed.sum()
    return shares


def psi(counts: Counts, expected: Floats) -> Floats:
    """Population stability index of counts `[…, B]` against shares `[B]` > 0: `[…]`, >= 0, 0 for no records.

    Half a record per bin is added to the counts as it was expected, so that an empty bin has no infinite weight.
    """
    prior = PRIOR * len(expected)
    share = (counts + prior * expected) / (counts.sum(-1, keepdims=True) + prior)
    divergence: Floats = ((share - expected) * np.log(share / expected)).sum(-1)
    return divergence


def ks(counts: Counts, expected: Floats) -> Floats:
    """Largest difference of the cumulated shares of counts `[…, B]` from those expected `[B]`: `[…]` in 0…1.

    Seen at the bins' edges only, it is never more than that of the values themselves.
    """
    total = np.maximum(counts.sum(-1, keepdims=True), 1)
    gap = np.abs(np.cumsum(counts, -1) / total - np.cumsum(expected) * (counts.sum(-1, keepdims=True) > 0))
    largest: Floats = gap[..., :-1].max(-1) if len(expected) > 1 else np.zeros(counts.shape[:-1])
    return largest


def psi_by_chance(bins: int, noise: NDArray[np.float64], significance: float) -> Floats:
    """The PSI that `significance` of samples exceed though nothing has changed; `noise` as `sampling_noise` gives."""
    from scipy.special import chdtri  # whoever loads a detector does without it

    limit: Floats = chdtri(max(bins - 1, 1), significance) * noise
    return limit


def ks_by_chance(noise: NDArray[np.float64], significance: float) -> Floats:
    """The KS that `significance` of samples exceed at most though nothing has changed."""
    limit: Floats = np.sqrt(-0.5 * math.log(significance / 2.0) * noise)
    return limit


def sampling_noise(records: NDArray[np.generic] | float, reference: int, design_effect: float) -> Floats:
    """1/n + 1/m, larger by the design effect, for samples of `records` `[…]` against a reference of `reference`."""
    noise: Floats = design_effect * (1.0 / np.maximum(records, 1.0) + 1.0 / max(reference, 1))
    return noise


def design_effect(bins: NDArray[np.integer], counts: Counts, block: int) -> float:
    """How much larger the χ² of blocks of neighbouring records is than that of records drawn one by one; >= 1.

    `bins` `[n]` are the records' bins in their order, `counts` `[B]` how many are in each. Windows that overlap, a
    level that wanders, records that come sorted: all make neighbours alike, so that a block tells less than its length.
    """
    used = np.flatnonzero(counts)
    blocks = len(bins) // block if block else 0
    if len(used) < 2 or blocks < 2:
        return 1.0
    expected = block * counts[used] / len(bins)
    whole = bins[: blocks * block].reshape(blocks, block)
    observed = np.stack([(whole == number).sum(1) for number in used], 1)  # (blocks, B)
    chi2 = (np.square(observed - expected) / expected).sum(1).mean()
    # The blocks are part of what they are held against.
    return max(1.0, float(chi2) / (len(used) - 1) / (1.0 - block / len(bins)))

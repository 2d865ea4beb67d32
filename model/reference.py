"""What records and scores looked like at training, in bins, for drift to be measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from model.config import Kind
from model.divergence import Floats, design_effect, expected_shares
from model.summary import MOST_FEATURES, Scale, summarize, summary_names

SCORE = "score"
BINS = 10
BLOCK = 200  # neighbouring records whose likeness is measured; fewer where that leaves less than 8 blocks
MOST_RECORDS = 20_000  # that are summarised, in runs of neighbours
_RUNS = 20
_MOST_VALUES = 1 << 22  # that are in memory at once
_WIDTH_OF_A_VALUE = 1e-5  # of the value or the spread: what rounding may do to one that many records share


class Bins(BaseModel):
    """How one figure was distributed: `counts` of records between `edges`, ascending; the first and last bin are open.

    A value on an edge belongs to the bin above it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    design_effect: float = Field(1.0, ge=1, description="by how much neighbouring records tell less than others")

    @model_validator(mode="after")
    def _fit_together(self) -> Bins:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges make {len(self.edges) + 1} bins, not {len(self.counts)}")
        if any(high <= low for low, high in pairwise(self.edges)):
            raise ValueError("edges must ascend")
        if min(self.counts) < 0 or sum(self.counts) == 0:
            raise ValueError("counts must be 0 or more, and not all 0")
        return self

    @cached_property
    def shares(self) -> Floats:
        """Expected of records of the same source, `[B]`, none 0."""
        return expected_shares(np.array(self.counts))

    @property
    def records(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def find(self, values: NDArray[np.float32]) -> NDArray[np.intp]:
        """The bin of each value `[n]`; NaN counts as the largest."""
        return np.searchsorted(self._edges, values, side="right")

    @cached_property
    def _edges(self) -> NDArray[np.float32]:
        return np.array(self.edges, np.float32)

    @classmethod
    def fit(cls, values: NDArray[np.float32], overlap: float = 1.0) -> Bins:
        """Bins of equal shares of values `[n]`, n >= 1, in the order of the records; `overlap` as of `Reference.fit`.

        A value that more than a share of a bin has in common gets a bin of its own.
        """
        counted = cls._count(_edges_of(values), values)
        return counted.model_copy(update={"design_effect": round(counted.design_effect * overlap, 3)})

    @classmethod
    def of_scores(cls, scores: NDArray[np.float32], least_design_effect: float = 1.0) -> Bins:
        """Bins of calibrated scores, of which −log10 of the share above is the law, so that all hold the same share.

        The counts are as the law says, of as many records as calibrated it; `scores` `[n]` are theirs, in their order.
        """
        counted = cls._count(_score_edges(), scores)
        effect = max(counted.design_effect, least_design_effect)
        return cls(edges=counted.edges, counts=_equal_counts(len(scores)), design_effect=effect)

    @classmethod
    def _count(cls, edges: Sequence[float], values: NDArray[np.float32]) -> Bins:
        bins = np.searchsorted(np.array(edges, np.float32), values, side="right")
        counts = np.bincount(bins, minlength=len(edges) + 1)
        block = min(BLOCK, len(values) // 8)
        return cls(
            edges=tuple(edges),
            counts=tuple(counts.tolist()),
            design_effect=round(design_effect(bins, counts, block), 3),
        )


class Reference(BaseModel):
    """The manifest's `inputs`: bins of the score, and of each figure that `summarize` tells of a record.

    `center` and `spread` are the `Scale` of windows with many features.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    score: Bins
    inputs: dict[str, Bins] = {}
    center: tuple[float, ...] | None = None
    spread: tuple[float, ...] | None = None

    @property
    def bins(self) -> dict[str, Bins]:
        """By the statistic's name, the score first."""
        return {SCORE: self.score, **self.inputs}

    @cached_property
    def scale(self) -> Scale | None:
        """Of windows with many features."""
        if self.center is None or self.spread is None:
            return None
        return Scale(np.array(self.center, np.float32), np.array(self.spread, np.float32))

    @classmethod
    def fit(
        cls,
        kind: Kind,
        records: NDArray[np.generic],
        scores: NDArray[np.float32],
        features: Sequence[str] | None = None,
        normal: NDArray[np.int64] | None = None,
        overlap: float = 1.0,
    ) -> Reference:
        """From records `[n, …]` in the order of their source, and calibrated scores `[m]` of held-out normal ones.

        With `normal`, indices in the order of the source, from those records alone. `overlap` is by how much a stream's
        neighbours tell less than these do.
        """
        normal = np.arange(len(records)) if normal is None else normal
        some = normal[_runs(len(normal))]
        at_once = max(1, _MOST_VALUES // math.prod(records.shape[1:]))
        scale = None
        if kind is Kind.SEQUENCE and records.shape[2] > MOST_FEATURES:
            scale = Scale.fit(np.asarray(records[some[:: math.ceil(len(some) / at_once)]], np.float32))
        parts = [some[first : first + at_once] for first in range(0, len(some), at_once)]
        summary = np.concatenate([summarize(kind, records[part], scale) for part in parts])
        names = summary_names(kind, records.shape[1:], features)
        inputs = {name: Bins.fit(summary[:, column], overlap) for column, name in enumerate(names)}
        return cls(
            # Few scores are there, of the held-out records alone; they hang together no less than what they are of.
            score=Bins.of_scores(scores, max(each.design_effect for each in inputs.values())),
            inputs=inputs,
            center=None if scale is None else tuple(scale.center.tolist()),
            spread=None if scale is None else tuple(scale.spread.tolist()),
        )

    @classmethod
    def of_law(cls, held_out: int) -> Reference:
        """Of the score alone, for a version that was saved without a reference; `held_out` records calibrated it."""
        return cls(score=Bins(edges=_score_edges(), counts=_equal_counts(held_out)))


def _score_edges() -> tuple[float, ...]:
    return tuple((-np.log10(1.0 - np.arange(1, BINS) / BINS)).astype(np.float32).tolist())


def _equal_counts(records: int) -> tuple[int, ...]:
    return (max(1, round(records / BINS)),) * BINS


def _runs(count: int) -> NDArray[np.int64]:
    """Which of `count` records are summarised: all, or runs of neighbours spread over them."""
    if count <= MOST_RECORDS:
        return np.arange(count)
    length = MOST_RECORDS // _RUNS
    first = np.linspace(0, count - length, _RUNS).astype(np.int64)
    return (first[:, np.newaxis] + np.arange(length)).ravel()


def _edges_of(values: NDArray[np.float32]) -> tuple[float, ...]:
    there = np.sort(values[np.isfinite(values)])
    if len(there) == 0:
        return ()
    quantiles = there[np.arange(1, BINS) * len(there) // BINS]
    edges, times = np.unique(quantiles, return_counts=True)
    spread = float(there[-1] - there[0])
    wide = np.maximum(np.abs(edges), spread) * _WIDTH_OF_A_VALUE + 1e-9
    shared = times > 1
    around = np.concatenate([edges[~shared], (edges - wide)[shared], (edges + wide)[shared]])
    return tuple(np.unique(around.astype(np.float32)).tolist())

"""Evidence of windows that the memory does not hold: how strange a normal one may be.

Sources:
- V. Vovk, Cross-conformal predictors, Annals of Mathematics and Artificial Intelligence 74, 2015: what is scored was
  never fitted on, and little is wasted. The blocks keep neighbouring windows, which are nearly the same, together.
- A. P. Dawid, Statistical theory: the prequential approach, JRSS A 147, 1984: what is to be foretold is judged by what
  came before it alone. A series drifts, so that a block with its past and its future in the memory looks more usual
  than what comes next will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from model.detector import Floats
from training.data import Dataset
from training.split import Indices, Split, apart

Evidence = dict[str, Floats]

LATER_BLOCKS = 6
FEWEST_REMEMBERED = 20  # windows


def held_out_evidence(
    dataset: Dataset, parts: Split, remember: Callable[[Indices], None], evidence: Callable[[Indices], Evidence]
) -> Evidence:
    """Evidence of `parts.held_out`, `[n]` by name, in its order.

    For each block of held-out windows `remember` is called with all clean windows that share nothing with it, the other
    blocks among them, and then `evidence` with the block. What was remembered last is of no further use.
    """
    found = []
    for block in _blocks(dataset, parts):
        clean = np.flatnonzero(dataset.clean)
        others = clean[(clean < block[0]) | (clean > block[-1])]
        remember(apart(dataset, others, np.arange(block[0], block[-1] + 1)))
        found.append(evidence(block))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def later_evidence(
    dataset: Dataset, remember: Callable[[Indices], None], evidence: Callable[[Indices], Evidence]
) -> Evidence | None:
    """Evidence of the clean windows of series, `[n]` by name, block by block, the memory ending before each.

    `remember` and `evidence` are called as `held_out_evidence` calls them. None where a history is too short for it, or
    nothing is known of what the windows were cut from.
    """
    if dataset.spans is None:
        return None
    clean = np.flatnonzero(dataset.clean)
    found = []
    for block in np.array_split(clean, LATER_BLOCKS)[1:]:
        past = apart(dataset, clean[clean < block[0]], block)
        if len(past) >= FEWEST_REMEMBERED:
            remember(past)
            found.append(evidence(block))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]} if found else None


def _blocks(dataset: Dataset, parts: Split) -> Iterator[Indices]:
    """Runs of held-out windows between which there are windows to train on."""
    breaks = np.unique(np.searchsorted(parts.held_out, parts.train))
    yield from np.split(parts.held_out, breaks[(breaks > 0) & (breaks < len(parts.held_out))])

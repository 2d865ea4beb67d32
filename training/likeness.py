"""What a version's manifest keeps of its training records, for the drift of streams to be measured against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.reference import Reference
from training.data import Dataset

# A stream's windows overlap by all but one observation. Of T independent values each they count as if only one of
# OVERLAP · T were there, and shared nothing with the others; the test of this file measures it.
OVERLAP = 0.3


def reference_of(dataset: Dataset, scores: NDArray[np.float32]) -> Reference:
    """From the normal records of a dataset, stream after stream, and the scores `[m]` of those held out.

    Of windows that were drawn from more (a snapshot of a stream) fewer overlap than do in a stream: neighbours there
    are more alike than they are here, and the design effects are larger by that.
    """
    normal = np.flatnonzero(dataset.clean)
    if dataset.spans is None:
        return Reference.fit(dataset.kind, dataset.x, scores, dataset.features, normal)
    normal = normal[np.argsort(dataset.spans[normal, 0], kind="stable")]
    length = dataset.x.shape[1]
    # From one stream to the next, or over a gap, it is farther: that says nothing of how many were left out.
    apart = np.minimum(np.diff(dataset.spans[normal, 0]), length).mean() if len(normal) > 1 else 1.0
    overlap = max(1.0, min(float(apart), OVERLAP * length))
    return Reference.fit(dataset.kind, dataset.x, scores, dataset.features, normal, overlap)
